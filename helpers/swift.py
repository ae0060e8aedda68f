"""A network under attack, asked in the fastest way that still ends in float32: for searches whose verdicts alone count.

    Swift    logits without a gradient come from the `fused` network; all in float32
    Guided   besides, logits with a gradient are those of the network in bfloat16, and where these are fooled the
             fused network is asked again

So whether an image is fooled is a fact of float32, within rounding, and bfloat16 only says where to go next.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from helpers.fused import fused
from helpers.halved import InBfloat16
from helpers.victim import Victim

__all__ = ["Guided", "Swift"]


class Swift(Victim):
    """A frozen network in eval mode; `x` (B, C, H, W) is a batch like those to come.

    Gradients are taken of batches laid out as convolutions like them (channels last), and come back so.
    """

    def __init__(self, network: nn.Module, x: Tensor) -> None:
        super().__init__(network)
        self._fused = fused(network, x)

    def logits(self, x: Tensor) -> Tensor:
        """f(x), (B, K), without a graph."""
        self.cost.forward += len(x)
        with torch.no_grad():
            return self._fused(x)

    def _checked(self, x: Tensor) -> Tensor:
        return super()._checked(x.contiguous(memory_format=torch.channels_last))


class Guided(Swift):
    """The same, led by gradients in bfloat16."""

    def __init__(self, network: nn.Module, x: Tensor) -> None:
        super().__init__(network, x)
        self._network = InBfloat16(network, x.device)

    def confirmed(self, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """`logits`, but those of float32 wherever bfloat16 is fooled: it is never fooled alone."""
        rows = (logits.argmax(1) != y).nonzero().squeeze(1)
        return logits.index_copy(0, rows, self.logits(x[rows]).to(logits)) if len(rows) else logits
