"""The numbers of the corruption table from verdicts made by hand: means, divisors, intervals, pairs."""

import math

import numpy as np
import pandas as pd
import pytest

from helpers import arms, corruption_errors, corruption_scores, corruption_tables
from helpers.corruption_settings import GROUPS, names

N = 20
OF = {
    "plain": arms.Arm("plain", "batch_norm", "xent", "xent", math.nan),
    "ceb@rho=2": arms.Arm("ceb@rho=2", "batch_norm", "ceb@rho=2", "ceb", 2.0),
}


def share(value):
    """`value` of N images wrong, the first ones."""
    return np.arange(N) < value


def piece(error, *, noise=None, clean=2):
    rows = {name: np.stack([share(error + s) for s in range(5)]) for name in names()}
    if noise is not None:
        rows |= {name: np.stack([share(noise + s) for s in range(5)]) for name in GROUPS["noise"]}
    return {"clean": share(clean), **rows, "pgd_linf": share(10)}


@pytest.fixture
def pieces():
    return {
        ("plain", 0): piece(8),
        ("plain", 1): piece(10),
        ("ceb@rho=2", 0): piece(6, noise=2),
        ("ceb@rho=2", 1): piece(8, noise=4),
    }


@pytest.fixture
def divisor(pieces):
    return corruption_scores.reference(pieces, "plain", profile="digits")


def test_the_divisor_is_ones_own_network_or_alexnet(pieces, divisor):
    assert divisor.ce == {name: 55.0 for name in names()}  # (8 … 12 and 10 … 14) / 20, in %
    assert divisor.clean == 10
    alexnet = corruption_scores.reference(pieces, "plain", profile="imagenet")
    assert alexnet.name == "AlexNet"
    assert alexnet.ce == corruption_errors.over_severities(corruption_errors.alexnet())


def test_the_cross_entropy_network_has_an_mce_of_100(pieces, divisor):
    rows = corruption_scores.summary(pieces, OF, divisor)
    values = {(row["network"], row["measure"]): row for row in rows}
    assert values["plain", "mce"]["value"] == pytest.approx(100)
    assert values["plain", "relative_mce"]["value"] == pytest.approx(100)
    assert values["plain", "mce"]["divisor"] == "plain"
    assert values["plain", "average_ce"]["value"] == pytest.approx(55)
    expected = (12 * 45 + 3 * 25) / 15
    assert values["ceb@rho=2", "average_ce"]["value"] == pytest.approx(expected)
    assert values["ceb@rho=2", "mce"]["value"] == pytest.approx(100 * expected / 55)
    assert values["ceb@rho=2", "fog"]["metric"] == "corruption_error"
    assert values["ceb@rho=2", "fog"]["n"] == N
    assert values["ceb@rho=2", "pgd_linf"]["metric"] == "pgd_error"


def test_intervals_are_over_seeds_and_where_seeds_agree_over_images(pieces, divisor):
    rows = corruption_scores.summary(pieces, OF, divisor)
    kinds = {(row["network"], row["measure"]): row["interval_kind"] for row in rows}
    assert kinds["plain", "fog"] == kinds["plain", "mce"] == "student_t"
    assert kinds["plain", "clean"] == "wilson"
    one = {key: value for key, value in pieces.items() if key[1] == 0}
    alone = corruption_scores.summary(one, OF, corruption_scores.reference(one, "plain", profile="digits"))
    kinds = {(row["network"], row["measure"]): row["interval_kind"] for row in alone}
    assert kinds["plain", "fog"] == kinds["plain", "mce"] == "normal"
    assert all(row["low"] >= 0 for row in rows if row["low"] is not None and row["measure"] != "relative_mce")


def test_no_relative_mce_where_the_divisor_does_not_lose(pieces):
    easy = pieces | {key: value | {"clean": share(15)} for key, value in pieces.items()}
    divisor = corruption_scores.reference(easy, "plain", profile="digits")
    rows = corruption_scores.summary(easy, OF, divisor)
    assert "relative_mce" not in {row["measure"] for row in rows}


def test_summaries_by_seed_are_what_claims_read(pieces, divisor):
    found = corruption_scores.summaries(pieces, OF, divisor, plain="plain", table=["ceb@rho=2"])
    ceb = found[found["network"] == "ceb@rho=2"]
    assert ceb["shown"].tolist() == ["table", "table"]
    assert ceb["n_corruptions_lower"].tolist() == [15, 15]
    assert ceb["noise_advantage"].tolist() == pytest.approx([20, 20])  # 30 points on noise, 10 on the others
    assert set(found.loc[found["network"] == "plain", "shown"]) == {"ladder"}
    assert found["mce"].mean() == pytest.approx(np.mean([100, 100 * (12 * 45 + 3 * 25) / 15 / 55]))
    fewer = {key: value for key, value in pieces.items() if key != ("plain", 1)}
    with pytest.raises(ValueError, match="seed 1"):
        corruption_scores.summaries(fewer, OF, divisor, plain="plain", table=[])


def test_clean_verdicts_are_by_image(pieces):
    found = corruption_scores.clean(pieces, OF, range(100, 100 + N), table=["plain"])
    assert len(found) == 4 * N
    assert found.groupby(["network", "seed"])["correct"].sum().tolist() == [18] * 4
    assert sorted(set(found["image"])) == list(range(100, 120))
    assert set(found.loc[found["network"] == "plain", "shown"]) == {"table"}


def test_differences_are_paired_by_seed_and_image(pieces, divisor):
    rows = corruption_scores.against(pieces, OF, [("ceb@rho=2", "plain")], divisor, seed=0)
    values = {row["measure"]: row for row in rows}
    assert values["fog"]["value"] == pytest.approx(-10)
    assert values["gaussian_noise"]["value"] == pytest.approx(-30)
    assert values["average_ce"]["value"] == pytest.approx(-14)
    assert values["mce"]["value"] == pytest.approx(-100 * 14 / 55)
    assert values["clean"]["value"] == values["clean"]["low"] == 0  # the same images are wrong
    assert values["fog"]["seeds"] == [0, 1]
    cells = corruption_scores.cell_differences(pieces, OF, "ceb@rho=2", "plain", seed=0)
    assert len(cells) == 75
    assert {row["value"] for row in cells if row["corruption"] == "fog"} == {-10.0}
    split = {("plain", 0): piece(8), ("ceb@rho=2", 1): piece(6)}
    with pytest.raises(ValueError, match="share"):
        corruption_scores.against(split, OF, [("ceb@rho=2", "plain")], divisor, seed=0)


def test_a_difference_in_mce_weighs_each_corruption_by_the_divisor_and_is_that_of_the_two_mces(pieces):
    uneven = corruption_scores.Reference("other", {name: 50.0 for name in names()} | {"fog": 5.0}, None)
    rows = corruption_scores.against(pieces, OF, [("ceb@rho=2", "plain")], uneven, seed=0)
    found = next(row["value"] for row in rows if row["measure"] == "mce")
    assert found == pytest.approx(100 * (11 * -10 / 50 + 3 * -30 / 50 + -10 / 5) / 15)
    each = {
        row["network"]: row["value"] for row in corruption_scores.summary(pieces, OF, uneven) if row["metric"] == "mce"
    }
    assert found == pytest.approx(each["ceb@rho=2"] - each["plain"])


@pytest.fixture
def scalars(pieces, divisor):
    rows = corruption_scores.summary(pieces, OF, divisor) + corruption_scores.missing(OF, "no photographs")
    return pd.DataFrame(rows + corruption_scores.against(pieces, OF, [("ceb@rho=2", "plain")], divisor, seed=0))


def test_the_table_has_the_papers_rows_and_says_what_is_published_and_what_is_not_run(scalars):
    found = corruption_tables.table(scalars, ["plain", "ceb@rho=2"])
    rows = list(found["error (%)"])
    assert rows[:4] == ["Clean", "mCE", "relative mCE", "Average CE"]
    assert rows[-3:] == ["ImageNet-A (not run by us)", "PGD L2 (not run by us)", "PGD L∞"]
    assert len(rows) == 22
    fog = found.set_index("error (%)").loc["Fog"]
    assert fog["XEnt"].value == pytest.approx(55)
    assert fog["published: ResNet50x2 XEnt"] == 33.9
    assert sum(str(head).startswith("published: ") for head in found) == 3


def test_gains_stand_beside_the_published_pairs(scalars):
    found = corruption_tables.gains(scalars).set_index("error (%)")
    assert found.loc["mCE", "CEB, ρ = 2 − plain"].value == pytest.approx(-100 * 14 / 55)
    published = [name for name in found if name.startswith("published")]
    assert found.loc["mCE", published].tolist() == [-2.3, pytest.approx(-4.4, abs=0.06), -6.2]


def test_the_reading_names_what_is_told_apart(scalars):
    said = corruption_tables.reading(scalars)
    assert "lower on 15 of 15 corruptions" in said
    assert "clearly higher on none" in said
    assert "largest gain Gauss. Noise" in said


def test_the_ladder_puts_levels_in_every_panel(scalars):
    found = corruption_tables.ladder(scalars)
    assert set(found["panel"]) == {"ceb"}
    assert set(found.loc[found["rho"].isna(), "line"]) == {"xent"}
    assert list(dict.fromkeys(found["place"]))[:3] == ["Clean", "mCE", "Average CE"]
    said = corruption_tables.best_rungs(scalars)
    assert "is below all lines on 15 of 15" in said
    plain = scalars[scalars["network"] == "plain"].drop(columns="rho")
    assert set(corruption_tables.ladder(plain)["panel"]) == {"networks"}
    assert corruption_tables.best_rungs(plain) == "No network here has a ρ."


def test_cells_stand_from_the_last_corruption_upwards(pieces):
    rows = corruption_scores.cell_scalars(pieces, OF, "plain")
    rows += corruption_scores.cell_differences(pieces, OF, "ceb@rho=2", "plain", seed=0)
    saved = pd.DataFrame(rows)
    found = corruption_tables.cells(saved)
    assert found["corruption_name"].iloc[0] == "JPEG Comp."
    assert corruption_tables.panels(saved)["corruption_error"] == "XEnt: error (%)"
    said = corruption_tables.rising(saved)
    assert "rises from severity 1 to 5 on 15 of 15" in said
    assert "clearly lower in 15 and clearly higher in 0 of 75 cells" in said
