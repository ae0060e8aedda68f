"""Corruptions by noise: Gaussian, shot, impulse and speckle (Hendrycks & Dietterich 2019).

Each is `corruption(x, constants, key) -> x'`: x (B, C, H, W) in steps of 1/255, x' not yet clipped to [0, 1] nor
rounded. Every draw is keyed by image (noise.py), one for each pixel and channel.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from scipy.special import pdtr  # type: ignore[import-untyped]
from torch import Tensor

from helpers import noise
from helpers.corruption_settings import Constants

_GUIDE = 1024  # entries of the table that says where in a Poisson distribution the search begins


def gaussian_noise(x: Tensor, constants: Constants, key: noise.Key) -> Tensor:
    """x' = x + σ z,  z ~ N(0, 1); constants (σ,)."""
    (sigma,) = constants
    return key.tabled().normal(x.shape[1:]).mul_(sigma).add_(x)


def speckle_noise(x: Tensor, constants: Constants, key: noise.Key) -> Tensor:
    """x' = x + σ x z,  z ~ N(0, 1); constants (σ,)."""
    (sigma,) = constants
    return key.tabled().normal(x.shape[1:]).mul_(sigma).mul_(x).add_(x)


def impulse_noise(x: Tensor, constants: Constants, key: noise.Key) -> Tensor:
    """Salt and pepper: a share `amount` of the values becomes 0 or 1, each half of them; constants (amount,)."""
    (amount,) = constants
    u = key.uniform(x.shape[1:])
    return torch.where(u < amount / 2, 0.0, torch.where(u < amount, 1.0, x))


def shot_noise(x: Tensor, constants: Constants, key: noise.Key) -> Tensor:
    """x' = k / c,  k ~ Poisson(c x); constants (c,), the photons of a white pixel.

    k is the smallest count whose distribution function exceeds a uniform draw u: exact up to u's steps of 2⁻²⁴.
    There are 256 levels of x, so the distributions are tables.
    """
    (photons,) = constants
    table, guide = (t.to(x.device) for t in _poisson(photons))
    u = key.uniform(x.shape[1:]).flatten()
    level = x.mul(255).round_().long().flatten()
    count = guide.take(level * _GUIDE + (u * _GUIDE).long())
    start = level * table.shape[1]
    open_ = torch.arange(len(u), device=x.device)
    while len(open_):
        # Almost all end after one or two looks; only those that do not are looked at again.
        open_ = open_[table.take(start[open_] + count[open_]) <= u[open_]]
        count[open_] += 1
    return count.to(x.dtype).div_(photons).view_as(x)


@functools.lru_cache(maxsize=16)
def _poisson(photons: float) -> tuple[Tensor, Tensor]:
    """Distribution functions (256, K) of Poisson(photons · level/255), and the counts at u = i/_GUIDE, flat."""
    rates = photons * np.arange(256) / 255
    counts = np.arange(int(photons + 8 * photons**0.5) + 20)  # u ≤ 1 − 2⁻²⁴ lies within 5.3 σ
    table = pdtr(counts, rates[:, None])
    table[0], table[:, -1] = 1.0, 2.0  # rate 0 is always 0; every search ends
    guide = np.stack([np.searchsorted(row, np.arange(_GUIDE) / _GUIDE, side="right") for row in table])
    return torch.from_numpy(table), torch.from_numpy(guide).flatten()
