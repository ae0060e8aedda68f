"""Calibration: synthetic networks whose calibration is known, independent implementations, and what is refused."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torch.nn import functional as F

from helpers import calibration, metrics

BINNINGS = ("equal_width", "equal_mass")


def network(n, *, sharpness=1.0, num_classes=10, seed=0):
    """Logits (n, K) float64 and labels drawn from softmax(logits / sharpness): calibrated where sharpness is 1."""
    generator = torch.Generator().manual_seed(seed)
    f = 2 * torch.randn(n, num_classes, generator=generator, dtype=torch.float64)
    return sharpness * f, torch.multinomial(f.softmax(1), 1, generator=generator).squeeze(1)


def constant(confidence, right):
    """Two-class logits of one confidence for class 0, and labels by which image was right."""
    f = torch.tensor([[math.log(confidence / (1 - confidence)), 0.0]], dtype=torch.float64).repeat(len(right), 1)
    return f, (~torch.tensor(right)).long()


def measured(f, y, *, n_bins=15, binning="equal_width", seed=0, n_resamples=200, **options):
    return calibration.ece(f, y, n_bins=n_bins, binning=binning, seed=seed, n_resamples=n_resamples, **options)


# ---- ECE ----


@pytest.mark.parametrize("binning", BINNINGS)
@pytest.mark.parametrize(("confidence", "n_right"), [(0.9, 6), (0.55, 12), (0.75, 15)])
def test_of_a_constant_confidence_it_is_the_distance_to_the_accuracy(binning, confidence, n_right):
    right = [i < n_right for i in range(20)]
    found = measured(*constant(confidence, right), n_bins=7, binning=binning)
    assert found.ece.value == pytest.approx(100 * abs(confidence - n_right / 20))
    assert (found.ece.n, found.ece.kind, found.ece.level) == (20, "bootstrap", 0.95)


@pytest.mark.parametrize("binning", BINNINGS)
def test_a_calibrated_network_shows_no_more_than_noise(binning):
    few, many = (measured(*network(n), binning=binning) for n in (500, 20_000))
    # Σ_b (n_b/n) |normal of variance about 0.2/n_b| ≤ √(2/π · 0.2 · 15/n), by the Cauchy-Schwarz inequality
    for found, n in ((few, 500), (many, 20_000)):
        assert found.ece.value < 1.6 * 100 * math.sqrt(2 / math.pi * 0.2 * 15 / n)
        assert found.ece.low == 0
        assert 0.5 < found.ece.value / found.floor < 1.6
    assert few.ece.value > 3 * many.ece.value  # the bias that the module speaks of: both are calibrated


@pytest.mark.parametrize("binning", BINNINGS)
@pytest.mark.parametrize("sharpness", [1.0, 1.3, 2.0])
def test_the_interval_covers_the_ece_of_many_images(binning, sharpness):
    truth = measured(*network(200_000, sharpness=sharpness, seed=99), binning=binning, n_resamples=100).ece.value
    found = [measured(*network(400, sharpness=sharpness, seed=s), binning=binning, seed=s).ece for s in range(30)]
    # at 95 % five misses of 30 come by chance once in 70; the percentiles alone miss all 30 at sharpness 1
    assert sum(not e.low <= truth <= e.high for e in found) <= 4
    assert all(0 <= e.low <= e.value <= e.high for e in found)


def test_overconfidence_is_found_and_scaling_removes_it():
    f, y = network(5000, sharpness=2.0)
    before, after = measured(f, y), measured(f / 2, y)
    assert before.ece.low > 10
    assert after.ece.low == 0
    gap = before.bins.confidence - before.bins.accuracy
    assert (gap[before.bins.count > 200] > 5).all()


def by_hand(f, y, places):
    """ECE over lists of image numbers, one list for each bin."""
    p, predicted = f.softmax(1).max(1)
    gaps = [abs(float((predicted[b] == y[b]).double().mean() - p[b].mean())) * len(b) for b in places if len(b)]
    return 100 * sum(gaps) / len(y)


def test_bins_are_those_of_the_definition():
    f, y = network(600, sharpness=1.5)
    p = f.softmax(1).amax(1)
    width = [((p > b / 12) & (p <= (b + 1) / 12)).nonzero().squeeze(1) for b in range(12)]
    assert measured(f, y, n_bins=12).ece.value == pytest.approx(by_hand(f, y, width))
    mass = p.argsort().tensor_split(12)  # 50 images in each
    assert measured(f, y, n_bins=12, binning="equal_mass").ece.value == pytest.approx(by_hand(f, y, mass))


def test_the_last_bin_counts_and_holds_a_confidence_of_one():
    f, y = torch.tensor([[1000.0, 0.0]] * 4), torch.tensor([0, 1, 1, 1])
    found = measured(f, y, n_bins=5)
    assert found.ece.value == 75
    assert found.bins.count.tolist() == [0, 0, 0, 0, 4]


def test_an_edge_belongs_to_the_bin_below_it():
    # softmax of equal logits is exactly 0.5, the upper end of the first of two bins
    assert measured(torch.zeros(3, 2), torch.zeros(3).long(), n_bins=2).bins.count.tolist() == [3, 0]


@pytest.mark.parametrize("binning", BINNINGS)
def test_the_bins_give_the_error_and_wilsons_interval(binning):
    f, y = network(900, sharpness=1.5)
    found = measured(f, y, n_bins=9, binning=binning)
    b = found.bins
    full = b.count > 0
    assert b.count.sum() == pytest.approx(900)
    gaps = b.count[full] * np.abs(b.accuracy - b.confidence)[full]
    assert gaps.sum() / 900 == pytest.approx(found.ece.value)
    k, n = round(b.accuracy[-1] * b.count[-1] / 100), round(b.count[-1])
    assert (b.accuracy_low[-1], b.accuracy_high[-1]) == (metrics.wilson(k, n).low, metrics.wilson(k, n).high)
    assert ((b.low <= b.confidence) & (b.confidence <= b.high))[full].all()
    assert np.isnan(b.accuracy[~full]).all()
    assert np.isnan(b.accuracy_low[~full]).all()
    assert set(b.arrays()) == {"low", "high", "count", "confidence", "accuracy", "accuracy_low", "accuracy_high"}
    if binning == "equal_mass":
        assert b.count == pytest.approx(np.full(9, 100))


def test_sums_of_two_sets_add_up_to_those_of_both_and_give_the_same_ece_and_bins():
    f, y = network(300, sharpness=1.7)
    parts = [calibration.sums(f[rows], y[rows], n_bins=12) for rows in (slice(0, 90), slice(90, None))]
    known = measured(f, y, n_bins=12)
    assert parts[0] + parts[1] == pytest.approx(calibration.sums(f, y, n_bins=12))
    assert calibration.ece_of(np.stack([parts[0] + parts[1], parts[0]])) == pytest.approx(
        [known.ece.value, measured(f[:90], y[:90], n_bins=12).ece.value]
    )
    for name, values in calibration.bins_of(parts[0] + parts[1]).arrays().items():
        assert values == pytest.approx(known.bins.arrays()[name], nan_ok=True), name


def test_equal_mass_does_not_depend_on_the_order_of_tied_images():
    f, y = network(64)
    f = f.round(decimals=0)[torch.arange(64) % 5]  # five distinct confidences
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    one, two = (measured(f[o], y[o], n_bins=6, binning="equal_mass").ece.value for o in (torch.arange(64), order))
    assert one == pytest.approx(two, rel=1e-12)


def test_the_seed_decides_the_interval_and_nothing_else():
    f, y = network(300, sharpness=1.5)
    one, same, other = (measured(f, y, seed=s) for s in (0, 0, 1))
    assert one.ece == same.ece
    assert one.ece.value == other.ece.value
    assert one.ece.high != other.ece.high
    assert measured(f, y, level=0.5).ece.high < one.ece.high


def test_inputs_are_untouched_and_a_lone_image_has_no_interval():
    f, y = network(5)
    f = f.float().requires_grad_()
    before = f.detach().clone()
    found = measured(f, y)
    assert f.equal(before)
    assert found.ece.value == measured(f.detach().double(), y).ece.value  # float32 logits are computed with in float64
    assert measured(f[:1], y[:1]).ece.kind == "none"


# ---- proper scores ----


def test_nll_and_brier_agree_with_scikit_learn():
    f, y = network(400, sharpness=1.5)
    p = f.softmax(1).numpy()
    assert calibration.nll(f, y).value == pytest.approx(log_loss(y, p, labels=range(10)), rel=1e-12)
    brier = brier_score_loss(y, p, labels=range(10), scale_by_half=False)
    assert calibration.brier(f, y).value == pytest.approx(brier, rel=1e-12)
    each = F.cross_entropy(f, y, reduction="none")
    assert calibration.nll(f, y).low == pytest.approx(metrics.mean_over_images(each).low)


def test_brier_at_its_ends():
    y = torch.tensor([0, 1, 2])
    sure = 1000 * F.one_hot(y, 3).double()
    assert calibration.brier(sure, y).value == 0
    assert calibration.brier(sure, y.roll(1)).value == 2
    assert calibration.brier(torch.zeros(3, 3), y).value == pytest.approx(2 / 3)


def test_log_probabilities_are_logits():
    f, y = network(50)
    assert calibration.nll(f.log_softmax(1), y).value == pytest.approx(calibration.nll(f, y).value, rel=1e-12)


# ---- temperature ----


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_the_temperature_of_sharpened_logits_is_recovered(sharpness):
    fitted = calibration.fit_temperature(*network(4000, sharpness=sharpness))
    assert fitted.estimate.low < sharpness < fitted.estimate.high
    assert fitted.value == pytest.approx(sharpness, rel=0.06)
    assert not fitted.at_bound
    assert fitted.estimate.kind == "normal"


def test_the_temperature_scales_with_the_logits():
    f, y = network(500, sharpness=1.7)
    one, three = (calibration.fit_temperature(a * f, y) for a in (1, 3))
    assert three.value == pytest.approx(3 * one.value, rel=1e-6)
    assert three.nll[-1] == pytest.approx(one.nll[-1], rel=1e-12)
    assert three.estimate.high == pytest.approx(3 * one.estimate.high, rel=1e-6)


@pytest.mark.parametrize("sharpness", [0.1, 0.5, 1.0, 3.0, 15.0])
def test_nll_falls_monotonically_to_its_least(sharpness):
    f, y = network(300, sharpness=sharpness)
    fitted = calibration.fit_temperature(f, y)
    assert all(b <= a for a, b in zip(fitted.nll, fitted.nll[1:], strict=False))
    assert fitted.temperatures[0] == 1
    assert fitted.nll[0] == pytest.approx(calibration.nll(f, y).value)
    grid = np.geomspace(calibration.LOWEST, calibration.HIGHEST, 400)
    least = min(calibration.nll(f / t, y).value for t in grid)
    assert calibration.nll(f / fitted.value, y).value <= least
    assert len(fitted.nll) < 40


def test_the_interval_of_the_temperature_covers_it():
    fitted = [calibration.fit_temperature(*network(300, sharpness=2.0, seed=s)).estimate for s in range(200)]
    hits = sum(e.low <= 2 <= e.high for e in fitted) / 200
    assert hits == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 200))


def test_where_nll_has_no_minimum_the_end_of_the_range_is_told():
    y = torch.tensor([0, 1, 0])
    right = F.one_hot(y, 2).double()
    for f, end in ((right, calibration.LOWEST), (-right, calibration.HIGHEST)):
        fitted = calibration.fit_temperature(f, y)
        assert fitted.value == pytest.approx(end)
        assert (fitted.at_bound, fitted.estimate.kind) == (True, "none")


def test_wrong_and_saturated_logits_still_find_their_temperature():
    # confidence 1 in float64, one of four wrong: NLL is flat in curvature, steep in slope
    fitted = calibration.fit_temperature(torch.tensor([[50.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1]))
    assert fitted.at_bound  # 50 / log 3 = 45.5 lies beyond the range
    fitted = calibration.fit_temperature(torch.tensor([[20.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1]))
    assert fitted.value == pytest.approx(20 / math.log(3), rel=1e-6)


def test_logits_that_say_nothing_keep_their_temperature():
    fitted = calibration.fit_temperature(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    assert (fitted.value, fitted.estimate.kind) == (1, "none")


# ---- what is refused ----

FUNCTIONS = (calibration.nll, calibration.brier, calibration.fit_temperature, measured)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("f", "y", "message"),
    [
        (torch.zeros(2), torch.zeros(2).long(), r"expected logits to be floating, of shape \(B, K\)"),
        (torch.zeros(2, 3), torch.zeros(3).long(), "expected y with one label for each of 2 rows"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"below 3 \(the number of classes\)"),
        (torch.zeros(2, 3), torch.zeros(2), "expected y to be int64"),
        (torch.zeros(0, 3), torch.zeros(0).long(), r"expected logits of at least one image, got shape \(0, 3\)"),
        (torch.tensor([[0.0, math.inf]]), torch.tensor([0]), "expected logits to be finite, got inf among 2"),
    ],
)
def test_bad_logits_and_labels_are_refused(function, f, y, message):
    with pytest.raises(ValueError, match=message):
        function(f, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bins": 0}, "expected n_bins to be a whole number >= 1, got 0"),
        ({"n_bins": 6, "binning": "equal_mass"}, "expected n_bins of at most the number of images, 5, got 6"),
        ({"binning": "equal"}, "expected binning to be one of 'equal_width', 'equal_mass', got 'equal'"),
        ({"seed": -1}, "expected seed to be a whole number >= 0"),
        ({"n_resamples": 99}, "expected n_resamples to be a whole number >= 100"),
        ({"level": 1.0}, "expected level to be"),
    ],
)
def test_bad_options_of_ece_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        measured(*network(5), **options)
