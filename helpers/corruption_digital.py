"""Corruptions by handling: contrast, elastic, pixelate, JPEG and saturate (Hendrycks & Dietterich 2019).

Each is `corruption(x, constants, key) -> x'`: x (B, C, H, W) in steps of 1/255, x' not yet clipped to [0, 1] nor
rounded, unless it says so.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from helpers import filters, noise
from helpers.corruption_settings import Constants


def contrast(x: Tensor, constants: Constants, _key: noise.Key) -> Tensor:
    """x' = (x − x̄) c + x̄, x̄ the mean of each channel; constants (c,)."""
    (c,) = constants
    # A whole-number sum: the mean of an image does not depend on how its batch is summed.
    levels = x.mul(255).round_().long().sum((2, 3), keepdim=True)
    mean = (levels.double() / (255 * x.shape[2] * x.shape[3])).to(x.dtype)
    return (x - mean) * c + mean


def pixelate(x: Tensor, constants: Constants, _key: noise.Key) -> Tensor:
    """Shrunk to ⌊c · size⌋ by box means and enlarged by repetition, in 8 bits; constants (c,). Square images only."""
    (c,) = constants
    size = x.shape[-1]
    rule = filters.boxes(size, max(int(size * c), 1))
    return filters.resample(x, rule).mul(255).round_().div_(255)


def jpeg_compression(x: Tensor, constants: Constants, _key: noise.Key) -> Tensor:
    """Through a JPEG file of quality q and back (colour at half resolution); constants (q,).

    By Pillow on the CPU, as in the reference; torchvision's own encoder is deprecated. Levels are the decoder's.
    """
    (quality,) = constants
    levels = x.mul(255).round_().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    pages = levels[..., 0] if x.shape[1] == 1 else levels
    levels = np.stack([_through_jpeg(page, int(quality)) for page in pages])
    found = torch.from_numpy(levels).view(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
    return found.to(x.device, x.dtype, memory_format=torch.contiguous_format).div_(255)


def _through_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """One image, (H, W, 3) or (H, W), through memory."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def saturate(x: Tensor, constants: Constants, _key: noise.Key) -> Tensor:
    """The saturation S of hue, saturation and value changed to S' = min(a S + b, 1); constants (a, b).

    With hue and value V held, x' = V − (V − x) S'/S. Grey has no hue; like the reference we call it red. Three
    channels only.
    """
    a, b = constants
    if x.shape[1] != 3:
        raise ValueError(f"expected images of 3 channels for saturate, got {x.shape[1]}: grey has no saturation")
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    saturation = (value - low) / value.clamp(min=1e-6)
    changed = (a * saturation + b).clamp_(max=1)
    coloured = value - (value - x) * (changed / saturation.clamp(min=1e-6))
    red = torch.cat([value, value * (1 - changed), value * (1 - changed)], 1)
    return torch.where(value > low, coloured, red)


# Elastic transform ----------------------------------------------------------------------------------------------------


def elastic_transform(x: Tensor, constants: Constants, key: noise.Key) -> Tensor:
    """A random affine map, then a smooth random displacement, both bilinear (Simard et al. 2003); constants (α, σ, j).

    Three points, half an image apart and more, move by up to j pixels along each axis and carry the image with them
    (border "reflect"); then x'(p) = x(p + α G_σ ∗ u), u even in [−1, 1) for each pixel and axis (border "symmetric";
    the Gaussian is cut off at 3σ). Square images only.
    """
    alpha, sigma, jitter = constants
    size = x.shape[-1]
    jitters = key.uniform((3, 2), dtype=torch.float64).mul_(2).sub_(1).mul_(jitter)
    rows, columns = _affine(jitters, size)
    x = _sampled(x, rows, columns, twice=False)
    if alpha == 0:
        return x
    u = key.at(key.step + _FIELD).uniform((2, size, size)).mul_(2).sub_(1)
    field = filters.gaussian(u, sigma, truncate=3.0, border="symmetric").mul_(alpha)
    grid = torch.arange(size, dtype=x.dtype, device=x.device)
    return _sampled(x, grid[:, None] + field[:, 0], grid + field[:, 1], twice=True)


_FIELD = 100  # added to a key's step for the draws of a second kind


def _affine(jitters: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where each pixel comes from, rows and columns (B, size, size), when three points move by `jitters` (B, 3, 2).

    The points are (m + s, m + s), (m + s, m − s), (m − s, m − s) in (column, row), m = ⌊size/2⌋, s = ⌊size/3⌋.
    """
    m, s = size // 2, size // 3
    points = torch.tensor([[m + s, m + s], [m + s, m - s], [m - s, m - s]], dtype=torch.float64)
    q = points.to(jitters.device) + jitters
    # Columns and rows of the map's matrix: what one pixel to the right, and one down, becomes.
    a, b = (q[:, 1] - q[:, 2]).div(2 * s).unbind(1)
    c, d = (q[:, 0] - q[:, 1]).div(2 * s).unbind(1)
    grid = torch.arange(size, dtype=torch.float64, device=jitters.device)
    right = grid[None, None] - q[:, 2, 0, None, None]
    down = grid[None, :, None] - q[:, 2, 1, None, None]
    a, b, c, d = (value[:, None, None] for value in (a, b, c, d))
    determinant = a * d - b * c
    columns = (m - s) + (d * right - c * down) / determinant
    rows = (m - s) + (a * down - b * right) / determinant
    return rows.float(), columns.float()


def _sampled(x: Tensor, rows: Tensor, columns: Tensor, *, twice: bool) -> Tensor:
    """x (B, C, n, n) at real places (B, n, n), bilinear; the edge pixel counts `twice` where the image is mirrored."""
    n = x.shape[-1]
    scale, shift = (2 / n, 1 / n - 1) if twice else (2 / (n - 1), -1.0)
    grid = torch.stack([columns, rows], -1).mul_(scale).add_(shift)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=not twice)
