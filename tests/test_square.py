"""Square Attack: schedule, windows, starts, the search's bookkeeping, batches, refusals."""

import pytest
import torch
from torch import nn
from victims import convolutional, distances, images, linear

from helpers import balls, margin_losses, noise, square, victim

INDEX = torch.tensor([3, 141, 59, 26, 5, 35])
NORMS = balls.NORMS


def settings(norm="linf", **changes):
    return {
        "norm": norm, "epsilon": {"l2": 0.3}.get(norm, 0.02), "n_queries": 120, "returns": "first_success", "seed": 0,
        "index": INDEX, "batch_size": 4,
    } | changes  # fmt: skip


def labelled(net, n=6, **kinds):
    x = images(n, **kinds)
    return x, net(x).argmax(1).detach()


class Watched(nn.Module):
    """Keeps every batch that a network is asked about, but for the first: that asks for the number of classes."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen, self.asked = net, [], False

    def forward(self, x):
        if self.asked:
            self.seen.append(x.detach().clone())
        self.asked = True
        return self.net(x)


def test_sides_follow_the_papers_schedule():
    # p halves after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries; the side is √(p·h·w)
    at = [0, 10, 11, 50, 51, 200, 201, 501, 1001, 2001, 4001, 6001, 8001]
    assert [square.side(q, 32, 32, norm="linf") for q in at] == [29, 29, 20, 20, 14, 14, 10, 7, 5, 4, 3, 2, 1]
    assert [square.side(q, 32, 32, norm="l2") for q in (0, 11, 201, 4001, 8001)] == [29, 21, 11, 3, 3]
    assert square.side(0, 2, 8, norm="l2") == 2
    assert square.side(9000, 8, 8, norm="linf") == 1


def test_pyramids_by_hand():
    # height 1: rings of weight 1 + 1/4 at the centre, 1/4 beside it; the lower of two rows is the opposite
    upper = torch.tensor([0.25, 1.25]).double()
    eta = torch.stack([upper, -upper])
    assert torch.allclose(square.pyramids(2), eta / eta.norm())
    for s in (1, 2, 3, 5, 8, 29):
        eta = square.pyramids(s)
        assert eta.shape == (s, s)
        assert eta.norm().item() == pytest.approx(1)
        assert (eta[: s // 2] > 0).all()
        assert (eta[s // 2 :] < 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_every_query_is_in_the_ball_and_on_its_surface(norm):
    net = Watched(convolutional())
    x, y = labelled(net.net)
    square.square(net, x, y, **settings(norm, returns="max_loss", batch_size=6))
    assert len(net.seen) == 121
    for z in net.seen:
        assert balls.inside(z, x, norm=norm, epsilon=settings(norm)["epsilon"]).all()
        assert torch.allclose(balls.distance(z, x, norm=norm), torch.tensor(settings(norm)["epsilon"]).double())


def test_linf_start_is_stripes_and_steps_are_windows():
    net = Watched(convolutional())
    x, y = labelled(net.net)
    epsilon = settings()["epsilon"]
    square.square(net, x, y, **settings(returns="max_loss", batch_size=6))
    signs = ((net.seen[0] - x) / epsilon).round()
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    assert torch.equal(signs, signs[:, :, :1].expand_as(signs))
    assert len(torch.unique(signs[:, :, 0].flatten(1), dim=0)) == 6
    best = net.seen[0].clone()
    margin = margin_losses.margin(net.net(best), y)
    corners = set()
    for query, z in enumerate(net.seen[1:]):
        a = square.side(query, 8, 8, norm="linf")
        for row in range(6):
            changed = (z[row] - best[row]).abs().amax(0) > 1e-12
            if changed.any():
                rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
                assert rows.max() - rows.min() < a
                assert columns.max() - columns.min() < a
                corners.add((row, int(rows.min()), int(columns.min())))
        new = margin_losses.margin(net.net(z), y)
        better = new > margin
        best[better], margin = z[better], torch.maximum(new, margin)
    assert len({corner[1:] for corner in corners}) > 20


@pytest.mark.parametrize("norm", NORMS)
def test_the_best_point_comes_back(norm):
    net = Watched(convolutional())
    x, y = labelled(net.net)
    x_adv = square.square(net, x, y, **settings(norm, returns="max_loss", batch_size=6))
    margins = torch.stack([margin_losses.margin(net.net(z), y) for z in net.seen])
    assert torch.allclose(margin_losses.margin(net.net(x_adv), y), margins.amax(0), atol=1e-9)
    assert (margins.amax(0) > margins[0]).all()


def test_first_success_stops_asking():
    net = Watched(convolutional())
    x, y = labelled(net.net)
    whole = square.square(net.net, x, y, **settings(returns="max_loss", batch_size=6))
    x_adv = square.square(net, x, y, **settings(batch_size=6))
    fooled = margin_losses.margin(net.net(x_adv), y) > 0
    assert torch.equal(fooled, margin_losses.margin(net.net(whole), y) > 0)
    assert 0 < fooled.sum() < 6
    assert len(net.seen[-1]) < 6
    # the first point fooled, not a later one with a larger margin
    assert (margin_losses.margin(net.net(whole), y) >= margin_losses.margin(net.net(x_adv), y) - 1e-12).all()
    assert not torch.allclose(whole[fooled], x_adv[fooled])


@pytest.mark.parametrize("norm", NORMS)
def test_finds_only_what_is_there(norm):
    net = linear()
    x, y = labelled(net, 40)
    exact = distances(net, x, y, norm=norm)
    epsilon = float(exact.median())
    given = settings(norm, epsilon=epsilon, n_queries=600, index=torch.arange(40), batch_size=40)
    fooled = net(square.square(net, x, y, **given)).argmax(1) != y
    assert not fooled[exact > epsilon].any()
    assert fooled[exact < 0.3 * epsilon].all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("returns", square.RETURNS)
def test_neither_batch_nor_order_matters(norm, returns):
    net = convolutional()
    x, y = labelled(net)
    given = settings(norm, returns=returns)
    whole = square.square(net, x, y, **given | {"batch_size": 6})
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    other = square.square(net, x[order], y[order], **given | {"index": INDEX[order], "batch_size": 5})
    assert torch.allclose(whole[order], other, atol=1e-9)
    assert torch.allclose(square.square(net, x[2:3], y[2:3], **given | {"index": INDEX[2:3]}), whole[2:3], atol=1e-9)
    assert not torch.allclose(square.square(net, x, y, **given | {"seed": 1}), whole, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_no_draw_comes_twice(norm):
    """Draws are made 64 queries ahead: each such block has its own."""

    class Constant(nn.Module):
        def forward(self, x):
            return x.new_tensor([[0.0, -1.0]]).expand(len(x), 2)

    net, x = Watched(Constant()), images(6)
    square.square(net, x, torch.zeros(6, dtype=torch.int64), **settings(norm, n_queries=150, batch_size=6))
    tried = torch.stack(net.seen[1:])  # nothing is ever kept: each is the start with one change
    for block in (range(52, 64), range(116, 128)):
        assert len(torch.unique(tried[block, 0].flatten(1), dim=0)) >= 8
    assert sum(torch.allclose(tried[q, 0], tried[q + 64, 0]) for q in range(52, 80)) <= 3


def test_l2_windows_share_the_budget_of_the_paper():
    """A window gets in each channel what the two windows held there, and an even part of what was not spent."""
    x = images(1, shape=(2, 8, 8)).flatten(2)
    point = x.clone()
    point[0, 0, 0], point[0, 1, 9] = x[0, 0, 0] + 0.03, x[0, 1, 9] - 0.01  # in the window at (0, 0)
    point[0, 1, 63] = x[0, 1, 63] + 0.02  # in the other, which is emptied
    draws = x.new_zeros(1, 0, 0)
    key, y = torch.tensor([0]), torch.tensor([0])
    s = square._State(torch.tensor([0]), key, y, x, point, x.new_zeros(1), draws)
    u = torch.zeros(1, 7, dtype=torch.float64)
    u[0, 2:4] = 0.99  # the second window in the other corner
    moved = square._propose_l2(s, u, 3, shape=torch.Size((2, 8, 8)), epsilon=0.05)
    unspent = (0.05**2 - 0.03**2 - 0.01**2 - 0.02**2) / 2
    held = (moved - x).square().sum(2)[0]
    wanted = torch.tensor([0.03**2 + unspent, 0.01**2 + 0.02**2 + unspent]).double()
    assert torch.allclose(held, wanted / wanted.sum() * 0.05**2, rtol=1e-9)
    assert torch.allclose((moved - x)[0].reshape(2, 8, 8)[:, 3:].abs().sum(), torch.tensor(0.0).double(), atol=1e-12)


def test_only_logits_are_asked_for():
    net = convolutional()
    x, y = labelled(net)
    with victim.attacked(net) as seer:
        key = noise.Key(0, "square", INDEX)
        square.search(seer, x, y, norm="linf", epsilon=1e-9, n_queries=10, returns="first_success", key=key)
    assert (seer.cost.forward, seer.cost.backward) == (6 * 11, 0)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 16, 7), (2, 1, 1)])
@pytest.mark.parametrize("norm", NORMS)
def test_small_and_oblong_pictures(norm, shape):
    net = linear(3, shape=shape)
    x = images(4, shape=shape)
    y = net(x).argmax(1)
    x_adv = square.square(net, x, y, **settings(norm, index=INDEX[:4], n_queries=30, returns="max_loss"))
    assert balls.inside(x_adv, x, norm=norm, epsilon=settings(norm)["epsilon"]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "l1"}, "expected norm"),
        ({"returns": "last"}, "expected returns to be one of 'first_success', 'max_loss'"),
        ({"epsilon": "8/255"}, "expected epsilon"),
        ({"n_queries": -1}, "expected n_queries"),
    ],
)
def test_refusals(changes, message):
    net = convolutional()
    x, y = labelled(net)
    with pytest.raises(ValueError, match=message):
        square.square(net, x, y, **settings(**changes))


@pytest.mark.parametrize("norm", NORMS)
def test_both_points_of_one_run_are_those_of_two(norm):
    net = convolutional(dtype=torch.float32)
    x, y = labelled(net, n=6, dtype=torch.float32)
    y[0] = (y[0] + 1) % 5  # fooled by its start
    given = settings(norm, n_queries=60)
    found = square.both(net, x, y, **{key: value for key, value in given.items() if key != "returns"})
    for point in square.RETURNS:
        assert torch.equal(found[point], square.square(net, x, y, **given | {"returns": point})), point
    wrong = net(found["first_success"]).argmax(1) != y
    assert 1 < wrong.sum() < 6, "some fooled on the way, some never"
    assert not torch.equal(found["first_success"][wrong], found["max_loss"][wrong])
