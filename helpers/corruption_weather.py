"""Corruptions by weather and light: snow, frost, fog, brightness and spatter (Hendrycks & Dietterich 2019).

Each is `corruption(x, constants, key) -> x'`: x (B, C, H, W) in steps of 1/255, x' not yet clipped to [0, 1] nor
rounded. Every draw is keyed by image; colours become grey for images of one channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helpers import filters, noise, textures
from helpers.corruption_settings import Constants

_LUMA = (0.299, 0.587, 0.114)


def grey(x: Tensor) -> Tensor:
    """Luma (B, 1, H, W) = 0.299 R + 0.587 G + 0.114 B of images with three channels; one channel as it is."""
    if x.shape[1] == 1:
        return x
    red, green, blue = (weight * x[:, i : i + 1] for i, weight in enumerate(_LUMA))
    return red + green + blue


def snow(x: Tensor, constants: Constants, key: noise.Key) -> Tensor:
    """Driven flakes over a whitened image; constants (mean, σ, zoom, threshold, radius, streak's σ, m).

        x' = m x + (1 − m) max(x, 1.5 grey(x) + 0.5) + s + s turned by 180°

    s: noise N(mean, σ²) zoomed, values under the threshold set to 0, in 8 bits, and smeared along an angle even in
    (−135°, −45°). Square images only.
    """
    mean, std, zoom, threshold, radius, sigma, mix = constants
    size = x.shape[-1]
    flakes = key.normal((1, size, size)).mul_(std).add_(mean)
    flakes = filters.resample(flakes, filters.zoom(size, zoom)).clamp(0, 1)
    flakes = torch.where(flakes < threshold, 0.0, filters.cut_off(flakes))
    angles = key.at(key.step + _ANGLE).uniform((1,)).flatten().mul(90.0).sub(135.0).tolist()
    flakes = filters.streak(flakes, angles, radius=int(radius), sigma=sigma).mul_(255).round_().div_(255)
    white = torch.maximum(x, 1.5 * grey(x) + 0.5)
    return mix * x + (1 - mix) * white + flakes + flakes.flip(2, 3)


_ANGLE = 100  # added to a key's step for the draws of a second kind


def frost(x: Tensor, constants: Constants, key: noise.Key, *, shrink: float) -> Tensor:
    """x' = a x + b · a piece of a frosted pane; constants (a, b).

    Pane and place are keyed by image. Departs from the reference: its photographs of frost are somebody's pictures,
    so ours are drawn (`textures.panes`), with about their brightness and contrast; `shrink` scales a pane before a
    piece is cut, as the reference does for CIFAR (0.2).
    """
    a, b = constants
    h, w = x.shape[-2:]
    panes = textures.panes(shrink)
    if min(panes.shape[-2:]) < max(h, w):
        raise ValueError(f"expected images of at most {panes.shape[-1]} pixels for frost, got {h}×{w}")
    u = key.uniform((3,), dtype=torch.float64).tolist()
    rooms = (len(panes), panes.shape[-2] - h + 1, panes.shape[-1] - w + 1)
    places = [tuple(int(v * room) for v, room in zip(draw, rooms, strict=True)) for draw in u]
    pieces = torch.stack([panes[k, :, top : top + h, left : left + w] for k, top, left in places])
    if x.shape[1] == 1:
        pieces = pieces.mean(1, keepdim=True)
    return a * x + b * pieces.to(x.device)


def fog(x: Tensor, constants: Constants, key: noise.Key) -> Tensor:
    """x' = (x + s · plasma) · max(x) / (max(x) + s), the maximum over the image; constants (s, decay).

    The fractal is as large as the next power of two that covers the image (256 for 224 pixels, as in the reference).
    """
    strength, decay = constants
    h, w = x.shape[-2:]
    size = 1 << (max(h, w, 2) - 1).bit_length()
    cloud = textures.plasma(key, size, decay=decay)[:, None, :h, :w]
    most = x.amax((1, 2, 3), keepdim=True)
    return (x + strength * cloud) * (most / (most + strength))


def brightness(x: Tensor, constants: Constants, _key: noise.Key) -> Tensor:
    """The value V of hue, saturation and value raised to V' = min(V + c, 1); constants (c,).

    With hue and saturation held, x' = x V'/V; black, which has neither, becomes the grey V'.
    """
    (c,) = constants
    value = x.amax(1, keepdim=True)
    raised = (value + c).clamp_(max=1)
    return torch.where(value > 0, x * (raised / value.clamp(min=1e-6)), raised)


# Spatter ------------------------------------------------------------------------------------------------------------

_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_FAR = 20  # pixels from a drop's rim at which its relief is flat


def spatter(x: Tensor, constants: Constants, key: noise.Key) -> Tensor:
    """Drops on the lens; constants (mean, σ, blur's σ, threshold, strength or rim's σ, 0 water | 1 mud).

    Drops lie where noise N(mean, σ²), blurred, exceeds the threshold. Mud covers x with brown where its blurred mask
    exceeds 0.8; water adds pale turquoise times the drops' relief: the distance to the rim, its histogram evened out,
    lit from one side. Departs from the reference: the rim is the drop's outline instead of an edge detector's, and
    the relief is kept in real numbers.
    """
    mean, std, sigma, threshold, strength, mud = constants
    layer = filters.gaussian(key.normal((1, *x.shape[-2:])).mul_(std).add_(mean), sigma)
    colour = torch.tensor(_MUD if mud else _WATER, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
    colour = colour if x.shape[1] == 3 else grey(colour)
    if mud:
        cover = filters.gaussian((layer > threshold).to(x.dtype), strength)
        cover = torch.where(cover < 0.8, 0.0, cover)
        return x * (1 - cover) + colour * cover
    drops = torch.where(layer < threshold, 0.0, layer)
    relief = drops * _relief(drops > 0)
    most = relief.amax((1, 2, 3), keepdim=True)
    return x + colour * (relief * (strength / most.clamp(min=1e-6)))


def _relief(drops: Tensor) -> Tensor:
    """Light and shade of drops (B, 1, H, W), at least 0."""
    distance = _smooth(_distance_to_rim(drops).clamp(max=_FAR)).floor()
    lit = filters.correlate(_evened(distance), ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)))
    return _smooth(lit.clamp_(0, 255))


def _smooth(x: Tensor) -> Tensor:
    return filters.correlate(x, ((1 / 9,) * 3,) * 3)


def _distance_to_rim(drops: Tensor) -> Tensor:
    """Euclidean distance in pixels to the nearest outline pixel of a drop, exact below _FAR."""
    inside = drops.float()
    wide = filters.padded(inside, top=1, bottom=1, left=1, right=1, border="replicate")
    h, w = drops.shape[-2:]
    neighbours = [wide[..., 1 + i : 1 + i + h, 1 + j : 1 + j + w] for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0))]
    rim = drops & (torch.stack(neighbours).amin(0) == 0)
    square = torch.where(rim, 0.0, float(2 * _FAR**2))
    for dim in (-2, -1):  # the lower envelope of parabolas, axis by axis
        square = _lowest(square, dim)
    return square.sqrt()


def _lowest(square: Tensor, dim: int) -> Tensor:
    n = square.shape[dim]
    best = square.clone()
    for i in range(1, min(_FAR, n - 1) + 1):
        here, there = best.narrow(dim, 0, n - i), best.narrow(dim, i, n - i)
        torch.minimum(here, square.narrow(dim, i, n - i) + i * i, out=here)
        torch.minimum(there, square.narrow(dim, 0, n - i) + i * i, out=there)
    return best


def _evened(levels: Tensor) -> Tensor:
    """Whole levels 0 … _FAR of each image, moved so that each of 0 … 255 is about as frequent (equalised histogram)."""
    flat = levels.long().flatten(1)
    counts = torch.zeros(len(flat), _FAR + 1, dtype=torch.int64, device=levels.device)
    below = counts.scatter_add_(1, flat, torch.ones_like(flat)).cumsum(1)
    first = torch.where(counts > 0, below, flat.shape[1]).amin(1, keepdim=True)
    share = (below - first).float() / (flat.shape[1] - first).clamp(min=1)
    return (share * 255).round().gather(1, flat).view(levels.shape)
