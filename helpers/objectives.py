"""What training minimises: which attack finds x*, and which per-sample terms and weights make the loss.

    name          x* found by                        loss of one image
    standard      –                                  CE(x, y)
    madry         CE-PGD                             CE(x*, y)
    fgsm_rs       one step from a random start       CE(x*, y)
    trades        KL-PGD                             CE(x, y) + β KL(p(·|x) ‖ p(·|x*))
    weat_nat      KL-PGD                             w(x) [ CE(x, y) + β KL ]
    weat_adv      KL-PGD                             w(x) [ CE(x*, y) + β KL ]
    mail_trades   KL-PGD                             CE(x, y) + β ω(x*) KL
    mart          CE-PGD                             BCE(x*, y) + β (1 − p(y|x)) KL
    ceb           –                                  γ Rex − log c(y|z)                 (see `ceb`, for both)
    vib           –                                  γ/(1 + γ) KL(e(z|x) ‖ r(z)) − log c(y|z)

and to each that has an x* a recipe may add λ · penalty(E(x) − E(x*)), a Delta Energy Regulariser (`energy_penalty`).

A change here that changes a loss needs a new number in `versions.OBJECTIVE_VERSIONS`: networks are kept by the hash
of their recipe, and a test with golden losses holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from helpers import attacks, bottleneck, ceb, energies, losses
from helpers.context import eval_mode, frozen
from helpers.noise import Key


class Outcome(NamedTuple):
    """loss: (B,), to be averaged and minimised; wrong: (B,) bool, misclassified where the loss was taken.

    terms: by name (B,), without gradients; their means over the images of an epoch join the history's scalars.
    """

    loss: Tensor
    wrong: Tensor
    terms: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Seen:
    """What a loss is made of: logits f(x) and f(x*) (B, K), labels y (B,), and the recipe's entry.

    Logits that the objective does not ask for are not computed, since with batch norm each pass leaves its mark.
    """

    y: Tensor
    entry: Mapping[str, Any]
    _natural: Tensor | None
    _adversarial: Tensor | None

    @property
    def natural(self) -> Tensor:
        """f(x), with gradients."""
        assert self._natural is not None, "the objective says that it does not look at x"
        return self._natural

    @property
    def adversarial(self) -> Tensor:
        """f(x*), with gradients."""
        assert self._adversarial is not None, "the objective has no attack"
        return self._adversarial


@dataclass(frozen=True)
class Objective:
    """The two parts of an objective: its inner maximisation (None: no x*), and its loss; `natural`: that sees f(x)."""

    search: Callable[..., Tensor] | None
    loss: Callable[[Seen], Tensor]
    natural: bool


def attack_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """norm, epsilon and step_size of a recipe, in [0, 1] units: the one place that divides by 255.

    >>> attack_settings({"attack_norm": "linf", "epsilon_255": 51.0, "step_size_255": 12.75})
    {'norm': 'linf', 'epsilon': 0.2, 'step_size': 0.05}
    """
    norm = entry["attack_norm"]
    if norm == "linf":
        return {"norm": norm, "epsilon": entry["epsilon_255"] / 255, "step_size": entry["step_size_255"] / 255}
    if norm == "l2":
        return {"norm": norm, "epsilon": entry["epsilon_l2"], "step_size": entry["step_size_l2"]}
    raise ValueError(f"expected attack_norm linf or l2, got {norm!r}")


# Inner maximisations: the last iterate, its start drawn anew for each image and epoch. The attack sees eval mode.


def _climb(
    loss: attacks.AttackLoss,
    x: Tensor,
    y: Tensor,
    *,
    entry: Mapping[str, Any],
    seed: int,
    index: Tensor,
    epoch: int,
    **changed: Any,
) -> Tensor:
    """PGD as the recipe says, but for what is `changed`."""
    given = {name: entry.get(name) for name in ("n_steps", "start", "start_std")}
    return attacks.pgd(
        loss,
        x,
        y,
        **{**attack_settings(entry), **given, **changed},
        n_restarts=1,
        returns="last",
        seed=seed,
        index=index,
        purpose=f"train/attack/epoch {epoch}",
    )


def cross_entropy_pgd(network: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """argmax CE(x*, y) by PGD (Madry et al. 2018)."""
    return _climb(attacks.cross_entropy(network), x, y, **settings)


def kl_pgd(network: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """argmax KL(p(·|x) ‖ p(·|x*)) by PGD (Zhang et al. 2019)."""
    with torch.no_grad():
        clean = network(x)
    return _climb(attacks.kl_divergence(network, clean), x, y, **settings)


def random_step(network: nn.Module, x: Tensor, y: Tensor, *, entry: Mapping[str, Any], **settings: Any) -> Tensor:
    """FGSM-RS (Wong et al. 2020): a start even in the ball, one step of `step_over_epsilon` · ε, back into the ball.

    Departs from the authors' code, whose attack sees the network in training mode.
    """
    step = entry["step_over_epsilon"] * attack_settings(entry)["epsilon"]
    once = {"n_steps": 1, "start": "uniform", "start_std": None, "step_size": step}
    return _climb(attacks.cross_entropy(network), x, y, entry=entry, **once, **settings)


# Losses (B,)


def standard(seen: Seen) -> Tensor:
    """CE(x, y) on the images as they are."""
    return losses.cross_entropy(seen.natural, seen.y)


def adversarial(seen: Seen) -> Tensor:
    """CE(x*, y) (Madry et al. 2018)."""
    return losses.cross_entropy(seen.adversarial, seen.y)


def beta_kl(seen: Seen) -> Tensor:
    """β KL(p(·|x) ‖ p(·|x*))."""
    beta: float = seen.entry["beta"]
    return beta * losses.trades_kl(seen.natural, seen.adversarial)


def weat(seen: Seen) -> Tensor:
    """w(x) of WEAT, constant, as the recipe normalises it."""
    return losses.normalised(losses.weat_weight(energies.marginal(seen.natural)), seen.entry["weight_normalisation"])


def trades(seen: Seen) -> Tensor:
    """CE(x, y) + β KL (Zhang et al. 2019)."""
    return standard(seen) + beta_kl(seen)


def weat_nat(seen: Seen) -> Tensor:
    """w(x) [ CE(x, y) + β KL ] (ebm, formula 13)."""
    return weat(seen) * trades(seen)


def weat_adv(seen: Seen) -> Tensor:
    """w(x) [ CE(x*, y) + β KL ] (ebm, formula 14)."""
    return weat(seen) * (adversarial(seen) + beta_kl(seen))


def mail_trades(seen: Seen) -> Tensor:
    """CE(x, y) + β ω(x*) KL (Liu et al. 2021), ω constant, as the recipe normalises it.

    Departs from the authors' code, where ω stands in for 1 only after 75 of 120 epochs of TRADES.
    """
    slope, bias = seen.entry["margin_slope"], seen.entry["margin_bias"]
    weights = losses.mail_weight(seen.adversarial, seen.y, slope=slope, bias=bias)
    return standard(seen) + losses.normalised(weights, seen.entry["weight_normalisation"]) * beta_kl(seen)


def mart(seen: Seen) -> Tensor:
    """BCE(x*, y) + β (1 − p(y|x)) KL (Wang et al. 2020)."""
    boosted = losses.boosted_cross_entropy(seen.adversarial, seen.y)
    return boosted + losses.doubt(seen.natural, seen.y) * beta_kl(seen)


OBJECTIVES: dict[str, Objective] = {
    "standard": Objective(None, standard, natural=True),
    "madry": Objective(cross_entropy_pgd, adversarial, natural=False),
    "fgsm_rs": Objective(random_step, adversarial, natural=False),
    "trades": Objective(kl_pgd, trades, natural=True),
    "weat_nat": Objective(kl_pgd, weat_nat, natural=True),
    "weat_adv": Objective(kl_pgd, weat_adv, natural=True),
    "mail_trades": Objective(kl_pgd, mail_trades, natural=True),
    "mart": Objective(cross_entropy_pgd, mart, natural=True),
}


# Objectives whose loss is of z, which takes a network with a bottleneck: the name of their rate in the history.
BOTTLENECKS = {"ceb": "rex", "vib": "rate"}


def _compressed(
    network: nn.Module, x: Tensor, y: Tensor, *, entry: Mapping[str, Any], key: Key, progress: float
) -> Outcome:
    """w · rate − log c(y|z), z drawn anew for each image and epoch; w is `ceb.weight_at` this progress."""
    estimator, n_samples = entry.get("rate_estimator") or "sampled", entry.get("n_samples") or 1
    t = bottleneck.terms(network, x, y, key=key, n_samples=n_samples, estimator=estimator)
    terms = {BOTTLENECKS[entry["objective"]]: t.rate.detach(), "h_y_z": t.h_y_z.detach()}
    return Outcome(ceb.weight_at(progress, entry) * t.rate + t.h_y_z, t.log_c.argmax(1) != y, terms)


def _delta_energy_penalty(seen: Seen) -> Tensor:
    """λ · penalty(E(x) − E(x*)), a form of ours (`losses.energy_penalty`); gradients flow into both energies."""
    delta = energies.delta(energies.marginal(seen.natural), energies.marginal(seen.adversarial))
    form, margin = seen.entry["energy_penalty"], seen.entry.get("energy_penalty_margin") or 0.0
    weight: float = seen.entry["energy_penalty_weight"]
    return weight * losses.energy_penalty(delta, form=form, margin=margin)


def evaluate(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    entry: Mapping[str, Any],
    seed: int,
    index: Tensor,
    epoch: int,
    progress: float | None = None,
) -> Outcome:
    """The objective that a recipe's entry names, on one batch; gradients flow into the network's parameters.

    x: (B, C, H, W) in [0, 1], y: (B,). x and x* go through the network one after the other, as in the authors' code
    of TRADES: with batch norm each batch is normalised by itself. `index` (B,) are the images' places in their data
    set and, with `seed` and `epoch`, the key of the attack's start and of z. `progress`, in epochs with fractions
    (None: `epoch`), is where the anneal of a bottleneck stands.
    Raises ValueError for an unknown objective, and for an energy penalty where nothing is attacked.
    """
    if entry["objective"] in BOTTLENECKS:
        key = Key(seed, "train/latent", index, step=epoch)
        return _compressed(network, x, y, entry=entry, key=key, progress=epoch if progress is None else progress)
    if entry["objective"] not in OBJECTIVES:
        known = ", ".join([*OBJECTIVES, *BOTTLENECKS])
        raise ValueError(f"expected objective among {known}, got {entry['objective']!r}")
    objective = OBJECTIVES[entry["objective"]]
    penalised = (entry.get("energy_penalty") or "none") != "none"
    x_adv = None
    if objective.search is not None:
        with eval_mode(network), frozen(network):
            x_adv = objective.search(network, x, y, entry=entry, seed=seed, index=index, epoch=epoch)
    elif penalised:
        raise ValueError(f"expected energy_penalty none with objective {entry['objective']}, which attacks nothing")
    natural = network(x) if objective.natural or penalised else None
    attacked = None if x_adv is None else network(x_adv)
    seen = Seen(y, entry, natural, attacked)
    loss = objective.loss(seen)
    if penalised:
        loss = loss + _delta_energy_penalty(seen)
    final = natural if attacked is None else attacked
    assert final is not None
    return Outcome(loss, final.argmax(1) != y)
