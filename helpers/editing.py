"""Inpainting and morphing: momentum SGLD (samplers.py) on an energy of which only some pixels, or a ball, are free.

    inpaint    E(m ⊙ x + (1 − m) ⊙ z, y) is descended in z; m is 1 where a pixel is known
    morph      E(z, t) is descended from an image x of another class, within ‖z − x‖₂ ≤ ε

Neither paper measures these; they are pictures, not claims.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helpers import balls, checks, noise, samplers

__all__ = ["inpaint", "morph"]


def inpaint(
    energy: samplers.Energy,
    x: Tensor,
    y: Tensor,
    *,
    known: Tensor,
    step_size: float,
    momentum: float,
    noise_std: float,
    n_steps: int,
    gradient: samplers.Gradient,
    key: noise.Key,
    stop: samplers.Stop = "steps",
    target: Tensor | None = None,
    tolerance: float | None = None,
    callback: samplers.Callback | None = None,
) -> Tensor:
    """Images whose unknown pixels are descended on E(·, y), (B, C, H, W); the known ones come back bit for bit.

    x (B, C, H, W) in [0, 1] holds the known pixels, and in the others what the chain starts from (noise, a draw of a
    start, or the picture itself). `known` is bool, (B, C, H, W) or what broadcasts to it, such as (H, W). The chain
    runs on z with the energy of the composite m ⊙ x + (1 − m) ⊙ z, so gradient and noise act on free pixels only.
    The other keywords are those of samplers.sgld; `callback(k, composite, E)` sees every composite.

    Raises ValueError for bad input, FloatingPointError where the energy is not finite.

    >>> x, y = torch.full((1, 1, 1, 2), 0.75), torch.tensor([0])
    >>> inpaint(lambda x, y: x.square().sum((1, 2, 3)) / 2, x, y, known=torch.tensor([True, False]), step_size=1.0,
    ...     momentum=0.0, noise_std=0.0, n_steps=1, gradient="plain", key=noise.Key(0, "doc", torch.tensor([0])))
    tensor([[[[0.7500, 0.0000]]]])
    """
    checks.labels(y, checks.images(x))
    x, fixed = x.detach(), _mask(known, x)

    def composite(z: Tensor, rows: Tensor) -> Tensor:
        return torch.where(fixed[rows], x[rows], z)

    everyone = torch.arange(len(x), device=x.device)
    watch = None if callback is None else lambda k, z, E: callback(k, composite(z, everyone), E)
    # The sampler hands its labels through: row numbers in their place say which known pixels belong to which chain.
    z = samplers.sgld(
        lambda z, rows: energy(composite(z, rows), y[rows]), x, everyone, step_size=step_size, momentum=momentum,
        noise_std=noise_std, n_steps=n_steps, gradient=gradient, key=key, stop=stop, target=target,
        tolerance=tolerance, callback=watch,
    )  # fmt: skip
    return composite(z, everyone)


def morph(
    energy: samplers.Energy,
    x: Tensor,
    y: Tensor,
    *,
    epsilon_l2: float | None,
    step_size: float,
    momentum: float,
    noise_std: float,
    n_steps: int,
    gradient: samplers.Gradient,
    key: noise.Key,
    stop: samplers.Stop = "steps",
    target: Tensor | None = None,
    tolerance: float | None = None,
    callback: samplers.Callback | None = None,
) -> Tensor:
    """Images x (B, C, H, W) in [0, 1] moved towards classes y (B,) by descent of E(·, y), (B, C, H, W).

    With `epsilon_l2` each state is drawn back into the L2 ball of that radius around its x (in the images' scale),
    with None it may go anywhere in [0, 1]. The velocity is not projected. The other keywords are those of
    samplers.sgld; what its callback sees, step by step, are the frames between x and the result.

    Raises ValueError for bad input, FloatingPointError where the energy is not finite.

    >>> x, y = torch.full((1, 1, 1, 2), 0.75), torch.tensor([0])
    >>> morph(lambda x, y: x.square().sum((1, 2, 3)) / 2, x, y, epsilon_l2=0.5, step_size=1.0, momentum=0.0,
    ...     noise_std=0.0, n_steps=1, gradient="plain", key=noise.Key(0, "doc", torch.tensor([0])))
    tensor([[[[0.3964, 0.3964]]]])
    """
    checks.labels(y, checks.images(x))
    x = x.detach()
    radius = None if epsilon_l2 is None else checks.radius(epsilon_l2, "epsilon_l2")

    def project(z: Tensor, rows: Tensor) -> Tensor:
        return z if radius is None else balls.project(z, x[rows], norm="l2", epsilon=radius)

    return samplers.sgld(
        lambda z, rows: energy(z, y[rows]), x, torch.arange(len(x), device=x.device), step_size=step_size,
        momentum=momentum, noise_std=noise_std, n_steps=n_steps, gradient=gradient, key=key, project=project,
        stop=stop, target=target, tolerance=tolerance, callback=callback,
    )  # fmt: skip


def _mask(known: Tensor, x: Tensor) -> Tensor:
    """`known` as bool (B, C, H, W)."""
    if checks.tensor(known, "known").dtype != torch.bool:
        raise ValueError(f"expected known to be bool, got {known.dtype}")
    try:
        return known.to(x.device).expand(x.shape)
    except RuntimeError:
        wanted = f"{tuple(x.shape)}, or a shape that broadcasts to it"
        raise ValueError(f"expected known of shape {wanted}, got {tuple(known.shape)}") from None
