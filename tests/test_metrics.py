"""Intervals: published values, table values and the coverage they promise."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from helpers import metrics
from helpers.parameters import ROOT
from helpers.tables import Interval


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score, no continuity correction)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_published_values(k, n, low, high):
    estimate = metrics.wilson(k, n)
    assert estimate.value == pytest.approx(100 * k / n)
    # printed with four decimals of a proportion
    assert estimate.low == pytest.approx(100 * low, abs=0.00501)
    assert estimate.high == pytest.approx(100 * high, abs=0.00501)
    assert (estimate.n, estimate.kind, estimate.level) == (n, "wilson", 0.95)


def test_wilson_is_symmetric_and_exact_at_the_ends():
    few, many = metrics.wilson(3, 50), metrics.wilson(47, 50)
    assert few.low == pytest.approx(100 - many.high)
    assert metrics.wilson(0, 5).low == 0
    assert metrics.wilson(5, 5).high == 100
    # at k = n the lower end is n / (n + z²)
    assert metrics.wilson(5, 5).low == pytest.approx(100 * 5 / (5 + 1.959963984540054**2))


def test_wilson_solves_its_own_equation():
    # The ends are the shares p at which |k/n − p| is z standard errors √(p(1 − p)/n).
    estimate = metrics.wilson(17, 60, level=0.9)
    for end in (estimate.low / 100, estimate.high / 100):
        assert abs(17 / 60 - end) / math.sqrt(end * (1 - end) / 60) == pytest.approx(1.6448536269514722)


@pytest.mark.parametrize("correct", [torch.tensor([True, False, True, True]), np.array([1, 0, 1, 1], bool)])
def test_accuracy_counts_in_percent(correct):
    assert metrics.accuracy(correct) == metrics.wilson(3, 4)
    assert metrics.accuracy(correct).value == 75


def test_student_t_uses_the_table():
    # t_{0.975} with 2 degrees of freedom is 4.302653, with 4 it is 2.776445 (any table)
    estimate = metrics.student_t([50.0, 52.0, 54.0])
    assert estimate.value == 52
    assert estimate.high - 52 == pytest.approx(4.302653 * 2 / math.sqrt(3), rel=1e-6)
    assert 52 - estimate.low == pytest.approx(estimate.high - 52)
    five = metrics.student_t(torch.arange(5.0))
    assert five.high - five.value == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)
    assert (five.n, five.kind) == (5, "student_t")


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 3, 30])
def test_quantiles_are_those_of_scipys_distributions(n, level):
    # scipy.stats, which costs half a second to import, is what the code does without.
    values = np.arange(float(n))
    half, s = metrics.student_t(values, level=level).high - values.mean(), values.std(ddof=1)
    assert half == pytest.approx(stats.t.ppf((1 + level) / 2, n - 1) * s / math.sqrt(n), rel=1e-12)
    half = metrics.mean_over_images(values, level=level).high - values.mean()
    assert half == pytest.approx(stats.norm.ppf((1 + level) / 2) * s / math.sqrt(n), rel=1e-12)


def test_a_training_process_does_without_slow_imports():
    code = "import sys, helpers.zoo; print(*({'scipy.stats', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == []


def test_mean_over_images_is_normal_and_sums_in_float64():
    estimate = metrics.mean_over_images(torch.tensor([1.0, 3.0]))
    assert estimate.high - 2 == pytest.approx(1.959963985 * math.sqrt(2) / math.sqrt(2))
    assert estimate.kind == "normal"
    # float32 sums of 16777216 + 1 lose the ones
    big = torch.full((1001,), 1.0)
    big[0] = 2.0**24
    assert metrics.mean_over_images(big).value == (2**24 + 1000) / 1001


def test_a_single_number_has_no_interval():
    for estimate in (
        metrics.student_t([3.0]),
        metrics.mean_over_images([3.0]),
        metrics.paired_bootstrap([5.0], [2.0], seed=0),
    ):
        assert (estimate.value, estimate.kind, estimate.n) == (3.0, "none", 1)
        assert math.isnan(estimate.low)
        assert str(estimate) == "3"


def test_one_seed_keeps_its_own_interval_and_equal_seeds_that_of_the_first():
    one = metrics.Estimate(0.5, 0.4, 0.6, 100, "bootstrap")
    assert metrics.over_seeds([one], low=0, high=1) == one
    assert metrics.over_seeds([one, metrics.Estimate(0.5, 0.1, 0.9, 100, "bootstrap")], low=0, high=1) == one
    spread = metrics.over_seeds([metrics.Estimate(v, 0, 0, 9, "none") for v in (0.0, 1.0)], low=0, high=1)
    assert (spread.value, spread.low, spread.high, spread.kind) == (0.5, 0, 1, "student_t")


@pytest.mark.parametrize(
    ("low", "high", "at", "said"),
    [
        (0.1, 2.0, 0.0, "more"),
        (-2.0, -0.1, 0.0, "less"),
        (-0.1, 2.0, 0.0, metrics.NEITHER),
        (0.0, 2.0, 0.0, metrics.NEITHER),
        (0.1, 2.0, 1.0, metrics.NEITHER),
        (0.1, 0.9, 1.0, "less"),
        (1.0, 1.0, 0.0, metrics.NEITHER),  # equal numbers are no certainty
        (math.nan, math.nan, 0.0, metrics.NEITHER),
        (None, None, 0.0, metrics.NEITHER),
    ],
)
def test_only_an_interval_on_one_side_tells_apart(low, high, at, said):
    assert metrics.told_apart(Interval(1.0, low, high), "more", "less", at=at) == said


def test_student_t_covers_what_it_promises():
    draws = np.random.default_rng(0).normal(7.0, 2.0, size=(1000, 3))
    hits = sum(e.low <= 7 <= e.high for e in map(metrics.student_t, draws))
    assert hits / 1000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 1000))


def test_paired_bootstrap_agrees_with_the_normal_interval_of_the_differences():
    generator = np.random.default_rng(1)
    a = generator.normal(size=400)
    b = a + generator.normal(0.2, 0.5, size=400)
    estimate = metrics.paired_bootstrap(a, b, seed=0, n_resamples=4000)
    normal = metrics.mean_over_images(a - b)
    assert estimate.value == pytest.approx(normal.value)
    # a 2.5 % quantile of 4000 resamples has a standard error of √(pq/R)/f = 0.042 standard deviations
    allowed = 4 * 0.042 * (normal.high - normal.low) / (2 * 1.96)
    assert estimate.low == pytest.approx(normal.low, abs=allowed)
    assert estimate.high == pytest.approx(normal.high, abs=allowed)


def test_paired_bootstrap_keeps_the_pairs():
    a = np.random.default_rng(2).normal(size=300)
    estimate = metrics.paired_bootstrap(a + 1, a, seed=0)
    assert estimate.low == pytest.approx(1)
    assert estimate.high == pytest.approx(1)


def test_paired_bootstrap_draws_seeds_too():
    # Each seed has one difference on all images: only drawing seeds can spread the mean. With the differences
    # 0 and 1 it is 0, ½ or 1, so the 95 % interval reaches from 0 to 1.
    difference = np.repeat([[0.0], [1.0]], 50, axis=1)
    estimate = metrics.paired_bootstrap(difference, np.zeros((2, 50)), seed=0)
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.5, 0.0, 1.0, 100)


def test_paired_bootstrap_is_its_seeds_alone(monkeypatch):
    a, b = np.random.default_rng(3).normal(size=(2, 3, 40))
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (the global state must not move)
    first = metrics.paired_bootstrap(a, b, seed=5)
    assert first == metrics.paired_bootstrap(a, b, seed=5)
    assert first != metrics.paired_bootstrap(a, b, seed=6)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (metrics.Estimate(52.31, 50.12, 54.49, 2000, "wilson"), "52.3 [50.1, 54.5]"),
        (metrics.Estimate(-0.163, -0.171, -0.155, 9, "normal"), "-0.1630 [-0.1710, -0.1550]"),
        (metrics.Estimate(-0.001, -3.0, 3.0, 9, "normal"), "0.0 [-3.0, 3.0]"),
        (metrics.Estimate(60.0, 20.0, 90.0, 5, "wilson"), "60 [20, 90]"),
        (metrics.Estimate(1.0, 1.0, 1.0, 5, "student_t"), "1.000 [1.000, 1.000]"),
    ],
)
def test_an_estimate_prints_two_digits_of_its_interval(estimate, text):
    assert str(estimate) == text


def test_predictions_do_not_depend_on_the_batch_and_leave_the_network_alone():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(4 * 36, 5))
    net[1].eval()
    x = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    state = [m.training for m in net.modules()]
    logits = metrics.predictions(net, x, batch_size=7)
    assert logits.shape == (7, 5)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    # logits of size 1 from sums of 144 terms in float32: 1e-5 is a hundred roundings
    assert torch.allclose(metrics.predictions(net, x, batch_size=2), logits, rtol=0, atol=1e-5)
    assert [m.training for m in net.modules()] == state
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.wilson(3, 2), r"k to be a whole number >= 0 and <= 2, got 3"),
        (lambda: metrics.wilson(0, 0), r"n to be a whole number >= 1, got 0"),
        (lambda: metrics.wilson(1, 2, level=1.0), r"level"),
        (lambda: metrics.accuracy([0.5]), r"bool of shape \(n,\), got float64"),
        (lambda: metrics.accuracy(np.zeros((2, 2), bool)), r"got bool of \(2, 2\)"),
        (lambda: metrics.student_t([]), r"n > 0, got \(0,\)"),
        (lambda: metrics.student_t([1.0, math.nan]), r"finite, got nan among 2"),
        (lambda: metrics.paired_bootstrap([1.0, 2.0], [1.0], seed=0), r"pairs, got \(1, 2\) and \(1, 1\)"),
        (lambda: metrics.predictions(nn.Identity(), torch.rand(0, 1, 2, 2), batch_size=1), r"at least one image"),
        (lambda: metrics.predictions(nn.Flatten(0), torch.rand(2, 1, 2, 2), batch_size=1), r"output .*\(B, K\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
