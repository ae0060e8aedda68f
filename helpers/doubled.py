"""torchvision's ResNets with every channel doubled: the ×2 networks of the CEB paper, with 4096 pooled features.

torchvision's own wide_resnet50_2 doubles only the 3×3 convolutions inside the blocks and keeps 2048.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torchvision.models import ResNet

SUFFIX = "_x2"
DOUBLED = tuple(name + SUFFIX for name in ("resnet50", "resnet152"))


def _wider(module: nn.Module) -> nn.Module | None:
    """The layer with twice the channels, but for the image's and the classes'; None for a layer without channels."""
    if isinstance(module, nn.Conv2d):
        c_in = module.in_channels if module.in_channels == 3 else 2 * module.in_channels
        size, stride, padding = module.kernel_size, module.stride, module.padding
        wide = nn.Conv2d(c_in, 2 * module.out_channels, size, stride, padding, bias=module.bias is not None)  # type: ignore[arg-type]
        nn.init.kaiming_normal_(wide.weight, mode="fan_out", nonlinearity="relu")  # as torchvision initialises
        return wide
    if isinstance(module, nn.BatchNorm2d):
        return nn.BatchNorm2d(2 * module.num_features)
    if isinstance(module, nn.Linear):
        return nn.Linear(2 * module.in_features, module.out_features)
    return None


def build(name: str, *, num_classes: int) -> ResNet:
    """A ResNet of torchvision by name, untrained; a name that ends in _x2 doubles its channels, stem included.

    Whether the paper's ×2 networks double the stem is not known; those of SimCLR (Chen et al. 2020) do.

    >>> import torch
    >>> with torch.device("meta"):
    ...     build("resnet50_x2", num_classes=1000).fc.in_features
    4096
    """
    from torchvision.models import get_model

    net: ResNet = get_model(name.removesuffix(SUFFIX), weights=None, num_classes=num_classes)
    if name.endswith(SUFFIX):
        for path, module in list(net.named_modules()):
            wide = _wider(module)
            if wide is not None:
                net.set_submodule(path, wide)
    return net
