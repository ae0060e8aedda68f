"""What an attack raises, per image: cross-entropy and KL, untargeted and targeted; and the targets.

An attack loss maps images x (B, C, H, W) and labels or targets y (B,) to a `LossValue`. Those
made here run their network in eval mode with frozen weights and leave it as they found it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers import checks, context, losses, noise

__all__ = [
    "AttackLoss",
    "LossValue",
    "cross_entropy",
    "kl_divergence",
    "least_likely",
    "logits_of",
    "random_targets",
    "targeted_cross_entropy",
]


class LossValue(NamedTuple):
    """What an attack's loss says of each image: `value` (B,), to be raised; `fooled` (B,) bool, its goal reached."""

    value: Tensor
    fooled: Tensor


AttackLoss = Callable[[Tensor, Tensor], LossValue]


def logits_of(network: nn.Module, x: Tensor) -> Tensor:
    """f(x) as an attack sees it, (B, K): in eval mode with frozen weights, which then are as they were."""
    with context.eval_mode(network), context.frozen(network):
        logits = checks.logits(network(x), "the network's output")
    if len(logits) != len(x):
        raise ValueError(f"expected logits of shape ({len(x)}, K) from the network, got {tuple(logits.shape)}")
    return logits


def cross_entropy(network: nn.Module) -> AttackLoss:
    """Untargeted: raise CE(x, y) = E(x, y) − E(x) (ebm, formula 5). Fooled: the network's class is not y."""

    def loss(x: Tensor, y: Tensor) -> LossValue:
        logits = logits_of(network, x)
        return LossValue(losses.cross_entropy(logits, y), logits.argmax(1) != y)

    checks.module(network)
    return loss


def targeted_cross_entropy(network: nn.Module) -> AttackLoss:
    """Targeted: lower CE(x, t) (ebm, formula 6); the attack's `y` are the targets t. Fooled: the class is t."""

    def loss(x: Tensor, y: Tensor) -> LossValue:
        logits = logits_of(network, x)
        return LossValue(-losses.cross_entropy(logits, y), logits.argmax(1) == y)

    checks.module(network)
    return loss


def kl_divergence(network: nn.Module, clean_logits: Tensor) -> AttackLoss:
    """The inner maximisation of TRADES: raise KL(p(·|x) ‖ p(·|x*)). Fooled: the network's class is not y.

    `clean_logits` (B, K) are f(x) of the images attacked, row by row; they are held constant.
    The gradient is zero at x* = x, so such an attack needs a random start.
    """
    natural = checks.logits(clean_logits, "clean_logits").detach()

    def loss(x: Tensor, y: Tensor) -> LossValue:
        logits = logits_of(network, x)
        return LossValue(losses.trades_kl(natural, logits), logits.argmax(1) != y)

    checks.module(network)
    return loss


def random_targets(y: Tensor, num_classes: int, *, seed: int, index: Tensor) -> Tensor:
    """A target for each image, evenly among the other classes; int64 (B,), keyed by (seed, image index).

    >>> random_targets(torch.tensor([0, 1]), 2, seed=0, index=torch.tensor([0, 1]))
    tensor([1, 0])
    """
    checks.count(num_classes, "num_classes", minimum=2)
    checks.labels(y, num_classes=num_classes)
    checks.index(index, y)
    shift = noise.integers(num_classes - 1, seed=seed, purpose="targets", index=index, device=y.device)
    return (y + 1 + shift) % num_classes


def least_likely(network: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    """The class that the network finds least likely for each image, int64 (B,); never y where y is given."""
    with torch.no_grad():
        logits = logits_of(network, checks.images(x))
    if y is not None:
        checks.labels(y, x, num_classes=logits.shape[1])
        logits = logits.scatter(1, y[:, None], torch.inf)
    return logits.argmin(1)
