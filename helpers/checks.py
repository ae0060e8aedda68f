"""Validation at the public boundary: what was expected, and what came.

Every function returns its argument, so that a check can stand where the value
is first used, and raises `ValueError`; only `finite` and `Finite` raise `FloatingPointError`,
because a divergence is a result and not a caller's mistake. Private helpers
trust that their arguments have been here.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

FLOATS = (torch.float32, torch.float64)


def tensor(value: object, name: str) -> Tensor:
    """Expect a tensor, of any kind."""
    if not isinstance(value, Tensor):
        raise ValueError(f"expected {name} to be a torch.Tensor, got {type(value).__name__}")
    return value


def images(x: Tensor, name: str = "x") -> Tensor:
    """Expect float images (B, C, H, W) in [0, 1].

    float64 is let through for checks of the mathematics; uint8 pixels are not,
    since 255 would be read as a brightness of 255.

    >>> images(torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    >>> images(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    Traceback (most recent call last):
    ValueError: expected x to be float32 (or float64) images in [0, 1], got torch.uint8 (divide uint8 pixels by 255)
    """
    tensor(x, name)
    if x.dtype not in FLOATS:
        hint = " (divide uint8 pixels by 255)" if x.dtype == torch.uint8 else ""
        raise ValueError(f"expected {name} to be float32 (or float64) images in [0, 1], got {x.dtype}{hint}")
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"expected {name} of shape (B, C, H, W), got {tuple(x.shape)}")
    if x.numel() and not bool(((x >= 0) & (x <= 1)).all()):  # a NaN fails both comparisons
        low, high = x.min().item(), x.max().item()
        raise ValueError(f"expected {name} in [0, 1], got values from {low:.6g} to {high:.6g}")
    return x


def labels(y: Tensor, x: Tensor | None = None, *, num_classes: int | None = None, name: str = "y") -> Tensor:
    """Expect int64 labels (B,), from 0 to `num_classes` − 1, one for each row of `x` and on its device."""
    tensor(y, name)
    if y.dtype != torch.int64 or y.ndim != 1:
        raise ValueError(f"expected {name} to be int64 labels of shape (B,), got {y.dtype} of {tuple(y.shape)}")
    if x is not None and (len(y) != len(x) or y.device != x.device):
        raise ValueError(
            f"expected {name} with one label for each of {len(x)} rows on {x.device}, got {len(y)} on {y.device}"
        )
    if y.numel():
        low, high = int(y.min()), int(y.max())
        if low < 0 or (num_classes is not None and high >= num_classes):
            top = "" if num_classes is None else f" and below {num_classes} (the number of classes)"
            raise ValueError(f"expected {name} to be at least 0{top}, got labels from {low} to {high}")
    return y


def index(value: Tensor, x: Tensor | None = None, name: str = "index") -> Tensor:
    """Expect int64 image indices (B,), at least 0: the place of each image in its data set."""
    tensor(value, name)
    if value.dtype != torch.int64 or value.ndim != 1:
        raise ValueError(f"expected {name} to be int64 of shape (B,), got {value.dtype} of {tuple(value.shape)}")
    if x is not None and len(value) != len(x):
        raise ValueError(f"expected {name} with one entry for each of {len(x)} rows, got {len(value)}")
    if value.numel() and int(value.min()) < 0:
        raise ValueError(f"expected {name} to be at least 0, got {int(value.min())}")
    return value


def logits(value: Tensor, name: str = "logits") -> Tensor:
    """Expect floating logits (B, K)."""
    tensor(value, name)
    if not value.is_floating_point() or value.ndim != 2 or value.shape[1] < 1:
        raise ValueError(f"expected {name} to be floating, of shape (B, K), got {value.dtype} of {tuple(value.shape)}")
    return value


def per_sample(value: Tensor, x: Tensor, name: str) -> Tensor:
    """Expect one number for each row of `x`: shape (B,), not (B, 1) and not a mean.

    >>> per_sample(torch.zeros(2, 1), torch.zeros(2, 3), "energy")
    Traceback (most recent call last):
    ValueError: expected energy of shape (2,), one value for each sample, got (2, 1)
    """
    tensor(value, name)
    if value.shape != x.shape[:1]:
        raise ValueError(f"expected {name} of shape ({len(x)},), one value for each sample, got {tuple(value.shape)}")
    return value


def number(
    value: float, name: str, *, minimum: float = -math.inf, maximum: float = math.inf, above: float = -math.inf
) -> float:
    """Expect a finite real number in [`minimum`, `maximum`] and greater than `above`; True and "8/255" are none."""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not minimum <= value <= maximum or not value > above:
        bounds = [f">= {minimum:g}"] * (minimum > -math.inf) + [f"> {above:g}"] * (above > -math.inf)
        bounds += [f"<= {maximum:g}"] * (maximum < math.inf)
        wanted = " and ".join(["a finite number", *bounds])
        raise ValueError(f"expected {name} to be {wanted}, got {value!r}")
    return float(value)


def radius(value: float, name: str = "epsilon") -> float:
    """Expect a radius: finite and at least 0, in the scale of the images, [0, 1].

    >>> radius(8 / 255) == 8 / 255
    True
    >>> radius(-0.1)
    Traceback (most recent call last):
    ValueError: expected epsilon to be a finite number and >= 0, got -0.1
    """
    return number(value, name, minimum=0.0)


def probability(value: float, name: str) -> float:
    """Expect a probability, a finite number in [0, 1]."""
    return number(value, name, minimum=0.0, maximum=1.0)


def count(value: int, name: str, *, minimum: int = 0, maximum: int | None = None) -> int:
    """Expect a whole number of at least `minimum` (and at most `maximum`); True and 3.0 are none."""
    good = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not good or value < minimum or (maximum is not None and value > maximum):
        top = "" if maximum is None else f" and <= {maximum}"
        raise ValueError(f"expected {name} to be a whole number >= {minimum}{top}, got {value!r}")
    return int(value)


def choice(value: str, options: Iterable[str], name: str) -> str:
    """Expect one of `options`."""
    known = list(options)
    if value not in known:
        raise ValueError(f"expected {name} to be one of {', '.join(map(repr, known))}, got {value!r}")
    return value


def module(value: nn.Module, name: str = "network") -> nn.Module:
    """Expect a torch.nn.Module, whose mode and flags can be put back."""
    if not isinstance(value, nn.Module):
        raise ValueError(f"expected {name} to be a torch.nn.Module, got {type(value).__name__}")
    return value


def finite(values: Tensor, name: str, *, step: int, index: Sequence[int] | Tensor | None = None) -> Tensor:
    """Expect finite values (B,) or (B, …), else raise `FloatingPointError` with step, value and image.

    >>> finite(torch.tensor([1.0, float("nan")]), "loss", step=3, index=[7, 9])
    Traceback (most recent call last):
    FloatingPointError: loss is not finite at step 3: nan for image 9 (1 of 2 rows)
    """
    good = torch.isfinite(values).flatten(1).all(1) if values.ndim > 1 else torch.isfinite(values)
    if bool(good.all()):
        return values
    row = int((~good).nonzero()[0])
    worst = values[row][~torch.isfinite(values[row])].flatten()[0].item()
    which = row if index is None else int(index[row])
    raise FloatingPointError(
        f"{name} is not finite at step {step}: {worst} for image {which} ({int((~good).sum())} of {len(good)} rows)"
    )


class Finite:
    """`finite` for a loop: at once on a CPU; on an accelerator, whose queue each look would hold up, after the loop.

    >>> finite_so_far = Finite(index=[7])
    >>> finite_so_far.watch(torch.tensor([1.0]), "energy", step=0)
    >>> finite_so_far.look()
    """

    def __init__(self, index: Sequence[int] | Tensor) -> None:
        self.index = index
        self.pending: list[tuple[Tensor, str, int]] = []

    def watch(self, rows: Tensor, name: str, step: int) -> None:
        """Note values (B,) of a step, and on a CPU look at them."""
        self.pending.append((rows, name, step))
        if rows.device.type == "cpu":
            self.look()

    def look(self) -> None:
        """Raise `FloatingPointError` for the first noted values that are not finite."""
        for rows, name, step in self.pending:
            finite(rows, name, step=step, index=self.index)
        self.pending.clear()
