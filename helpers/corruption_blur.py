"""Corruptions by blur: defocus, glass, motion, zoom and Gaussian (Hendrycks & Dietterich 2019).

Each is `corruption(x, constants, key) -> x'`: x (B, C, H, W) in steps of 1/255, x' not yet clipped to [0, 1] nor
rounded. Lengths are in pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from helpers import filters, noise
from helpers.corruption_settings import Constants


def gaussian_blur(x: Tensor, constants: Constants, _key: noise.Key) -> Tensor:
    """Gaussian blur; constants (σ,)."""
    (sigma,) = constants
    return filters.gaussian(x, sigma)


def defocus_blur(x: Tensor, constants: Constants, _key: noise.Key) -> Tensor:
    """A lens out of focus: the image correlated with a disk; constants (radius, σ of the disk's own smoothing)."""
    radius, alias = constants
    return filters.correlate_symmetric(x, filters.disk(radius, alias))


def motion_blur(x: Tensor, constants: Constants, key: noise.Key) -> Tensor:
    """A moving camera: each image smeared along its own angle, even in (−45°, 45°); constants (radius, σ).

    Rounded to 8 bits, as the image library of the reference leaves it.
    """
    radius, sigma = constants
    angles = key.uniform((1,)).flatten().mul(90.0).sub(45.0).tolist()
    return filters.streak(x, angles, radius=int(radius), sigma=sigma).mul_(255).round_().div_(255)


def zoom_blur(x: Tensor, constants: Constants, _key: noise.Key) -> Tensor:
    """A camera that moves forward; constants (count, step).

        x' = (x + Σ_k zoom(x, 1 + k·step)) / (count + 1),   k = 0 … count − 1

    k = 0 is the image itself, so that it counts twice, as in the reference. Square images only.
    """
    count, step = int(constants[0]), constants[1]
    total = x.clone()
    for k in range(count):
        total.add_(x if k == 0 else filters.resample(x, filters.zoom(x.shape[-1], 1 + k * step)))
    return total.div_(count + 1)


def glass_blur(x: Tensor, constants: Constants, key: noise.Key) -> Tensor:
    """Frosted glass: blur, let pixels take a neighbour's value, blur again; constants (σ, reach, passes).

    In a pass every pixel p, from the lower right to the upper left, takes the value that p + δ has at that moment,
    δ even in {−reach, …, reach − 1}² and keyed by pixel. The reference means to swap the two; its assignment copies
    one over the other, and so do we, also for one channel. `_sources` does the sequence in a few parallel steps.
    Between blur and shuffle the image is truncated to 8 bits.
    """
    sigma, reach, passes = constants[0], int(constants[1]), int(constants[2])
    b, c, h, w = x.shape
    values = filters.cut_off(filters.gaussian(x, sigma)).view(b, c, h * w)
    for turn in range(passes):
        shuffle = replace(key, purpose=f"{key.purpose}/{turn}")
        source = _sources(shuffle.integers(2 * reach, (2, h, w)) - reach, reach)
        values = values.gather(2, source[:, None].expand(b, c, h * w))
    return filters.gaussian(values.view(b, c, h, w), sigma)


def _sources(moves: Tensor, reach: int) -> Tensor:
    """Where each pixel's value stood before the pass, (B, H·W), for `moves` (B, 2, H, W) in rows and columns.

    A pixel before its turn still has its own value; after it, that of its neighbour. So a pixel whose neighbour had
    its turn first points on to the neighbour's source, and chains of such pointers are shortened by doubling.
    """
    h, w = moves.shape[-2:]
    n = torch.arange(h * w, device=moves.device)
    row, column = n // w, n % w
    moved = (row > reach) & (row <= h - reach) & (column > reach) & (column <= w - reach)
    to = (row + moves[:, 0].flatten(1)) * w + column + moves[:, 1].flatten(1)
    to = torch.where(moved, to, n)
    follow = moved & (to > n) & moved[to.clamp(max=h * w - 1)]
    while bool(follow.any()):
        ahead = to.gather(1, to)
        onward = follow.gather(1, to)
        to, follow = torch.where(follow, ahead, to), follow & onward
    return to
