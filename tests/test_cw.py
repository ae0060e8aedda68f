"""Carlini and Wagner's L2 attack: closed forms on linear networks, the search for c, κ, the point returned."""

import pytest
import torch
from torch import nn
from victims import convolutional, distances, images, linear

from helpers import cw, margin_losses


def settings(**changes):
    return {
        "c": 1.0, "n_searches": 1, "kappa": 0.0, "step_size": 0.01, "n_steps": 60, "targeted": False,
        "returns": "closest", "batch_size": 10,
    } | changes  # fmt: skip


def length(a, b):
    return (a - b).flatten(1).norm(dim=1)


def labelled(net, n=12):
    x = images(n)
    return x, net(x).argmax(1).detach()


def test_searching_c_finds_the_closest_point_of_a_linear_network():
    net = linear(2)  # of two classes: with more it may end at another boundary than the nearest
    x, y = labelled(net, 20)
    exact = distances(net, x, y, norm="l2")
    x_adv = cw.cw(net, x, y, **settings(c=0.001, n_searches=9, n_steps=200, step_size=0.002))
    assert (net(x_adv).argmax(1) != y).all()
    assert (length(x_adv, x) >= exact).all()
    assert (length(x_adv, x) <= 1.06 * exact).all()


def test_a_fixed_c_is_the_penalty_of_the_formula():
    """With small c, x' settles where 2 (x' − x) = c ∇margin: at a distance of c ‖∇margin‖ / 2 from x."""
    net = linear(2)
    x, y = labelled(net, 6)
    w = (net[1].weight[0] - net[1].weight[1]).detach()
    c = 0.2 * float(distances(net, x, y, norm="l2").min() / w.norm())
    last = cw.cw(net, x, y, **settings(c=c, n_steps=400, step_size=0.002, returns="last"))
    assert torch.allclose(length(last, x), c * w.norm() / 2, rtol=0.02)
    none = settings(c=c, n_steps=400, step_size=0.0002)
    assert torch.equal(cw.cw(net, x, y, **none), x)  # nothing found: x itself
    assert torch.equal(cw.cw(net, x, y, **none | {"returns": "first_success"}), x)


def test_kappa_asks_for_a_margin():
    net = convolutional()
    x, y = labelled(net)
    for kappa in (0.0, 0.5):
        x_adv = cw.cw(net, x, y, **settings(kappa=kappa, c=10.0, n_steps=100))
        found = length(x_adv, x) > 0
        assert found.float().mean() > 0.8
        assert (margin_losses.margin(net(x_adv), y)[found] >= kappa).all()


def test_targets_are_reached():
    net = convolutional()
    x, y = labelled(net)
    t = (y + 2) % 5
    x_adv = cw.cw(net, x, t, **settings(targeted=True, c=10.0, n_steps=100))
    assert (net(x_adv).argmax(1) == t).float().mean() > 0.8
    assert (length(x_adv, x) >= length(cw.cw(net, x, y, **settings(c=10.0, n_steps=100)), x) - 0.05).all()


class Watched(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.net(x)


@pytest.mark.parametrize("returns", cw.RETURNS)
def test_the_point_asked_for_comes_back(returns):
    net = Watched(convolutional())
    x, y = labelled(net.net, 8)
    x_adv = cw.cw(net, x, y, **settings(returns=returns, c=2.0, n_steps=40))
    path = torch.stack(net.seen[1:])  # the first call asks for the number of classes
    assert len(path) == 41
    fooled = torch.stack([net.net(z).argmax(1) != y for z in path])
    assert fooled.any(0).sum() >= 4
    for row in range(8):
        hits = fooled[:, row].nonzero().flatten()
        far = length(path[:, row], x[row].expand(41, *x.shape[1:]))
        if returns == "last":
            wanted = path[-1, row]
        elif not len(hits):
            wanted = x[row]
        else:
            wanted = path[hits[0] if returns == "first_success" else hits[far[hits].argmin()], row]
        assert torch.equal(x_adv[row], wanted)


def test_pixels_stay_in_the_box_and_extremes_are_no_trouble():
    net = convolutional()
    x = images(4)
    x[0], x[1] = 0.0, 1.0
    y = net(x).argmax(1)
    last = cw.cw(net, x, y, **settings(returns="last", c=100.0, step_size=0.5))
    assert last.min() >= 0
    assert last.max() <= 1
    assert torch.isfinite(last).all()


def test_neither_batch_nor_order_matters():
    net = convolutional()
    x, y = labelled(net, 6)
    given = settings(n_searches=3, c=0.1, n_steps=30)
    whole = cw.cw(net, x, y, **given)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    assert torch.allclose(cw.cw(net, x[order], y[order], **given | {"batch_size": 4}), whole[order], atol=1e-9)
    assert torch.allclose(cw.cw(net, x[2:3], y[2:3], **given), whole[2:3], atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"returns": "max_loss"}, "expected returns to be one of 'closest', 'first_success', 'last'"),
        ({"c": 0.0}, "expected c to be a finite number and > 0"),
        ({"kappa": -1.0}, "expected kappa"),
        ({"step_size": 0.0}, "expected step_size"),
        ({"n_searches": 0}, "expected n_searches"),
        ({"n_steps": 0}, "expected n_steps"),
    ],
)
def test_refusals(changes, message):
    net = convolutional()
    x, y = labelled(net)
    with pytest.raises(ValueError, match=message):
        cw.cw(net, x, y, **settings(**changes))
