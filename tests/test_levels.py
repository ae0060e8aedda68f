"""Energies of sets and their gaps: means by hand, signs, seeds."""

import numpy as np
import pandas as pd
import pytest

from helpers import landscape, levels, looks, parameters, records


def piece(seed, *, down):
    rng = np.random.default_rng(seed)
    found = {f"{name} logits": rng.normal(size=(30, 4)).astype(np.float32) for name in ("train", "test", "noise")}
    own = {"class_gaussian": looks.energy(found, "test")[:20] - down}
    return levels.collected(found, looks.energy(found, "test") + 1, own, ["noise"]), found


@pytest.fixture(scope="module")
def pieces():
    return {("madry", seed): piece(seed, down=2.0)[0] for seed in range(3)}


def test_sets_are_named_and_hold_their_energies():
    heights, found = piece(0, down=2.0)
    assert list(heights) == ["train", "test", "adversarial", "generated@class Gaussian", "noise"]
    assert np.array_equal(heights["noise"], looks.energy(found, "noise"))
    assert np.array_equal(heights["train"], looks.energy(found, "train"))


def test_the_gap_is_positive_where_samples_lie_lower(pieces, tmp_path):
    p = parameters.Parameters("07_hybrid_evaluation", "digits", values={}, folder=tmp_path)
    record = records.save(p, "energies", scalars=levels.summary(pieces), frames={"networks": levels.frame(pieces)})
    gaps = [one["test"].mean() - one["generated@class Gaussian"].mean() for one in pieces.values()]
    where = {"network": "madry", "set": "generated@class Gaussian"}
    assert record.value("data_sample_gap", **where) == pytest.approx(np.mean(gaps), abs=1e-6)
    frame = record.frame("networks")
    assert frame[frame["set"] == where["set"]]["data_sample_gap"].tolist() == pytest.approx(gaps, abs=1e-6)
    assert frame[frame["set"] == "test"]["data_sample_gap"].isna().all()
    mean = np.mean([one["noise"].mean() for one in pieces.values()])
    assert record.value("energy", set="noise") == pytest.approx(mean, abs=1e-6)
    assert levels.reading(record.scalars).endswith("samples lie lower")


def test_one_network_has_the_interval_of_two_sets_of_images():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 400), rng.normal(0, 1, 100)
    found = levels._gap([(a, b)])
    error = np.sqrt(a.var(ddof=1) / 400 + b.var(ddof=1) / 100)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * error)
    assert found.kind == "normal"


def test_both_gaps_stand_in_one_table(pieces, tmp_path):
    pairs = pd.DataFrame({"E": [-5.0, -6.0], "E_y": [-5.0, -6.0], "E_adv": [-8.0, -8.5], "E_y_adv": [0.0, 0.0]})
    where = {"network": "madry", "attack": "pgd_ce", "returns": "last", "correct": True, "correct_adv": False}
    each = [
        pairs.assign(**where, reached=True, seed=seed, image=[0, 1], E_adv=pairs["E_adv"] + seed / 9) for seed in (0, 1)
    ]
    p = parameters.Parameters("07_hybrid_evaluation", "digits", values={}, folder=tmp_path)
    scalars = levels.summary(pieces) + landscape.summary(pd.concat(each))
    table = levels.table(records.save(p, "energies", scalars=scalars).scalars)
    assert list(table.columns) == ["network", "E(test) − E(generated, class Gaussian) (nat)", "E(x) − E(x*) (nat)"]
    assert table.iloc[0, 2].value == pytest.approx(2.75 - 1 / 18)


def test_image_by_image_for_the_histograms(pieces):
    rows = levels.by_image(pieces)
    assert len(rows) == 3 * (30 * 4 + 20)
    colours = levels.colours(rows["set"])
    assert colours["adversarial"] != colours["test"]
    assert colours["generated@class Gaussian"] == levels.SAMPLES
