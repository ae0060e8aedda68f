"""Per-sample terms of the training objectives, shape (B,); `objectives.py` weighs and composes them.

Logits are (B, K), labels int64 (B,). Every term is ≥ 0 and differentiable in all its logits:
whoever wants a constant (the natural logits of the inner maximisation) detaches it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from helpers import checks, energies

__all__ = ["cross_entropy", "trades_kl"]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy −log p(y|x) = E(x, y) − E(x), shape (B,). Raises ValueError for a label that is no class.

    >>> import torch
    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp().round()
    tensor([4.])
    """
    checks.logits(logits)
    if y.device.type == "cpu":  # on an accelerator the look at the values would wait for its queue
        checks.labels(y, logits, num_classes=logits.shape[1])
    return F.cross_entropy(logits, y, reduction="none")


def trades_kl(logits: Tensor, logits_adv: Tensor) -> Tensor:
    """The TRADES term KL(p(·|x) ‖ p(·|x*)) (ebm, formula 9), shape (B,), without its factor β.

    `logits` are f(x), `logits_adv` are f(x*). In energies: `energies.kl_from_energies`.
    """
    return energies.kl(logits, logits_adv)
