"""SGLD: the discrete chain's own laws, batches that do not matter, chains that stop, states that go on bit for bit."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from helpers import arrays, energies, noise, samplers

N, D = 25_000, 4  # chains and dimensions: N · D independent draws of a one-dimensional chain
PLAIN = {"step_size": 0.5, "momentum": 0.0, "noise_std": 0.0, "gradient": "plain", "clip": None}


def valley(v=1.0):
    return lambda x, y: x.square().flatten(1).sum(1) / (2 * v)


def key(n, seed=0):
    return noise.Key(seed, "test", torch.arange(n))


def zeros(n):
    return torch.zeros(n, dtype=torch.int64)


def run(energy, x, *, n_steps=1, index=None, **changes):
    given = PLAIN | {"key": noise.Key(0, "test", torch.arange(len(x)) if index is None else index)} | changes
    return samplers.sgld(energy, x, given.pop("y", zeros(len(x))), n_steps=n_steps, **given)


def states(energy, start, *, n=None, **changes):
    """The first `n` states of a chain."""
    start = start if isinstance(start, samplers.State) else samplers.State.first(start)
    given = PLAIN | {"key": key(len(start.x))} | changes
    return list(itertools.islice(samplers.chain(energy, start, zeros(len(start.x)), **given), n))


class Network(nn.Module):
    """Batch norm in train mode with one frozen weight, and dropout: what a sampler could disturb."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(64, 5)
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.rand(p.shape, generator=generator) - 0.4)
        self.body[0].bias.requires_grad_(False)

    def forward(self, x):
        return self.body(x)


def images(n):
    return noise.uniform((1, 6, 6), seed=1, purpose="images", index=torch.arange(n))


# Closed forms


@pytest.mark.parametrize(("step_size", "noise_std", "v"), [(0.1, 0.45, 1.0), (1.0, 0.01, 2.0)])
def test_stationary_variance_is_that_of_the_discrete_chain(step_size, noise_std, v):
    # E = x²/2v gives x' = (1 − α/v) x + σ ξ, whose variance settles at σ²/(1 − (1 − α/v)²).
    x = run(valley(v), torch.zeros(N, D), step_size=step_size, noise_std=noise_std, n_steps=60)
    expected = noise_std**2 / (1 - (1 - step_size / v) ** 2)
    assert x.var().item() == pytest.approx(expected, rel=4 * math.sqrt(2 / x.numel()))
    assert abs(x.mean().item()) < 4 * math.sqrt(expected / x.numel())


def linear_system(*, step_size, momentum, v):
    """(x, velocity) → A (x, velocity) + (σ ξ, 0): SGLD with momentum on E = x²/2v."""
    slope = step_size / v
    return np.array([[1 - slope, momentum], [-slope, momentum]])


def stationary(A, noise_std):
    """P = A P Aᵀ + diag(σ², 0), the discrete Lyapunov equation."""
    Q = np.diag([noise_std**2, 0.0]).reshape(-1)
    return np.linalg.solve(np.eye(4) - np.kron(A, A), Q).reshape(2, 2)


def test_momentum_is_the_linear_recursion_of_a_quadratic_energy():
    A = linear_system(step_size=0.3, momentum=0.8, v=2.0)
    x0 = torch.tensor([[4.0, -1.0, 0.5]], dtype=torch.float64)
    seen = states(valley(2.0), x0, n=40, step_size=0.3, momentum=0.8)
    for k, state in enumerate(seen):
        power = np.linalg.matrix_power(A, k)
        np.testing.assert_allclose(state.x.numpy(), power[0, 0] * x0.numpy(), rtol=0, atol=1e-13)
        np.testing.assert_allclose(state.velocity.numpy(), power[1, 0] * x0.numpy(), rtol=0, atol=1e-13)


def test_noise_is_added_to_the_step_and_never_to_the_velocity():
    draws = key(1)
    x, velocity = torch.ones(1, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)
    for state in states(valley(), x, n=12, step_size=0.1, momentum=0.9, noise_std=0.3):
        assert torch.allclose(state.x, x, rtol=0, atol=1e-14)
        assert torch.allclose(state.velocity, velocity, rtol=0, atol=1e-14)
        velocity = 0.9 * velocity - 0.1 * x
        x = x + velocity + 0.3 * draws.at(state.step).normal((3,), dtype=torch.float64)


def test_stationary_covariance_with_momentum_solves_the_lyapunov_equation():
    settings = {"step_size": 0.3, "momentum": 0.7}
    A = linear_system(**settings, v=1.0)
    assert abs(np.linalg.eigvals(A)).max() ** (2 * 60) < 1e-8  # what the start leaves after 60 steps
    P = stationary(A, 0.2)
    last = states(valley(), torch.zeros(N, D), n=61, noise_std=0.2, **settings)[-1]
    pair = torch.stack([last.x.flatten(), last.velocity.flatten()]).double().numpy()
    found = pair @ pair.T / pair.shape[1]
    error = np.sqrt((np.outer(np.diag(P), np.diag(P)) + P**2) / pair.shape[1])  # of a Gaussian's second moments
    assert (abs(found - P) < 4 * error).all()
    assert abs(stationary(linear_system(step_size=0.3, momentum=0.0, v=1.0), 0.2) - P)[0, 0] > 8 * error[0, 0]


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_temperature_is_the_variance_of_small_steps(momentum):
    # E = x²/2 has the density of variance T; the discrete chain's differs by a share of order α/(1 − ζ)².
    settings = {"step_size": 1e-5, "momentum": momentum}
    exact = stationary(linear_system(**settings, v=1.0), 0.05)[0, 0]
    assert samplers.temperature(**settings, noise_std=0.05) == pytest.approx(exact, rel=1e-3)


def test_descent_of_a_known_energy():
    seen = []
    x = run(valley(), torch.full((2, 3), 4.0), n_steps=5, step_size=0.25, callback=lambda k, x, E: seen.append((k, E)))
    assert torch.allclose(x, torch.full((2, 3), 4 * 0.75**5))
    assert [k for k, _ in seen] == [0, 1, 2, 3, 4, 5]  # x_0 and x_n included
    for k, E in seen:
        assert torch.allclose(E, torch.full((2,), 3 * (4 * 0.75**k) ** 2 / 2))


def test_normalised_gradient_walks_a_known_length_and_rests_where_it_is_zero():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e-25, 4e-25]])
    walked = run(valley(), x, n_steps=4, step_size=0.5, gradient="l2")
    assert torch.allclose(walked[0], torch.tensor([3.0, 4.0]) * (5 - 2) / 5)
    assert walked[1].equal(x[1])
    assert run(valley(), x, step_size=0.5, gradient="l2")[2].norm().item() == pytest.approx(0.5)  # squares underflow


def test_clip_and_the_clamp_of_a_step():
    slide = lambda x, y: x.sum(1)  # noqa: E731
    assert run(slide, torch.full((1, 2), 0.75), n_steps=3, clip=(0.25, 1.0)).tolist() == [[0.25, 0.25]]
    assert run(slide, torch.full((1, 2), 0.75), n_steps=3).tolist() == [[-0.75, -0.75]]
    last = states(slide, torch.zeros(1, 2), n=4, momentum=0.5, max_step=0.125)[-1]
    assert last.x.tolist() == [[-0.375, -0.375]]
    assert last.velocity.tolist() == [[-0.875, -0.875]]  # 0.5 · (1 + ½ + ¼): the velocity is not clamped
    up = run(slide, torch.full((1, 2), 0.75), n_steps=3, project=lambda x, y: x.clamp_min(0.5))
    assert up.tolist() == [[0.5, 0.5]]


# Batches


def test_noise_of_an_image_is_the_same_bits_in_every_batch():
    flat = lambda x, y: 0 * x.sum((1, 2, 3))  # noqa: E731
    index, x = torch.tensor([5, 9, 2, 700]), torch.zeros(4, 1, 3, 3)
    whole = run(flat, x, noise_std=0.1, n_steps=3, index=index)
    assert len({tuple(row) for row in whole.flatten(1).tolist()}) == 4
    for rows in ([2], [3, 0], [1, 2, 3]):
        assert run(flat, x[rows], noise_std=0.1, n_steps=3, index=index[rows]).equal(whole[rows])
    assert not run(flat, x, noise_std=0.1, n_steps=3, index=index, key=key(4, seed=1)).equal(whole)


@pytest.mark.parametrize("name", samplers.ENERGIES)
@pytest.mark.parametrize("gradient", samplers.GRADIENTS)
def test_an_image_of_a_network_does_not_depend_on_its_batch(name, gradient):
    energy, x, y = samplers.energy_of(Network(), name), images(9), torch.arange(9) % 5
    settings = {"step_size": 0.05, "momentum": 0.8, "noise_std": 0.01, "gradient": gradient, "clip": (0, 1)}
    whole = run(energy, x, y=y, n_steps=5, **settings)
    assert (whole - x).abs().max() > 0.01
    for rows in ([4], [8, 0], list(range(1, 8))):
        alone = run(energy, x[rows], y=y[rows], n_steps=5, index=torch.tensor(rows), **settings)
        assert torch.allclose(alone, whole[rows], rtol=0, atol=1e-6)


def test_energies_by_name():
    network, x, y = Network(), images(3), torch.tensor([0, 4, 2])
    logits = network.eval()(x).detach()
    expected = {
        "joint": energies.joint(logits, y),
        "marginal": energies.marginal(logits),
        "cross_entropy": energies.cross_entropy(logits, y),
    }
    assert set(expected) == set(samplers.ENERGIES)
    for name, values in expected.items():
        assert torch.allclose(samplers.energy_of(network, name)(x, y), values)
        half = samplers.energy_of(network, name, precision="bfloat16")(x, y)
        assert half.dtype == torch.float32
        assert not half.equal(values)
        # bfloat16 keeps 8 bits: each of 64 features and weights of size ≤ 1 is off by 2⁻⁸, the logits by their sum
        assert (half - values).abs().max() < 64 * 2**-8


# Stopping


def test_a_chain_freezes_at_its_energy_and_costs_nothing_from_then_on():
    asked = []

    def energy(x, y):
        asked.append(len(x))
        return valley()(x, y)

    # x_k = 4 · ½ᵏ, E = 8, 2, ½, ⅛, 1/32, …
    x = torch.full((3, 1), 4.0)
    seen = states(energy, x, n=9, stop="energy", target=torch.tensor([8.0, 1.0, 0.125]))
    last = seen[-1]
    assert last.x.flatten().tolist() == [4.0, 1.0, 0.5]
    assert last.energy.tolist() == [8.0, 0.5, 0.125]
    assert last.n_taken.tolist() == [0, 2, 3]
    assert asked == [3, 2, 2, 1]
    assert not last.active.any()
    assert len(seen) == 5  # and then the iterator ends
    frozen = run(energy, x, n_steps=9, stop="energy", target=torch.tensor([8.0, 1.0, 0.125]), noise_std=1e-3)
    assert frozen[0].item() == 4.0  # not even noise moves it


def test_the_band_around_a_target_can_be_jumped_over():
    x = torch.full((3, 1), 4.0)
    target = torch.tensor([0.5, 0.4, 1.2])
    assert run(valley(), x, n_steps=5, stop="energy", target=target).flatten().tolist() == [1.0, 0.5, 1.0]
    within = run(valley(), x, n_steps=5, stop="energy_within", target=target, tolerance=0.02)
    assert within.flatten().tolist() == [1.0, 1.0, 0.125]


def test_a_callback_sees_frozen_chains_with_their_energy():
    seen = []
    run(valley(), torch.full((2, 1), 4.0), n_steps=3, stop="energy", target=torch.tensor([2.0, 0.0]),
        callback=lambda k, x, E: seen.append((k, x.flatten().tolist(), E.tolist())))  # fmt: skip
    assert seen == [
        (0, [4.0, 4.0], [8.0, 8.0]),
        (1, [2.0, 2.0], [2.0, 2.0]),
        (2, [2.0, 1.0], [2.0, 0.5]),
        (3, [2.0, 0.5], [2.0, 0.125]),
    ]


@pytest.mark.parametrize("stop", ["steps", "energy"])
def test_a_frozen_chain_does_not_change_the_others(stop):
    energy, x = samplers.energy_of(Network(), "joint"), images(6)
    settings = {"step_size": 0.05, "momentum": 0.8, "noise_std": 0.01, "n_steps": 6, "clip": (0, 1)}
    whole = run(energy, x, **settings)
    middle = energy(run(energy, x, **settings | {"n_steps": 3}), zeros(6)).detach()
    target = middle.where(torch.arange(6) % 2 == 0, -1e9)
    some = run(energy, x, stop="energy", target=target, **settings)
    assert torch.allclose(some[1::2], whole[1::2], rtol=0, atol=1e-6)
    assert ((some[::2] - whole[::2]).flatten(1).abs().amax(1) > 1e-3).all()
    assert (energy(some[::2], zeros(3)) <= target[::2] + 1e-5).all()


# States


@pytest.mark.parametrize("stop", samplers.STOPS)
def test_a_saved_state_goes_on_bit_for_bit(stop, tmp_path):
    energy, x = samplers.energy_of(Network(), "joint"), images(7)
    settings = {"step_size": 0.05, "momentum": 0.8, "noise_std": 0.02, "clip": (0, 1), "stop": stop}
    if stop != "steps":
        reached = energy(run(energy, x, step_size=0.05, momentum=0.8, clip=(0, 1), n_steps=4), zeros(7)).detach()
        settings["target"] = reached - torch.linspace(-0.2, 2.0, 7)
        settings["tolerance"] = 0.05 if stop == "energy_within" else None
    whole = states(energy, x, n=12, **settings)
    if stop != "steps":
        assert 0 < int(whole[6].active.sum()) < 7
    for k in (0, 1, 6):
        samplers.save(whole[k], tmp_path / "state.npz")
        again = states(energy, samplers.load(tmp_path / "state.npz"), n=12 - k, **settings)
        for a, b in zip(again, whole[k:], strict=True):
            assert a.step == b.step
            for field in dataclasses.fields(a)[1:]:
                pair = [getattr(state, field.name).numpy() for state in (a, b)]
                assert arrays.identical(*pair), field.name


def test_a_file_that_is_no_state_is_refused(tmp_path):
    arrays.write(tmp_path / "other.npz", {"x": np.zeros(2)})
    with pytest.raises(arrays.DamagedFile, match="state"):
        samplers.load(tmp_path / "other.npz")


# What is left alone, and what is refused


def disturbed(network):
    flags = [m.training for m in network.modules()], [(p.requires_grad, p.grad) for p in network.parameters()]
    return *flags, [t.tolist() for t in network.state_dict().values()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_network_and_global_generator_are_left_alone(dtype):
    network, x, y = Network().to(dtype), images(4).to(dtype), torch.arange(4)
    x.requires_grad_()
    before, kept, generator = disturbed(network), x.detach().clone(), torch.get_rng_state()
    result = run(samplers.energy_of(network, "joint"), x, y=y, n_steps=3, noise_std=0.1, clip=(0, 1))
    assert result.dtype == dtype
    assert not result.requires_grad
    assert (result - kept).abs().max() > 0.01
    assert x.equal(kept)
    assert x.grad is None
    assert y.equal(torch.arange(4))
    assert disturbed(network) == before
    assert torch.get_rng_state().equal(generator)
    assert torch.is_grad_enabled()
    for _ in samplers.chain(samplers.energy_of(network, "joint"), samplers.State.first(x), y, **PLAIN, key=key(4)):
        assert torch.is_grad_enabled()  # an iterator that is left halfway changes nothing either
        break
    assert disturbed(network) == before


def test_the_network_is_put_back_when_it_raises():
    class Broken(Network):
        def forward(self, x):
            raise RuntimeError("no more")

    network = Broken()
    before = disturbed(network)
    with pytest.raises(RuntimeError, match="no more"):
        run(samplers.energy_of(network, "joint"), images(2))
    assert disturbed(network) == before
    assert torch.is_grad_enabled()


def test_a_large_gradient_whose_sum_is_too_large_for_float32_is_no_divergence():
    found = run(lambda x, y: 2e38 * x.sum(1), torch.zeros(1, 3), n_steps=1, step_size=1e-38)
    assert found.tolist() == [[pytest.approx(-2)] * 3]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_layout_in_memory_of_images_is_the_energys_own_business(precision):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    x, y = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4)
    rule = {"step_size": 0.1, "n_steps": 3, "noise_std": 0.01}
    ends = [run(samplers.energy_of(network, "joint", precision=precision), one, y=y, **rule) for one in (
        x, x.contiguous(memory_format=torch.channels_last))]  # fmt: skip
    assert torch.equal(ends[0], ends[1])
    with torch.no_grad():
        assert torch.allclose(samplers.energy_of(network, "joint")(x, y), -network(x)[torch.arange(4), y], atol=1e-5)


def test_divergence_is_raised_with_step_value_and_image():
    def steep(x, y):
        return x.square().sum(1).where(x.abs().amax(1) < 50, math.nan)

    with pytest.raises(FloatingPointError, match=r"energy is not finite at step 2: nan for image 11 \(1 of 2 rows\)"):
        run(steep, torch.tensor([[0.0], [2.0]]), n_steps=9, step_size=3.0, index=torch.tensor([7, 11]))
    with pytest.raises(FloatingPointError, match="gradient of the energy is not finite at step 0: inf for image 0"):
        run(lambda x, y: x.sqrt().sum(1), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (lambda x, y: x.sum(1, keepdim=True), r"expected energy of shape \(2,\), .*got \(2, 1\)"),
        (lambda x, y: x.mean(), r"expected energy of shape \(2,\), .*got \(\)"),
        (lambda x, y: x.detach().sum(1), "without a gradient"),
    ],
)
def test_energies_that_are_none_are_refused(energy, message):
    with pytest.raises(ValueError, match=message):
        run(energy, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": math.inf}, "step_size"),
        ({"momentum": 1.0}, "momentum below 1"),
        ({"momentum": -0.1}, "momentum"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"n_steps": -1}, "n_steps"),
        ({"gradient": "sign"}, "gradient to be one of 'plain', 'l2'"),
        ({"clip": (1.0, 0.0)}, "clip"),
        ({"max_step": 0.0}, "max_step"),
        ({"stop": "never"}, "stop to be one of"),
        ({"stop": "energy"}, "a target"),
        ({"target": torch.zeros(2)}, "target only with stop"),
        ({"stop": "energy", "target": torch.zeros(3)}, r"target of shape \(2,\)"),
        ({"stop": "energy", "target": torch.tensor([0.0, math.nan])}, "finite targets, got nan"),
        ({"stop": "energy_within", "target": torch.zeros(2)}, "tolerance"),
        ({"stop": "energy", "target": torch.zeros(2), "tolerance": 0.1}, "tolerance only with"),
        ({"y": zeros(3)}, "one label for each of 2 rows"),
        ({"index": torch.arange(3)}, "index with one entry for each of 2 rows"),
    ],
)
def test_bad_input_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        run(valley(), torch.ones(2, 3), **changes)


@pytest.mark.parametrize("x", [torch.ones(2, 3, dtype=torch.uint8), torch.ones(3), "image"])
def test_what_is_no_batch_of_floats_is_refused(x):
    with pytest.raises(ValueError, match="expected x"):
        samplers.State.first(x)


def test_no_steps_and_no_images_are_fine():
    assert run(valley(), torch.ones(2, 3), n_steps=0).equal(torch.ones(2, 3))
    assert run(valley(), torch.ones(0, 3), n_steps=2, noise_std=0.1).shape == (0, 3)
