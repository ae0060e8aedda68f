"""Networks, each taking images in [0, 1]: normalisation is part of the network, as buffers.

`build` makes one by name. A body (the architecture) has `embed(x) -> (B, d)`, the pooled penultimate layer, and a
linear classifier on top; `Network` puts the normalisation in front of it. With `norm="none"` convolutions get biases,
and an initialisation under which a deep stack begins as a shallow one and trains (`_initialise`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import doubled

TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2")
TORCHVISION_PREFIX = "torchvision_"


class Network(nn.Module):
    """f(x) = body((x − mean) / std): images (B, C, H, W) float32 in [0, 1] to logits (B, K)."""

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, *, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise ValueError(f"expected as many means as positive stds, got mean={list(mean)}, std={list(std)}")
        self.body = body
        self.num_classes = num_classes
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32).view(1, -1, 1, 1))

    def _normalise(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self._normalise(x))

    def features(self, x: Tensor) -> Tensor:
        """The pooled penultimate layer, (B, d). TypeError for a body that does not tell which one that is."""
        embed = getattr(self.body, "embed", None)
        if embed is not None:
            return embed(self._normalise(x))
        raise TypeError(f"expected a body with embed(x) -> (B, d), got {type(self.body).__name__} without")


# ---- pieces ----


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


def _conv(c_in: int, c_out: int, *, norm: str, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A padded convolution; the bias belongs to the normalisation layer where there is one."""
    return nn.Conv2d(c_in, c_out, size, stride=stride, padding=size // 2, bias=norm == "none")


def _conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)). In eval mode batch norm is a constant scale and shift, so it is folded into the convolution's
    weights: the same function within rounding, a fifth faster under attack, and fewer activations kept.
    """
    if norm.training or not isinstance(norm, nn.BatchNorm2d) or not isinstance(conv, nn.Conv2d):
        return norm(conv(x))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    return F.conv2d(x, conv.weight * scale[:, None, None, None], shift, conv.stride, conv.padding)


def _pool(x: Tensor) -> Tensor:
    """Average over the whole picture: (B, C, H, W) to (B, C)."""
    return x.mean((2, 3))


def _initialise(body: nn.Module, blocks: Sequence[Any] = ()) -> None:
    """He initialisation (He et al. 2015). Residual `blocks` without normalisation start as in Fixup (Zhang et al.
    2019): the last convolution of each branch at zero, the first smaller by √(number of blocks).

    With normalisation the scale of the forward pass is free, so that of the backward pass is kept (fan out, as in
    torchvision); without, the forward pass must keep its scale by itself (fan in).
    """
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out" if module.bias is None else "fan_in", nonlinearity="relu"
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in blocks:
        if block.conv1.bias is not None:
            block.conv1.weight.data.mul_(len(blocks) ** -0.5)
            nn.init.zeros_(block.conv2.weight)


class _Body(nn.Module):
    """A body whose classifier is `linear` on top of `embed`."""

    linear: nn.Linear

    def embed(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.embed(x))


# ---- small ----


class SmallCNN(_Body):
    """Three convolutions (w, 2w, 4w; strides 1, 2, 2), one hidden layer of 8w: for pictures of 8×8 to 32×32.

    16×16, width 8: 0.2 million multiplications an image, so that adversarial training takes seconds on a laptop.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: int, width: int, norm: str) -> None:
        super().__init__()
        w, side = width, (image_size + 3) // 4  # halved twice, rounded up
        self.conv1, self.norm1 = _conv(in_channels, w, norm=norm), _norm(norm, w)
        self.conv2, self.norm2 = _conv(w, 2 * w, norm=norm, stride=2), _norm(norm, 2 * w)
        self.conv3, self.norm3 = _conv(2 * w, 4 * w, norm=norm, stride=2), _norm(norm, 4 * w)
        self.hidden = nn.Linear(4 * w * side * side, 8 * w)
        self.linear = nn.Linear(8 * w, num_classes)
        _initialise(self)

    def embed(self, x: Tensor) -> Tensor:
        x = F.relu(_conv_norm(self.conv1, self.norm1, x))
        x = F.relu(_conv_norm(self.conv2, self.norm2, x))
        x = F.relu(_conv_norm(self.conv3, self.norm3, x))
        return F.relu(self.hidden(x.flatten(1)))


# ---- residual networks ----


class _BasicBlock(nn.Module):
    """relu(x' + norm(conv(relu(norm(conv(x)))))), x' the shortcut (He et al. 2016)."""

    def __init__(self, c_in: int, c_out: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(c_in, c_out, norm=norm, stride=stride), _norm(norm, c_out)
        self.conv2, self.bn2 = _conv(c_out, c_out, norm=norm), _norm(norm, c_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(_conv(c_in, c_out, norm=norm, size=1, stride=stride), _norm(norm, c_out))

    def forward(self, x: Tensor) -> Tensor:
        out = _conv_norm(self.conv2, self.bn2, F.relu(_conv_norm(self.conv1, self.bn1, x)))
        return F.relu(out + (_conv_norm(self.shortcut[0], self.shortcut[1], x) if len(self.shortcut) else x))


class ResNet18(_Body):
    """ResNet-18 with the CIFAR stem (3×3, stride 1, no pooling); `width` is 64 in the papers."""

    def __init__(self, *, num_classes: int, in_channels: int, width: int, norm: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(in_channels, width, norm=norm), _norm(norm, width)
        blocks, c = [], width
        for stage in range(4):
            for k in range(2):
                c_out = width * 2**stage
                blocks.append(_BasicBlock(c, c_out, stride=2 if stage and not k else 1, norm=norm))
                c = c_out
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(c, num_classes)
        _initialise(self, blocks)

    def embed(self, x: Tensor) -> Tensor:
        return _pool(self.blocks(F.relu(_conv_norm(self.conv1, self.bn1, x))))


class _PreactBlock(nn.Module):
    """x' + conv(relu(norm(conv(relu(norm(x)))))); a widening shortcut starts from the activated x."""

    def __init__(self, c_in: int, c_out: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.bn1, self.conv1 = _norm(norm, c_in), _conv(c_in, c_out, norm=norm, stride=stride)
        self.bn2, self.conv2 = _norm(norm, c_out), _conv(c_out, c_out, norm=norm)
        self.shortcut = None
        if stride != 1 or c_in != c_out:
            self.shortcut = _conv(c_in, c_out, norm=norm, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        out = self.conv2(F.relu(_conv_norm(self.conv1, self.bn2, activated)))
        return out + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(_Body):
    """WRN-depth-width (Zagoruyko & Komodakis 2016), pre-activation, no dropout; depth = 6n + 4."""

    def __init__(self, *, num_classes: int, in_channels: int, depth: int, width: int, norm: str) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"expected depth 6n + 4 for a WRN (10, 16, 22, 28 …), got {depth}")
        self.conv1 = _conv(in_channels, 16, norm=norm)
        blocks, c = [], 16
        for stage in range(3):
            for k in range((depth - 4) // 6):
                c_out = 16 * width * 2**stage
                blocks.append(_PreactBlock(c, c_out, stride=2 if stage and not k else 1, norm=norm))
                c = c_out
        self.blocks = nn.Sequential(*blocks)
        self.bn1 = _norm(norm, c)
        self.linear = nn.Linear(c, num_classes)
        _initialise(self, blocks)

    def embed(self, x: Tensor) -> Tensor:
        return _pool(F.relu(self.bn1(self.blocks(self.conv1(x)))))


class _CifarBlock(nn.Module):
    """A basic block whose shortcut has no parameters: subsample, pad the new channels with zeros."""

    def __init__(self, c_in: int, c_out: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(c_in, c_out, norm=norm, stride=stride), _norm(norm, c_out)
        self.conv2, self.bn2 = _conv(c_out, c_out, norm=norm), _norm(norm, c_out)
        self.stride, self.pad = stride, (c_out - c_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = _conv_norm(self.conv2, self.bn2, F.relu(_conv_norm(self.conv1, self.bn1, x)))
        if self.stride != 1 or self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(out + x)


class CifarResNet(_Body):
    """ResNet-20 / 56 for CIFAR (He et al. 2016, sec. 4.2): 16, 32, 64 channels, depth = 6n + 2."""

    def __init__(self, *, num_classes: int, in_channels: int, depth: int, width: int, norm: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(in_channels, width, norm=norm), _norm(norm, width)
        c, everything, stages = width, [], []
        for stage in range(3):
            blocks = []
            for k in range((depth - 2) // 6):
                c_out = width * 2**stage
                blocks.append(_CifarBlock(c, c_out, stride=2 if stage and not k else 1, norm=norm))
                c = c_out
            everything += blocks
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(c, num_classes)
        _initialise(self, everything)

    def embed(self, x: Tensor) -> Tensor:
        return _pool(self.layer3(self.layer2(self.layer1(F.relu(_conv_norm(self.conv1, self.bn1, x))))))


class _PlainBlock(nn.Module):
    """A basic block without normalisation, biases everywhere; a changing shape goes through a 1×1 shortcut."""

    def __init__(self, c_in: int, c_out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet2B(nn.Module):
    """The small normalisation-free ResNet of VNN-COMP 2021 (cifar10_resnet): 32×32 images, 112,006 parameters."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 8, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_PlainBlock(8, 16, stride=2), _PlainBlock(16, 16, stride=1))
        self.linear1 = nn.Linear(16 * 8 * 8, 100)
        self.linear2 = nn.Linear(100, num_classes)

    def embed(self, x: Tensor) -> Tensor:
        return F.relu(self.linear1(self.layer1(F.relu(self.conv1(x))).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.embed(x))


class TorchvisionResNet(nn.Module):
    """One of torchvision's ResNets (ImageNet stem), or doubled, with its own state-dict keys under `net`."""

    def __init__(self, name: str, *, num_classes: int) -> None:
        super().__init__()
        self.net = doubled.build(name, num_classes=num_classes)

    def embed(self, x: Tensor) -> Tensor:
        n = self.net
        x = n.maxpool(n.relu(n.bn1(n.conv1(x))))
        return n.avgpool(n.layer4(n.layer3(n.layer2(n.layer1(x))))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


# ---- by name ----


def _require(name: str, **fixed: tuple[object, object]) -> None:
    """Refuse a setting that an architecture fixes: setting=(expected, got)."""
    for setting, (expected, got) in fixed.items():
        if got is not None and got != expected:
            raise ValueError(f"expected {setting}={expected} for {name}, got {got}")


def _cifar_resnet(depth: int) -> Callable[..., nn.Module]:
    def make(*, num_classes: int, in_channels: int, width: int | None, norm: str, **given: object) -> nn.Module:
        _require(f"resnet{depth}", depth=(depth, given["depth"]))
        return CifarResNet(num_classes=num_classes, in_channels=in_channels, depth=depth, width=width or 16, norm=norm)

    return make


def _small(*, width: int | None, depth: object, **given: object) -> nn.Module:
    _require("smallcnn", depth=(3, depth))
    return SmallCNN(width=width or 16, **given)  # type: ignore[arg-type]


def _resnet18(*, width: int | None, depth: object, image_size: int, **given: object) -> nn.Module:
    _require("resnet18", depth=(18, depth))
    return ResNet18(width=width or 64, **given)  # type: ignore[arg-type]


def _wrn(*, width: int | None, depth: int | None, image_size: int, **given: object) -> nn.Module:
    if width is None or depth is None:
        raise ValueError(f"expected depth and width for wrn (28 and 10, say), got depth={depth}, width={width}")
    return WideResNet(width=width, depth=depth, **given)  # type: ignore[arg-type]


def _resnet2b(*, num_classes: int, in_channels: int, image_size: int, **given: object) -> nn.Module:
    _require("resnet2b", image_size=(32, image_size), width=(8, given["width"]), norm=("none", given["norm"]))
    return ResNet2B(num_classes=num_classes, in_channels=in_channels)


def _torchvision(name: str) -> Callable[..., nn.Module]:
    def make(*, num_classes: int, in_channels: int, norm: str, **given: object) -> nn.Module:
        _require(TORCHVISION_PREFIX + name, in_channels=(3, in_channels), norm=("batch", norm))
        return TorchvisionResNet(name, num_classes=num_classes)

    return make


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "smallcnn": _small,
    "resnet18": _resnet18,
    "wrn": _wrn,
    "resnet20": _cifar_resnet(20),
    "resnet56": _cifar_resnet(56),
    "resnet2b": _resnet2b,
    **{TORCHVISION_PREFIX + name: _torchvision(name) for name in (*TORCHVISION, *doubled.DOUBLED)},
}


def build(
    architecture: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: int | None = None,
    depth: int | None = None,
    norm: str = "batch",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Network:
    """A network by name, initialised from torch's global generator (`train` forks and seeds it).

    `architecture`: one of ARCHITECTURES. `width`, `depth`: as the architecture means them (WRN-28-10 is depth 28,
    width 10); None is the published value. `mean`, `std`: of each channel, None for no normalisation, which is
    mean 0, std 1. Raises ValueError for an unknown name or a setting that the architecture fixes.

    >>> f = build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=4)
    >>> f(torch.rand(2, 1, 16, 16)).shape, f.features(torch.rand(2, 1, 16, 16)).shape, f.num_classes
    (torch.Size([2, 10]), torch.Size([2, 32]), 10)
    """
    if architecture not in ARCHITECTURES:
        near = difflib.get_close_matches(architecture, ARCHITECTURES, n=1, cutoff=0.4)
        hint = f" (nearest: {near[0]})" if near else ""
        raise ValueError(f"expected an architecture among {', '.join(ARCHITECTURES)}, got {architecture!r}{hint}")
    if norm not in ("batch", "none"):
        raise ValueError(f"expected norm=batch or none, got {norm!r}")
    body = ARCHITECTURES[architecture](
        num_classes=num_classes, in_channels=in_channels, image_size=image_size, width=width, depth=depth, norm=norm
    )
    mean = [0.0] * in_channels if mean is None else mean
    std = [1.0] * in_channels if std is None else std
    if len(mean) != in_channels:
        raise ValueError(f"expected {in_channels} means, one for each channel, got {list(mean)}")
    return Network(body, num_classes=num_classes, mean=mean, std=std)
