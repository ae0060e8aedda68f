"""Filters of images (B, C, H, W): Gaussian, small kernels, streaks, and linear resampling along the axes.

All of them are sums of shifted copies, written in elementwise products and sums: no matrix product or convolution
routine, whose order of summation changes with the size of a batch. An image's result therefore does not depend on
the batch around it, bit for bit. Borders are named as in the literature:

    replicate   a a a | a b c | c c c
    reflect     c b   | a b c |   b a      (the edge pixel once)
    symmetric   b a   | a b c | c b        (the edge pixel twice)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Border = Literal["replicate", "reflect", "symmetric"]
_SLACK = 1e-3  # of an 8-bit level: k/255 · 255 may fall just short of k
_NEGLIGIBLE = 1e-6  # a tap's share of the sum below which it cannot move an 8-bit level


# Levels, borders and Gaussians ----------------------------------------------------------------------------------------


def cut_off(x: Tensor) -> Tensor:
    """The 8-bit level at or below each value, in [0, 1] scale: what a cast to uint8 leaves, as in the reference.

    >>> cut_off(torch.tensor([0.5, 3 / 255])).mul(255)
    tensor([127.,   3.])
    """
    return x.mul(255).add_(_SLACK).floor_().div_(255)


def padded(x: Tensor, *, top: int, bottom: int, left: int, right: int, border: Border) -> Tensor:
    """`x` (…, H, W) with rows and columns beyond its borders, any number of them.

    >>> padded(torch.tensor([[1.0, 2.0]]), top=0, bottom=0, left=2, right=1, border="symmetric")
    tensor([[2., 1., 1., 2., 2.]])
    """
    for dim, before, after in ((-2, top, bottom), (-1, left, right)):
        if before or after:
            where = _folded(x.shape[dim], before, after, border)
            x = x.index_select(dim, torch.tensor(where, device=x.device))
    return x


@functools.lru_cache(maxsize=256)
def _folded(n: int, before: int, after: int, border: Border) -> tuple[int, ...]:
    """Where positions −before … n + after − 1 of a line of n lie inside it."""
    if border == "replicate":
        return tuple(min(max(i, 0), n - 1) for i in range(-before, n + after))
    edge = int(border == "symmetric")
    period = max(2 * (n - 1 + edge), 1)
    places = (i % period for i in range(-before, n + after))
    return tuple(i if i < n else period - i - edge for i in places)


@functools.lru_cache(maxsize=256)
def gaussian_taps(sigma: float, radius: int) -> tuple[float, ...]:
    """Weights exp(−i²/2σ²) at i = −radius … radius, summing to 1.

    >>> gaussian_taps(0.0, 0), len(gaussian_taps(1.0, 4))
    ((1.0,), 9)
    """
    if radius == 0:
        return (1.0,)
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    return tuple(w / math.fsum(weights) for w in weights)


def _wrapped(taps: tuple[float, ...], n: int) -> tuple[float, ...]:
    """Taps of a filter longer than two lines of n: mirrored, a line repeats after 2n, so taps 2n apart are one."""
    radius = len(taps) // 2
    sums = [
        math.fsum(taps[i] for i in range(len(taps)) if (i - radius - j) % (2 * n) == 0) for j in range(1 - n, n + 1)
    ]
    return (0.0, *sums)  # from −n to n


def gaussian(x: Tensor, sigma: float, *, truncate: float = 4.0, border: Border = "replicate") -> Tensor:
    """Gaussian blur with standard deviation `sigma` pixels, cut off at ⌊truncate · σ + ½⌋ pixels (as SciPy does).

    >>> x = torch.zeros(1, 1, 5, 5); x[..., 2, 2] = 1
    >>> gaussian(x, 1.0)[0, 0, 2, 2].item() < 0.17
    True
    """
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return x.clone()
    taps = gaussian_taps(sigma, radius)
    if border == "symmetric" and radius > max(x.shape[-2:]):
        taps = _wrapped(taps, max(x.shape[-2:]))
        radius = len(taps) // 2
    columns = padded(x, top=radius, bottom=radius, left=0, right=0, border=border)
    x = _weighted((columns.narrow(-2, i, x.shape[-2]) for i in range(len(taps))), taps, x)
    rows = padded(x, top=0, bottom=0, left=radius, right=radius, border=border)
    return _weighted((rows.narrow(-1, i, x.shape[-1]) for i in range(len(taps))), taps, x)


def _weighted(shifted: Iterable[Tensor], taps: Sequence[float], like: Tensor) -> Tensor:
    total = torch.zeros_like(like)
    for part, weight in zip(shifted, taps, strict=True):
        total.add_(part, alpha=weight)
    return total


# Kernels and streaks --------------------------------------------------------------------------------------------------


def correlate(x: Tensor, kernel: Sequence[Sequence[float]], *, border: Border = "reflect") -> Tensor:
    """Σ_ij k_ij x(row + i − r, column + j − r) for an odd square `kernel`; zero entries cost nothing."""
    r = len(kernel) // 2
    wide = padded(x, top=r, bottom=r, left=r, right=r, border=border)
    total = torch.zeros_like(x)
    for i, row in enumerate(kernel):
        for j, weight in enumerate(row):
            if weight:
                total.add_(wide[..., i : i + x.shape[-2], j : j + x.shape[-1]], alpha=weight)
    return total


def correlate_symmetric(x: Tensor, kernel: Sequence[Sequence[float]], *, border: Border = "reflect") -> Tensor:
    """`correlate` for a kernel equal to its mirror images, in half the operations: mirrored rows are added first."""
    r = len(kernel) // 2
    h, w = x.shape[-2:]
    wide = padded(x, top=r, bottom=r, left=r, right=r, border=border)
    pairs = [wide[..., r : r + h, :]]
    pairs += [wide[..., r - i : r - i + h, :] + wide[..., r + i : r + i + h, :] for i in range(1, r + 1)]
    total = torch.zeros_like(x)
    for j in range(r + 1):
        column = torch.zeros_like(pairs[0])
        for i, pair in enumerate(pairs):
            if kernel[r + i][r + j]:
                column.add_(pair, alpha=kernel[r + i][r + j])
        total.add_(column[..., r + j : r + j + w])
        if j:
            total.add_(column[..., r - j : r - j + w])
    return total


@functools.lru_cache(maxsize=64)
def disk(radius: float, alias: float) -> tuple[tuple[float, ...], ...]:
    """The kernel of a lens out of focus: a disk of `radius` pixels, smoothed with a small Gaussian of σ `alias`.

    As in the benchmark: the disk is drawn on 17×17 pixels and smoothed over 3×3, or beyond radius 8 on
    (2·radius + 1)² pixels and over 5×5. Zero rows and columns around it are cut off.

    >>> [round(w, 2) for w in disk(1, 0.1)[1]], len(disk(1, 0.1))
    ([0.2, 0.2, 0.2], 3)
    """
    reach, smooth = (8, 1) if radius <= 8 else (int(radius), 2)
    span = torch.arange(-reach, reach + 1, dtype=torch.float64)
    inside = (span[:, None] ** 2 + span[None] ** 2 <= radius**2).double()
    taps = gaussian_taps(alias, smooth)
    kernel = correlate(inside / inside.sum(), [[a * b for b in taps] for a in taps])
    kernel = torch.where(kernel > _NEGLIGIBLE * kernel.sum(), kernel, 0.0)
    empty = int((kernel.sum(0) == 0).sum()) // 2
    kernel = kernel[empty : len(span) - empty, empty : len(span) - empty]
    return tuple(map(tuple, (kernel / kernel.sum()).tolist()))


def streak(x: Tensor, angles: Sequence[float], *, radius: int, sigma: float) -> Tensor:
    """Motion blur: each image smeared to one side along its own angle (degrees), with half a Gaussian of σ `sigma`.

        x'(p) = Σ_i w_i x(p + o_i),   w_i ∝ exp(−i²/2σ²),   i = 0 … 2·radius,
        o_i = ⌈i (sin θ, cos θ) − ½⌉  (rows, columns)

    as ImageMagick's motion blur does; the border is replicated.
    """
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(2 * radius + 1)]
    weights = [w / math.fsum(weights) for w in weights]
    weights = [w for w in weights if w > _NEGLIGIBLE]
    order = sorted(range(len(angles)), key=lambda b: angles[b])
    slopes = [(math.sin(math.radians(angles[b])), math.cos(math.radians(angles[b]))) for b in order]
    steps = [[(math.ceil(i * dy - 0.5), math.ceil(i * dx - 0.5)) for dy, dx in slopes] for i in range(len(weights))]
    rows, columns = zip(*(step for tap in steps for step in tap), strict=True)
    top, left = max(0, -min(rows)), max(0, -min(columns))
    wide = padded(
        x[torch.tensor(order, device=x.device)],
        top=top, bottom=max(0, *rows), left=left, right=max(0, *columns), border="replicate",
    )  # fmt: skip
    total = torch.zeros_like(x)
    h, w = x.shape[-2:]
    for weight, tap in zip(weights, steps, strict=True):
        # Neighbours in the order of angles mostly share an offset: one sum for each such run of images.
        for (dy, dx), run in groupby(range(len(tap)), key=tap.__getitem__):
            images = list(run)
            some = slice(images[0], images[-1] + 1)
            total[some].add_(wide[some, :, top + dy : top + dy + h, left + dx : left + dx + w], alpha=weight)
    back = torch.empty(len(order), dtype=torch.int64)
    back[torch.tensor(order)] = torch.arange(len(order))
    return total[back.to(x.device)]


# Resampling along the axes ----------------------------------------------------------------------------------------


class Resampling(NamedTuple):
    """Row i of the result is Σ_t weight[t][i] · row source[t][i] of the input; the same for columns."""

    source: tuple[tuple[int, ...], ...]
    weight: tuple[tuple[float, ...], ...]


def resample(x: Tensor, rule: Resampling) -> Tensor:
    """Apply one rule to the rows and to the columns of square images (B, C, n, n)."""
    return _resampled_rows(_resampled_rows(x, rule).mT.contiguous(), rule).mT


def _resampled_rows(x: Tensor, rule: Resampling) -> Tensor:
    total = None
    for source, weight in zip(rule.source, rule.weight, strict=True):
        w = torch.tensor(weight, dtype=x.dtype, device=x.device)[:, None]
        part = x.index_select(-2, torch.tensor(source, device=x.device)).mul_(w)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


@functools.lru_cache(maxsize=256)
def zoom(n: int, factor: float) -> Resampling:
    """Zoom into the middle of n pixels by `factor` ≥ 1 and keep n: bilinear, the outermost samples on each other.

    >>> zoom(4, 1.0).source[0]
    (0, 1, 2, 3)
    """
    kept = math.ceil(n / factor)
    first, size = (n - kept) // 2, round(kept * factor)
    cut, scale = (size - n) // 2, (kept - 1) / max(size - 1, 1)
    places = [(i + cut) * scale for i in range(n)]
    low = [min(int(p), kept - 1) for p in places]
    high = [min(i + 1, kept - 1) for i in low]
    share = [p - i for p, i in zip(places, low, strict=True)]
    source = (tuple(first + i for i in low), tuple(first + i for i in high))
    return Resampling(source, (tuple(1 - s for s in share), tuple(share)))


@functools.lru_cache(maxsize=256)
def boxes(n: int, size: int) -> Resampling:
    """Shrink n pixels to `size` by the mean of the pixels whose centres lie in a box, and back by repetition.

    >>> boxes(4, 2).source, boxes(4, 2).weight[0]
    (((0, 0, 2, 2), (1, 1, 3, 3)), (0.5, 0.5, 0.5, 0.5))
    """
    scale = n / size
    # As in Pillow: pixel j lies in box i when its centre is in (i·scale, (i + 1)·scale].
    inside = [[j for j in range(n) if i * scale < j + 0.5 <= (i + 1) * scale] for i in range(size)]
    inside = [box or [min(int((i + 0.5) * scale), n - 1)] for i, box in enumerate(inside)]
    rows = [inside[min(int((i + 0.5) * size / n), size - 1)] for i in range(n)]
    most = max(map(len, rows))
    source = tuple(tuple(row[min(t, len(row) - 1)] for row in rows) for t in range(most))
    weight = tuple(tuple(1 / len(row) if t < len(row) else 0.0 for row in rows) for t in range(most))
    return Resampling(source, weight)
