"""FGSM and PGD: closed forms on linear networks, the point that is returned, starts and restarts."""

import math

import pytest
import torch
from attack_cases import (
    EPSILON,
    INDEX,
    SHAPE,
    B,
    convolutional,
    linear,
    middle,
    run_settings,
    settings,
    uphill,
)

from helpers import attacks, noise

# Known answers


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("start", ["none", "uniform"])
def test_linf_on_a_linear_network_ends_in_the_corner(label, start):
    net, w = linear()
    x, y = middle(), torch.full((B,), label)
    towards = 1 if label == 0 else -1  # away from the true class, which is class 1 along +w
    x_adv = attacks.pgd(attacks.cross_entropy(net), x, y, **settings(start=start, n_steps=20))
    # sums of numbers below 1 in float64
    assert (x_adv - (x + towards * EPSILON * w.sign())).abs().max() < 1e-15
    targeted = attacks.pgd(attacks.targeted_cross_entropy(net), x, y, **settings(start=start, n_steps=20))
    assert (targeted - (x - towards * EPSILON * w.sign())).abs().max() < 1e-15


@pytest.mark.parametrize("label", [0, 1])
def test_l2_on_a_linear_network_ends_at_the_end_of_w(label):
    net, w = linear()
    x, y = middle(), torch.full((B,), label)
    towards = 1 if label == 0 else -1
    direction = w / w.norm()
    x_adv = attacks.pgd(attacks.cross_entropy(net), x, y, **settings(norm="l2", epsilon=0.2, step_size=0.05))
    assert (x_adv - (x + towards * 0.2 * direction)).abs().max() < 1e-15
    targeted = attacks.pgd(attacks.targeted_cross_entropy(net), x, y, **settings(norm="l2", epsilon=0.2))
    step = min(0.2, 10 * EPSILON / 4)
    assert (targeted - (x - towards * step * direction)).abs().max() < 1e-15


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_step_inside_the_ball_has_the_length_of_the_step(norm):
    net, w = linear()
    x, y = middle(), torch.zeros(B, dtype=torch.int64)
    x_adv = attacks.pgd(attacks.cross_entropy(net), x, y, **settings(norm=norm, step_size=0.01, n_steps=1))
    expected = 0.01 * (w.sign() if norm == "linf" else w / w.norm())
    assert (x_adv - x - expected).abs().max() < 1e-15


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_is_one_step_of_pgd_and_the_closed_form(norm):
    net, w = linear()
    x, y = middle(), torch.zeros(B, dtype=torch.int64)
    loss = attacks.cross_entropy(net)
    one_step = attacks.pgd(loss, x, y, **settings(norm=norm, step_size=EPSILON, n_steps=1))
    assert torch.equal(attacks.fgsm(loss, x, y, norm=norm, epsilon=EPSILON), one_step)
    expected = w.sign() if norm == "linf" else w / w.norm()
    assert (one_step - (x + EPSILON * expected)).abs().max() < 1e-15
    named = attacks.run("fgsm", net, x, y, **run_settings(norm=norm, n_steps=7))
    assert torch.equal(named, one_step)


def test_kl_from_a_random_start_walks_along_w_and_from_x_has_no_gradient():
    net, w = linear()
    x, y = middle(), torch.zeros(B, dtype=torch.int64)
    loss = attacks.kl_divergence(net, net(x))
    x_adv = attacks.pgd(loss, x, y, **settings(start="gaussian", start_std=0.001, n_steps=20))
    side = ((x_adv - x) * w).sum((1, 2, 3)).sign().reshape(-1, 1, 1, 1)
    assert (x_adv - (x + side * EPSILON * w.sign())).abs().max() < 1e-15
    said = []
    attacks.pgd(loss, x, y, **settings(n_steps=0, callback=lambda k, x_k, at_k: said.append(at_k.value)))
    assert said[0].abs().max() == 0


def test_the_box_is_kept():
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(2).reshape(B, 1, 1, 1).expand(B, *SHAPE)
    x_adv = attacks.pgd(uphill, ends, torch.zeros(B, dtype=torch.int64), **settings())
    assert torch.equal(x_adv, (ends + EPSILON).clamp_max(1))


# Which point is returned


def test_the_three_points_on_a_path_that_is_known():
    # Steps of 0.01 from ½ up; the gradient turns at + 0.024, so the path is 0, 1, 2, 3 | 2, 3, …
    def loss(x, y):
        offset = (x - 0.5).mean((1, 2, 3))
        return attacks.LossValue(-(offset - 0.024).abs(), offset > 0.0099)

    x, y = torch.full((1, *SHAPE), 0.5, dtype=torch.float64), torch.tensor([0])
    found = {}
    for returns in attacks.RETURNS:
        for n_steps in (0, 1, 2, 3, 4):
            x_adv = attacks.pgd(
                loss, x, y, **settings(epsilon=0.1, step_size=0.01, n_steps=n_steps, returns=returns, index=INDEX[:1])
            )
            found.setdefault(returns, []).append(round((x_adv - x).mean().item(), 10))
    assert found == {
        "last": [0.0, 0.01, 0.02, 0.03, 0.02],
        "first_success": [0.0, 0.01, 0.01, 0.01, 0.01],
        "max_loss": [0.0, 0.01, 0.02, 0.02, 0.02],
    }


def test_max_loss_may_keep_the_start():
    def downhill(x, y):  # its gradient lies: the value falls along it
        value = x.sum((1, 2, 3))
        return attacks.LossValue(value - 2 * value.detach(), torch.zeros_like(y, dtype=torch.bool))

    x, y = middle(), torch.zeros(B, dtype=torch.int64)
    assert torch.equal(attacks.pgd(downhill, x, y, **settings(returns="max_loss")), x)
    assert not torch.equal(attacks.pgd(downhill, x, y, **settings()), x)


def test_an_image_that_is_already_fooled_never_moves_at_first_success():
    net = convolutional()
    x = middle(torch.float32, 32)
    y = (net(x).argmax(1) + (torch.arange(32) % 2)) % 5  # every second image is misclassified as it is
    x_adv = attacks.pgd(
        attacks.cross_entropy(net), x, y, **settings(returns="first_success", index=torch.arange(32), n_steps=5)
    )
    moved = (x_adv != x).flatten(1).any(1)
    assert torch.equal(moved, torch.arange(32) % 2 == 0)


@pytest.mark.parametrize("watched", [False, True])
def test_first_success_returns_the_first_fooled_iterate_of_the_same_path(watched):
    net = convolutional()
    x = middle(torch.float32, 24)
    y, index = net(x).argmax(1), torch.arange(24)
    loss = attacks.cross_entropy(net)
    common = settings(index=index, start="uniform", epsilon=0.1, step_size=0.02)
    path = []
    last = attacks.pgd(loss, x, y, **common, callback=lambda k, x_k, said: path.append((x_k, said.fooled)))
    points, fooled = (torch.stack(part) for part in zip(*path, strict=True))
    assert len(path) == 11
    assert torch.equal(points[-1], last)
    assert fooled.any(0).float().mean() > 0.5
    assert not fooled[0].all()
    stop = torch.where(fooled.any(0), fooled.float().argmax(0), 10)
    expected = points[stop, index]
    watch = (lambda k, x_k, said: None) if watched else None
    x_adv = attacks.pgd(loss, x, y, **(common | {"returns": "first_success"}), callback=watch)
    assert torch.equal(x_adv, expected)


def test_the_path_is_the_same_whatever_is_returned_and_whoever_watches():
    net = convolutional()
    x, y = middle(torch.float32), torch.arange(B)
    paths = {}
    for returns in ("last", "max_loss"):
        paths[returns] = []
        attacks.pgd(
            attacks.cross_entropy(net), x, y, **settings(returns=returns, start="uniform"),
            callback=lambda k, x_k, said, path=paths[returns]: path.append((k, x_k)),
        )  # fmt: skip
    assert [k for k, _ in paths["last"]] == list(range(11))
    for (_, a), (_, b) in zip(paths["last"], paths["max_loss"], strict=True):
        assert torch.equal(a, b)
    quiet = attacks.pgd(attacks.cross_entropy(net), x, y, **settings(start="uniform"))
    assert torch.equal(quiet, paths["last"][-1][1])


def test_a_callback_sees_every_step_also_when_all_are_fooled():
    x, y = middle(), torch.zeros(B, dtype=torch.int64)
    seen = []

    def loss(x, y):
        return attacks.LossValue(x.sum((1, 2, 3)), y == 0)

    x_adv = attacks.pgd(
        loss, x, y, **settings(returns="first_success", callback=lambda k, x_k, said: seen.append((k, x_k)))
    )
    assert [k for k, _ in seen] == list(range(11))
    assert all(torch.equal(x_k, x) for _, x_k in seen)
    assert torch.equal(x_adv, x)


@pytest.mark.parametrize("returns", attacks.RETURNS)
def test_the_result_is_a_copy_even_of_no_step(returns):
    x, y = middle(), torch.zeros(B, dtype=torch.int64)
    x_adv = attacks.pgd(uphill, x, y, **settings(n_steps=0, returns=returns))
    assert torch.equal(x_adv, x)
    assert x_adv.data_ptr() != x.data_ptr()


# Starts and restarts


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("start", "start_std"), [("uniform", None), ("gaussian", 0.01)])
def test_the_start_is_keyed_by_seed_purpose_and_image(norm, start, start_std):
    x, y = middle(), torch.zeros(B, dtype=torch.int64)
    common = settings(norm=norm, start=start, start_std=start_std, n_steps=0)
    first = attacks.pgd(uphill, x, y, **common)
    assert (first != x).flatten(1).any(1).all()
    assert torch.equal(attacks.pgd(uphill, x, y, **common), first)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(attacks.pgd(uphill, x[order], y, **(common | {"index": INDEX[order]})), first[order])
    for change in ({"seed": 1}, {"purpose": "other"}, {"index": INDEX + 1}):
        assert (attacks.pgd(uphill, x, y, **(common | change)) != first).flatten(1).any(1).all()


def test_gaussian_start_is_x_plus_std_times_the_noise_of_the_key():
    x, y = middle(), torch.zeros(B, dtype=torch.int64)
    first = attacks.pgd(uphill, x, y, **settings(start="gaussian", start_std=0.003, n_steps=0))
    expected = x + 0.003 * noise.normal(SHAPE, seed=0, purpose="attack", index=INDEX, dtype=x.dtype)
    assert (first - expected).abs().max() < 1e-15


def test_uniform_start_is_even_in_both_balls():
    n = 4000
    x, y = middle(torch.float64, 1).expand(n, *SHAPE), torch.zeros(n, dtype=torch.int64)
    common = settings(start="uniform", n_steps=0, index=torch.arange(n))
    d = attacks.pgd(uphill, x, y, **common) - x
    pixels = d.numel()
    assert d.mean().item() == pytest.approx(0, abs=4 * EPSILON / math.sqrt(3 * pixels))
    assert d.square().mean().item() == pytest.approx(EPSILON**2 / 3, rel=4 * math.sqrt(0.8 / pixels))
    d = (attacks.pgd(uphill, x, y, **(common | {"norm": "l2"})) - x).flatten(1)
    lengths = d.norm(dim=1)
    # (length / ε)^d is even in [0, 1]: mean 1/2, standard deviation √(1/12)
    even = (lengths / EPSILON) ** math.prod(SHAPE)
    assert even.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / n))
    assert even.square().mean().item() == pytest.approx(1 / 3, abs=4 * math.sqrt(4 / 45 / n))
    # and says nothing of the direction: the correlation of independent numbers is 0 within 1/√n
    share = (d[:, :4] / lengths[:, None]).square()
    correlations = torch.corrcoef(torch.cat([even[:, None], share], 1).T)[0, 1:]
    assert correlations.abs().max() < 4 / math.sqrt(n)


def restart_points(loss, x, y, **common):
    """What each of three restarts returns by itself, with the loss there."""
    seen = []
    attacks.pgd(loss, x, y, **common, n_restarts=3, callback=lambda k, x_k, said: seen.append((k, x_k, said)))
    return seen


@pytest.mark.parametrize("returns", attacks.RETURNS)
def test_restarts_keep_the_strongest(returns):
    net = convolutional()
    n = 64
    x = middle(torch.float32, n)
    y, index = net(x).argmax(1), torch.arange(n)
    loss = attacks.cross_entropy(net)
    common = settings(index=index, start="uniform", returns=returns, epsilon=0.01, step_size=0.003, n_steps=2)
    common.pop("n_restarts")
    seen = restart_points(loss, x, y, **common)
    assert [k for k, *_ in seen] == [0, 1, 2] * 3
    x_adv = attacks.pgd(loss, x, y, **common, n_restarts=3)
    runs = [seen[0:3], seen[3:6], seen[6:9]]
    choice = []
    for run in runs:
        values = torch.stack([said.value for *_, said in run])
        k = values.argmax(0) if returns == "max_loss" else torch.full((n,), 2)
        points = torch.stack([x_k for _, x_k, _ in run])[k, index]
        choice.append((points, values[k, index], torch.stack([said.fooled for *_, said in run])[k, index]))
    for i in range(n):
        order = [(bool(fooled[i]), float(value[i])) for _, value, fooled in choice]
        if returns == "first_success" and any(done for done, _ in order):
            best = [done for done, _ in order].index(True)
        else:
            best = max(range(3), key=order.__getitem__)
        assert torch.equal(x_adv[i], choice[best][0][i])
    verdicts = torch.stack([fooled for *_, fooled in choice])
    assert (verdicts.any(0) & ~verdicts[0]).any()  # a later restart had something to add
    assert torch.equal(loss(x_adv, y).fooled, verdicts.any(0))


def test_fooled_beats_a_higher_loss():
    # Restart 0 ends with the higher loss, a later one is fooled: the loss is the draw, fooled where it is small.
    def loss(x, y):
        value = x.mean((1, 2, 3))
        return attacks.LossValue(value, value < 0.5)

    n = 200
    x, y = torch.full((n, 1, 1, 1), 0.5, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
    common = settings(start="uniform", n_steps=0, index=torch.arange(n), n_restarts=4)
    draws = torch.stack(
        [
            0.5
            + EPSILON * (2 * noise.uniform((1,), seed=0, purpose="attack", index=torch.arange(n), step=r).double() - 1)
            for r in range(4)
        ]
    ).squeeze(2)
    fooled = draws < 0.5
    expected = torch.where(fooled.any(0), draws.where(fooled, -1).amax(0), draws.amax(0))
    assert torch.allclose(attacks.pgd(loss, x, y, **common).flatten(), expected, rtol=0, atol=1e-15)
