"""What training minimises: which attack and which per-sample terms make an objective.

A change here that changes a loss needs a new number in `parameters.OBJECTIVE_VERSIONS`: networks are kept by the hash
of their recipe, and a test with golden losses holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from helpers import attacks, losses
from helpers.context import eval_mode, frozen


class Outcome(NamedTuple):
    """loss: (B,), to be averaged and minimised; wrong: (B,) bool, misclassified where the loss was taken."""

    loss: Tensor
    wrong: Tensor


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


def _search(
    loss: attacks.AttackLoss, x: Tensor, y: Tensor, *, entry: Mapping[str, Any], seed: int, index: Tensor, epoch: int
) -> Tensor:
    """The inner maximisation: last iterate of PGD, its start drawn anew for each image and epoch."""
    return attacks.pgd(
        loss,
        x,
        y,
        **attack_settings(entry),
        n_steps=entry["n_steps"],
        start=entry["start"],
        start_std=entry.get("start_std"),
        n_restarts=1,
        returns="last",
        seed=seed,
        index=index,
        purpose=f"train/attack/epoch {epoch}",
    )


def standard(network: nn.Module, x: Tensor, y: Tensor, **_settings: object) -> Outcome:
    """CE(x, y) on the images as they are. x: (B, C, H, W) in [0, 1], y: (B,)."""
    logits = network(x)
    return Outcome(losses.cross_entropy(logits, y), logits.argmax(1) != y)


def madry(network: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Outcome:
    """CE(x*, y), x* = argmax CE by PGD (Madry et al. 2018). The attack sees the network in eval mode."""
    with eval_mode(network), frozen(network):
        x_adv = _search(attacks.cross_entropy(network), x, y, **settings)
    logits = network(x_adv)
    return Outcome(losses.cross_entropy(logits, y), logits.argmax(1) != y)


def trades(network: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Outcome:
    """CE(x, y) + β KL(p(·|x) ‖ p(·|x*)), x* = argmax KL by PGD (Zhang et al. 2019). The attack sees eval mode.

    x and x* go through the network one after the other, as in the authors' code: with batch norm each batch is
    normalised by itself.
    """
    with eval_mode(network), frozen(network):
        with torch.no_grad():
            clean = network(x)
        x_adv = _search(attacks.kl_divergence(network, clean), x, y, **settings)
    logits, logits_adv = network(x), network(x_adv)
    loss = losses.cross_entropy(logits, y) + settings["entry"]["beta"] * losses.trades_kl(logits, logits_adv)
    return Outcome(loss, logits_adv.argmax(1) != y)


OBJECTIVES: dict[str, Callable[..., Outcome]] = {"standard": standard, "madry": madry, "trades": trades}


def evaluate(
    network: nn.Module, x: Tensor, y: Tensor, *, entry: Mapping[str, Any], seed: int, index: Tensor, epoch: int
) -> Outcome:
    """The objective that a recipe's entry names, on one batch; gradients flow into the network's parameters.

    `index` (B,) are the images' places in their data set and, with `seed` and `epoch`, the key of the attack's start.
    Raises ValueError for an unknown objective.
    """
    if entry["objective"] not in OBJECTIVES:
        raise ValueError(f"expected objective among {', '.join(OBJECTIVES)}, got {entry['objective']!r}")
    return OBJECTIVES[entry["objective"]](network, x, y, entry=entry, seed=seed, index=index, epoch=epoch)
