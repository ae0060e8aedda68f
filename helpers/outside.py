"""Images that are not of a network's data: other data sets in its size and channels, mixtures of its own, and noise.

    name of a data set   test images of it, drawn by `seed`, as coarse and with as many channels as those of `like`
    interpolation        the mean of two images of `like` of different classes     (Grathwohl et al. 2020, section 5.3)
    noise                every pixel value drawn evenly from 0 to 255

A set that is sharper or larger, or normalised otherwise, is told apart by that alone. So each goes the way of `like`:
resized to its side, for the digits through scans of 8×8 in 17 values as these are; colour becomes grey by the weights
of ITU-R 601, grey becomes three equal channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from helpers import checks, data, noise, readers
from helpers.data import ImageSet

__all__ = ["DERIVED", "collected", "fitted", "outside"]

INTERPOLATION, NOISE = "interpolation", "noise"
DERIVED = (INTERPOLATION, NOISE)  # made of `like`; every other name is one of helpers.data
GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue, ITU-R 601


def outside(name: str, like: ImageSet, *, n: int, seed: int) -> ImageSet:
    """`n` images of the set `name` (all of them where it has fewer) in the shape of `like`, the network's test images.

    Other data sets give images of their test split, drawn without replacement; the derived ones use the first `n` of
    `like`. All draws are keyed by image (`helpers.noise`), so the first images of a larger draw are those of a smaller
    one for the derived sets. Labels are those of the source (of an interpolation the first image's) and mean nothing to
    the network. Raises ValueError for the network's own data and unknown names, and FileNotFoundError, with the command
    that downloads them, for data that are missing.

    >>> digits = data.load("digits", "test")
    >>> outside("letters", digits, n=20, seed=0).shape, len(outside("noise", digits, n=5, seed=0))
    ((1, 16, 16), 5)
    """
    checks.count(n, "n", minimum=1)
    checks.count(seed, "seed")
    if name == like.name:
        raise ValueError(f"expected data other than the network's own, got {name!r}")
    if name == INTERPOLATION:
        return _interpolated(like, n=n, seed=seed)
    if name == NOISE:
        few = like.first(n)
        drawn = _key(name, few, seed).integers(256, few.shape).to(torch.uint8)
        return replace(few, pixels=drawn, name=name)
    return fitted(_drawn(data.load(name, "test"), n=n, seed=seed), like)


def collected(names: Sequence[str], like: ImageSet, *, n: int, seed: int) -> tuple[dict[str, ImageSet], dict[str, str]]:
    """`outside` for each name: the sets that are there, and for those whose data are missing what to do, by name."""
    found: dict[str, ImageSet] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            found[name] = outside(name, like, n=n, seed=seed)
        except FileNotFoundError as error:
            missing[name] = data.placeless(error)
    return found, missing


def fitted(images: ImageSet, like: ImageSet) -> ImageSet:
    """`images` with the channels and the size of `like`, which is square; scans where `like` are the digits."""
    c, side, width = like.shape
    if side != width or c not in (1, 3):
        raise ValueError(f"expected square images of one or three channels to fit others to, got shape {like.shape}")
    pixels = _channels(images.pixels, c)
    pixels = readers.as_scans(pixels) if like.name == "digits" else pixels
    return replace(images, pixels=readers.resize(pixels, side).to(like.pixels.device))


def _channels(pixels: Tensor, wanted: int) -> Tensor:
    """Pixels (N, 1 or 3, H, W) uint8 with `wanted` channels."""
    if pixels.shape[1] == wanted:
        return pixels
    if wanted == 3:
        return pixels.expand(-1, 3, -1, -1).contiguous()
    weights = torch.tensor(GREY, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float() * weights).sum(1, keepdim=True).round().clamp(0, 255).to(torch.uint8)


def _key(name: str, images: ImageSet, seed: int) -> noise.Key:
    return noise.Key(seed, f"outside/{name}", images.index)


def _drawn(images: ImageSet, *, n: int, seed: int) -> ImageSet:
    """`n` of the images without replacement, by the order of a draw of each."""
    order = _key(images.name, images, seed).uniform((1,), dtype=torch.float64).flatten().argsort(stable=True)
    return images.subset(order[:n])


def _interpolated(like: ImageSet, *, n: int, seed: int) -> ImageSet:
    """Means of each of the first `n` images and one of another class, drawn evenly among those of `like`."""
    few, y = like.first(n), like.labels
    others = y[None] != few.labels[:, None]  # (n, N)
    if not bool(others.any(1).all()):
        raise ValueError(f"expected images of at least two classes to interpolate between, got {like.classes}")
    drawn = _key(INTERPOLATION, few, seed).uniform((1,), dtype=torch.float64)
    rank = (drawn * others.sum(1, keepdim=True)).floor().long()  # which of the images of other classes, from 0
    partner = (others.cumsum(1) == rank + 1).int().argmax(1)
    both = few.pixels.int() + like.pixels[partner].int()
    return replace(few, pixels=((both + 1) // 2).to(torch.uint8), name=INTERPOLATION)
