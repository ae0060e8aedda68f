"""Attacks at their limits: no radius, no gradient, numbers that are not finite, any batch, and what they refuse."""

import math

import pytest
import torch
from attack_cases import (
    EPSILON,
    INDEX,
    ROUNDING,
    SHAPE,
    B,
    convolutional,
    linear,
    middle,
    run_settings,
    settings,
    uphill,
)

from helpers import attacks, checks, metrics

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
