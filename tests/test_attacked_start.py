"""The attacked start: one step and the contrast by hand, the ball, the inner start's own draws, its phases."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers import attacked_start, balls, data, initialisers, noise, parts, proximal, starts
from helpers.attacked_start import Attacked

SHAPE = (1, 2, 2)
Y = torch.arange(12) % 3
KEY = noise.Key(seed=4, purpose="chains", index=torch.arange(12) * 5 + 7)
INNER = starts.Uniform(SHAPE, 3)
LINF = {"norm": "linf", "epsilon": 0.2, "step_size": 0.0625, "n_steps": 5, "contrast": 1.0}


def linear():
    """f(x) = W x with small whole numbers, so that the sign of a gradient is plain."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[2.0, -2.0, 1.0, 0.0], [-1.0, 3.0, 0.0, 1.0], [0.0, 1.0, -4.0, 2.0]]))
    return network.eval()


def attacked(**changes):
    return Attacked(changes.pop("start", INNER), changes.pop("network", linear()), **LINF | changes)


def gradient_by_hand(network, x, y):
    """∇ₓ CE(x, y) = Wᵀ (p − e_y)."""
    weight = network[1].weight.detach()
    p = torch.softmax(x.flatten(1) @ weight.T, 1)
    return ((p - nn.functional.one_hot(y, 3)) @ weight).reshape(-1, *SHAPE)


# Known answers


@pytest.mark.parametrize("norm", balls.NORMS)
def test_one_step_by_hand(norm):
    start = attacked(norm=norm, n_steps=1)
    x_0 = INNER.draw(Y, KEY)
    g = gradient_by_hand(start.network, x_0, Y)
    step = g.sign() if norm == "linf" else g / g.flatten(1).norm(dim=1)[:, None, None, None]
    assert torch.allclose(start.draw(Y, KEY), (x_0 - 0.0625 * step).clamp(0, 1), atol=1e-6)
    assert (x_0 - start.draw(Y, KEY)).abs().amax() > 0.03


def test_the_class_becomes_likelier_at_each_step():
    start, seen = attacked(epsilon=1.0), []
    start.watched(Y, KEY, lambda phase, k, x: seen.append(nn.functional.cross_entropy(start.network(x), Y).item()))
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.6 * seen[0]


def test_contrast_by_hand_and_of_1_is_none():
    x = torch.tensor([[[[0.0, 1.0], [0.25, 0.5]]]])
    assert attacked_start.decreased_contrast(x, 0.8).flatten().tolist() == pytest.approx([0.1, 0.9, 0.3, 0.5])
    odd = torch.rand(50, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert attacked_start.decreased_contrast(odd, 1.0).equal(odd)
    centred = 2 * odd - 1  # in [−1, 1] it is c x
    assert torch.allclose(2 * attacked_start.decreased_contrast(odd, 0.7) - 1, 0.7 * centred, atol=1e-6)


def test_contrast_comes_after_the_attack():
    full, less = attacked().draw(Y, KEY), attacked(contrast=0.5).draw(Y, KEY)
    assert less.equal((0.5 + 0.5 * (full - 0.5)).clamp(0, 1))


def test_published_settings_in_our_range():
    assert proximal.in_unit_range(epsilon=0.5)["epsilon"] * 255 == 63.75
    assert attacked_start.linf_step_size(63.75 / 255, 15) == pytest.approx(0.0416667, rel=1e-5)
    assert attacked_start.linf_step_size(0.25, 0) == 0.0
    x_0 = INNER.draw(Y, KEY)
    santurkar = {"epsilon": 30.0, "norm": "l2", "step_size": 0.5, "n_steps": 2}  # his ε and step, on CIFAR-10 by 60
    start = Attacked(INNER, linear(), **santurkar, contrast=1.0)
    moved = start.draw(Y, KEY) - x_0
    assert (moved.flatten(1).norm(dim=1) <= 1.0 + 1e-6).all()  # two steps of 0.5
    assert moved.flatten(1).norm(dim=1).max() > 0.5


# Properties


@pytest.mark.parametrize("norm", balls.NORMS)
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3])
def test_it_stays_in_the_ball_and_reaches_its_edge(norm, epsilon):
    x_0, x = INNER.draw(Y, KEY), attacked(norm=norm, epsilon=epsilon, n_steps=20).draw(Y, KEY)
    assert balls.inside(x, x_0, norm=norm, epsilon=epsilon).all()
    assert balls.distance(x, x_0, norm=norm).amax() == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize("index", [KEY.index, KEY.index.flip(0)])
def test_without_steps_at_full_contrast_it_is_the_inner_start(index):
    images = data.load("digits", "train").first(300)
    inner = initialisers.fit("class_gaussian", images, folder=None)
    key = replace(KEY, index=index)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    start = attacked(start=inner, network=network, n_steps=0)
    assert start.draw(Y, key).equal(inner.draw(Y, key))
    assert start.name == "class_gaussian_attacked"


def test_an_image_does_not_depend_on_its_batch():
    whole, seen = attacked(contrast=0.9).draw(Y, KEY), []
    for rows in torch.tensor([5, 2, 11, 0, 7]).split(2):
        part = attacked(contrast=0.9).draw(Y[rows], KEY.rows(rows))
        assert torch.allclose(part, whole[rows], atol=1e-6)
        seen += rows.tolist()
    assert len(seen) == 5
    assert attacked().draw(Y[:0], KEY.rows(slice(0, 0))).shape == (0, *SHAPE)


def test_noise_is_the_inner_starts_and_the_attack_adds_none():
    a, b = attacked().draw(Y, KEY), attacked().draw(Y, replace(KEY, purpose="another"))
    assert a.equal(b)
    assert not a.equal(attacked().draw(Y, replace(KEY, seed=5)))


def test_network_and_inputs_are_left_alone():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    start, y, index, state = attacked(network=network), Y.clone(), KEY.index.clone(), torch.random.get_rng_state()
    x = start.draw(y, replace(KEY, index=index))
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert y.equal(Y)
    assert index.equal(KEY.index)
    assert torch.random.get_rng_state().equal(state)
    assert not x.requires_grad


# Phases and fingerprint


def test_phases_are_watched_in_order_and_change_nothing():
    seen = []
    start = attacked(contrast=0.8)
    x = start.watched(Y, KEY, lambda phase, k, x_k: seen.append((phase, k, x_k.clone())))
    assert [(phase, k) for phase, k, _ in seen] == [*(("attack", k) for k in range(6)), ("contrast", 6)]
    assert seen[0][2].equal(INNER.draw(Y, KEY))
    assert seen[5][2].equal(attacked().draw(Y, KEY))
    assert seen[6][2].equal(x)
    assert x.equal(start.draw(Y, KEY))


def test_without_an_attack_the_start_is_seen_once():
    seen = []
    attacked(n_steps=0).watched(Y, KEY, lambda phase, k, _: seen.append((phase, k)))
    assert seen == [("attack", 0)]


def test_every_field_is_part_of_its_digest():
    first, other = attacked(), linear()
    with torch.no_grad():
        other[1].weight[0, 0] += 1
    changes = [{"norm": "l2"}, {"epsilon": 0.21}, {"step_size": 0.06}, {"n_steps": 4}, {"contrast": 0.9}]
    changes += [{"network": other}, {"start": starts.Uniform(SHAPE, 4)}]
    digests = {parts.digest(replace(first, **change), "start") for change in [{}, *changes]}
    assert len(digests) == 1 + len(changes)
    assert parts.digest(attacked(), "start") == parts.digest(first, "start")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "l1"}, "expected norm"),
        ({"epsilon": -0.1}, "expected epsilon"),
        ({"step_size": 0.0}, "expected step_size"),
        ({"n_steps": -1}, "expected n_steps"),
        ({"contrast": 0.0}, "expected contrast"),
        ({"contrast": 1.5}, "expected contrast"),
        ({"network": "robust"}, "expected network"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        attacked(**changes)
