"""Auto-PGD: the algorithm step by step, closed forms on linear networks, the point returned, batches."""

import pytest
import torch
from torch import nn
from victims import convolutional, distances, images, linear

from helpers import apgd, balls, noise

INDEX = torch.tensor([3, 141, 59, 26, 5, 35])
EPSILON = {"linf": 0.02, "l2": 0.15}


def settings(norm="linf", **changes):
    return {
        "loss": "ce",
        "norm": norm,
        "epsilon": EPSILON.get(norm, 0.02),
        "n_steps": 20,
        "n_restarts": 1,
        "returns": "max_loss",
        "seed": 0,
        "index": INDEX,
        "batch_size": 4,
    } | changes


def labelled(net, n=6, **kinds):
    x = images(n, **kinds)
    return x, net(x).argmax(1).detach()


def test_checkpoints_of_the_paper():
    # p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06), in steps of 100
    assert apgd.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert apgd.checkpoints(1) == [1]
    assert all(b > a for a, b in zip([0, *apgd.checkpoints(37)], apgd.checkpoints(37), strict=False))


def test_targets_are_the_other_classes_by_likelihood():
    z, y = torch.tensor([[1.0, 4.0, 3.0, 2.0], [9.0, 1.0, 1.0, 2.0]]), torch.tensor([2, 0])
    assert [apgd.targets(z, y, rank).tolist() for rank in (1, 2, 3)] == [[1, 3], [3, 1], [0, 2]]


def by_the_book(net, x, y, start, *, norm, epsilon, n_steps):
    """Algorithm 1 of the paper for one image, in plain loops; the points visited and how often η was halved."""

    def f(z):
        z = z.clone().requires_grad_()
        loss = nn.functional.cross_entropy(net(z), y)
        return loss.item(), torch.autograd.grad(loss, z)[0]

    def project(z):
        d = z - x
        if norm == "linf":
            d = d.clamp(-epsilon, epsilon)
        elif d.norm() > epsilon:
            d = d * epsilon / d.norm()
        return (x + d).clamp(0, 1)

    def ascent(z, g, eta):
        return project(z + eta * (g.sign() if norm == "linf" else g / g.norm()))

    points, values, slopes = [start], [], []
    eta, halved, best_then, n_halvings = 2 * epsilon, True, None, 0
    marks, best, at, before = [0, *apgd.checkpoints(n_steps)], 0, start, start
    for k in range(n_steps):
        value, g = f(points[-1])
        values.append(value)
        slopes.append(g)
        best = max(range(len(values)), key=values.__getitem__)
        at = points[-1]
        if k == 0:
            best_then = values[0]
        elif k in marks:
            last = marks[marks.index(k) - 1]
            rises = sum(values[i + 1] > values[i] for i in range(last, k))
            no_gain = not halved and best_then == values[best]
            halved = rises <= 0.75 * (k - last) or no_gain
            best_then = values[best]
            if halved:
                eta, at, g, n_halvings = eta / 2, points[best], slopes[best], n_halvings + 1
        z = ascent(at, g, eta)
        new = z if k == 0 else project(at + 0.75 * (z - at) + 0.25 * (at - before))
        before = at
        points.append(new)
    return points, n_halvings


@pytest.mark.parametrize("norm", balls.NORMS)
def test_each_step_is_that_of_the_paper(norm):
    net = convolutional()
    x, y = labelled(net)
    seen = []
    apgd.apgd(net, x, y, **settings(norm, n_steps=40, batch_size=6, callback=lambda k, z, said: seen.append(z.clone())))
    assert len(seen) == 41
    for row in range(len(x)):
        one = slice(row, row + 1)
        book, n_halvings = by_the_book(net, x[one], y[one], seen[0][one], norm=norm, epsilon=EPSILON[norm], n_steps=40)
        for k in range(41):
            assert torch.allclose(seen[k][one], book[k], atol=1e-9), (row, k)
        assert n_halvings >= 3


@pytest.mark.parametrize("norm", balls.NORMS)
def test_starts_lie_on_the_surface_and_differ(norm):
    net = linear()
    x, y = labelled(net)
    starts = []
    apgd.apgd(net, x, y, **settings(norm, n_steps=1, batch_size=6, callback=lambda k, z, s: starts.append(z.clone())))
    assert torch.allclose(balls.distance(starts[0], x, norm=norm), torch.tensor(EPSILON[norm]).double())
    assert len({tuple(d.flatten().tolist()) for d in starts[0] - x}) == len(x)


@pytest.mark.parametrize("norm", balls.NORMS)
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr", "targeted_dlr", "targeted_margin"])
def test_fools_a_linear_network_just_where_that_is_possible(norm, loss):
    net = linear(num_classes=5)
    x, y = labelled(net, 60)
    reach = distances(net, x, y, norm=norm)
    epsilon = float(reach.median())
    n_targets = 4 if loss.startswith("targeted") else None
    x_adv = apgd.apgd(
        net, x, y,
        **settings(norm, loss=loss, epsilon=epsilon, n_targets=n_targets, n_steps=60, index=torch.arange(60),
                   returns="first_success", batch_size=60),
    )  # fmt: skip
    fooled = net(x_adv).argmax(1) != y
    assert balls.inside(x_adv, x, norm=norm, epsilon=epsilon).all()
    assert not fooled[reach > 1.001 * epsilon].any()
    # one untargeted run may climb towards a class that is out of reach; the targeted ones try them all
    assert fooled[reach < 0.97 * epsilon].float().mean() > (0.999 if n_targets else 0.8)


def test_max_loss_returns_the_highest_point_seen():
    net = convolutional()
    x, y = labelled(net)
    values = []
    x_adv = apgd.apgd(net, x, y, **settings(batch_size=6, callback=lambda k, z, said: values.append(said.value)))
    found = nn.functional.cross_entropy(net(x_adv), y, reduction="none")
    assert torch.allclose(found, torch.stack(values).amax(0))


def test_last_returns_the_last_point_seen_also_at_a_checkpoint():
    net = convolutional()
    x, y = labelled(net)
    assert 10 in apgd.checkpoints(10)
    seen = []
    x_adv = apgd.apgd(
        net, x, y, **settings(n_steps=10, returns="last", batch_size=6, callback=lambda k, z, s: seen.append(z.clone()))
    )
    assert torch.equal(x_adv, seen[-1])


def test_first_success_returns_the_first_fooled_point_and_drops_it():
    net = convolutional()
    x, y = labelled(net)
    seen = []
    given = settings(epsilon=0.012, returns="first_success", batch_size=6)
    watched = apgd.apgd(net, x, y, **given, callback=lambda k, z, said: seen.append((z.clone(), said.fooled)))
    x_adv = apgd.apgd(net, x, y, **given)
    assert torch.allclose(watched, x_adv, atol=1e-12)
    n_fooled = 0
    for row in range(len(x)):
        first = next((z[row] for z, fooled in seen if fooled[row]), seen[-1][0][row])
        assert torch.allclose(x_adv[row], first, atol=1e-9)
        n_fooled += any(bool(fooled[row]) for _, fooled in seen)
    assert 0 < n_fooled < 6


@pytest.mark.parametrize("norm", balls.NORMS)
@pytest.mark.parametrize("returns", apgd.RETURNS)
def test_neither_batch_nor_order_matters(norm, returns):
    net = convolutional()
    x, y = labelled(net)
    given = settings(norm, returns=returns, epsilon=2 * EPSILON[norm], n_restarts=2)
    whole = apgd.apgd(net, x, y, **given | {"batch_size": 6})
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    other = apgd.apgd(net, x[order], y[order], **given | {"batch_size": 3, "index": INDEX[order]})
    assert torch.allclose(whole[order], other, atol=1e-9)
    alone = apgd.apgd(net, x[2:3], y[2:3], **given | {"index": INDEX[2:3]})
    assert torch.allclose(whole[2:3], alone, atol=1e-9)
    assert not torch.allclose(whole, apgd.apgd(net, x, y, **given | {"seed": 1}), atol=1e-6)


def test_further_runs_are_for_images_that_stand():
    net = convolutional()
    x, y = labelled(net)
    rows = []
    given = settings(loss="targeted_dlr", n_targets=4, epsilon=0.012, n_steps=5, returns="last", batch_size=6)
    x_adv = apgd.apgd(net, x, y, **given, callback=lambda k, z, said: rows.append((k, len(z))))
    starts = [n for k, n in rows if k == 0]
    assert starts[0] == 6
    assert starts == sorted(starts, reverse=True)
    fooled = net(x_adv).argmax(1) != y
    assert 0 < fooled.sum() < 6
    assert len(starts) == 4
    assert starts[-1] >= 6 - int(fooled.sum())


def test_an_attack_without_radius_returns_the_image():
    net = convolutional()
    x, y = labelled(net)
    for norm in balls.NORMS:
        assert torch.equal(apgd.apgd(net, x, y, **settings(norm, epsilon=0.0, n_steps=3)), x)


def test_a_loss_that_is_not_finite_is_reported_with_its_image():
    class Diverges(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum((1, 2, 3)), x.sum((1, 2, 3)) / (x.amax((1, 2, 3)) < 0.69)], dim=1)

    x = torch.stack([torch.full((3, 8, 8), 0.3), torch.full((3, 8, 8), 0.695)])
    with pytest.raises(FloatingPointError, match=r"the loss of APGD is not finite at step 0: \S+ for image 141"):
        apgd.apgd(Diverges(), x, torch.tensor([0, 0]), **settings(index=INDEX[:2], epsilon=0.001))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "mse"}, "expected loss to be one of 'ce'"),
        ({"norm": "l1"}, "expected norm to be one of 'linf', 'l2'"),
        ({"returns": "closest"}, "expected returns to be one of"),
        ({"epsilon": -1.0}, "expected epsilon"),
        ({"n_steps": 0}, "expected n_steps"),
        ({"n_targets": 3}, "expected n_targets with a targeted loss and with no other, got 3 with 'ce'"),
        ({"loss": "targeted_dlr"}, "expected n_targets with a targeted loss"),
        ({"loss": "targeted_dlr", "n_targets": 5}, "expected n_targets to be a whole number >= 1 and <= 4, got 5"),
        ({"index": INDEX[:2]}, "expected index with one entry for each of 6 rows"),
        ({"batch_size": 0}, "expected batch_size"),
    ],
)
def test_refusals(changes, message):
    net = convolutional()
    x, y = labelled(net)
    with pytest.raises(ValueError, match=message):
        apgd.apgd(net, x, y, **settings(**changes))


def test_confident_networks_are_climbed_by_dlr_where_cross_entropy_is_blind():
    """A network that multiplies its logits has a cross-entropy gradient of 0 in float32; the ratio does not care."""
    net = convolutional(dtype=torch.float32)
    with torch.no_grad():
        net[-1].weight.mul_(1e4)
        net[-1].bias.mul_(1e4)
    x, y = labelled(net, 40, dtype=torch.float32)
    given = settings(epsilon=0.04, n_steps=30, returns="first_success", index=torch.arange(40), batch_size=40)
    ce, dlr = ((net(apgd.apgd(net, x, y, **given | {"loss": name})).argmax(1) != y).sum() for name in ("ce", "dlr"))
    assert dlr > 2 * ce


def test_noise_is_that_of_the_key():
    """The start of a run is keyed by image, seed, loss and run: none of them may be dropped."""
    net, starts = convolutional(), []
    x, y = labelled(net)

    def watch(k, z, said):
        if k == 0:
            starts.append(z.clone())

    for changes in ({}, {"seed": 1}, {"index": INDEX + 1}, {"loss": "margin"}):
        apgd.apgd(net, x, y, **settings(n_steps=1, batch_size=6, callback=watch, **changes))
    d = [s - x for s in starts]
    expected = 2 * noise.uniform(x.shape[1:], seed=0, purpose="apgd/ce", index=INDEX, dtype=torch.float64) - 1
    expected = EPSILON["linf"] * expected / expected.flatten(1).abs().amax(1)[:, None, None, None]
    assert torch.allclose(d[0], expected)
    apgd.apgd(net, x, y, **settings(epsilon=1e-6, n_steps=1, n_restarts=2, batch_size=6, callback=watch))
    again, restarted = (EPSILON["linf"] / 1e-6 * (s - x) for s in starts[-2:])
    assert torch.allclose(again, d[0])
    d.append(restarted)
    for other in d[1:]:
        assert (other - d[0]).flatten(1).abs().amax(1).min() > 1e-3
