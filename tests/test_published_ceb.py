"""The printed corruption table: its twins, its gains, and its summaries recomputed from its own rows."""

import pandas as pd
import pytest

from helpers import published_ceb
from helpers.corruption_settings import names


def test_every_row_and_column_is_read():
    found = published_ceb.values()
    assert len(found) == 14
    assert all(list(column) == list(published_ceb.PRINTED) for column in found.values())
    assert set(names()) < set(published_ceb.PRINTED)
    assert found["R152x2_cCEB_rho2"]["pixelate"] == 36.0


def test_gains_are_over_the_twin_of_the_same_architecture_and_augmentation():
    found = published_ceb.gains()
    assert len(found) == 8
    worse = {(name, key) for name, gain in found.items() for key in names() if gain[key] >= 0}
    assert worse == {("R152_CEB_rho3", "contrast")}  # 119 of 120 cells improve
    assert found["R50x2_cCEB_rho4"]["mce"] == pytest.approx(57.9 - 62.0)
    assert found["R50_noAA_CEB_rho4"]["pgd_l2"] == pytest.approx(80.2 - 99.7)


def test_the_summaries_follow_from_the_rows_in_all_14_columns():
    found = published_ceb.recomputed()
    size = found.assign(size=found["deviation"].abs()).groupby("measure")["size"].max()
    assert size["mce"] < 0.05
    assert 0.05 < size["average_ce"] < 0.055
    said = published_ceb.reading(found)
    assert said.count("in 14 of 14 columns") == 2
    assert "0.053 (ResNet152 XEnt)" in said
    rows = {row["measure"]: row["value"] for row in published_ceb.summary(found)}
    assert {(row["n"], row["n_columns"]) for row in published_ceb.summary(found)} == {(None, 14)}, "columns, no images"
    assert rows == {"mce": pytest.approx(size["mce"]), "average_ce": pytest.approx(size["average_ce"])}


def test_a_wrong_row_is_seen():
    found = published_ceb.recomputed()
    found.loc[0, "deviation"] = 0.2
    assert "in 13 of 14 columns; largest deviation 0.200" in published_ceb.reading(found)


def test_the_table_has_both_printed_and_recomputed_summaries():
    found = published_ceb.table(published_ceb.recomputed()).set_index(published_ceb.HEAD)
    assert len(found) == 23
    assert found.loc["mCE", "ResNet50 XEnt"] == 64.4
    assert found.loc["mCE, recomputed", "ResNet50 XEnt"] == pytest.approx(64.44, abs=0.006)
    assert isinstance(found, pd.DataFrame)
    assert len(set(found.columns)) == 14
