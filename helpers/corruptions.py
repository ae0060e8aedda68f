"""Common corruptions of images at five severities (Hendrycks & Dietterich 2019), batched: `corrupt`.

    x' = corrupt("fog", x, severity=3, profile="cifar", seed=0, index=index)

The 15 corruptions of mCE and 4 extra ones, by name and group in corruption_settings.py; the formulas stand in
corruption_noise.py, corruption_blur.py, corruption_weather.py and corruption_digital.py. One image's result depends
on `seed`, its `index` and the call's other words, never on its batch.

Departs from the reference, whose files remain the benchmark: other random numbers (keyed by image), frost drawn by us,
outlines of water drops in spatter, and real numbers where the reference rounds between steps of one corruption.
Like it we take 8-bit images, and give 8-bit levels, cut off and not rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from helpers import checks, corruption_blur, corruption_digital, corruption_noise, corruption_weather, filters, noise
from helpers.corruption_settings import STORED_QUALITY, Constants, Profile, constants

__all__ = ["corrupt", "distance"]

Corruption = Callable[[Tensor, Constants, noise.Key], Tensor]
_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 26}  # values at a time: on a CPU an image and its copies stay in cache
_SHRINK: dict[Profile, float] = {"imagenet": 1.0, "cifar": 0.2, "digits": 0.1}  # of the frosted panes


def _function(name: str, profile: Profile) -> Corruption:
    if name == "frost":
        return partial(corruption_weather.frost, shrink=_SHRINK[profile])
    for module in (corruption_noise, corruption_blur, corruption_weather, corruption_digital):
        if hasattr(module, name):
            found: Corruption = getattr(module, name)
            return found
    raise AssertionError(f"{name} has constants but no function")


@torch.no_grad()
def corrupt(
    name: str,
    x: Tensor,
    *,
    severity: int,
    profile: Profile,
    seed: int,
    index: Tensor,
    stored: Literal["profile", "lossless"] = "profile",
) -> Tensor:
    """Corrupt images x (B, C, H, W) in [0, 1], C of 1 or 3, square: x' of the same shape, in steps of 1/255.

    `name` is one of `corruption_settings.names(...)`, `severity` 1 … 5. `profile` names the ladder of constants, made
    for 224 ("imagenet"), 32 ("cifar") or 16 pixels ("digits"); another size is taken as it is. `index` (B,) is each
    image's place in its data set: with `seed`, name and severity it keys all draws. `stored` "profile" adds what the
    benchmark's files have been through (ImageNet-C: a JPEG of quality 85), "lossless" leaves that out.
    x is rounded to 8 bits first. `x` is not modified.

    Raises ValueError for bad input and for an unknown name, profile or severity.

    >>> x = torch.full((1, 1, 16, 16), 0.2)
    >>> corrupt("brightness", x, severity=2, profile="cifar", seed=0, index=torch.tensor([7]))[0, 0, 0, :2] * 255
    tensor([76., 76.])
    """
    checks.index(index, checks.images(x))
    if x.shape[1] not in (1, 3) or x.shape[2] != x.shape[3]:
        raise ValueError(f"expected square images of 1 or 3 channels, (B, C, n, n), got {tuple(x.shape)}")
    values = constants(name, severity=severity, profile=profile)
    quality = STORED_QUALITY[profile] if checks.choice(stored, ("profile", "lossless"), "stored") == "profile" else None
    function = _function(name, profile)
    key = noise.Key(seed, f"corruption/{name}", index.to(x.device), severity)
    size = max(1, _AT_ONCE.get(x.device.type, 1 << 26) // x[0].numel()) if len(x) else 1
    done = []
    for start in range(0, len(x), size):
        part = x[start : start + size].float().mul(255).round_().div_(255)
        done.append(filters.cut_off(function(part, values, key.rows(slice(start, start + size)))).clamp_(0, 1))
        if quality is not None:
            done[-1] = corruption_digital.jpeg_compression(done[-1], (quality,), key)
    return torch.cat(done) if done else x.clone()


def distance(x: Tensor, corrupted: Tensor) -> Tensor:
    """Root mean square difference per value of each image pair, (B,) in [0, 1]: ‖x' − x‖₂ / √(C H W).

    >>> distance(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5))
    tensor([0.5000])
    """
    if checks.images(corrupted, "corrupted").shape != checks.images(x).shape:
        raise ValueError(f"expected corrupted of shape {tuple(x.shape)}, got {tuple(corrupted.shape)}")
    return (corrupted - x).double().square().mean((1, 2, 3)).sqrt().float()
