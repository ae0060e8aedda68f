"""The terms of CEB: known answers of torch.distributions, samples that converge to closed forms, schedules' ends."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from helpers import ceb, noise


def normal(mean: torch.Tensor, std: torch.Tensor | float = 1.0) -> Independent:
    return Independent(Normal(mean, torch.as_tensor(std, dtype=mean.dtype).expand_as(mean)), 1)


def draws(*shape: int, purpose: str) -> torch.Tensor:
    index = torch.arange(shape[0])
    return noise.normal(shape[1:], seed=0, purpose=purpose, index=index, dtype=torch.float64)


F, MU, LOG_STD = draws(6, 5, purpose="f"), draws(6, 5, purpose="mu") * 2, draws(1, 5, purpose="s")[0] * 0.3
KEY = noise.Key(3, "test", torch.arange(6))
Z = ceb.sample(F, key=KEY, n_samples=7)


def test_densities_are_those_of_torch_distributions():
    for n in range(7):
        z = Z[:, n]
        e, b, r = normal(F), normal(MU), normal(MU, LOG_STD.exp())
        assert ceb.log_normal(z, F).allclose(e.log_prob(z))
        assert ceb.rex_sampled(z, mean=F, center=MU).allclose(e.log_prob(z) - b.log_prob(z))
        sampled = ceb.rate_sampled(z, mean=F, center=MU, log_std=LOG_STD)
        assert sampled.allclose(e.log_prob(z) - r.log_prob(z))
    assert ceb.rex(F, center=MU).allclose(kl_divergence(normal(F), normal(MU)))
    assert ceb.rate(F, center=MU, log_std=LOG_STD).allclose(kl_divergence(normal(F), normal(MU, LOG_STD.exp())))


def test_samples_converge_to_the_closed_forms():
    n = 20_000
    z = ceb.sample(F, key=KEY, n_samples=n)
    assert (z.mean(1) - F).abs().max() < 4.5 / math.sqrt(n)
    assert ((z - F[:, None]).var(1) - 1).abs().max() < 4.5 * math.sqrt(2 / n)
    rex = ceb.rex_sampled(z, mean=F[:, None], center=MU[:, None])
    # Rex at z is Gaussian: its variance is ‖f − μ‖² = 2 E[Rex].
    error = (rex.mean(1) - ceb.rex(F, center=MU)) / (2 * ceb.rex(F, center=MU) / n).sqrt()
    assert error.abs().max() < 4.5
    rate = ceb.rate_sampled(z, mean=F[:, None], center=MU[:, None], log_std=LOG_STD)
    error = (rate.mean(1) - ceb.rate(F, center=MU, log_std=LOG_STD)) / (rate.std(1) / math.sqrt(n))
    assert error.abs().max() < 4.5


def test_samples_are_keyed_by_image_and_step_and_carry_the_gradient_of_the_mean():
    mean = F.clone().requires_grad_()
    z = ceb.sample(mean, key=KEY, n_samples=7)
    assert z.equal(Z)
    rows = torch.tensor([4, 1])
    assert ceb.sample(F[rows], key=KEY.rows(rows), n_samples=7).equal(Z[rows])
    assert not ceb.sample(F, key=KEY.at(1), n_samples=7).equal(Z)
    (gradient,) = torch.autograd.grad(z.sum(), mean)
    assert gradient.equal(torch.full_like(F, 7.0))
    with pytest.raises(ValueError, match=r"means of shape \(6, d\)"):
        ceb.sample(F[:2], key=KEY, n_samples=1)
    with pytest.raises(ValueError, match="n_samples"):
        ceb.sample(F, key=KEY, n_samples=0)


def test_the_sampled_gradient_is_that_of_the_closed_form_on_average():
    """By reparameterisation: ∂Rex/∂f = f − μ + ε; with z cut off (PyTorch's `sample`) only noise would be left."""
    mean, center = F.clone().requires_grad_(), MU.clone().requires_grad_()
    n = 20_000
    z = ceb.sample(mean, key=KEY, n_samples=n)
    ceb.rex_sampled(z, mean=mean[:, None], center=center[:, None]).mean(1).sum().backward()
    assert (mean.grad - (F - MU)).abs().max() < 4.5 / math.sqrt(n)
    assert (center.grad - (MU - F)).abs().max() < 4.5 / math.sqrt(n)


def test_float32_keeps_rex_where_the_width_is_that_of_a_resnet():
    mean = torch.rand(4, 2048, dtype=torch.float64) * 3
    center = mean + 1e-2 * torch.randn(4, 2048, dtype=torch.float64)
    z = mean + torch.randn(4, 2048, dtype=torch.float64)
    exact = ceb.rex_sampled(z, mean=mean, center=center)
    close = ceb.rex_sampled(z.float(), mean=mean.float(), center=center.float())
    assert (close - exact).abs().max() < 1e-4


# The consistent classifier


def test_the_consistent_classifier_is_bayes_rule_on_b_and_a_tied_linear_softmax_with_the_label_prior():
    means, prior = MU[:4], torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    z = Z.flatten(0, 1)
    logits = ceb.consistent_logits(z, means=means, log_prior=prior.log())
    joint = torch.stack([normal(mu.expand_as(z)).log_prob(z).exp() * p for mu, p in zip(means, prior, strict=True)], 1)
    assert logits.softmax(1).allclose(joint / joint.sum(1, keepdim=True))
    tied = torch.nn.Linear(5, 4, dtype=torch.float64)
    with torch.no_grad():
        tied.weight.copy_(means)
        tied.bias.copy_(-0.5 * means.square().sum(1) + prior.log())
    assert logits.allclose(tied(z))
    even = ceb.consistent_logits(z, means=means, log_prior=torch.zeros(4, dtype=torch.float64))
    assert not even.softmax(1).allclose(logits.softmax(1), atol=1e-3)


def test_the_label_prior_counts_labels():
    assert ceb.log_label_prior(torch.tensor([1, 0, 1, 1]), num_classes=2).exp().tolist() == pytest.approx([0.25, 0.75])
    with pytest.raises(ValueError, match=r"images of each of 3 classes, got counts \[1, 3, 0\]"):
        ceb.log_label_prior(torch.tensor([1, 0, 1, 1]), num_classes=3)


def test_means_over_samples():
    logits = draws(6, 7, 4, purpose="logits")
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    c = logits.softmax(2)
    assert ceb.log_mean(logits).allclose(c.mean(1).log())
    picked = torch.stack([c[k, :, y[k]] for k in range(6)])
    assert ceb.minus_log_c(logits, y).allclose(-picked.log().mean(1))


# Weights and schedules


@pytest.mark.parametrize("rho", [-1.0, 0.0, 1.0, 6.0])
def test_the_vib_at_matched_strength_has_the_logistic_weight(rho):
    assert ceb.matched(ceb.gamma(rho)) == pytest.approx(torch.sigmoid(torch.tensor(-rho, dtype=torch.float64)).item())


def test_gamma_is_exactly_zero_from_100_on():
    assert ceb.gamma(100) == ceb.gamma(700) == 0.0 < ceb.gamma(99.9)
    with pytest.raises(ValueError, match="rho"):
        ceb.gamma(-21)


@pytest.mark.parametrize("anneal", ["gamma", "rho"])
def test_an_anneal_starts_at_its_start_ends_at_its_end_and_only_rises(anneal):
    path = [ceb.annealed(t / 20, rho=1, rho_start=9, anneal=anneal) for t in range(30)]
    assert path[0] == pytest.approx(math.exp(-9))
    assert path[20:] == [math.exp(-1)] * 10
    assert path[:21] == sorted(path[:21])
    assert len(set(path[:21])) == 21
    half = {"gamma": (math.exp(-9) + math.exp(-1)) / 2, "rho": math.exp(-5)}[anneal]
    assert path[10] == pytest.approx(half)


def test_the_listings_anneal_is_linear_in_gamma_so_that_its_rho_falls_by_a_logarithm():
    for t, more in ((0.01, 4.6), (0.1, 2.3), (0.5, 0.69)):
        rho = -math.log(ceb.annealed(t, rho=3, rho_start=100, anneal="gamma"))
        assert rho - 3 == pytest.approx(more, abs=0.01)


def test_a_recipes_weight_runs_over_its_epochs():
    entry = {"objective": "ceb", "rho": 2.0, "anneal": "gamma", "rho_start": 100.0, "anneal_epochs": 4.0}
    assert [ceb.weight_at(p, entry) for p in (0, 4, 30)] == [0.0, math.exp(-2), math.exp(-2)]
    assert ceb.weight_at(1, entry) == pytest.approx(math.exp(-2) / 4)
    assert ceb.weight_at(0, {**entry, "anneal": None}) == ceb.weight_at(0, {**entry, "anneal": "none"}) == math.exp(-2)
    assert ceb.weight_at(9, {**entry, "objective": "vib"}) == pytest.approx(1 / (1 + math.exp(2)))
    with pytest.raises(ValueError, match="expected anneal among none, gamma, rho"):
        ceb.weight_at(0, {**entry, "anneal": "beta"})
    with pytest.raises(ValueError, match="anneal_epochs"):
        ceb.weight_at(0, {**entry, "anneal_epochs": 0})
