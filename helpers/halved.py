"""A network in bfloat16 where float32 is not needed: for training, and for the search of an attack."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InBfloat16(nn.Module):
    """The same network computing in bfloat16, its logits float32; parameters and modes are shared."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device_type = network, device.type

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device_type, dtype=torch.bfloat16):
            return self.network(x).float()

    def features(self, x: Tensor) -> Tensor:
        """f(x), float32: what follows it, a bottleneck's densities, computes in float32."""
        with torch.autocast(self.device_type, dtype=torch.bfloat16):
            return self.network.features(x).float()  # type: ignore[operator]
