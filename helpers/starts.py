"""Where a chain starts that descends an energy: x_0 of a class, drawn without PCA (`class_pca` has the others).

Every start is `draw(y, key)`: classes y (B,) int64 to images x_0 (B, C, H, W) float32 in [0, 1] on y's device. Of the
key a draw takes seed, index and step; the purpose is the start's own. Its bits depend on the image's index and class
alone, not on the batch, the device or the number of threads (`exact_products`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from helpers import checks, exact_products, noise
from helpers.data import ImageSet

# σ of the white noise that is added to a class's covariance, in [0, 1] units. Both add 1e-4 I: Santurkar et al. (2019)
# to images in [0, 1], JEM++ (Yang, Su & Ji, 2021) to images in [−1, 1], where 0.01 is half as much of the range.
SANTURKAR_JITTER_STD = 0.01
JEMPP_JITTER_STD = 0.005


class Start(Protocol):
    """A distribution of first images for each class."""

    @property
    def name(self) -> str:
        """Its name in YAML."""

    def draw(self, y: Tensor, key: noise.Key) -> Tensor:
        """First images x_0 (B, C, H, W) float32 in [0, 1] for classes `y` (B,) int64; `key.index` (B,) names them."""


def own_key(start: Start, y: Tensor, key: noise.Key, what: str, *, num_classes: int | None) -> noise.Key:
    """`key` with a purpose of the start's own and on y's device; ValueError where it does not fit `y`."""
    checks.labels(y, num_classes=num_classes)
    checks.index(key.index, y)
    return replace(key, purpose=f"start {start.name}: {what}", index=key.index.to(y.device))


def grid_normal(key: noise.Key, n: int) -> Tensor:
    """Normal draws (B, n), float64 on the grid of `exact_products`; the first of them do not depend on n.

    Those of `key.tabled()` lie on it anyhow.
    """
    return exact_products.on_grid(key.normal((n,), dtype=torch.float64), bits=exact_products.NOISE_BITS)


def by_class(y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each class in `y` (B,) with the rows that have it.

    >>> [(k, rows.tolist()) for k, rows in by_class(torch.tensor([4, 0, 4]))]
    [(0, [1]), (4, [0, 2])]
    """
    for k in y.unique().tolist():
        yield int(k), (y == k).nonzero().flatten()


def pixels_by_class(images: ImageSet, *, at_least: int = 1) -> tuple[Tensor, ...]:
    """Pixels (N_y, C, H, W) uint8 of each class; ValueError where a class has fewer than `at_least` images."""
    rows = [(images.labels == k).nonzero().flatten() for k in range(images.num_classes)]
    for name, found in zip(images.classes, rows, strict=True):
        if len(found) < at_least:
            raise ValueError(f"expected at least {at_least} images of class {name!r}, got {len(found)}")
    return tuple(images.pixels[found] for found in rows)


def class_means(pixels: tuple[Tensor, ...]) -> Tensor:
    """Mean image of each class, (K, C·H·W) float64 in [0, 1], of the pixels of `pixels_by_class`."""
    return torch.stack([exact_products.mean_of(p.flatten(1)) for p in pixels])


def as_images(flat: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Rows (B, C·H·W) clipped to [0, 1], as float32 images (B, C, H, W)."""
    return flat.clamp(0, 1).float().reshape(-1, *shape)


@dataclass(frozen=True, eq=False)
class Uniform:
    """x_0 ~ U[0, 1) in each pixel, whatever the class (JEM; Grathwohl et al., 2020).

    >>> key = noise.Key(seed=0, purpose="chain", index=torch.tensor([7]))
    >>> Uniform(shape=(1, 2, 2), num_classes=10).draw(torch.tensor([3]), key).shape
    torch.Size([1, 1, 2, 2])
    """

    name: ClassVar[str] = "uniform"
    shape: tuple[int, int, int]
    num_classes: int

    def draw(self, y: Tensor, key: noise.Key) -> Tensor:
        """First images (B, C, H, W); see `Start.draw`."""
        return own_key(self, y, key, "x", num_classes=self.num_classes).uniform(self.shape)


@dataclass(frozen=True, eq=False)
class ClassMean:
    """x_0 = clip(μ_y + σ ε, 0, 1) with σ = `start_noise_std` in [0, 1] units and ε ~ N(0, I); σ = 0 is the mean itself.

    `mean` (K, C·H·W) float64.
    """

    name: ClassVar[str] = "class_mean"
    mean: Tensor
    shape: tuple[int, int, int]
    start_noise_std: float

    def draw(self, y: Tensor, key: noise.Key) -> Tensor:
        """First images (B, C, H, W); see `Start.draw`."""
        key = own_key(self, y, key, "noise", num_classes=len(self.mean))
        mean = self.mean.to(y.device)[y]
        return as_images(mean + self.start_noise_std * key.normal(mean.shape[1:], dtype=torch.float64), self.shape)


@dataclass(frozen=True, eq=False)
class Images:
    """x_0 = clip(x + σ ε, 0, 1) with x a random image of `pixels` (N, C, H, W) uint8 and σ = `start_noise_std`.

    Every image is as likely for every class: the set is another one, and its classes need not be the network's. A
    set that shares images with the data of a score (the paper's code starts from test images) leaks them into it.
    """

    name: ClassVar[str] = "images"
    pixels: Tensor
    start_noise_std: float

    def draw(self, y: Tensor, key: noise.Key) -> Tensor:
        """First images (B, C, H, W); see `Start.draw`."""
        chosen = own_key(self, y, key, "image", num_classes=None).integers(len(self.pixels))
        flat = self.pixels[chosen.to(self.pixels.device)].to(y.device).flatten(1).double() / 255
        epsilon = own_key(self, y, key, "noise", num_classes=None).normal(flat.shape[1:], dtype=torch.float64)
        return as_images(flat + self.start_noise_std * epsilon, (*self.pixels.shape[1:],))


@dataclass(frozen=True, eq=False)
class ClassGaussian:
    """x_0 ~ N(μ_y, Σ_y + σ² I), clipped, with the class's full covariance Σ_y, which is never formed.

        x_0 = clip(μ_y + X_yᵀ z / √N_y + σ ε, 0, 1),    z ~ N(0, I) of N_y numbers, ε ~ N(0, I)

    X_y (N_y, C·H·W) are the class's images in [0, 1] less their mean, so X_yᵀ z / √N_y has covariance X_yᵀ X_y / N_y
    (Santurkar et al., 2019; JEM++, Yang, Su & Ji, 2021). `pixels` (N_y, C, H, W) uint8 and `mean` (K, C·H·W) float64
    of each class; σ is `jitter_std`, SANTURKAR_JITTER_STD or JEMPP_JITTER_STD of this module. A batch goes through all
    images of each of its classes: few classes in a batch are faster.
    """

    name: ClassVar[str] = "class_gaussian"
    pixels: tuple[Tensor, ...]
    mean: Tensor
    jitter_std: float

    def draw(self, y: Tensor, key: noise.Key) -> Tensor:
        """First images (B, C, H, W); see `Start.draw`."""
        z = own_key(self, y, key, "z", num_classes=len(self.pixels))
        epsilon = own_key(self, y, key, "noise", num_classes=len(self.pixels))
        _, c, h, w = self.pixels[0].shape
        x = torch.empty(len(y), c, h, w, device=y.device)
        for k, batch in by_class(y):
            flat, mean = self.pixels[k].flatten(1).to(y.device), self.mean[k].to(y.device)
            along = exact_products.combination(grid_normal(z.rows(batch), len(flat)), flat, mean=mean)
            jitter = self.jitter_std * epsilon.rows(batch).normal(mean.shape, dtype=torch.float64)
            x[batch] = as_images(mean + along / math.sqrt(len(flat)) + jitter, (c, h, w))
        return x
