"""Losses on the margin between classes, and on the energy: what APGD, CW and HE-PGD raise.

On logits z = f(x), (B, K), with true label y and π the order of falling logits, each (B,):

    margin            max_{k≠y} z_k − z_y                                             > 0 iff fooled
    DLR               (max_{k≠y} z_k − z_y) / (z_π1 − z_π3)                           K ≥ 3
    targeted DLR      (z_t − z_y) / (z_π1 − (z_π3 + z_π4) / 2)                        K ≥ 4

(Carlini & Wagner 2017; Croce & Hein 2020, eqs. 6 and 7, signs turned so that an attack raises
them.) The ratios do not change when logits are shifted or scaled, so a network that multiplies
its logits hides nothing from them. Below these stand the same as attack losses of a network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from helpers import checks, energies, losses
from helpers.attack_losses import AttackLoss, LossValue, logits_of

__all__ = [
    "best_other",
    "carlini_wagner",
    "difference_of_logits_ratio",
    "dlr",
    "energy_cross_entropy",
    "margin",
    "targeted_carlini_wagner",
    "targeted_difference_of_logits_ratio",
    "targeted_dlr",
    "targeted_margin",
]

TINY = 1e-12  # keeps the ratios finite where the leading logits are equal, as in the authors' code


# On logits ---------------------------------------------------------------------------------------------------------


def best_other(logits: Tensor, y: Tensor) -> Tensor:
    """The highest logit of a class other than y, max_{k≠y} z_k, (B,)."""
    return logits.scatter(1, y[:, None], -torch.inf).amax(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{k≠y} z_k − z_y, (B,): above 0 where the network is fooled.

    >>> margin(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([1]))
    tensor([-1.])
    """
    return best_other(logits, y) - _of(logits, y)


def targeted_margin(logits: Tensor, t: Tensor) -> Tensor:
    """z_t − max_{k≠t} z_k, (B,): above 0 where the class is the target t."""
    return -margin(logits, t)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, (B,), from −1 to 0 where the network is right, else above 0; ValueError for K < 3.

    >>> z, y = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([1])
    >>> dlr(z, y), dlr(100 * z + 7, y)
    (tensor([-0.5000]), tensor([-0.5000]))
    """
    _at_least(3, logits, "DLR")
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + TINY)


def targeted_dlr(logits: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Targeted difference of logits ratio of true labels y and targets t, (B,); ValueError below 4 classes.

    >>> targeted_dlr(torch.tensor([[4.0, 3.0, 1.0, 1.0]]), torch.tensor([0]), torch.tensor([1]))
    tensor([-0.3333])
    """
    _at_least(4, logits, "targeted DLR")
    top = logits.topk(4, dim=1).values
    return (_of(logits, t) - _of(logits, y)) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def _of(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None]).squeeze(1)


def _at_least(k: int, logits: Tensor, name: str) -> None:
    if logits.shape[1] < k:
        raise ValueError(f"expected at least {k} classes for {name}, got {logits.shape[1]}")


# Attack losses -----------------------------------------------------------------------------------------------------


def carlini_wagner(network: nn.Module, *, kappa: float) -> AttackLoss:
    """Untargeted: raise the margin up to κ, min(max_{k≠y} z_k − z_y, κ). Fooled: the network's class is not y.

    κ ≥ 0 is how surely the network is to be wrong; beyond it the gradient is 0 and an image rests.
    """

    def loss(x: Tensor, y: Tensor) -> LossValue:
        logits = logits_of(network, x)
        return LossValue(margin(logits, y).clamp_max(kappa), logits.argmax(1) != y)

    checks.number(kappa, "kappa", minimum=0.0)
    checks.module(network)
    return loss


def targeted_carlini_wagner(network: nn.Module, *, kappa: float) -> AttackLoss:
    """Targeted: raise z_t − max_{k≠t} z_k up to κ; the attack's `y` are the targets t. Fooled: the class is t."""

    def loss(x: Tensor, y: Tensor) -> LossValue:
        logits = logits_of(network, x)
        return LossValue(targeted_margin(logits, y).clamp_max(kappa), logits.argmax(1) == y)

    checks.number(kappa, "kappa", minimum=0.0)
    checks.module(network)
    return loss


def difference_of_logits_ratio(network: nn.Module) -> AttackLoss:
    """Untargeted: raise DLR. Fooled: the network's class is not y."""

    def loss(x: Tensor, y: Tensor) -> LossValue:
        logits = logits_of(network, x)
        return LossValue(dlr(logits, y), logits.argmax(1) != y)

    checks.module(network)
    return loss


def targeted_difference_of_logits_ratio(network: nn.Module, true: Tensor) -> AttackLoss:
    """Targeted: raise the targeted DLR; the attack's `y` are the targets t. Fooled: the class is t.

    `true` (B,) are the true labels of the images attacked, row by row.
    """

    def loss(x: Tensor, y: Tensor) -> LossValue:
        logits = logits_of(network, x)
        return LossValue(targeted_dlr(logits, true, y), logits.argmax(1) == y)

    checks.labels(true, name="true")
    checks.module(network)
    return loss


def energy_cross_entropy(network: nn.Module, *, gamma: float) -> AttackLoss:
    """High-energy attack: raise CE(x, y) + γ·E(x) (ebm.md 7.2, HE-PGD). Fooled: the network's class is not y.

    CE alone may win by lowering E(x); γ > 0 looks for adversarial points of high marginal energy.
    With γ = 1 the sum is the joint energy E(x, y), since CE = E(x, y) − E(x).
    """

    def loss(x: Tensor, y: Tensor) -> LossValue:
        logits = logits_of(network, x)
        value = losses.cross_entropy(logits, y) + gamma * energies.marginal(logits)
        return LossValue(value, logits.argmax(1) != y)

    checks.number(gamma, "gamma")
    checks.module(network)
    return loss
