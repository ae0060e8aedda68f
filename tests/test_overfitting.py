"""Rises that are there, rises that are not, and what is said of them."""

import numpy as np
import pandas as pd
import pytest

from helpers import overfitting


def curves(pgd, *, own=None, delta=None, network="madry") -> pd.DataFrame:
    """Curves of a network, each (seeds, epochs); on training images PGD errs 10 points less than on test images."""
    pgd = np.asarray(pgd, dtype=float)
    own, delta = (np.zeros_like(pgd) if part is None else np.asarray(part, dtype=float) for part in (own, delta))
    blocks = [
        pd.DataFrame(
            {
                "network": network,
                "seed": seed,
                "probe": probe,
                "epoch": np.arange(1, pgd.shape[1] + 1),
                "pgd_error": pgd[seed] - (10 if probe == "train" else 0),
                "delta_energy": delta[seed] + (50 if probe == "test" else 0),
                "train_error": own[seed],
            }
        )
        for seed in range(len(pgd))
        for probe in ("train", "test")
    ]
    return pd.concat(blocks, ignore_index=True)


def values(frame: pd.DataFrame, **settings: int) -> dict[str, dict]:
    return {row["metric"]: row for row in overfitting.measured(frame, **settings)}


V = np.abs(np.arange(20.0) - 9) * 2 + 40  # falls to 40 at the tenth epoch, then rises to 60


def test_a_rise_is_measured_from_the_best_epoch_to_the_end():
    # A window of one: best at epoch 10, where the other seeds are lowest; the end is 20 points above it.
    found = values(curves([V, V + 1, V - 1], delta=[-V / 10] * 3, own=[V / 2] * 3), window=1)
    assert found["pgd_error_rise"]["value"] == pytest.approx(20)
    assert (found["pgd_error_rise"]["low"], found["pgd_error_rise"]["high"]) == pytest.approx((20, 20))
    assert found["best_epoch"]["value"] == 10
    assert found["abs_delta_energy_rise"]["value"] == pytest.approx(2)
    assert found["abs_delta_energy"]["value"] == pytest.approx(6)
    assert found["robust_gap"]["value"] == pytest.approx(10)
    assert found["training_error"]["value"] == pytest.approx(30)
    assert found["blind_spot"]["value"] == pytest.approx(60 - 10 - 30)
    assert found["pgd_error_rise"]["seeds"] == [0, 1, 2]
    # A window of five averages |k| = 2, 1, 0, 1, 2 at its best, twice 1.2, and 6 … 10 at the end, twice 8.
    wide = values(curves([V, V + 1, V - 1]))
    assert wide["pgd_error_rise"]["value"] == pytest.approx(2 * 8 - 2 * 1.2)
    assert wide["best_epoch"]["value"] == 12  # the window's last epoch


def test_the_best_epoch_is_that_of_the_other_seeds():
    errors = np.array([[5.0, 1, 9, 9], [5, 9, 1, 9], [5, 9, 2, 9]])
    assert overfitting.best_epochs(errors, window=1).tolist() == [
        2,
        0,
        0,
    ]  # seed 1: (5 + 5, 1 + 9, …): the first of equals


def test_flat_noisy_curves_do_not_rise():
    # The minimum of 60 noisy epochs lies 2 to 3 standard deviations down; measured from there each curve would rise.
    rng = np.random.default_rng(0)
    rises = []
    for _ in range(100):
        found = values(curves(60 + 3 * rng.standard_normal((3, 60))))["pgd_error_rise"]
        rises.append((found["value"], found["low"] > 0))
    mean, above = np.mean(rises, axis=0)
    # A window's mean has s = 3/√5 = 1.34, a difference of two 1.9, a mean over 3 seeds × 100 trials 0.11; 4 of those.
    assert abs(mean) < 0.44
    assert above <= 0.09  # 2.5 % expected; P(> 9 of 100) = 0.05 %


def test_readings_say_what_is_seen_and_what_is_not():
    turned = pd.DataFrame(overfitting.measured(curves([V, V + 1, V - 1])))
    assert overfitting.robust(turned).startswith("Madry AT: robust overfitting. ")
    falling = pd.DataFrame(overfitting.measured(curves([V[:10], V[:10] + 1, V[:10] - 1])))
    assert "no robust overfitting seen at these settings" in overfitting.robust(falling)
    wide = pd.DataFrame(overfitting.measured(curves([V, V[:10].repeat(2), V - 1])))
    assert overfitting.robust(wide).startswith("Madry AT: no rise told from noise. ")
    blind = np.linspace(60, 2, 20)
    gone = curves([V + 35, V + 36, V + 34], own=[blind] * 3, network="fgsm_rs")
    assert overfitting.catastrophic(pd.DataFrame(overfitting.measured(gone))).startswith(
        "FGSM-RS: catastrophic overfitting."
    )
    # The same rise, but training's own attack still fools the network: not blind.
    seeing = curves([V + 35, V + 36, V + 34], own=[np.full(20, 70.0)] * 3)
    assert "no catastrophic overfitting" in overfitting.catastrophic(pd.DataFrame(overfitting.measured(seeing)))
    # Blind, but PGD's error never rose.
    flat = curves([V[:10]] * 3, own=[np.zeros(10)] * 3)
    said = overfitting.catastrophic(pd.DataFrame(overfitting.measured(flat)))
    assert "catastrophic overfitting (a rise is not told from noise). " in said


def test_one_seed_has_no_rise():
    alone = pd.DataFrame(overfitting.measured(curves([V])))
    assert "pgd_error_rise" not in set(alone["metric"])
    assert "one seed" in overfitting.robust(alone)
    assert "one seed" in overfitting.catastrophic(alone)
    with pytest.raises(ValueError, match=r"at least 2 seeds over 5 epochs, got shape \(1, 20\)"):
        overfitting.best_epochs(V[None])
