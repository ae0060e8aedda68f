"""The ball of an attack: {x* : ‖x* − x‖ ≤ ε} in L∞ or L2, met with the box [0, 1].

Images are (B, C, H, W), one number for each image is (B,). Nothing here is modified in place.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from helpers import checks

__all__ = ["NORMS", "Norm", "check", "choose", "column", "distance", "inside", "project", "steepest"]

Norm = Literal["linf", "l2"]
NORMS = ("linf", "l2")
SLACK = 1e-5  # what float32 may add to a radius, as a share of it, and 1e-6 for the grid of numbers near 1


def column(values: Tensor, x: Tensor) -> Tensor:
    """Numbers (B,) in a shape that broadcasts against `x` (B, …)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def choose(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Image by image a where `rows` (B,) is true, else b; both finite.

    `lerp` is exact for weights 0 and 1 and on a CPU three times as fast as `where` with a broadcast condition.
    """
    return torch.lerp(b, a, column(rows, a).to(a.dtype))


def distance(a: Tensor, b: Tensor, *, norm: Norm) -> Tensor:
    """‖a − b‖ of each pair of images, (B,).

    >>> a = torch.tensor([[[[0.0, 0.3, 0.4]]]])
    >>> distance(a, torch.zeros_like(a), norm="linf"), distance(a, torch.zeros_like(a), norm="l2")
    (tensor([0.4000]), tensor([0.5000]))
    """
    d = (a - b).flatten(1)
    return d.abs().amax(1) if norm == "linf" else torch.linalg.vector_norm(d, dim=1)


def inside(x_adv: Tensor, x: Tensor, *, norm: Norm, epsilon: float) -> Tensor:
    """Whether each x_adv lies in the ball and in [0, 1], up to rounding; bool (B,). A NaN lies outside."""
    near = distance(x_adv, x, norm=norm) <= epsilon * (1 + SLACK) + 1e-6
    return near & ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)


def steepest(gradient: Tensor, *, norm: Norm) -> Tensor:
    """The direction of steepest ascent with length 1 in the norm: sign g, or g/‖g‖₂; 0 where the gradient is 0."""
    if norm == "linf":
        return gradient.sign()
    # Divided by the peak first, since the squares of a confident network's gradient underflow.
    peak = gradient.flatten(1).abs().amax(1)
    scaled = gradient / column(peak.where(peak > 0, 1.0), gradient)
    return scaled / column(torch.linalg.vector_norm(scaled.flatten(1), dim=1).clamp_min(1.0), scaled)


def project(x_adv: Tensor, x: Tensor, *, norm: Norm, epsilon: float) -> Tensor:
    """Into the ball around x, then into [0, 1]; that holds x, so the second brings no entry farther from it.

    >>> x = torch.full((1, 1, 1, 2), 0.9)
    >>> project(x + torch.tensor([-0.5, 0.5]), x, norm="linf", epsilon=0.25)
    tensor([[[[0.6500, 1.0000]]]])
    """
    d = x_adv - x
    if norm == "linf":
        return x.add(d.clamp_(-epsilon, epsilon)).clamp_(0.0, 1.0)
    length = torch.linalg.vector_norm(d.flatten(1), dim=1)
    factor = (epsilon / length.clamp_min(torch.finfo(d.dtype).tiny)).clamp_max(1.0)
    return torch.addcmul(x, d, column(factor, d)).clamp_(0.0, 1.0)


def check(*, norm: str, epsilon: float, step_size: float, n_steps: int) -> None:
    """ValueError where a ball, a step or their number cannot be."""
    checks.choice(norm, NORMS, "norm")
    checks.radius(epsilon)
    checks.count(n_steps, "n_steps")
    checks.number(step_size, "step_size", minimum=0.0)
    if n_steps > 0 and epsilon > 0:
        checks.number(step_size, "step_size (with n_steps > 0)", above=0.0)
