"""Attacks at their limits: no radius, no gradient, numbers that are not finite, any batch, and what they refuse."""

import math

import pytest
import torch
import yaml
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

from helpers import apgd, attacks, checks, cw, fab, margin_losses, metrics, square
from helpers.parameters import ROOT

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
    common |= {"step_size": common["epsilon"] / 4, "returns": "first_success", "cw_c": 0.1, "kappa": 0.01}
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


LOSSES = {  # of each name that is a PGD: what it raises, of the network, its clean logits and the true labels
    "pgd_ce": lambda net, z, y: attacks.cross_entropy(net),
    "pgd_ce_targeted": lambda net, z, y: attacks.targeted_cross_entropy(net),
    "pgd_ce_least_likely": lambda net, z, y: attacks.targeted_cross_entropy(net),
    "pgd_kl": lambda net, z, y: attacks.kl_divergence(net, z),
    "pgd_margin": lambda net, z, y: margin_losses.carlini_wagner(net, kappa=0.3),
    "pgd_margin_targeted": lambda net, z, y: margin_losses.targeted_carlini_wagner(net, kappa=0.3),
    "pgd_dlr": lambda net, z, y: margin_losses.difference_of_logits_ratio(net),
    "pgd_dlr_targeted": lambda net, z, y: margin_losses.targeted_difference_of_logits_ratio(net, y),
    "pgd_energy": lambda net, z, y: margin_losses.energy_cross_entropy(net, gamma=0.5),
}


@pytest.mark.parametrize("name", LOSSES)
def test_run_gives_each_pgd_its_loss_start_and_target(name):
    net, x, y = convolutional(), middle(torch.float32), torch.arange(B)
    aims = {"random": attacks.random_targets(y, 5, seed=0, index=INDEX), "least": attacks.least_likely(net, x, y)}
    goal = aims["random"] if name.endswith("targeted") else aims["least"] if name.endswith("likely") else y
    start = {"start": "gaussian", "start_std": 0.001} if name == "pgd_kl" else {"start": "uniform"}
    expected = attacks.pgd(LOSSES[name](net, net(x), y), x, goal, **settings(n_steps=6, **start))
    assert torch.equal(attacks.run(name, net, x, y, **run_settings()), expected)
    told = attacks.aims(name, net, x, y, seed=0, index=INDEX)
    assert (told is None) == (goal is y)
    assert told is None or torch.equal(told, goal)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_run_gives_each_other_attack_what_it_needs(norm):
    net, x = convolutional(), middle(torch.float32)
    y = net(x).argmax(1)
    ball = {"norm": norm, "epsilon": EPSILON, "batch_size": 100}
    drawn = {"seed": 0, "index": INDEX}
    steps = {"n_steps": 6, "n_restarts": 1}
    by_hand = {
        "fgsm": ("last", attacks.fgsm(attacks.cross_entropy(net), x, y, norm=norm, epsilon=EPSILON)),
        "apgd_ce": ("last", apgd.apgd(net, x, y, loss="ce", returns="last", **ball, **drawn, **steps)),
        "apgd_dlr": ("max_loss", apgd.apgd(net, x, y, loss="dlr", returns="max_loss", **ball, **drawn, **steps)),
        "apgd_t": (
            "last",
            apgd.apgd(net, x, y, loss="targeted_dlr", n_targets=2, returns="last", **ball, **drawn, **steps),
        ),
        "fab_t": ("closest", fab.fab(net, x, y, n_steps=6, n_targets=2, returns="closest", **ball)),
        "square": ("max_loss", square.square(net, x, y, n_queries=8, returns="max_loss", **ball, **drawn)),
        "cw": (
            "last",
            cw.cw(
                net, x, y, c=1.0, n_searches=1, kappa=0.0, step_size=0.01, n_steps=6, targeted=False,
                returns="last", batch_size=100,
            ),
        ),
    }  # fmt: skip
    assert by_hand.keys() | LOSSES.keys() == attacks.NAMED.keys()
    for name, (point, expected) in by_hand.items():
        x_adv = attacks.run(name, net, x, y, **run_settings(norm=norm, returns=point))
        assert torch.equal(x_adv, expected), name


def test_few_classes_have_fewer_targets_and_no_dlr():
    net, _ = linear(torch.float32)
    x, y = middle(torch.float32), torch.zeros(B, dtype=torch.int64)
    y[1:] = net(x[1:]).argmax(1)
    given = run_settings(returns="last", n_targets=9)
    ball = {"norm": "linf", "epsilon": EPSILON, "batch_size": 100, "n_steps": 6}
    drawn = {"seed": 0, "index": INDEX, "n_restarts": 1, "returns": "last"}
    margin = apgd.apgd(net, x, y, loss="margin", **ball, **drawn)
    assert torch.equal(attacks.run("apgd_dlr", net, x, y, **given), margin)
    targeted = apgd.apgd(net, x, y, loss="targeted_margin", n_targets=1, **ball, **drawn)
    assert torch.equal(attacks.run("apgd_t", net, x, y, **given), targeted)
    nearest = fab.fab(net, x, y, returns="closest", n_targets=1, **ball)
    assert torch.equal(attacks.run("fab_t", net, x, y, **(given | {"returns": "closest"})), nearest)
    with pytest.raises(ValueError, match="expected at least 3 classes for DLR, got 2"):
        attacks.run("pgd_dlr", net, x, y, **given)


def test_run_of_no_images_is_no_images():
    net = convolutional()
    none = torch.empty(0, dtype=torch.int64)
    for name, named in attacks.NAMED.items():
        given = run_settings(index=none, returns=named.final)
        assert attacks.run(name, net, middle(torch.float32)[:0], none, **given).shape == (0, *SHAPE)


# Refusals

FINAL = {name: named.final for name, named in attacks.NAMED.items()}


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
        attacks.run(
            name, convolutional(), middle(torch.float32), torch.full((B,), 5), **run_settings(returns=FINAL[name])
        )


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


@pytest.mark.parametrize(
    ("name", "wrong", "known"),
    [
        ("pgd_ce", "closest", "'last', 'first_success', 'max_loss'"),
        ("apgd_t", "closest", "'last', 'first_success', 'max_loss'"),
        ("fab_t", "last", "'closest', 'first_success'"),
        ("square", "last", "'first_success', 'max_loss'"),
        ("cw", "max_loss", "'closest', 'first_success', 'last'"),
    ],
)
def test_a_point_that_an_attack_does_not_have_is_refused_and_its_points_are_named(name, wrong, known):
    with pytest.raises(ValueError, match=f"returns of attack '{name}' to be one of {known}, got '{wrong}'"):
        attacks.run(name, convolutional(), middle(torch.float32), torch.arange(B), **run_settings(returns=wrong))


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name, named in attacks.NAMED.items() for option in named.needs]
)
def test_an_option_that_an_attack_needs_is_named_where_it_is_missing(name, option):
    given = run_settings(returns=FINAL[name])
    del given[option]
    with pytest.raises(ValueError, match=f"expected {option} for attack '{name}', got None"):
        attacks.run(name, convolutional(), middle(torch.float32), torch.arange(B), **given)


@pytest.mark.parametrize("name", attacks.NAMED)
def test_what_an_attack_does_not_need_may_be_left_out(name):
    net, x, y = convolutional(), middle(torch.float32), torch.arange(B)
    full = run_settings(returns=FINAL[name])
    needed = {k: v for k, v in full.items() if k not in attacks.OPTIONS or k in attacks.NAMED[name].needs}
    assert torch.equal(attacks.run(name, net, x, y, **needed), attacks.run(name, net, x, y, **full))


@pytest.mark.parametrize("name", ["fab_t", "square", "cw"])
def test_attacks_without_iterates_refuse_a_callback(name):
    given = run_settings(returns=FINAL[name], callback=print)
    with pytest.raises(ValueError, match="callback only for PGD and APGD"):
        attacks.run(name, convolutional(), middle(torch.float32), torch.arange(B), **given)


def test_every_name_says_its_points_and_its_options():
    for name, named in attacks.NAMED.items():
        assert {named.final, named.public} <= set(named.points), name
        assert set(named.needs) <= set(attacks.OPTIONS), name
        assert "first_success" in named.points, name
    assert set(attacks.OPTIONS) == {option for named in attacks.NAMED.values() for option in named.needs}
    schema = yaml.safe_load((ROOT / "params" / "schema.yaml").read_text("utf-8"))["parameters"]
    for key in ("attacks", "attack"):
        assert schema[key]["choices"] == list(attacks.NAMED)
    assert set(attacks.OPTIONS) - {"step_size"} | {"step_size_255"} <= set(schema)
