"""Augmentation of training images, by name, on the images' device and batch at a time.

Each draw is keyed by (seed, image index, epoch), so that an image of one epoch is augmented the same in any batch,
after any resume, and on any device. Images are uint8 in and uint8 out.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import noise

CROP_PAD = 4  # pixels of black on each side before a random crop, He et al. 2016
SHIFT_PAD = 1  # digits: at 16×16, a pixel


def crop(pixels: Tensor, *, pad: int, seed: int, index: Tensor, epoch: int, reflect: bool = False) -> Tensor:
    """Pad with `pad` pixels on each side, black or the image's mirrored edge, and cut a window at a random place.

    pixels: (B, C, H, W) uint8; index: (B,). Returns (B, C, H, W) uint8. Each of (2 pad + 1)² places is equally likely.
    A model of the images learns black edges as well, so JEM and JEM++ mirror theirs.
    """
    _, _, height, width = pixels.shape
    offset = noise.integers(2 * pad + 1, seed=seed, purpose="augment/crop", index=index, step=epoch, shape=(2,))
    rows = offset[:, :1] + torch.arange(height, device=pixels.device)  # (B, H)
    columns = offset[:, 1:] + torch.arange(width, device=pixels.device)  # (B, W)
    if reflect:
        rows, columns, padded = _mirrored(rows - pad, height), _mirrored(columns - pad, width), pixels
    else:
        padded = F.pad(pixels, (pad, pad, pad, pad))
    image = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _mirrored(place: Tensor, size: int) -> Tensor:
    """Places of pixels beyond an edge, mirrored at it without repeating it, as PyTorch's "reflect" does.

    >>> _mirrored(torch.tensor([-2, -1, 0, 3, 4, 5]), 4).tolist()
    [2, 1, 0, 3, 2, 1]
    """
    return (size - 1) - ((size - 1) - place.abs()).abs()


def flip(pixels: Tensor, *, seed: int, index: Tensor, epoch: int) -> Tensor:
    """Mirror each image left to right with probability one half. (B, C, H, W) uint8."""
    mirrored = noise.integers(2, seed=seed, purpose="augment/flip", index=index, step=epoch).bool()
    return torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)


def autoaugment(pixels: Tensor, *, policy: str, seed: int, index: Tensor, epoch: int) -> Tensor:
    """AutoAugment (Cubuk et al. 2019), torchvision's policies "cifar10", "svhn", "imagenet", one image at a time.

    torchvision draws from torch's global CPU generator; here that is forked and seeded for each image from its key,
    and put back, so these draws too are the image's own. Some 0.3 ms an image on a CPU.
    """
    from torchvision.transforms import v2

    transform = v2.AutoAugment(v2.AutoAugmentPolicy(policy))
    seeds = noise.integers(2**31, seed=seed, purpose="augment/autoaugment", index=index, step=epoch).tolist()
    out = torch.empty_like(pixels)
    with torch.random.fork_rng(devices=[]):
        for k, image_seed in enumerate(seeds):
            torch.default_generator.manual_seed(image_seed)
            out[k] = transform(pixels[k])
    return out


def _none(pixels: Tensor, **_key: object) -> Tensor:
    return pixels


def _shift(pixels: Tensor, **key: object) -> Tensor:
    return crop(pixels, pad=SHIFT_PAD, **key)  # type: ignore[arg-type]


def _crop(pixels: Tensor, **key: object) -> Tensor:
    return crop(pixels, pad=CROP_PAD, **key)  # type: ignore[arg-type]


def _reflect_crop_flip(pixels: Tensor, **key: object) -> Tensor:
    return flip(crop(pixels, pad=CROP_PAD, reflect=True, **key), **key)  # type: ignore[arg-type]


def _crop_flip(pixels: Tensor, **key: object) -> Tensor:
    return flip(_crop(pixels, **key), **key)  # type: ignore[arg-type]


def _autoaugment(policy: str, *, mirrored: bool = True) -> Callable[..., Tensor]:
    """Crop, flip where a mirrored image keeps its class, then the policy."""

    def apply(pixels: Tensor, **key: object) -> Tensor:
        before = _crop_flip if mirrored else _crop
        return autoaugment(before(pixels, **key), policy=policy, **key)  # type: ignore[arg-type]

    return apply


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "none": _none,
    "shift": _shift,
    "crop": _crop,
    "flip": flip,
    "crop_flip": _crop_flip,
    "reflect_crop_flip": _reflect_crop_flip,
    "autoaugment": _autoaugment("cifar10"),
    "autoaugment_svhn": _autoaugment("svhn", mirrored=False),
    "autoaugment_imagenet": _autoaugment("imagenet"),
}


def augment(name: str, pixels: Tensor, *, seed: int, index: Tensor, epoch: int) -> Tensor:
    """Augment a batch by the name of `AUGMENTATIONS`.

    pixels: (B, C, H, W) uint8; index: (B,) int64, the images' places in their data set. Returns the same shape and
    type; the input is left alone. Raises ValueError for an unknown name or another type.

    >>> x = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4)
    >>> bool((augment("none", x, seed=0, index=torch.tensor([5]), epoch=0) == x).all())
    True
    """
    if name not in AUGMENTATIONS:
        near = difflib.get_close_matches(name, AUGMENTATIONS, n=1, cutoff=0.4)
        hint = f" (nearest: {near[0]})" if near else ""
        raise ValueError(f"expected an augmentation among {', '.join(AUGMENTATIONS)}, got {name!r}{hint}")
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        raise ValueError(f"expected uint8 pixels (B, C, H, W), got {pixels.dtype} of shape {tuple(pixels.shape)}")
    return AUGMENTATIONS[name](pixels, seed=seed, index=index, epoch=epoch)
