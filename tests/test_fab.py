"""FAB: projections against independent solvers, distances on linear networks in closed form, batches, refusals."""

import numpy as np
import pytest
import scipy.optimize
import torch
from victims import convolutional, distances, images, linear, rand, randn

from helpers import balls, fab

NORMS = balls.NORMS


def settings(norm="linf", **changes):
    epsilon = {"l2": 0.15}.get(norm, 0.02)
    return {
        "norm": norm, "epsilon": epsilon, "n_steps": 30, "n_targets": 4, "returns": "closest", "batch_size": 10,
    } | changes  # fmt: skip


def by_linprog(point, w, c):
    """The shortest L∞ way: minimise r over (d, r) with |d_i| ≤ r, w·d = c, 0 ≤ point + d ≤ 1."""
    n = len(point)
    bounds = [*zip(-point, 1 - point, strict=True), (0, None)]
    both = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
    equal = np.append(w, 0)[None]
    return scipy.optimize.linprog(
        np.eye(n + 1)[-1], A_ub=both, b_ub=np.zeros(2 * n), A_eq=equal, b_eq=[c], bounds=bounds
    ).fun


@pytest.mark.parametrize("norm", NORMS)
def test_onto_plane_is_the_shortest_way(norm):
    n = 12
    for seed in range(20):
        point, w = rand(1, n, seed=seed), randn(1, n, seed=seed + 100)
        w[0, seed % n] = 0.0
        most = torch.where(w > 0, w * (1 - point), -w * point).sum()
        c = (rand(1, seed=seed + 7) * most * (1 if seed % 2 else 0.1)).reshape(1)
        d = fab.onto_plane(point, w, c, norm=norm)
        assert torch.allclose((w * d).sum(1), c, rtol=1e-5)
        assert ((point + d) >= -1e-12).all()
        assert ((point + d) <= 1 + 1e-12).all()
        if norm == "linf":
            best = by_linprog(point[0].numpy(), w[0].numpy(), c.item())
            assert d.abs().max().item() == pytest.approx(best, rel=1e-5, abs=1e-9)
        else:  # Karush, Kuhn, Tucker: entries off the box are one multiple of w, those on it lag behind it
            free = ((point + d) > 1e-9) & ((point + d) < 1 - 1e-9) & (w != 0)
            multiple = (d / w)[free]
            if free.any():
                assert torch.allclose(multiple, multiple[0].expand_as(multiple), rtol=1e-6)
                assert ((d / w)[~free & (w != 0)] <= multiple[0] * (1 + 1e-6)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_plane_out_of_reach_leads_to_the_corner(norm):
    point, w = torch.tensor([[0.2, 0.9, 0.5]]), torch.tensor([[1.0, -2.0, 0.0]])
    d = fab.onto_plane(point, w, torch.tensor([100.0]), norm=norm)
    assert torch.allclose(d, torch.tensor([[0.8, -0.9, 0.0]]))
    assert torch.equal(fab.onto_plane(point, w, torch.tensor([0.0]), norm=norm), torch.zeros(1, 3))
    assert torch.equal(fab.onto_plane(point, 0 * w, torch.tensor([1.0]), norm=norm), torch.zeros(1, 3))


@pytest.mark.parametrize("norm", NORMS)
def test_finds_the_closest_point_of_a_linear_network(norm):
    net, x = linear(num_classes=5), images(40)
    y = net(x).argmax(1).detach()
    exact = distances(net, x, y, norm=norm)
    x_adv = fab.fab(net, x, y, **settings(norm))
    found = balls.distance(x_adv, x, norm=norm)
    assert (net(x_adv).argmax(1) != y).all()
    # one step ends η = 1.05 times as far as the boundary; after going 10 % back it steps over by less and less
    assert (found >= exact).all()
    assert (found <= 1.02 * exact).all()


@pytest.mark.parametrize("norm", NORMS)
def test_first_success_is_within_the_radius_or_the_image_itself(norm):
    net, x = linear(num_classes=5), images(40)
    y = net(x).argmax(1).detach()
    exact = distances(net, x, y, norm=norm)
    epsilon = float(exact.median())
    x_adv = fab.fab(net, x, y, **settings(norm, epsilon=epsilon, returns="first_success"))
    fooled = net(x_adv).argmax(1) != y
    assert (balls.distance(x_adv, x, norm=norm) <= epsilon).all()
    assert torch.equal(fooled, exact <= epsilon) or (exact[fooled != (exact <= epsilon)] > 0.98 * epsilon).all()
    assert torch.equal(x_adv[~fooled], x[~fooled])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("returns", fab.RETURNS)
def test_neither_batch_nor_order_matters(norm, returns):
    net, x = convolutional(), images(6)
    y = net(x).argmax(1).detach()
    given = settings(norm, returns=returns)
    whole = fab.fab(net, x, y, **given)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    assert torch.allclose(fab.fab(net, x[order], y[order], **given | {"batch_size": 4}), whole[order], atol=1e-9)
    assert torch.allclose(fab.fab(net, x[2:3], y[2:3], **given), whole[2:3], atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_both_points_of_one_run_are_those_of_two(norm):
    net = convolutional()
    x = images(12)
    y = net(x).argmax(1)
    y[0] = (y[0] + 1) % 5  # wrong as it is
    given = settings(norm, n_targets=3, n_steps=15, batch_size=5)
    closest = fab.fab(net, x, y, **given | {"returns": "closest"})
    given["epsilon"] = 1.1 * float(balls.distance(closest, x, norm=norm).median())
    found = fab.both(net, x, y, **{key: value for key, value in given.items() if key != "returns"})
    for point in fab.RETURNS:
        assert torch.allclose(found[point], fab.fab(net, x, y, **given | {"returns": point}), atol=1e-9), point
    wrong = net(found["first_success"]).argmax(1) != y
    assert 1 < wrong[1:].sum() < 11, "some within the radius, some not"
    assert not torch.equal(found["first_success"][wrong], found["closest"][wrong])


def test_the_first_success_is_not_moved_by_images_that_still_search():
    """One that is done stays in its batch until one in eight is: its point is the first all the same."""
    net, x = linear(5), images(24)
    y = net(x).argmax(1)
    given = settings("linf", n_targets=1, n_steps=12, returns="first_success")
    given["epsilon"] = 1.06 * float(distances(net, x, y, norm="linf").sort().values[1])  # two of 24 are done
    whole = fab.fab(net, x, y, **given | {"batch_size": 24})
    single = fab.fab(net, x, y, **given | {"batch_size": 1})
    assert torch.allclose(whole, single, atol=1e-9)
    assert 1 <= (net(whole).argmax(1) != y).sum() <= 3


def test_more_targets_come_no_farther():
    net, x = convolutional(), images(30)
    y = net(x).argmax(1).detach()
    one, all_ = (balls.distance(fab.fab(net, x, y, **settings(n_targets=n)), x, norm="linf") for n in (1, 4))
    assert (all_ <= one).all()
    assert (all_ < one).any()


def test_an_image_that_is_wrong_already_is_its_own_closest_point():
    net, x = convolutional(), images(6)
    y = (net(x).argmax(1) + 1) % 5
    for returns in fab.RETURNS:
        assert torch.equal(fab.fab(net, x, y, **settings(returns=returns)), x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "l1"}, "expected norm"),
        ({"returns": "last"}, "expected returns to be one of 'closest', 'first_success', got 'last'"),
        ({"epsilon": float("nan")}, "expected epsilon"),
        ({"n_targets": 5}, "expected n_targets to be a whole number >= 1 and <= 4, got 5"),
        ({"n_steps": 0}, "expected n_steps"),
    ],
)
def test_refusals(changes, message):
    net, x = convolutional(), images(2)
    with pytest.raises(ValueError, match=message):
        fab.fab(net, x, torch.tensor([0, 1]), **settings(**changes))
