"""Where an attack in a ball begins: at the image itself, evenly in the ball, or beside the image by Gaussian noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from helpers import balls, noise
from helpers.balls import Norm, column

Start = Literal["none", "uniform", "gaussian"]
STARTS = ("none", "uniform", "gaussian")


def first_point(
    x: Tensor, key: noise.Key, *, norm: Norm, epsilon: float, start: Start, start_std: float | None
) -> Tensor:
    """The starting point x_0, in the ball and in [0, 1]."""
    shape = x.shape[1:]
    if start == "none":
        return x.clone()
    if start == "gaussian":
        assert start_std is not None
        d = start_std * key.normal(shape, dtype=x.dtype)
    elif norm == "linf":
        d = epsilon * (2 * key.uniform(shape, dtype=x.dtype) - 1)
    else:
        # Uniform in the ball of d dimensions: an even direction, and a length whose d-th power is even.
        z = key.normal(shape, dtype=torch.float64)
        u = replace(key, purpose=f"{key.purpose}/length").uniform((1,), dtype=torch.float64)
        length = torch.linalg.vector_norm(z.flatten(1), dim=1)
        d = (z * (epsilon * column(u ** (1 / shape.numel()), z) / column(length, z))).to(x.dtype)
    return balls.project(x + d, x, norm=norm, epsilon=epsilon)
