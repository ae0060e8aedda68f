"""Proximal SGLD and PYLD, the samplers of JEM++ (Yang, Su & Ji, 2021), and its published settings in our range.

    proximal SGLD(m, α):    x ← clip(x − α clamp(∇E(x), −c, c) + σ ξ)                 m times
    PYLD(m, n, α):          p = ∂E/∂h at h = first(x), kept for n inner steps         m times
                            x ← clip(x − α clamp(∇ₓ⟨first(x), p⟩, −c, c))             n times, then + σ ξ

c is `max_gradient`, a bound on the gradient of each pixel and not on the image. JEM++ runs with σ = 0: a descent of
the energy from random starts, not a draw from p(x). What both are in terms of `samplers.sgld` is said there.

PYLD(m, n, α) equals proximal SGLD(m, nα) where `first` is affine, as a convolution is, and x_0 lies in the range. Then
∇ₓ⟨first(x), p⟩ is ∇E at the outer point for all n inner steps, and each pixel moves n times by d = −α clamp(∇E). With
range [a, b] and d ≥ 0 the lower end is never met, and by induction x_j = min(x_0 + j d, b):

    min(min(x_0 + j d, b) + d, b) = min(x_0 + (j + 1) d, b),   as b + d ≥ b,

likewise with max and a where d < 0. So n clipped steps are one clipped step of nα, also where the range cuts, in
real numbers exactly and in floating point up to the rounding of n additions. It fails where `first` bends, where
x_0 lies outside the range (the way back is cut short), and with σ > 0 in pixels that the range cuts before the noise.
The inner steps therefore save nothing here: the cost is that of m passes through the network, in either form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from helpers import checks, noise, samplers

CONVENTIONS = ("train", "eval")

# What a number for images in [−1, 1] is for the same images in [0, 1]; `in_unit_range` says why.
UNIT_RANGE = {"step_size": 1 / 4, "max_gradient": 2.0, "noise_std": 1 / 2, "epsilon": 1 / 2}


# Published settings -------------------------------------------------------------------------------------------------


def in_unit_range(**published: float) -> dict[str, float]:
    """Settings published for images u in [−1, 1], by name, as the same settings for x = (u + 1)/2 in [0, 1].

    Distances halve and gradients double, ∇ₓE = 2 ∇ᵤE, so with the primed numbers for x,

        u ← u − α clamp(∇ᵤE, −c, c) + σ ξ   is   x ← x − α′ clamp(∇ₓE, −c′, c′) + σ′ ξ,
        α′ = α/4 (`step_size`),   c′ = 2c (`max_gradient`),   σ′ = σ/2 (`noise_std`),   ε′ = ε/2 (`epsilon`).

    `step_size` multiplies a gradient. The step of an attack along a sign or a unit vector is a length and goes with
    `epsilon`; so does the σ of noise on the data, which is a `noise_std`.

    >>> in_unit_range(step_size=1.0, max_gradient=1.0, noise_std=0.01)
    {'step_size': 0.25, 'max_gradient': 2.0, 'noise_std': 0.005}
    """
    return {
        checks.choice(name, UNIT_RANGE, "the name of a setting"): checks.number(value, name) * UNIT_RANGE[name]
        for name, value in published.items()
    }


def inner_step_size(convention: str, *, step_size: float) -> float:
    """α of one inner step in [−1, 1], by what a script of the public JEM++ code does with its `pyld_lr`, `step_size`.

    "train" (the training script) multiplies the clamped gradient by it. "eval" (`eval_jempp.py`) drops it, so that an
    inner step is 1.0 whatever was set. A number of one cannot be compared with one of the other.

    >>> inner_step_size("train", step_size=0.2), inner_step_size("eval", step_size=0.2)
    (0.2, 1.0)
    """
    checks.number(step_size, "step_size", above=0.0)
    return 1.0 if checks.choice(convention, CONVENTIONS, "convention") == "eval" else float(step_size)


def outer_step_size(convention: str, *, step_size: float, n_inner_steps: int, full_step_size: float) -> float:
    """α of the proximal SGLD step in [−1, 1] that one outer iteration of the public JEM++ code amounts to.

    α = `full_step_size` + n · `inner_step_size`; the first is the code's `sgld_lr`, of a step along the clamped full
    gradient before the inner ones (0 in training, 1 by default in `eval_jempp.py`): the same direction, so they add up.

    >>> outer_step_size("train", step_size=0.2, n_inner_steps=5, full_step_size=0.0)
    1.0
    >>> outer_step_size("eval", step_size=0.2, n_inner_steps=5, full_step_size=1.0)
    6.0
    """
    checks.number(full_step_size, "full_step_size", minimum=0.0)
    inner = inner_step_size(convention, step_size=step_size)
    return full_step_size + checks.count(n_inner_steps, "n_inner_steps", minimum=1) * inner


# Samplers -----------------------------------------------------------------------------------------------------------


def proximal_sgld(
    energy: samplers.Energy,
    x: Tensor,
    y: Tensor,
    *,
    step_size: float,
    max_gradient: float,
    noise_std: float,
    n_steps: int,
    key: noise.Key,
    clip: tuple[float, float] = (0.0, 1.0),
    callback: samplers.Callback | None = None,
) -> Tensor:
    """Proximal SGLD of JEM++: x ← clip(x − α clamp(∇E(x, y), −c, c) + σ ξ), `n_steps` times; the last x (B, …).

    α is `step_size`, c `max_gradient`, σ `noise_std`, in the scale of `clip`, x's range. `x` (B, …) float32 or
    float64 in it, `y` (B,) int64; `samplers.sgld`, of which this is a setting, says the rest (key, callback, errors).

    Departs from the public code: the noise is added before the clip, so images stay in range (there, after it).

    >>> slope = lambda x, y: 8 * x[:, 0] + x[:, 1]
    >>> proximal_sgld(slope, torch.ones(1, 2), torch.tensor([0]), step_size=0.125, max_gradient=2.0, noise_std=0.0,
    ...     n_steps=1, key=noise.Key(0, "doc", torch.tensor([0])))
    tensor([[0.7500, 0.8750]])
    """
    _inside(x, clip)
    return samplers.sgld(
        energy, x, y, step_size=step_size, momentum=0.0, noise_std=noise_std, n_steps=n_steps, gradient="plain",
        key=key, max_gradient=max_gradient, clip=clip, callback=callback,
    )  # fmt: skip


def pyld(
    rest: samplers.Energy,
    x: Tensor,
    y: Tensor,
    *,
    first: Callable[[Tensor], Tensor],
    step_size: float,
    max_gradient: float,
    noise_std: float,
    n_steps: int,
    n_inner_steps: int,
    key: noise.Key,
    clip: tuple[float, float] = (0.0, 1.0),
    callback: samplers.Callback | None = None,
) -> Tensor:
    """PYLD(m, n, α) of JEM++ on E(x, y) = `rest`(`first`(x), y); the last x (B, …).

    m is `n_steps`, n `n_inner_steps`, α the `step_size` of one inner step. `first` maps x (B, …) to h (B, …), `rest`
    h and y (B,) to energies (B,). Each outer step takes p = ∂E/∂h once and then n steps of proximal SGLD on
    ⟨`first`(x), p⟩, whose gradient needs `first` alone; noise with `noise_std` is added after them, in range. ξ_k is
    that of `proximal_sgld` at step k. `callback(k, x_k, E(x_k))` sees every outer state, x_0 and x_m included.

    The module says when this equals `proximal_sgld` with m steps of nα. Raises ValueError for bad input,
    FloatingPointError with step and value where E or its gradient is not finite.

    >>> pyld(lambda h, y: 4 * h[:, 0] + h[:, 1] / 2, torch.ones(1, 2), torch.tensor([0]), first=lambda x: 2 * x,
    ...     step_size=0.0625, max_gradient=2.0, noise_std=0.0, n_steps=1, n_inner_steps=2,
    ...     key=noise.Key(0, "doc", torch.tensor([0])))
    tensor([[0.7500, 0.8750]])
    """
    _inside(x, clip)
    checks.count(n_steps, "n_steps")
    checks.count(n_inner_steps, "n_inner_steps", minimum=1)
    checks.number(noise_std, "noise_std", minimum=0.0)
    x = x.detach().clone()
    checks.index(key.index, x)
    key = dataclasses.replace(key, index=key.index.to(x.device))
    for k in range(n_steps):
        E, p = _adjoint(first, rest, x, y)
        checks.finite(E, "energy", step=k, index=key.index)
        checks.finite(p.flatten(1).abs().amax(1), "the adjoint of the first layer", step=k, index=key.index)
        if callback is not None:
            callback(k, x, E)
        x = samplers.sgld(
            _along(first, p), x, y, step_size=step_size, momentum=0.0, noise_std=0.0, n_steps=n_inner_steps,
            gradient="plain", key=key, max_gradient=max_gradient, clip=clip,
        )  # fmt: skip
        if noise_std > 0:
            x = (x + noise_std * key.at(k).normal(x.shape[1:], dtype=x.dtype)).clamp(*clip)
    if callback is not None:
        callback(n_steps, x, _adjoint(first, rest, x, y)[0])
    return x


def _adjoint(first: Callable[[Tensor], Tensor], rest: samplers.Energy, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """E (B,) and p = ∂ΣE/∂h at h = first(x)."""
    with torch.no_grad():
        h = first(x).detach()
    with torch.enable_grad():
        E = checks.per_sample(rest(h.requires_grad_(), y), x, "energy")
        p = torch.autograd.grad(E.sum(), h, allow_unused=True)[0] if E.requires_grad else None
    if p is None:
        raise ValueError("expected the energy to depend on the first layer's output, got one without a gradient")
    return E.detach(), p


def _along(first: Callable[[Tensor], Tensor], p: Tensor) -> samplers.Energy:
    """⟨first(x), p⟩ (B,), with p fixed."""
    return lambda x, y: (first(x) * p).flatten(1).sum(1)


def _inside(x: Tensor, clip: tuple[float, float]) -> None:
    """Expect a start in the range: one step back into it is cut short, which n small ones are not."""
    low, high = clip
    checks.tensor(x, "x")
    if x.numel() and not bool(((x >= low) & (x <= high)).all()):  # a NaN fails both comparisons
        raise ValueError(
            f"expected x in [{low:g}, {high:g}], got values from {x.min().item():.6g} to {x.max().item():.6g}"
        )
