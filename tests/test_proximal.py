"""Proximal SGLD and PYLD: the rule by hand, when they are equal and when not, settings in two ranges, public code."""

import itertools
import math

import pytest
import torch
from torch import nn

from helpers import noise, proximal, samplers

EIGHTH = 0.125  # dyadic numbers: sums and products of them are exact in float32


def key(n, seed=0):
    return noise.Key(seed, "test", torch.arange(n))


def zeros(n):
    return torch.zeros(n, dtype=torch.int64)


def images(n, dtype=torch.float64):
    return noise.uniform((2, 6, 6), seed=1, purpose="images", index=torch.arange(n), dtype=dtype)


def sgld(energy, x, **changes):
    given = {"step_size": 1.0, "max_gradient": 1.0, "noise_std": 0.0, "n_steps": 1, "key": key(len(x))} | changes
    return proximal.proximal_sgld(energy, x, given.pop("y", zeros(len(x))), **given)


def pyld(first, rest, x, **changes):
    given = {"step_size": 1.0, "max_gradient": 1.0, "noise_std": 0.0, "n_steps": 1, "n_inner_steps": 1}
    given |= {"key": key(len(x))} | changes
    return proximal.pyld(rest, x, given.pop("y", zeros(len(x))), first=first, **given)


class Network(nn.Module):
    """A convolution with a bias, then what bends."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.rest = nn.Sequential(nn.Softplus(), nn.Flatten(), nn.Linear(144, 5), nn.Tanh())
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.rand(p.shape, generator=generator) - 0.5)
            self.rest[2].weight.mul_(0.2)  # else the last tanh is flat
        self.double()

    def energy(self, x, y):
        return self.tail(self.first(x), y)

    def tail(self, h, y):
        return -self.rest(h).gather(1, y[:, None]).squeeze(1)


# The rule


def test_a_step_by_hand():
    slope = torch.tensor([[-3.0, -0.5, 0.0, 0.5, 3.0, 3.0]])
    x = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.5, 0.125]])
    found = sgld(lambda x, y: (slope * x).sum(1), x, step_size=0.25, max_gradient=1.0)
    assert found.tolist() == [[0.75, 0.625, 0.5, 0.375, 0.25, 0.0]]  # 3 counts as 1; the last is cut at the range


def test_the_clamp_is_on_the_gradient_and_noise_comes_after_it():
    x = torch.full((3, 4), 0.5)
    found = sgld(lambda x, y: 100 * x.sum(1), x, step_size=EIGHTH, max_gradient=2.0, noise_std=0.05)
    assert torch.allclose(found, 0.25 + 0.05 * key(3).normal((4,)), rtol=0, atol=1e-7)
    loose = sgld(lambda x, y: 100 * x.sum(1), x, step_size=EIGHTH, max_gradient=2.0, noise_std=5.0)
    assert loose.min() == 0
    assert loose.max() == 1


def test_without_a_bound_that_binds_it_is_sgld():
    network, x, y = Network(), images(4), torch.tensor([0, 1, 2, 3])
    plain = samplers.sgld(
        network.energy, x, y, step_size=0.05, momentum=0.0, noise_std=0.01, n_steps=3, gradient="plain", key=key(4)
    )
    settings = {"y": y, "step_size": 0.05, "noise_std": 0.01, "n_steps": 3}
    assert sgld(network.energy, x, max_gradient=1e6, **settings).equal(plain)
    assert not sgld(network.energy, x, max_gradient=0.01, **settings).equal(plain)


# PYLD(m, n, α) = proximal SGLD(m, nα)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 5), (3, 2), (10, 5)])
@pytest.mark.parametrize("alpha", [0.001, 0.2])
def test_pyld_is_proximal_sgld_with_longer_steps(m, n, alpha):
    network, x, y = Network(), images(4), torch.tensor([0, 1, 2, 3])
    short = pyld(network.first, network.tail, x, y=y, step_size=alpha, max_gradient=0.1, n_steps=m, n_inner_steps=n)
    long = sgld(network.energy, x, y=y, step_size=n * alpha, max_gradient=0.1, n_steps=m)
    assert (long - x).abs().max() > 1e-4
    if alpha == 0.2 and m * n > 10:  # the range cuts some pixels and leaves others
        assert 0.05 < ((long == 0) | (long == 1)).double().mean() < 0.95
    # float64: n roundings a step of 1.1e-16 each, passed on by gradients of slope below 10 in at most 10 steps of 1
    assert torch.allclose(short, long, rtol=0, atol=1e-10)


@pytest.mark.parametrize("x_0", [0.0, 0.25, 0.5, 0.875, 1.0])
def test_equal_bit_for_bit_in_exact_arithmetic_also_where_the_range_cuts(x_0):
    slope = torch.tensor([[-16.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 16.0]])
    first, rest = (lambda x: 2 * x - 1), (lambda h, y: (slope * h).sum(1) / 2)
    x = torch.full((1, 9), x_0)
    cut = set()
    for m, n in itertools.product((1, 2, 3), (1, 2, 4, 8)):
        short = pyld(first, rest, x, step_size=EIGHTH / 2, max_gradient=2.0, n_steps=m, n_inner_steps=n)
        long = sgld(lambda x, y: rest(first(x), y), x, step_size=n * EIGHTH / 2, max_gradient=2.0, n_steps=m)
        assert short.equal(long)
        cut |= {bool(((long == 0) | (long == 1))[slope != 0].any())}
    assert cut == ({True, False} if 0.125 <= x_0 < 0.875 else {True})  # the shortest chain moves by up to 1/8


def test_equal_with_noise_where_the_range_cuts_nothing():
    network, x = Network(), 0.4 + 0.2 * images(4)
    settings = {"max_gradient": 0.1, "noise_std": 0.01, "n_steps": 3}
    short = pyld(network.first, network.tail, x, step_size=0.02, n_inner_steps=5, **settings)
    long = sgld(network.energy, x, step_size=0.1, **settings)
    assert long.min() > 0
    assert long.max() < 1
    assert torch.allclose(short, long, rtol=0, atol=1e-12)
    # A pixel that is cut before the noise: 1 + 0 against clip(1 + ½ + noise).
    up, edge = (lambda h, y: -h.sum(1)), torch.ones(1, 64)
    noisy = pyld(lambda x: x, up, edge, step_size=0.5, noise_std=0.1)
    assert noisy.min() < 0.9
    assert noisy.max() == 1  # in range after the noise too
    assert sgld(up, edge, step_size=0.5, noise_std=0.1).min() == 1


def test_not_equal_where_the_first_layer_bends():
    network, x = Network(), images(4)
    bent = nn.Sequential(network.first, nn.Tanh())
    energy = lambda x, y: network.tail(bent(x), y)  # noqa: E731
    long = sgld(energy, x, step_size=10.0)
    short = pyld(bent, network.tail, x, step_size=2.0, n_inner_steps=5)
    assert (short - long).abs().max() > 0.01
    once = pyld(bent, network.tail, x, step_size=10.0, n_inner_steps=1)
    assert torch.allclose(once, long, rtol=0, atol=1e-12)  # one inner step is the gradient step itself


def test_the_adjoint_is_kept_within_an_outer_step_and_renewed_at_the_next():
    seen = []

    def rest(h, y):
        seen.append(h.detach().clone())
        return h.square().sum(1) / 2

    # E = h²/2 with h = x: p = x_0 = 1 for both inner steps, then p = 1 − 2/4 = ½.
    found = pyld(lambda x: x, rest, torch.ones(1, 1), step_size=0.25, n_steps=2, n_inner_steps=2)
    assert [h.item() for h in seen] == [1.0, 0.5]
    assert found.item() == 0.25


def test_callback_sees_the_outer_states_and_nothing_is_disturbed():
    network, x, y = Network(), images(3), torch.tensor([4, 0, 2])
    before, generator, flags = x.clone(), torch.get_rng_state(), network.training
    settings = {"y": y, "step_size": 0.05, "n_steps": 3}
    short, long = [], []
    end = pyld(
        network.first, network.tail, x, n_inner_steps=2, callback=lambda k, x, E: short.append((k, x, E)), **settings
    )
    sgld(network.energy, x, callback=lambda k, x, E: long.append((k, x, E)), **(settings | {"step_size": 0.1}))
    assert [k for k, _, _ in short] == [k for k, _, _ in long] == [0, 1, 2, 3]
    for (_, a, E_a), (_, b, E_b) in zip(short, long, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
        assert torch.allclose(E_a, E_b, rtol=0, atol=1e-12)
        assert not a.requires_grad
        assert not E_a.requires_grad
    assert short[-1][1].equal(end)
    assert x.equal(before)
    assert not x.requires_grad
    assert torch.get_rng_state().equal(generator)
    assert network.training == flags
    assert all(p.grad is None for p in network.parameters())


# Published settings

PUBLISHED = {"step_size": 1.0, "max_gradient": 0.02, "noise_std": 0.03}


@pytest.mark.parametrize("form", ["proximal", "pyld"])
def test_one_step_agrees_in_both_ranges(form):
    network, x, y = Network(), images(4), torch.tensor([0, 1, 2, 3])  # in [0, 1]
    first = {"ours": lambda x: network.first(2 * x - 1), "published": network.first}
    ours = proximal.in_unit_range(**PUBLISHED)

    def step(x, which, **settings):
        if form == "pyld":
            return pyld(first[which], network.tail, x, y=y, n_inner_steps=3, **settings)
        return sgld(lambda x, y: network.tail(first[which](x), y), x, y=y, **settings)

    found = step(x, "ours", **ours)
    expected = (step(2 * x - 1, "published", clip=(-1.0, 1.0), **PUBLISHED) + 1) / 2
    slope = torch.autograd.grad(network.energy(u := (2 * x - 1).requires_grad_(), y).sum(), u)[0].abs()
    assert 0.1 < (slope > 0.02).double().mean() < 0.9  # the bound binds in some pixels and not in others
    assert torch.allclose(found, expected, rtol=0, atol=1e-14)
    for name in ours:  # and each of the three numbers is needed
        assert not torch.allclose(step(x, "ours", **(ours | {name: PUBLISHED[name]})), expected, rtol=0, atol=1e-4)


def test_epsilon_in_both_ranges():
    u, x = torch.tensor([-1.0, 0.25]), torch.tensor([0.0, 0.625])  # the same two pixels
    epsilon = proximal.in_unit_range(epsilon=0.1)["epsilon"]
    assert torch.allclose((u + 0.1 + 1) / 2, x + epsilon)
    assert 255 * epsilon == pytest.approx(12.75)


def test_published_training_settings():
    outer = proximal.outer_step_size("train", step_size=0.2, n_inner_steps=5, full_step_size=0.0)
    ours = proximal.in_unit_range(step_size=outer, max_gradient=1.0, noise_std=0.0)
    assert ours == {"step_size": 0.25, "max_gradient": 2.0, "noise_std": 0.0}


@pytest.mark.parametrize("convention", proximal.CONVENTIONS)
@pytest.mark.parametrize("full", [0.0, 1.0])
def test_step_conventions_of_the_public_code(convention, full):
    # What the two scripts do in an outer step, step by step in [−1, 1]: the optional step along the full gradient, then
    # n inner ones, multiplied by the step size in training and by nothing in evaluation.
    network, u, y = Network(), 2 * images(4) - 1, torch.tensor([0, 1, 2, 3])
    d = -torch.autograd.grad(network.energy(v := u.clone().requires_grad_(), y).sum(), v)[0].clamp(-0.05, 0.05)
    expected = (u + full * d).clamp(-1, 1)
    for _ in range(5):
        expected = (expected + (0.2 * d if convention == "train" else d)).clamp(-1, 1)
    settings = {"y": y, "max_gradient": 0.05, "clip": (-1.0, 1.0)}
    total = proximal.outer_step_size(convention, step_size=0.2, n_inner_steps=5, full_step_size=full)
    assert total == pytest.approx({"train": 1.0, "eval": 5.0}[convention] + full)
    assert torch.allclose(sgld(network.energy, u, step_size=total, **settings), expected, rtol=0, atol=1e-14)
    if full == 0:
        inner = proximal.inner_step_size(convention, step_size=0.2)
        found = pyld(network.first, network.tail, u, step_size=inner, n_inner_steps=5, **settings)
        assert torch.allclose(found, expected, rtol=0, atol=1e-14)


# What is refused


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"name of a setting to be one of 'step_size'.*got 'momentum'"):
        proximal.in_unit_range(momentum=0.5)
    with pytest.raises(ValueError, match="expected noise_std to be a finite number"):
        proximal.in_unit_range(noise_std=math.nan)
    with pytest.raises(ValueError, match="convention to be one of 'train', 'eval', got 'test'"):
        proximal.inner_step_size("test", step_size=0.2)
    with pytest.raises(ValueError, match="n_inner_steps"):
        proximal.outer_step_size("train", step_size=0.2, n_inner_steps=0, full_step_size=0.0)


@pytest.mark.parametrize("sampler", [sgld, lambda energy, x, **given: pyld(lambda x: x, energy, x, **given)])
def test_bad_input_is_named(sampler):
    slide, x = (lambda x, y: x.sum(1)), torch.full((2, 3), 0.5)
    for change, message in (
        ({"step_size": 0.0}, "step_size"),
        ({"max_gradient": 0.0}, "max_gradient"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"n_steps": 1.5}, "n_steps"),
        ({"key": key(3)}, "index"),
    ):
        with pytest.raises(ValueError, match=f"expected {message}"):
            sampler(slide, x, **change)
    with pytest.raises(ValueError, match=r"expected x in \[0, 1\], got values from 1.5"):
        sampler(slide, x + 1)
    with pytest.raises(ValueError, match="one value for each sample"):
        sampler(lambda x, y: x, x)
    with pytest.raises(ValueError, match="energy to depend on"):
        sampler(lambda x, y: x.detach().sum(1), x)
    with pytest.raises(FloatingPointError, match=r"energy is not finite at step 0: nan for image 1"):
        sampler(lambda x, y: x.sum(1) * torch.tensor([1.0, math.nan]), x)


def test_max_gradient_is_refused_with_a_normalised_gradient():
    with pytest.raises(ValueError, match="max_gradient only with gradient 'plain'"):
        samplers.sgld(
            lambda x, y: x.sum(1), torch.ones(1, 2), zeros(1), step_size=1.0, momentum=0.0, noise_std=0.0, n_steps=1,
            gradient="l2", max_gradient=1.0, key=key(1),
        )  # fmt: skip
