"""Calibration over seeds: the numbers of helpers.calibration, means over seeds, and what is said of them."""

import numpy as np
import pytest
import torch

from helpers import calibration, data, parameters, plots, records, trust


def sets_of(n, *, seed, validation=True):
    """Looks of a calibrated network of three classes, and the sets with their labels."""
    generator = torch.Generator().manual_seed(seed)
    found, sets = {}, {}
    for name in ("test", "validation") if validation else ("test",):
        f = 2 * torch.randn(n, 3, generator=generator)
        y = torch.multinomial(f.softmax(1), 1, generator=generator).squeeze(1)
        sets[name] = data.from_tensors(torch.zeros(n, 1, 2, 2), y, classes="abc")
        found[f"{name} logits"] = f.numpy()
    return found, sets


def sharper(found, factor):
    return {name: factor * values for name, values in found.items()}


@pytest.fixture(scope="module")
def pieces():
    made = {}
    for seed in range(3):
        found, sets = sets_of(400, seed=seed)
        made["standard", seed] = trust.measured(sharper(found, 3.0), sets, n_bins=10, seed=0, n_seeds=3)
        made["madry", seed] = trust.measured(sharper(found, 0.3), sets, n_bins=10, seed=0, n_seeds=3)
    return made


def test_the_numbers_are_those_of_calibration_on_the_test_images():
    found, sets = sets_of(300, seed=5)
    one = trust.measured(found, sets, n_bins=8, seed=1, n_seeds=1)
    f, y = torch.from_numpy(found["test logits"]), sets["test"].labels
    assert one["accuracy"].value == pytest.approx(100 * (f.argmax(1) == y).float().mean().item())
    assert one["ece"] == calibration.ece(f, y, n_bins=8, binning="equal_width", seed=1).ece
    assert one["adaptive_ece"] == calibration.ece(f, y, n_bins=8, binning="equal_mass", seed=1).ece
    assert one["nll"] == calibration.nll(f, y)
    assert one["brier"] == calibration.brier(f, y)
    fitted = calibration.fit_temperature(torch.from_numpy(found["validation logits"]), sets["validation"].labels)
    assert one["temperature"] == fitted.estimate, "of the validation images, not of the test images"
    assert one["scaled_ece"].value != one["ece"].value


def test_over_seeds_is_the_mean_with_students_interval(pieces, tmp_path):
    p = parameters.Parameters("07_hybrid_evaluation", "digits", values={}, folder=tmp_path)
    rows = trust.summary(pieces, n_bins=10)
    record = records.save(p, "calibration", scalars=rows, frames={"networks": trust.frame(pieces)})
    each = [pieces["madry", seed]["ece"].value for seed in range(3)]
    assert record.value("ece", network="madry") == pytest.approx(np.mean(each))
    row = next(one for one in rows if one["metric"] == "ece" and one["network"] == "madry")
    assert (row["n"], row["seeds"], row["interval_kind"], row["n_bins"]) == (400, [0, 1, 2], "student_t", 10)
    assert record.frame("networks").query("network == 'madry'")["ece"].tolist() == pytest.approx(each)


def test_what_is_too_sure_and_what_is_not_sure_enough_is_said(pieces, tmp_path):
    p = parameters.Parameters("07_hybrid_evaluation", "digits", values={}, folder=tmp_path)
    record = records.save(p, "calibration", scalars=trust.summary(pieces, n_bins=10))
    sure, unsure = trust.reading(record.scalars).splitlines()
    assert "more than noise; too sure (T = 2.9" in sure or "more than noise; too sure (T = 3" in sure
    assert "more than noise; not sure enough (T = 0.3" in unsure or "not sure enough (T = 0.2" in unsure
    table = trust.table(record.scalars)
    assert list(table["network"]) == ["Standard", "Madry AT"]
    assert set(trust.HEADERS.values()) < set(table.columns)
    assert trust.notes(record.scalars)["madry"].startswith("ECE ")


def test_a_calibrated_network_is_not_told_apart_from_noise(tmp_path):
    found = {
        ("standard", seed): trust.measured(*sets_of(400, seed=seed), n_bins=10, seed=0, n_seeds=3) for seed in range(3)
    }
    p = parameters.Parameters("07_hybrid_evaluation", "digits", values={}, folder=tmp_path)
    record = records.save(p, "calibration", scalars=trust.summary(found, n_bins=10))
    assert "not told apart from noise; T not told apart from 1" in trust.reading(record.scalars)


def test_without_validation_images_no_temperature_is_fitted(tmp_path):
    one = trust.measured(*sets_of(60, seed=0, validation=False), n_bins=5, seed=0, n_seeds=1)
    p = parameters.Parameters("07_hybrid_evaluation", "digits", values={}, folder=tmp_path)
    record = records.save(p, "calibration", scalars=trust.summary({("standard", 0): one}, n_bins=5))
    row = next(row for row in record.content["scalars"] if row["metric"] == "temperature")
    assert row["value"] is None
    assert "no validation images in common" in row["reason"]
    assert trust.table(record.scalars)["T"].tolist() == [None]
    assert "(T" not in trust.reading(record.scalars)
    assert np.isnan(trust.frame({("standard", 0): one})["temperature"][0])


def test_of_several_seeds_only_the_floor_is_drawn_at_length():
    found, sets = sets_of(100, seed=5)
    looked = {("standard", 0): found, ("standard", 1): found, ("madry", 0): found}
    several = trust.of_networks(looked, sets, n_bins=8, seed=1)
    alone = trust.measured(found, sets, n_bins=8, seed=1, n_seeds=1)
    assert several["madry", 0]["adaptive_ece"] == alone["adaptive_ece"]
    for one in (several["standard", 0], several["standard", 1]):
        assert one["ece_floor"] == alone["ece_floor"]
        assert one["adaptive_ece"].value == alone["adaptive_ece"].value
        assert one["adaptive_ece"] != alone["adaptive_ece"]  # whose ends are of other, fewer draws


def test_the_bins_are_drawn(pieces):
    bins = trust.bins(pieces)
    assert len(bins) == 60
    figure = plots.reliability(bins[bins["seed"] == 0], by="network")
    assert len([ax for ax in figure.axes if ax.get_title()]) == 2
