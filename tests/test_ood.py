"""Scores and their separation: closed forms, scikit-learn, orientation, pairs, and what is refused."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from helpers import ood
from helpers.ood import Scores


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shifted(d, *, n_in=4000, n_out=3000, seed=0):
    """Inside scores N(d, 1), outside scores N(0, 1)."""
    return Scores(rand(n_in, seed=seed) + d, rand(n_out, seed=seed + 1000))


def measured(scores, *, seed=0, n_resamples=200, **options):
    return ood.detection(scores, seed=seed, n_resamples=n_resamples, **options)


def inside(x, estimate):
    return estimate.low <= x <= estimate.high


# ---- separation ----


@pytest.mark.parametrize("d", [-1.0, 0.0, 0.5, 2.0])
def test_a_shift_has_the_closed_form_and_the_orientation(d):
    found = measured(shifted(d), level=0.999)
    assert inside(norm.cdf(d / math.sqrt(2)), found.auroc)
    # 95 % of the inside lie above d − 1.645, and of the outside Φ(1.645 − d)
    assert inside(100 * norm.cdf(norm.ppf(0.95) - d), found.fpr95)
    assert (found.auroc.n, found.auroc.kind, found.auroc.level) == (7000, "bootstrap", 0.999)
    assert found.auroc.high - found.auroc.low < 0.06


def test_higher_means_in_distribution_for_every_measure():
    good, bad = measured(shifted(2.0)), measured(shifted(-2.0))
    for name in ("auroc", "aupr_in", "aupr_out"):
        assert getattr(good, name).low > getattr(bad, name).high
    assert good.fpr95.high < bad.fpr95.low


def test_the_two_aupr_swap_when_sets_and_sign_do():
    scores = shifted(1.0, n_in=300, n_out=500)
    one, other = measured(scores), measured(Scores(-scores.outside, -scores.inside))
    assert one.aupr_in.value == pytest.approx(other.aupr_out.value, rel=1e-12)
    assert one.aupr_out.value == pytest.approx(other.aupr_in.value, rel=1e-12)
    assert one.auroc.value == pytest.approx(other.auroc.value, rel=1e-12)
    positive = np.arange(800) < 300
    value = torch.cat([scores.inside, scores.outside]).numpy()
    assert one.aupr_in.value == average_precision_score(positive, value)
    assert one.aupr_out.value == average_precision_score(~positive, -value)
    assert one.auroc.value == roc_auc_score(positive, value)


def test_chance_is_the_share_of_the_positive_class():
    found = measured(shifted(0.0, n_in=3000, n_out=1000), level=0.999)
    assert inside(0.75, found.aupr_in)
    assert inside(0.25, found.aupr_out)


def test_one_value_for_all_is_chance_exactly():
    found = measured(Scores(torch.zeros(30), torch.zeros(10)))
    assert [e.value for e in found.estimates().values()] == [0.5, 0.75, 0.25, 100]
    assert list(found.estimates()) == list(ood.NAMES)


def test_a_full_separation():
    found = measured(Scores(torch.arange(5.0) + 10, torch.arange(4.0)))
    assert [e.value for e in found.estimates().values()] == [1, 1, 1, 0]
    assert (found.auroc.low, found.auroc.high) == (1, 1)


@pytest.mark.parametrize(("n_below", "fpr95"), [(1, 0.0), (2, 50.0)])
def test_the_threshold_accepts_at_least_95_percent(n_below, fpr95):
    # of 20 inside images one may be lost, which is 95 % exactly; with two low ones the threshold goes down to them
    scores = Scores(torch.tensor([10.0] * (20 - n_below) + [1.0] * n_below), torch.tensor([5.0, 0.0]))
    assert measured(scores).fpr95.value == fpr95


def test_the_threshold_is_found_on_a_straight_roc_curve():
    # every inside image ties with an outside one: 19 of 20 are accepted on both sides
    scores = Scores(torch.arange(20.0), torch.arange(20.0))
    assert measured(scores).fpr95.value == 95
    assert ood._Ranked(scores).measures(np.ones(20), np.ones(20)) == pytest.approx(ood._by_sklearn(scores))


@pytest.mark.parametrize("decimals", [1, 6])  # with many ties, and with few
def test_the_resampled_measures_are_those_of_scikit_learn(decimals):
    scores = Scores(rand(70, seed=3).round(decimals=decimals) + 0.5, rand(50, seed=4).round(decimals=decimals))
    generator = np.random.default_rng(0)
    a, b = generator.integers(70, size=70), generator.integers(50, size=50)
    drawn = Scores(scores.inside[a], scores.outside[b])
    counts = np.bincount(a, minlength=70).astype(float), np.bincount(b, minlength=50).astype(float)
    assert ood._Ranked(scores).measures(*counts) == pytest.approx(ood._by_sklearn(drawn), rel=1e-12)


def test_the_interval_covers_the_closed_form():
    found = [measured(shifted(1.0, n_in=150, n_out=100, seed=s), seed=s) for s in range(100)]
    truth = {"auroc": norm.cdf(1 / math.sqrt(2)), "fpr95": 100 * norm.cdf(norm.ppf(0.95) - 1)}
    for name, value in truth.items():
        hits = sum(inside(value, getattr(f, name)) for f in found) / 100
        assert hits == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 100))


def test_the_seed_decides_the_interval_and_nothing_else():
    scores = shifted(1.0, n_in=200, n_out=200)
    one, same, other = (measured(scores, seed=s) for s in (0, 0, 1))
    assert one == same
    assert one.auroc.value == other.auroc.value
    assert one.auroc.low != other.auroc.low


def test_a_lone_image_has_no_interval():
    found = measured(Scores(torch.tensor([1.0]), torch.tensor([0.0, 2.0])))
    assert found.auroc.value == 0.5
    assert {e.kind for e in found.estimates().values()} == {"none"}


# ---- pairs ----


def test_a_difference_of_two_scores_of_the_same_images_keeps_the_pairs():
    scores = shifted(1.0, n_in=400, n_out=400)
    noisy = Scores(scores.inside + 0.3 * rand(400, seed=7), scores.outside + 0.3 * rand(400, seed=8))
    paired = ood.difference(scores, noisy, seed=0, n_resamples=200).auroc
    one, two = measured(scores).auroc, measured(noisy).auroc
    assert paired.value == pytest.approx(one.value - two.value)
    assert paired.kind == "paired_bootstrap"
    assert paired.high - paired.low < 0.6 * math.hypot(one.high - one.low, two.high - two.low)
    assert inside(norm.cdf(1 / math.sqrt(2)) - norm.cdf(1 / math.sqrt(2 * 1.09)), paired)


def test_a_score_does_not_differ_from_a_rising_function_of_itself():
    scores = shifted(1.0, n_in=50, n_out=60)
    found = ood.difference(scores, Scores(scores.inside.exp(), scores.outside.exp()), seed=0, n_resamples=100)
    for estimate in found.estimates().values():
        assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


# ---- scores ----


def test_log_density_falls_with_the_energy_and_max_probability_does_not_see_it():
    f = rand(20, 5)
    up = f + 3.0  # every logit higher: E(x) lower, p(y|x) as it was
    assert (ood.log_density(up) - ood.log_density(f)).numpy() == pytest.approx(3)
    assert ood.max_probability(up).numpy() == pytest.approx(ood.max_probability(f).numpy())
    assert ood.log_density(f).numpy() == pytest.approx(f.exp().sum(1).log().numpy())
    assert ood.max_probability(2 * f).gt(ood.max_probability(f)).all()


def test_max_probability_tells_sure_images_apart():
    f = torch.tensor([[20.0, 0.0], [22.0, 0.0]])
    assert f.softmax(1)[0, 0] == f.softmax(1)[1, 0] == 1
    assert ood.max_probability(f)[0] < ood.max_probability(f)[1] < 1


class Quadratic(nn.Module):
    """Logits (s − ‖x − c‖²/2, the same): log p(x) is log 2 less that, its gradient −(x − c), ‖ ‖₂ known."""

    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(torch.tensor(0.5))
        self.drop = nn.Dropout(0.5)  # in train mode it would change everything

    def forward(self, x):
        value = -(self.drop(x - self.centre)).square().flatten(1).sum(1) / 2
        return torch.stack([value, value], 1)


def test_approximate_mass_is_the_gradients_norm_with_a_minus():
    network = Quadratic().train()
    images = torch.rand(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    found = ood.approximate_mass(network, images, batch_size=3)
    assert found.numpy() == pytest.approx(-(images - 0.5).flatten(1).norm(dim=1).numpy(), rel=1e-5)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert images.equal(before)
    assert not images.requires_grad
    assert network.training
    assert network.drop.training
    assert network.centre.requires_grad
    assert network.centre.grad is None
    assert ood.approximate_mass(network, images, batch_size=7).equal(found)


def test_approximate_mass_works_where_gradients_are_off():
    with torch.no_grad():
        assert ood.approximate_mass(Quadratic(), torch.full((1, 1, 2, 2), 1.0), batch_size=1).tolist() == [-1.0]


def test_scores_of_a_network_rank_what_it_knows_first():
    # the mode of p(x) is x = 0.5: images around it are inside
    network = Quadratic().eval()
    near = 0.5 + 0.05 * rand(200, 1, 4, 4).clamp(-2, 2).float()
    far = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    density = [ood.log_density(network(x).detach()) for x in (near, far)]
    mass = [ood.approximate_mass(network, x, batch_size=64) for x in (near, far)]
    for score in (density, mass):
        assert measured(Scores(*score)).auroc.value > 0.99


# ---- what is refused ----


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(3, 1), r"expected inside to be floating scores of shape \(n,\) with n > 0, got .* of \(3, 1\)"),
        (torch.zeros(0), "with n > 0"),
        (torch.arange(3), "got torch.int64"),
        (torch.tensor([0.0, math.nan]), "expected inside to be finite, got nan among 2"),
        ([1.0], "expected inside to be a torch.Tensor, got list"),
    ],
)
def test_bad_scores_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Scores(values, torch.zeros(2))
    with pytest.raises(ValueError, match=message.replace("inside", "outside")):
        Scores(torch.zeros(2), values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "expected seed to be a whole number >= 0"),
        ({"n_resamples": 99}, "expected n_resamples to be a whole number >= 100"),
        ({"level": 0}, "expected level to be"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        measured(Scores(torch.zeros(2), torch.zeros(2)), **options)


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match="since they are pairs, got 3 and 2 against 3 and 4"):
        ood.difference(Scores(torch.zeros(3), torch.zeros(2)), Scores(torch.zeros(3), torch.zeros(4)), seed=0)


def test_bad_images_and_networks_are_refused():
    with pytest.raises(ValueError, match=r"expected images in \[0, 1\]"):
        ood.approximate_mass(Quadratic(), torch.full((1, 1, 2, 2), 2.0), batch_size=1)
    with pytest.raises(ValueError, match="expected at least one image"):
        ood.approximate_mass(Quadratic(), torch.zeros(0, 1, 2, 2), batch_size=1)
    with pytest.raises(ValueError, match="expected batch_size"):
        ood.approximate_mass(Quadratic(), torch.zeros(1, 1, 2, 2), batch_size=0)
    with pytest.raises(ValueError, match="expected the network's logits to depend on x"):
        ood.approximate_mass(Blind(), torch.zeros(1, 1, 2, 2), batch_size=1)
    with pytest.raises(ValueError, match="expected logits"):
        ood.log_density(torch.zeros(3))
    with pytest.raises(ValueError, match="expected logits"):
        ood.max_probability(torch.zeros(3))


class Blind(nn.Module):
    def forward(self, x):
        return torch.zeros(len(x), 2)


def test_the_interval_holds_the_value_where_resampling_moves_the_precision():
    # Foreign images all score higher: an average precision near its least, which repeated images only raise.
    scores = Scores(rand(150, seed=1) * 0.01, rand(150, seed=2) * 0.01 + 1)
    for estimate in measured(scores, n_resamples=1000).estimates().values():
        assert estimate.low <= estimate.value <= estimate.high
