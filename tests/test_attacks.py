"""FGSM and PGD: closed forms on linear networks, the point that is returned, restarts, batches, refusals."""

import math

import pytest
import torch
from torch import nn

from helpers import attacks, checks, metrics, noise

B, SHAPE = 4, (3, 5, 5)
EPSILON = 0.05
INDEX = torch.tensor([3, 141, 59, 26])
ROUNDING = 2.0**-24  # half a unit in the last place of a float32 at 1, twice


def linear(dtype=torch.float64):
    """Two classes with logits 0 and w·x + b: CE's gradient in x is ∓ p w, so its direction is ∓ w everywhere."""
    w = torch.randn(math.prod(SHAPE), generator=torch.Generator().manual_seed(0), dtype=dtype)
    net = nn.Sequential(nn.Flatten(), nn.Linear(len(w), 2, dtype=dtype))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.zeros_like(w), w]))
        net[1].bias.copy_(torch.tensor([0.0, -w.sum() / 2]))
    return net, w.reshape(1, *SHAPE)


def middle(dtype=torch.float64, n=B):
    """Images whose pixels stay in [0, 1] within any radius used here."""
    return 0.3 + 0.4 * torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=dtype)


def convolutional():
    """A small float32 network with batch norm, drawn without the global generator."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 9, 5),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.5 if p.ndim > 1 else 0.1))
        net.eval()
        net[-1].bias -= net(middle(torch.float32, 64)).mean(0)  # so that every class has its images
    return net


def settings(**changes):
    return {
        "norm": "linf",
        "epsilon": EPSILON,
        "step_size": EPSILON / 4,
        "n_steps": 10,
        "start": "none",
        "n_restarts": 1,
        "returns": "last",
        "seed": 0,
        "index": INDEX,
    } | changes


def uphill(x, y):
    """A loss with gradient 1 in every pixel; nobody is ever fooled."""
    return attacks.LossValue(x.sum((1, 2, 3)), torch.zeros_like(y, dtype=torch.bool))


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


# Numbers that must not break it


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("start", ["none", "uniform", "gaussian"])
def test_radius_zero_returns_x_exactly(norm, start):
    net, _ = linear(torch.float32)
    x, y = middle(torch.float32), torch.zeros(B, dtype=torch.int64)
    std = 0.1 if start == "gaussian" else None
    x_adv = attacks.pgd(
        attacks.cross_entropy(net), x, y, **settings(norm=norm, epsilon=0.0, step_size=0.1, start=start, start_std=std)
    )
    assert torch.equal(x_adv, x)
    assert x_adv.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_gradient_means_no_step(norm):
    x, y = middle(torch.float32), torch.zeros(B, dtype=torch.int64)
    half = torch.tensor([0.0, 1.0, 0.0, 1.0])

    def loss(x, y):
        return attacks.LossValue(half * x.sum((1, 2, 3)), torch.zeros_like(y, dtype=torch.bool))

    x_adv = attacks.pgd(loss, x, y, **settings(norm=norm))
    assert torch.equal(x_adv[half == 0], x[half == 0])
    assert ((x_adv - x)[half == 1] > 0).all()


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e30])
def test_l2_step_does_not_depend_on_the_size_of_the_gradient(scale):
    x, y = middle(torch.float32), torch.zeros(B, dtype=torch.int64)
    w = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))

    def loss(x, y):
        return attacks.LossValue(((x * scale) * w).sum((1, 2, 3)), torch.zeros_like(y, dtype=torch.bool))

    x_adv = attacks.pgd(loss, x, y, **settings(norm="l2", n_steps=1))
    assert torch.allclose(x_adv - x, (EPSILON / 4 * w / w.norm()).expand_as(x), rtol=0, atol=2 * ROUNDING)


@pytest.mark.parametrize(("value", "name"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_loss_that_is_not_finite_is_named_with_its_step_and_image(value, name):
    calls = []

    def loss(x, y):
        calls.append(0)
        here = x.sum((1, 2, 3))
        bad = torch.tensor([0.0, 0.0, value, 0.0]) if len(calls) == 3 else torch.zeros(B)
        return attacks.LossValue(here + bad, torch.zeros_like(y, dtype=torch.bool))

    with pytest.raises(FloatingPointError, match=rf"loss is not finite at step 2: {name} for image 59 \(1 of 4"):
        attacks.pgd(loss, middle(torch.float32), torch.zeros(B, dtype=torch.int64), **settings())
    assert len(calls) == 3


def test_a_gradient_that_is_not_finite_is_named_too():
    def loss(x, y):  # √0 has an infinite slope, times 0: NaN, which sign() would turn into no step at all
        return attacks.LossValue(((x - x.detach()) * 0).sum((1, 2, 3)).sqrt(), torch.zeros_like(y, dtype=torch.bool))

    with pytest.raises(FloatingPointError, match="gradient of the attack's loss is not finite at step 0: nan"):
        attacks.pgd(loss, middle(), torch.zeros(B, dtype=torch.int64), **settings())


def test_a_loss_that_nobody_looked_at_in_the_loop_is_looked_at_after_it(monkeypatch):
    # As on an accelerator, where `watch` only notes.
    monkeypatch.setattr(checks.Finite, "watch", lambda self, rows, name, step: self.pending.append((rows, name, step)))

    def loss(x, y):
        return attacks.LossValue(x.sum((1, 2, 3)) * math.inf, torch.zeros_like(y, dtype=torch.bool))

    with pytest.raises(FloatingPointError, match="loss is not finite at step 0: inf for image 3"):
        attacks.pgd(loss, middle(), torch.zeros(B, dtype=torch.int64), **settings())


# Batches


def run_settings(**changes):
    return {
        "norm": "linf",
        "epsilon": EPSILON,
        "step_size": EPSILON / 4,
        "n_steps": 6,
        "returns": "last",
        "n_restarts": 1,
        "seed": 0,
        "index": INDEX,
        "batch_size": 100,
    } | changes


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", attacks.NAMED)
def test_the_batch_changes_no_verdict(name, norm):
    net = convolutional()
    n = 60
    x = middle(torch.float32, n)
    y, index = net(x).argmax(1), torch.arange(n) * 7
    common = run_settings(norm=norm, index=index, epsilon=0.01 if norm == "linf" else 0.05)
    common["step_size"] = common["epsilon"] / 4
    whole = attacks.run(name, net, x, y, **common)
    logits = metrics.predictions(net, whole, batch_size=n)
    top = logits.topk(2).values
    clear = top[:, 0] - top[:, 1] >= 1e-4
    verdict = logits.argmax(1)
    assert clear.float().mean() > 0.9
    assert 0 < (verdict != y).float().mean() < 1
    for size in (1, 7, 59):
        x_adv = attacks.run(name, net, x, y, **(common | {"batch_size": size}))
        assert torch.equal(metrics.predictions(net, x_adv, batch_size=size).argmax(1)[clear], verdict[clear])
    order = torch.randperm(n, generator=torch.Generator().manual_seed(9))
    shuffled = attacks.run(name, net, x[order], y[order], **(common | {"index": index[order]}))
    assert torch.equal(
        metrics.predictions(net, shuffled, batch_size=n).argmax(1)[clear[order]], verdict[order][clear[order]]
    )


def test_run_gives_each_name_its_loss_start_and_target():
    net = convolutional()
    x = middle(torch.float32)
    y = torch.arange(B)
    common = run_settings()
    plain = {k: v for k, v in common.items() if k != "batch_size"}
    targets = attacks.random_targets(y, 5, seed=0, index=INDEX)
    by_hand = {
        "fgsm": attacks.fgsm(attacks.cross_entropy(net), x, y, epsilon=EPSILON),
        "pgd_ce": attacks.pgd(attacks.cross_entropy(net), x, y, start="uniform", **plain),
        "pgd_ce_targeted": attacks.pgd(attacks.targeted_cross_entropy(net), x, targets, start="uniform", **plain),
        "pgd_ce_least_likely": attacks.pgd(
            attacks.targeted_cross_entropy(net), x, attacks.least_likely(net, x, y), start="uniform", **plain
        ),
        "pgd_kl": attacks.pgd(attacks.kl_divergence(net, net(x)), x, y, start="gaussian", start_std=0.001, **plain),
    }
    assert by_hand.keys() == attacks.NAMED.keys()
    for name, expected in by_hand.items():
        assert torch.equal(attacks.run(name, net, x, y, **common), expected), name


def test_run_of_no_images_is_no_images():
    net = convolutional()
    none = torch.empty(0, dtype=torch.int64)
    assert attacks.run("pgd_ce", net, middle(torch.float32)[:0], none, **run_settings(index=none)).shape == (0, *SHAPE)


# Refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "l1"}, r"norm to be one of 'linf', 'l2', got 'l1'"),
        ({"epsilon": -0.1}, r"epsilon to be a finite number and >= 0, got -0.1"),
        ({"epsilon": math.nan}, r"epsilon .*got nan"),
        ({"epsilon": "8/255"}, r"epsilon .*got '8/255'"),
        ({"step_size": 0.0}, r"step_size \(with n_steps > 0\) to be a finite number and > 0, got 0.0"),
        ({"step_size": -1.0}, r"step_size"),
        ({"n_steps": -1}, r"n_steps to be a whole number >= 0, got -1"),
        ({"n_steps": 2.5}, r"n_steps .*got 2.5"),
        ({"n_restarts": 0}, r"n_restarts to be a whole number >= 1, got 0"),
        ({"n_restarts": 2}, r"n_restarts to be 1 with start 'none'"),
        ({"returns": "best"}, r"returns to be one of 'last', 'first_success', 'max_loss', got 'best'"),
        ({"start": "random"}, r"start to be one of"),
        ({"start": "gaussian"}, r"start_std"),
        ({"start": "uniform", "start_std": 0.1}, r"start_std only with start 'gaussian', got 0.1 with 'uniform'"),
        ({"seed": -1}, r"seed"),
        ({"index": INDEX[:2]}, r"index with one entry for each of 4 rows, got 2"),
        ({"index": -INDEX}, r"index to be at least 0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        attacks.pgd(uphill, middle(), torch.zeros(B, dtype=torch.int64), **settings(**change))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ((middle() * 255).to(torch.uint8), torch.zeros(B, dtype=torch.int64), r"got torch.uint8 \(divide"),
        (middle() * 2 - 1, torch.zeros(B, dtype=torch.int64), r"x in \[0, 1\], got values from -0"),
        (middle()[0], torch.zeros(3, dtype=torch.int64), r"shape \(B, C, H, W\), got \(3, 5, 5\)"),
        (middle(), torch.zeros(B), r"y to be int64 labels"),
        (middle(), torch.zeros(3, dtype=torch.int64), r"each of 4 rows"),
        (middle(), torch.full((B,), -1), r"y to be at least 0, got labels from -1"),
    ],
)
def test_bad_images_and_labels_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        attacks.pgd(uphill, x, y, **settings())


@pytest.mark.parametrize("name", attacks.NAMED)
def test_labels_that_are_no_class_are_refused(name):
    with pytest.raises(ValueError, match=r"below 5 \(the number of classes\), got labels from 5 to 5"):
        attacks.run(name, convolutional(), middle(torch.float32), torch.full((B,), 5), **run_settings())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda x, y: (x.sum((1, 2, 3))[:, None], y > 9), r"the attack's loss of shape \(4,\).*got \(4, 1\)"),
        (lambda x, y: (x.sum(), y > 9), r"the attack's loss of shape \(4,\).*got \(\)"),
        (lambda x, y: (x.sum((1, 2, 3)), (y > 9)[:, None]), r"the attack's fooled of shape \(4,\)"),
        (lambda x, y: (x.sum((1, 2, 3)), y), r"the attack's fooled to be bool, got torch.int64"),
        (lambda x, y: (x.detach().sum((1, 2, 3)), y > 9), r"loss to depend on x"),
        (lambda x, y: (torch.ones(B, requires_grad=True) * 1, y > 9), r"loss to depend on x"),
    ],
)
def test_bad_losses_are_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        attacks.pgd(loss, middle(), torch.zeros(B, dtype=torch.int64), **settings())


def test_run_refuses_what_it_does_not_know():
    net = convolutional()
    x, y = middle(torch.float32), torch.zeros(B, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"attack to be one of 'fgsm', .*, got 'pgd'"):
        attacks.run("pgd", net, x, y, **run_settings())
    with pytest.raises(ValueError, match="batch_size to be a whole number >= 1, got 0"):
        attacks.run("pgd_ce", net, x, y, **run_settings(batch_size=0))
    with pytest.raises(ValueError, match=r"network to be a torch.nn.Module"):
        attacks.run("pgd_ce", net.forward, x, y, **run_settings())
