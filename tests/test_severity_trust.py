"""Calibration under corruption: ECE from sums, roles by accuracy, means over corruptions, and what is said."""

import bottlenecks
import numpy as np
import pytest
import torch

from helpers import calibration, corruptions, metrics, parameters, records, severity_trust

IMAGES, _ = bottlenecks.images()


def test_ece_from_sums_is_that_of_calibration():
    generator = torch.Generator().manual_seed(0)
    logits, y = 3 * torch.randn(200, 5, generator=generator), torch.randint(5, (200,), generator=generator)
    known = calibration.ece(logits, y, n_bins=12, binning="equal_width", seed=0, n_resamples=100)
    sums = severity_trust.sums(logits, y, n_bins=12)
    assert severity_trust.ece(sums) == pytest.approx(known.ece.value)
    assert sums[:, 0].tolist() == known.bins.count.tolist()


def measured(name, severities=(1, 5)):
    nets = {severity_trust.key("xent", k): bottlenecks.network(2.0 + 4 * k) for k in range(2)}
    return nets, severity_trust.measured(
        nets, IMAGES, temperatures={"xent 0": 0.5}, name=name, severities=severities, profile="digits", n_bins=8,
        seed=3, batch_size=16,
    )  # fmt: skip


def test_networks_meet_the_same_corrupted_images_and_their_own_temperature():
    nets, found = measured("gaussian_noise")
    x = corruptions.corrupt("gaussian_noise", IMAGES.images(), severity=5, profile="digits", seed=3, index=IMAGES.index)
    logits = metrics.predictions(nets["xent 0"], x, batch_size=40)
    assert found["xent 0"].shape == (2, 2, 8, 3)
    for place, t in ((0, 1.0), (1, 0.5)):
        assert found["xent 0"][1, place] == pytest.approx(severity_trust.sums(logits / t, IMAGES.labels, n_bins=8))
    assert np.isnan(found["xent 1"][:, 1]).all(), "no temperature, no number"


ARMS = {"xent": bottlenecks.arm("xent")} | {
    f"ceb@rho={rho}": bottlenecks.arm(f"ceb@rho={rho}", rho=float(rho)) for rho in (4, 2, 0)
}


def test_roles_are_by_accuracy_and_ties_go_to_the_stronger_compression():
    accuracy = {"xent": 90.0, "ceb@rho=4": 92.0, "ceb@rho=2": 97.0, "ceb@rho=0": 88.0}
    found = severity_trust.roles({(name, 0): value for name, value in accuracy.items()}, ARMS)
    assert found == {"xent": "xent", "ceb@rho=4": "other", "ceb@rho=2": "best", "ceb@rho=0": "matched"}
    level = severity_trust.roles({(name, 0): 95.0 for name in ARMS}, ARMS)
    assert level["ceb@rho=0"] == "matched", "nearest and best at once"
    assert list(level.values()).count("best") == 0


def test_means_over_corruptions_a_record_and_what_is_said(tmp_path):
    arms = {name: ARMS[name] for name in ("xent", "ceb@rho=0")}
    every = [(name, k) for name in arms for k in range(2)]
    roles = {"xent": "xent", "ceb@rho=0": "matched"}

    def piece(n, wrong):
        """Two severities, all in one bin of confidence 0.9: of 10 images so many wrong at the second."""
        rows = [[[[10, 9, 10 - k]]] * 2 for k in (1, wrong)]
        return {severity_trust.key(name, k): np.array(rows[:n], float) for name, k in every}

    pieces = {"none": piece(1, 0), "fog": piece(2, 3), "snow": piece(2, 5)}
    pieces["fog"]["ceb@rho=0 0"][1] = [[[10, 9, 9]]] * 2
    frame = severity_trust.frame(pieces, every, arms, roles, severities=[1, 5])
    means = severity_trust.over_corruptions(frame)
    of = means.set_index(["network", "seed", "severity"])
    assert of.loc[("xent", 0, 5), "ece"] == pytest.approx((20 + 40) / 2)
    assert of.loc[("xent", 0, 5), "accuracy"] == pytest.approx(60)
    assert of.loc[("ceb@rho=0", 0, 5), "ece"] == pytest.approx((0 + 40) / 2)
    p = parameters.Parameters("10_ceb_calibration", "digits", values={}, folder=tmp_path)
    frames = {"severities": means, "bins": severity_trust.bins(pieces, every, place=0)}
    record = records.save(p, "severity", scalars=severity_trust.summary(means), frames=frames)
    assert record.value("ece", case="ceb@rho=0", severity=5) == pytest.approx(25)
    assert "below XEnt's at severities 5 of 0, 1, 5" in severity_trust.reading(means, at="ece")
    assert severity_trust.table(record.scalars)["severity"].tolist() == [0, 0, 1, 1, 5, 5]
    assert record.frame("bins")["count"].tolist() == [60.0, 60.0], "three sets and two seeds of ten images"
    levels = severity_trust.over_rho(record.scalars, arms, at=5)
    assert set(levels["metric"]) == {"ece", "scaled_ece"}
    assert levels.set_index(["kind", "metric"])["rho"].isna()["xent", "ece"]
    assert severity_trust.lower_rho(levels).splitlines()[0] == "batch norm: mean ECE below XEnt's at ρ = 0 of 0"
    hard = severity_trust.bins({name: pieces[name] for name in ("fog", "snow")}, every, place=1)
    assert severity_trust.sureness(hard).splitlines()[0] == "XEnt: 30.0 points too sure"
    drawn = severity_trust.boxes(frame, rows={"ece": "ECE"})
    assert set(drawn["line"]) == {"XEnt", "CEB, accuracy nearest to XEnt"}


def test_without_a_temperature_a_record_says_so(tmp_path):
    _, found = measured("fog")
    every = [("xent", 1)]
    frame = severity_trust.frame({"fog": found}, every, ARMS, {"xent": "xent"}, severities=[1, 5])
    rows = severity_trust.summary(severity_trust.over_corruptions(frame))
    scaled = [row for row in rows if row["metric"] == "scaled_ece"]
    assert all(row["value"] is None for row in scaled)
    assert "no temperature" in scaled[0]["reason"]
