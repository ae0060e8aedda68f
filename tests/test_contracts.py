"""What every member of a family keeps, whichever it is; and that no member is missing here.

Energies and losses: shape (B,), the dtype of their logits, inputs untouched.
Attacks: in the ball and in [0, 1]; inputs, dtype, the global generator, gradients, the network's
modes, flags and buffers untouched, also when the attack raises.
"""

import inspect
import math

import pytest
import torch
from attack_cases import OPTIONS
from torch import nn

from helpers import attack_losses, attacks, balls, cw, energies, losses, pgd

B, K = 6, 5
SHAPE = (3, 6, 6)


def rand(*shape, dtype, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Network(nn.Module):
    """Batch norm in train mode with one frozen weight and dropout: everything that an attack could disturb."""

    def __init__(self, dtype):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, dtype=dtype), nn.BatchNorm2d(4, dtype=dtype), nn.ReLU(), nn.Dropout(), nn.Flatten(),
            nn.Linear(64, K, dtype=dtype),
        )  # fmt: skip
        with torch.no_grad():
            for seed, p in enumerate(self.parameters()):
                p.copy_(rand(*p.shape, dtype=dtype, seed=seed) - 0.4)
        self.body[0].bias.requires_grad_(False)
        self.body[3].eval()

    def forward(self, x):
        return self.body(x)


class Broken(Network):
    """Works for some calls, then raises: what was changed must be put back."""

    calls_left = 2

    def forward(self, x):
        self.calls_left -= 1
        if self.calls_left < 0:
            raise RuntimeError("no more")
        return super().forward(x)


def state(net):
    return (
        [m.training for m in net.modules()],
        [(p.requires_grad, p.grad) for p in net.parameters()],
        [t.clone() for t in [*net.parameters(), *net.buffers()]],
    )


def same(a, b):
    return a[0] == b[0] and a[1] == b[1] and all(torch.equal(s, t) for s, t in zip(a[2], b[2], strict=True))


# Energies and losses

PER_SAMPLE = {
    energies.marginal: lambda p, q, y: (p,),
    energies.joint: lambda p, q, y: (p, y),
    energies.cross_entropy: lambda p, q, y: (p, y),
    energies.kl: lambda p, q, y: (p, q),
    energies.kl_from_energies: lambda p, q, y: (p, q),
    energies.delta: lambda p, q, y: (p[:, 0], q[:, 0]),
    losses.cross_entropy: lambda p, q, y: (p, y),
    losses.trades_kl: lambda p, q, y: (p, q),
    losses.boosted_cross_entropy: lambda p, q, y: (p, y),
    losses.doubt: lambda p, q, y: (p, y),
    losses.energy_penalty: lambda p, q, y: (p[:, 0],),
    losses.probabilistic_margin: lambda p, q, y: (p, y),
    losses.normalised: lambda p, q, y: (p[:, 0],),
    losses.weat_weight: lambda p, q, y: (p[:, 0],),
    losses.mail_weight: lambda p, q, y: (p, y),
}
KEYWORDS = {
    losses.energy_penalty: {"form": "hinge", "margin": 0.1},
    losses.normalised: {"by": "none"},
    losses.mail_weight: {"slope": 2.0, "bias": 0.1},
}
CONSTANT = {losses.weat_weight, losses.mail_weight}


def names(function):
    return f"{function.__module__.split('.')[-1]}.{function.__name__}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", PER_SAMPLE, ids=names)
def test_energies_and_losses(function, dtype):
    p, q = (rand(B, K, dtype=dtype, seed=s).requires_grad_() for s in (1, 2))
    y = torch.arange(B) % K
    arguments = PER_SAMPLE[function](p, q, y)
    before = [a.detach().clone() for a in arguments]
    given = KEYWORDS.get(function, {})
    value = function(*arguments, **given)
    assert value.shape == (B,)
    assert value.dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))
    assert value.requires_grad == (function not in CONSTANT)
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value.sum(), p)
        assert torch.isfinite(gradient).all()
    # each entry belongs to its own row, so the batch does not matter (a reduction of K terms rounds the same way)
    for rows in (slice(0, 1), slice(2, 5)):
        assert torch.allclose(function(*(a[rows] for a in arguments), **given), value[rows], rtol=1e-6, atol=1e-6)
    assert function(*(a[:0] for a in arguments), **given).shape == (0,)


# Attacks


def settings(norm, returns, n_restarts):
    epsilon = 0.1 if norm == "linf" else 0.5
    return {
        "norm": norm,
        "epsilon": epsilon,
        "step_size": epsilon / 3,
        "n_steps": 4,
        "returns": returns,
        "n_restarts": n_restarts,
        "seed": 3,
        "index": torch.arange(B) * 11,
    }


def by_name(name):
    def attack(net, x, y, *, start, **given):
        return attacks.run(name, net, x, y, batch_size=4, **(OPTIONS | given))

    return attack


def by_pgd(make):
    def attack(net, x, y, *, start, **given):
        std = 0.05 if start == "gaussian" else None
        return attacks.pgd(make(net, x), x, y, start=start, start_std=std, **given)

    return attack


def by_fgsm(net, x, y, *, start, norm, epsilon, returns, index, **_):
    loss = attacks.cross_entropy(net)
    return attacks.fgsm(loss, x, y, norm=norm, epsilon=epsilon, returns=returns, index=index)


POINTS = [(name, point) for name, named in attacks.NAMED.items() for point in named.points]
UNBOUNDED = {("fab_t", "closest"), *(("cw", point) for point in cw.RETURNS)}


def clean_logits(net, x):
    return attack_losses.logits_of(net, x)


ATTACKS = {
    **{f"run {name}": by_name(name) for name, named in attacks.NAMED.items() if named.family == "pgd"},
    "pgd cross_entropy": by_pgd(lambda net, x: attacks.cross_entropy(net)),
    "pgd targeted_cross_entropy": by_pgd(lambda net, x: attacks.targeted_cross_entropy(net)),
    "pgd kl_divergence": by_pgd(lambda net, x: attacks.kl_divergence(net, clean_logits(net, x))),
    "fgsm": by_fgsm,
}


def length(d, norm):
    return d.flatten(1).abs().amax(1) if norm == "linf" else d.flatten(1).norm(dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("returns", "start", "n_restarts"),
    [("last", "uniform", 1), ("first_success", "gaussian", 2), ("max_loss", "none", 1)],
)
@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(name, norm, returns, start, n_restarts, dtype):
    net = Network(dtype)
    x, y = rand(B, *SHAPE, dtype=dtype), torch.arange(B) % K
    x[0], x[1] = 0.0, 1.0
    x.requires_grad_()
    if name.startswith("run"):
        start = attacks.NAMED[name.removeprefix("run ")].start
        n_restarts = 1 if start == "none" else n_restarts
    given = settings(norm, returns, n_restarts)
    before, generator, inputs = state(net), torch.get_rng_state(), (x.detach().clone(), y.clone())
    x_adv = ATTACKS[name](net, x, y, start=start, **given)
    assert x_adv.shape == x.shape
    assert x_adv.dtype == dtype
    assert not x_adv.requires_grad
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    # x + d and its difference from x round by half a unit at 1 each, in every pixel; the norm adds as much again
    rounding = 2 * torch.finfo(dtype).eps * (1 if norm == "linf" else math.sqrt(math.prod(SHAPE)))
    assert length(x_adv - x, norm).max() <= given["epsilon"] + rounding
    assert length(x_adv - x, norm).max() > given["epsilon"] / 2  # and it went somewhere
    assert torch.equal(x, inputs[0])
    assert torch.equal(y, inputs[1])
    assert x.requires_grad
    assert x.grad is None
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()
    assert same(state(net), before)


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_put_the_network_back_when_it_raises(name):
    net = Broken(torch.float32)
    x, y = rand(B, *SHAPE, dtype=torch.float32), torch.arange(B) % K
    if name in ("fgsm", "run fgsm"):
        net.calls_left = 0
    before = state(net)
    start = attacks.NAMED[name.removeprefix("run ")].start if name.startswith("run") else "uniform"
    with pytest.raises(RuntimeError, match="no more"):
        ATTACKS[name](net, x, y, start=start, **settings("linf", "last", 1))
    assert same(state(net), before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_put_the_network_back_when_the_callback_raises(name):
    net = Network(torch.float32)
    x, y = rand(B, *SHAPE, dtype=torch.float32), torch.arange(B) % K
    before = state(net)
    start = attacks.NAMED[name.removeprefix("run ")].start if name.startswith("run") else "uniform"

    def stop(k, x_k, said):
        raise KeyboardInterrupt

    given = settings("linf", "last", 1) | {"callback": stop}
    if name == "fgsm":
        with pytest.raises(KeyboardInterrupt):
            attacks.fgsm(attacks.cross_entropy(net), x, y, epsilon=0.1, callback=stop)
    else:
        with pytest.raises(KeyboardInterrupt):
            ATTACKS[name](net, x, y, start=start, **given)
    assert same(state(net), before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize(("name", "returns"), POINTS)
def test_attacks_by_name_at_each_of_their_points(name, returns, norm, dtype):
    net = Network(dtype)
    x, y = rand(B, *SHAPE, dtype=dtype), torch.arange(B) % K
    x[0], x[1] = 0.0, 1.0
    x.requires_grad_()
    given = settings(norm, returns, 1)
    before, generator, inputs = state(net), torch.get_rng_state(), (x.detach().clone(), y.clone())
    x_adv = by_name(name)(net, x, y, start=None, **given)
    assert x_adv.shape == x.shape
    assert x_adv.dtype == dtype
    assert not x_adv.requires_grad
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (name, returns) in UNBOUNDED or balls.inside(x_adv, x, norm=norm, epsilon=given["epsilon"]).all()
    assert torch.equal(x, inputs[0])
    assert torch.equal(y, inputs[1])
    assert x.grad is None
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()
    assert same(state(net), before)


@pytest.mark.parametrize(("name", "returns"), POINTS)
def test_attacks_by_name_put_the_network_back_when_it_raises(name, returns):
    net = Broken(torch.float32)
    net.calls_left = 1
    before = state(net)
    with pytest.raises(RuntimeError, match="no more"):
        by_name(name)(net, rand(B, *SHAPE, dtype=torch.float32), torch.arange(B) % K, start=None,
                      **settings("linf", returns, 1))  # fmt: skip
    assert same(state(net), before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", [name for name, named in attacks.NAMED.items() if named.family != "cw"])
def test_points_are_what_their_names_say(name):
    net = Network(torch.float64)
    n = 40
    x = rand(n, *SHAPE, dtype=torch.float64, seed=8)
    y = net.eval()(x).argmax(1)
    given = settings("linf", "last", 1) | {"index": torch.arange(n), "epsilon": 0.02, "step_size": 0.006}
    points, far, wrong = {}, {}, {}
    for point in attacks.NAMED[name].points:
        points[point] = attacks.run(name, net, x, y, batch_size=16, **(OPTIONS | given | {"returns": point}))
        far[point] = (points[point] - x).flatten(1).abs().amax(1)
        wrong[point] = net(points[point]).argmax(1) != y
    aim = attacks.aims(name, net, x, y, seed=given["seed"], index=given["index"])
    assert wrong["first_success"].any()
    if "closest" in points:
        assert (far["closest"][wrong["first_success"]] <= far["first_success"][wrong["first_success"]] + 1e-12).all()
        assert wrong["closest"].sum() >= wrong["first_success"].sum()
    elif aim is None:  # an attack that stops where it may has fooled wherever it ever did
        assert (wrong["first_success"] | ~wrong[attacks.NAMED[name].final]).all()


# Nothing is missing


def public(module):
    """The functions that a module defines and does not hide."""
    return {
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


@pytest.mark.parametrize("module", [energies, losses])
def test_every_energy_and_loss_is_held_to_the_contract(module):
    assert public(module) == {f.__name__ for f in PER_SAMPLE if f.__module__ == module.__name__}
    assert public(module) == set(module.__all__)


def test_every_attack_is_held_to_the_contract():
    assert public(pgd) == {"pgd", "fgsm"}
    assert public(attacks) == {"run", "both_points", "aims"}
    assert {name.split()[0] for name in ATTACKS} == public(pgd) | {"run"}
    assert {named.family for named in attacks.NAMED.values()} == set(attacks.FAMILIES)
    not_losses = {"logits_of", "random_targets", "least_likely"}
    tried = {name.removeprefix("pgd ") for name in ATTACKS if name.startswith("pgd")}
    assert public(attack_losses) - not_losses == tried
    assert public(attack_losses) <= set(attack_losses.__all__)
    assert tried | {"random_targets", "least_likely"} <= set(attacks.__all__)
