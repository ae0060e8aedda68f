"""Calibration under corruption: ECE from sums, roles by accuracy, means over corruptions, and what is said."""

import bottlenecks
import numpy as np
import pytest
import torch

from helpers import calibration, corruptions, looks, metrics, parameters, records, severity_trust

IMAGES, _ = bottlenecks.images()


def measured(name, severities=(1, 5)):
    nets = {severity_trust.key("xent", k): bottlenecks.network(2.0 + 4 * k) for k in range(2)}
    return nets, severity_trust.measured(
        nets, IMAGES, temperatures={"xent 0": 0.5, "xent 1": 3.0}, name=name, severities=severities, profile="digits",
        n_bins=8, seed=3, batch_size=16,
    )  # fmt: skip


def test_networks_meet_the_same_corrupted_images_and_their_own_temperature():
    nets, found = measured("gaussian_noise")
    x = corruptions.corrupt("gaussian_noise", IMAGES.images(), severity=5, profile="digits", seed=3, index=IMAGES.index)
    for name, ts in (("xent 0", (1.0, 0.5)), ("xent 1", (1.0, 3.0))):
        logits = metrics.predictions(nets[name], x, batch_size=40)
        assert found[name].shape == (2, 2, 8, 3)
        for place, t in enumerate(ts):
            assert found[name][1, place] == pytest.approx(calibration.sums(logits / t, IMAGES.labels, n_bins=8))


@pytest.fixture(scope="module")
def looked():
    """What two networks say of test images, and of fewer validation images, on which the second is always wrong."""
    sets = {"test": IMAGES, "validation": IMAGES.first(10)}
    found = {
        ("xent", k): looks.look(bottlenecks.network(2.0 + 4 * k), sets, mass_of=[], batch_size=16) for k in range(2)
    }
    found["xent", 1]["validation logits"] *= -1
    return sets, found


def test_clean_numbers_are_of_every_test_image(looked):
    sets, found = looked
    sums = severity_trust.clean(found, sets["test"], temperatures={"xent 0": 0.5, "xent 1": 1.0}, n_bins=8)
    assert sums["xent 1"].shape == (1, 2, 8, 3)
    assert sums["xent 1"][0, 0, :, 0].sum() == len(IMAGES)
    logits = torch.from_numpy(found["xent", 0]["test logits"])
    assert sums["xent 0"][0, 1] == pytest.approx(calibration.sums(logits / 0.5, IMAGES.labels, n_bins=8))


def test_rho_is_chosen_on_validation_images_only(looked):
    sets, found = looked
    assert severity_trust.accuracies(found, sets) == {("xent", 0): 100.0, ("xent", 1): 0.0}
    with pytest.raises(ValueError, match="validation_fraction"):
        severity_trust.accuracies(found, {"test": IMAGES})


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


def test_equal_accuracies_tie_whatever_the_order_of_their_seeds():
    n_right = {"xent": (160,) * 3, "ceb@rho=4": (175,) * 3, "ceb@rho=2": (150, 150, 153), "ceb@rho=0": (150, 153, 150)}
    shares = {(name, k): 100 * n / 180 for name, several in n_right.items() for k, n in enumerate(several)}
    sums = [sum(shares[name, k] for k in range(3)) for name in ("ceb@rho=2", "ceb@rho=0")]
    assert sums[0] > sums[1], "of the same images right, but for the last bit"
    assert severity_trust.roles(shares, ARMS)["ceb@rho=0"] == "matched"


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
