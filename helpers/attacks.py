"""Attacks by their names in a YAML: what each name stands for, which points it can return, what it must be told.

    run(name, network, x, y, *, returns, …) -> x_adv

The attacks themselves live in files of their own (pgd.py, apgd.py, fab.py, square.py, cw.py), their losses in
attack_losses.py and margin_losses.py; those that other files use are handed on here.

Every attack says which point it returns, since the point decides what is measured. Of its points one is
where it ends when nobody stops it (`final`), and one is what public code returns (`public`):

    family   points                           final      public code (torchattacks, AutoAttack)
    pgd      last, first_success, max_loss    last       last: its last iterate
    apgd     last, first_success, max_loss    last       its last misclassified iterate: last, where that fools; else x
    fab      closest, first_success           closest    the closest towards the first class that works within ε; else x
    square   first_success, max_loss          max_loss   first_success, where an image stops; else x
    cw       closest, first_success, last     closest    the closest, or x itself where nothing fools
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from helpers import apgd, checks, context, cw, fab, margin_losses, square
from helpers.attack_losses import (
    AttackLoss,
    LossValue,
    cross_entropy,
    kl_divergence,
    least_likely,
    logits_of,
    random_targets,
    targeted_cross_entropy,
)
from helpers.balls import NORMS, Norm, column
from helpers.pgd import RETURNS, Callback, Start, fgsm, pgd

__all__ = [
    "FAMILIES",
    "NAMED",
    "NORMS",
    "OPTIONS",
    "RETURNS",
    "AttackLoss",
    "Callback",
    "Family",
    "LossValue",
    "Named",
    "Norm",
    "aims",
    "both_points",
    "cross_entropy",
    "fgsm",
    "kl_divergence",
    "least_likely",
    "pgd",
    "random_targets",
    "run",
    "targeted_cross_entropy",
]

# What the names stand for --------------------------------------------------------------------------------------------


Options = Mapping[str, Any]
Points = dict[str, Tensor]


class Family(NamedTuple):
    """The points that an attack can return, the one where it ends by itself, and the one of public code."""

    points: tuple[str, ...]
    final: str
    public: str


FAMILIES: dict[str, Family] = {
    "pgd": Family(RETURNS, "last", "last"),
    "apgd": Family(apgd.RETURNS, "last", "last"),
    "fab": Family(fab.RETURNS, "closest", "closest"),
    "square": Family(square.RETURNS, "max_loss", "first_success"),
    "cw": Family(cw.RETURNS, "closest", "closest"),
}


class Named(NamedTuple):
    """What an attack's name in a YAML stands for.

    `loss` is one of `LOSSES` (PGD) or of `apgd.LOSSES`; `needs` are the options of `run` that it must be given.
    `target`: the class that PGD aims at. `start` is PGD's; `one_step` makes it FGSM.
    """

    family: str
    needs: tuple[str, ...]
    loss: str = ""
    target: Literal["none", "random", "least_likely"] = "none"
    start: Start = "uniform"
    start_std: float | None = None
    one_step: bool = False

    @property
    def points(self) -> tuple[str, ...]:
        return FAMILIES[self.family].points

    @property
    def final(self) -> str:
        return FAMILIES[self.family].final

    @property
    def public(self) -> str:
        return FAMILIES[self.family].public


STEPS = ("step_size", "n_steps", "n_restarts")

NAMED: dict[str, Named] = {
    "fgsm": Named("pgd", (), "ce", start="none", one_step=True),
    "pgd_ce": Named("pgd", STEPS, "ce"),
    "pgd_ce_targeted": Named("pgd", STEPS, "ce_targeted", target="random"),
    "pgd_ce_least_likely": Named("pgd", STEPS, "ce_targeted", target="least_likely"),
    "pgd_kl": Named("pgd", STEPS, "kl", start="gaussian", start_std=0.001),  # the start of TRADES (ebm.md, section 5)
    "pgd_margin": Named("pgd", (*STEPS, "kappa"), "margin"),
    "pgd_margin_targeted": Named("pgd", (*STEPS, "kappa"), "margin_targeted", target="random"),
    "pgd_dlr": Named("pgd", STEPS, "dlr"),
    "pgd_dlr_targeted": Named("pgd", STEPS, "dlr_targeted", target="random"),
    "pgd_energy": Named("pgd", (*STEPS, "gamma"), "energy"),
    "apgd_ce": Named("apgd", ("n_steps", "n_restarts"), "ce"),
    "apgd_dlr": Named("apgd", ("n_steps", "n_restarts"), "dlr"),
    "apgd_t": Named("apgd", ("n_steps", "n_restarts", "n_targets"), "targeted_dlr"),
    "fab_t": Named("fab", ("n_steps", "n_targets")),
    "square": Named("square", ("n_queries",)),
    "cw": Named("cw", ("cw_c", "cw_kappa", "cw_step_size", "cw_n_steps")),
}

# PGD's losses: of the network, its clean logits (B, K), the true labels (B,), and the options given.
LOSSES: dict[str, Callable[[nn.Module, Tensor, Tensor, Options], AttackLoss]] = {
    "ce": lambda f, z, y, given: cross_entropy(f),
    "ce_targeted": lambda f, z, y, given: targeted_cross_entropy(f),
    "kl": lambda f, z, y, given: kl_divergence(f, z),
    "margin": lambda f, z, y, given: margin_losses.carlini_wagner(f, kappa=given["kappa"]),
    "margin_targeted": lambda f, z, y, given: margin_losses.targeted_carlini_wagner(f, kappa=given["kappa"]),
    "dlr": lambda f, z, y, given: margin_losses.difference_of_logits_ratio(f),
    "dlr_targeted": lambda f, z, y, given: margin_losses.targeted_difference_of_logits_ratio(f, y),
    "energy": lambda f, z, y, given: margin_losses.energy_cross_entropy(f, gamma=given["gamma"]),
}

OPTIONS = (
    "step_size", "n_steps", "n_restarts", "n_targets", "n_queries", "gamma", "kappa",
    "cw_c", "cw_kappa", "cw_step_size", "cw_n_steps",
)  # fmt: skip


# By name -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def run(
    name: str,
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    returns: str,
    seed: int,
    index: Tensor,
    batch_size: int,
    step_size: float | None = None,
    n_steps: int | None = None,
    n_restarts: int | None = None,
    n_targets: int | None = None,
    n_queries: int | None = None,
    gamma: float | None = None,
    kappa: float | None = None,
    cw_c: float | None = None,
    cw_kappa: float | None = None,
    cw_step_size: float | None = None,
    cw_n_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """An attack by its name in the YAML (`NAMED`), in batches; x_adv (N, C, H, W) on the device of `x`.

    `y` are the true labels (N,), also for targeted attacks, which find their own aim (see `aims`; APGD-T and FAB-T
    go through the `n_targets` likeliest other classes, or through all where there are fewer). `returns` is one of the
    attack's points (module docstring). Of the options `NAMED[name].needs` must be given, the others are not looked at:

      step_size, n_steps, n_restarts   PGD; APGD sets its own steps, FAB-T has neither steps' size nor restarts
      n_targets, n_queries             APGD-T and FAB-T; Square
      gamma, kappa                     HE-PGD raises CE + γ·E(x); PGD raises the margin up to κ
      cw_c, cw_kappa, …                Carlini and Wagner's attack with this c for all images, as in torchattacks

    "fgsm" is one step of length ε from x. "cw" is an L2 attack without a radius: `norm` and ε play no part, nor does ε
    in the closest point of "fab_t". Fewer than 3 classes have no DLR and fewer than 4 no targeted DLR: APGD-DLR and
    APGD-T then raise its numerator (`apgd.fitting`). `callback` sees the iterates of PGD or APGD, batch after batch.
    The result does not depend on `batch_size`, but for images whose margin is so small (1e-4) that float32 rounding
    decides. Raises ValueError for bad input, a point that the attack does not have, and an option that is missing.
    """
    given = {
        "step_size": step_size, "n_steps": n_steps, "n_restarts": n_restarts, "n_targets": n_targets,
        "n_queries": n_queries, "gamma": gamma, "kappa": kappa, "cw_c": cw_c, "cw_kappa": cw_kappa,
        "cw_step_size": cw_step_size, "cw_n_steps": cw_n_steps,
    }  # fmt: skip
    told = _checked(name, network, x, y, returns=(returns,), index=index, batch_size=batch_size, given=given)
    if callback is not None and NAMED[name].family not in ("pgd", "apgd"):
        raise ValueError(f"expected a callback only for PGD and APGD, which have iterates to show, got one for {name}")
    if not len(x):
        return x.detach().clone()
    common: Options = {
        "norm": norm, "epsilon": epsilon, "returns": returns, "seed": seed, "index": index, "batch_size": batch_size,
        "callback": callback,
    }  # fmt: skip
    by = {"pgd": _by_pgd, "apgd": _by_apgd, "fab": _by_fab, "square": _by_square, "cw": _by_cw}
    return by[NAMED[name].family](name, network, x, y, told, common)


@torch.no_grad()
def both_points(name: str, network: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Points:
    """Where an attack ends, and its first success: x_adv by point, "first_success" last. `settings` are those of `run`.

    Of one run, but for targeted APGD on several targets: two with the same draws. FGSM has one
    step and its two points are one, so only "last" comes back. PGD and APGD need one restart here.
    """
    named = NAMED[checks.choice(name, NAMED, "attack")]
    if named.family in ("cw", "square", "fab"):
        index, size = settings["index"], settings["batch_size"]
        told = _checked(name, network, x, y, returns=(), index=index, batch_size=size, given=settings)
        if named.family == "cw":
            found = cw.points(network, x, y, **_cw_settings(told), batch_size=size)
        elif named.family == "fab":
            told["n_targets"] = min(told["n_targets"], _num_classes(network, x) - 1)
            ball = {key: settings[key] for key in ("norm", "epsilon")}
            found = fab.both(network, x, y, **told, **ball, batch_size=size)
        else:
            ball = {key: settings[key] for key in ("norm", "epsilon", "seed")}
            found = square.both(network, x, y, **told, **ball, index=index, batch_size=size)
        return {point: found[point] for point in (named.final, "first_success")}
    if named.family not in ("pgd", "apgd") or ("n_targets" in named.needs and settings.get("n_targets") != 1):
        return {point: run(name, network, x, y, returns=point, **settings) for point in (named.final, "first_success")}
    if settings.get("n_restarts", 1) != 1:
        raise ValueError(f"expected n_restarts to be 1 for both points of one run, got {settings['n_restarts']!r}")
    return _watched(name, network, x, y, **settings)


def _watched(name: str, network: nn.Module, x: Tensor, y: Tensor, *, batch_size: int, **settings: Any) -> Points:
    """Both points of one run of PGD or APGD. The callback sees every iterate, the last one included."""
    finals, firsts = [x[:0]], [x[:0]]
    index = settings.pop("index")
    for rows in (slice(k, k + batch_size) for k in range(0, len(x), batch_size)):
        first, done = x[rows].detach().clone(), torch.zeros_like(y[rows], dtype=torch.bool)

        def keep_first(step: int, x_k: Tensor, at_k: LossValue, first: Tensor = first, done: Tensor = done) -> None:
            new = at_k.fooled & ~done
            first[new], done[new] = x_k[new], True

        final = run(
            name, network, x[rows], y[rows], returns=NAMED[name].final, index=index[rows], batch_size=batch_size,
            callback=keep_first, **settings,
        )  # fmt: skip
        finals.append(final)
        firsts.append(torch.where(column(done, x), first, final))
    both = {NAMED[name].final: torch.cat(finals)}
    return both if NAMED[name].one_step else both | {"first_success": torch.cat(firsts)}


def _checked(
    name: str, network: nn.Module, x: Tensor, y: Tensor, *, returns: tuple[str, ...], index: Tensor, batch_size: int,
    given: Options,
) -> dict[str, Any]:  # fmt: skip
    """What every attack asks of its input; the options that this one needs."""
    named = NAMED[checks.choice(name, NAMED, "attack")]
    checks.module(network)
    checks.labels(y, checks.images(x))
    checks.index(index, x)
    checks.count(batch_size, "batch_size", minimum=1)
    for point in returns:
        checks.choice(point, named.points, f"returns of attack {name!r}")
    if missing := [option for option in named.needs if given.get(option) is None]:
        raise ValueError(f"expected {', '.join(missing)} for attack {name!r}, got None")
    return {option: given[option] for option in named.needs}


def aims(name: str, network: nn.Module, x: Tensor, y: Tensor, *, seed: int, index: Tensor) -> Tensor | None:
    """The class that a targeted PGD aims at for each image (N,): random or the least likely, never y; None untargeted.

    APGD-T and FAB-T count as untargeted: any class other than y will do for them.
    """
    named = NAMED[checks.choice(name, NAMED, "attack")]
    if named.target == "random":
        return random_targets(y, _num_classes(network, x), seed=seed, index=index)
    return least_likely(network, x, y) if named.target == "least_likely" else None


def _num_classes(network: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        return logits_of(network, x[:1]).shape[1]


def _by_pgd(name: str, network: nn.Module, x: Tensor, y: Tensor, told: Options, common: Options) -> Tensor:
    named = NAMED[name]
    index, size = common["index"], common["batch_size"]
    steps = {"step_size": common["epsilon"], "n_steps": 1, "n_restarts": 1}
    if not named.one_step:
        steps = {option: told[option] for option in STEPS}
    steps |= {option: common[option] for option in ("norm", "epsilon", "returns", "seed", "callback")}
    parts = []
    with context.eval_mode(network), context.frozen(network):
        for rows in (slice(k, k + size) for k in range(0, len(x), size)):
            clean = logits_of(network, x[rows])
            checks.labels(y[rows], x[rows], num_classes=clean.shape[1])
            aim = aims(name, network, x[rows], y[rows], seed=common["seed"], index=index[rows])
            loss = LOSSES[named.loss](network, clean, y[rows], told)
            goal = y[rows] if aim is None else aim
            parts.append(
                pgd(loss, x[rows], goal, start=named.start, start_std=named.start_std, index=index[rows], **steps)
            )
    return torch.cat(parts)


def _by_apgd(name: str, network: nn.Module, x: Tensor, y: Tensor, told: Options, common: Options) -> Tensor:
    num_classes = _num_classes(network, x)
    if "n_targets" in told:
        told = {**told, "n_targets": min(told["n_targets"], num_classes - 1)}
    return apgd.apgd(network, x, y, loss=apgd.fitting(NAMED[name].loss, num_classes), **told, **common)


def _by_fab(name: str, network: nn.Module, x: Tensor, y: Tensor, told: Options, common: Options) -> Tensor:
    common = {option: common[option] for option in ("norm", "epsilon", "returns", "batch_size")}
    n_targets = min(told["n_targets"], _num_classes(network, x) - 1)
    return fab.fab(network, x, y, n_steps=told["n_steps"], n_targets=n_targets, **common)


def _by_square(name: str, network: nn.Module, x: Tensor, y: Tensor, told: Options, common: Options) -> Tensor:
    return square.square(network, x, y, **told, **{key: common[key] for key in common if key != "callback"})


def _by_cw(name: str, network: nn.Module, x: Tensor, y: Tensor, told: Options, common: Options) -> Tensor:
    common = {option: common[option] for option in ("returns", "batch_size")}
    return cw.cw(network, x, y, **_cw_settings(told), **common)


def _cw_settings(told: Options) -> dict[str, Any]:
    return {option.removeprefix("cw_"): value for option, value in told.items()} | {"n_searches": 1, "targeted": False}
