"""Textures made here: plasma fractals for fog and frost on a window pane, drawn from keyed noise alone."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from helpers import filters, noise

PANES = 5
PANE_SIZE = 1024
# Mean grey and standard deviation of the panes: those of the benchmark's five photographs, to a hundredth or two. Their
# roughness (the mean step between neighbours over the standard deviation, 0.6 to 0.8) is met by grain on the ice.
_TONES = ((0.51, 0.10), (0.81, 0.09), (0.81, 0.09), (0.60, 0.13), (0.48, 0.16))
_TINT = (-0.06, 0.01, 0.05)  # red, green, blue: ice is bluish
Floats = NDArray[np.float64]
_SEED = 0  # the panes are part of the corruption, as photographs would be; which piece an image gets is keyed


def plasma(key: noise.Key, size: int, *, decay: float) -> Tensor:
    """Plasma fractals (B, size, size) in [0, 1] by the diamond-square algorithm (Fournier et al. 1982), periodic.

    Squares' middles, then edges' middles, are set to the mean of their four neighbours plus amplitude · u, u even in
    [−1, 1); with each halving of the step the amplitude falls by `decay`² (the reference multiplies its amplitude
    into itself). `size` is a power of two; the larger `decay`, the smoother.
    """
    if size < 2 or size & (size - 1):
        raise ValueError(f"expected size to be a power of two >= 2, got {size}")
    u = key.uniform((size, size)).mul_(2).sub_(1)
    height = torch.zeros_like(u)
    step, amplitude = size, 1.0
    while step >= 2:
        half = step // 2
        corners = height[:, ::step, ::step]
        down = corners + corners.roll(-1, 1)
        middles = (down + down.roll(-1, 2)) / 4 + amplitude * u[:, half::step, half::step]
        height[:, half::step, half::step] = middles
        across = corners + corners.roll(-1, 2) + middles + middles.roll(1, 1)
        height[:, ::step, half::step] = across / 4 + amplitude * u[:, ::step, half::step]
        along = down + middles + middles.roll(1, 2)
        height[:, half::step, ::step] = along / 4 + amplitude * u[:, half::step, ::step]
        step, amplitude = half, amplitude / decay**2
    low = height.amin((1, 2), keepdim=True)
    return (height - low) / (height.amax((1, 2), keepdim=True) - low)


@functools.lru_cache(maxsize=4)
def panes(shrink: float) -> Tensor:
    """Five frosted window panes (5, 3, n, n) in [0, 1] on the CPU, n = 1024 · `shrink`: ferns of ice over a plasma.

    They grow in less than a second, once in a process.
    """
    grey = _grown()
    n = round(PANE_SIZE * shrink)
    if n != PANE_SIZE:
        grey = F.interpolate(grey, (n, n), mode="bilinear")
    mean, std = (torch.tensor(tone).view(-1, 1, 1, 1) for tone in zip(*_TONES, strict=True))
    grey = mean + std * (grey - grey.mean((1, 2, 3), keepdim=True)) / grey.std((1, 2, 3), keepdim=True)
    return (grey + torch.tensor(_TINT).view(1, 3, 1, 1)).clamp_(0, 1)


@functools.lru_cache(maxsize=1)
def _grown() -> Tensor:
    """Ice and ground of the panes before their tones, (5, 1, PANE_SIZE, PANE_SIZE)."""
    index = torch.arange(PANES)
    ground = plasma(noise.Key(_SEED, "frost/ground", index), PANE_SIZE, decay=1.5)
    grain = noise.Key(_SEED, "frost/grain", index).uniform((PANE_SIZE, PANE_SIZE))
    ice = torch.stack([_ferns(noise.Key(_SEED, "frost/ferns", index[k : k + 1])) for k in index])
    return (0.45 * ground + ice * (0.5 + grain))[:, None]


def _ferns(key: noise.Key, *, count: int = 400, branches: int = 40, points: int = 48) -> Tensor:
    """Ice crystals on a pane (PANE_SIZE, PANE_SIZE): spines with tapering branches at ±60° and twigs on those.

    A pixel's ice is 1 − exp(−½ · length of the branches in it), so that crossing branches do not add up for ever.
    """
    u = key.uniform((5, count), dtype=torch.float64)[0].numpy()
    side = key.at(1).uniform((2, count, branches), dtype=torch.float64)[0].numpy()
    length = 40 + 260 * u[2] ** 2
    heading, bend = 2 * math.pi * u[3], (u[4] - 0.5) * 1.2
    t = (np.arange(branches) + side[0]) / branches
    turn = heading[:, None] + bend[:, None] * t
    rows = (PANE_SIZE * u[0])[:, None] + length[:, None] * t * np.sin(turn)
    columns = (PANE_SIZE * u[1])[:, None] + length[:, None] * t * np.cos(turn)
    reach = 0.45 * length[:, None] * (1 - t) * (0.4 + 0.6 * side[1])
    ice = np.zeros(PANE_SIZE * PANE_SIZE)
    s = (np.arange(points) + 0.5) / points
    for angle in (-math.pi / 3, 0.0, math.pi / 3):
        leaf, along = (turn + angle)[..., None], reach[..., None] * s
        _drop(ice, rows[..., None] + along * np.sin(leaf), columns[..., None] + along * np.cos(leaf), reach / points)
    drawn = torch.from_numpy(ice).float().view(1, 1, PANE_SIZE, PANE_SIZE)
    return (1 - torch.exp(-0.5 * filters.gaussian(drawn, 0.6)))[0, 0]


def _drop(ice: Floats, rows: Floats, columns: Floats, weight: Floats) -> None:
    """Add the points of each branch (…, points), all of its `weight`, to the pane, which goes on at the other side."""
    place = np.floor(rows).astype(np.int64) % PANE_SIZE * PANE_SIZE + np.floor(columns).astype(np.int64) % PANE_SIZE
    weights = np.broadcast_to(weight[..., None], place.shape)
    ice += np.bincount(place.ravel(), weights.ravel(), minlength=ice.size)
