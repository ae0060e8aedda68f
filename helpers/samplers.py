"""Stochastic gradient Langevin dynamics (SGLD) with momentum on an energy of images (ebm, Eq. 7).

    v_{k+1} = ζ v_k − α ∇E(x_k),   v_0 = 0
    x_{k+1} = clip(x_k + v_{k+1} + σ ξ_k),   ξ_k ~ N(0, I)

α is `step_size` and multiplies the gradient in full (the paper's η is 2α), ζ is `momentum`, σ is
`noise_std`. The noise is added to the step and never enters the velocity.

`sgld` takes n steps, or stops each chain at its energy; `chain` underneath never ends by itself and
hands out states, any of which can be saved and gone on from, bit for bit.

What this is not: a sampler of p(x) ∝ exp(−E(x)). Nothing corrects the discrete steps (no Metropolis
test), images are clipped, chains are short and start near the data, and with the settings in use the
nominal temperature (`temperature`) lies orders of magnitude below 1: the noise only roughens a descent.
A chain that stops at an energy, or steps along the normalised gradient, has no such density at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from helpers import arrays, attack_losses, balls, checks, energies, noise

__all__ = ["ENERGIES", "GRADIENTS", "STOPS", "State", "chain", "energy_of", "load", "save", "sgld", "temperature"]

Energy = Callable[[Tensor, Tensor], Tensor]  # (x (B, …), y (B,)) -> (B,)
Callback = Callable[[int, Tensor, Tensor], None]
Project = Callable[[Tensor, Tensor], Tensor]  # (x (B, …), y (B,)) -> x, after each step
Gradient = Literal["plain", "l2"]
Stop = Literal["steps", "energy", "energy_within"]
Precision = Literal["float32", "bfloat16"]

GRADIENTS = ("plain", "l2")
STOPS = ("steps", "energy", "energy_within")
PRECISIONS = ("float32", "bfloat16")
ENERGIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "joint": energies.joint,
    "marginal": lambda logits, y: energies.marginal(logits),
    "cross_entropy": energies.cross_entropy,
}


def energy_of(network: nn.Module, name: str, *, precision: Precision = "float32") -> Energy:
    """An energy of a network's logits by its name: "joint" E(x, y), "marginal" E(x), "cross_entropy" E(x, y) − E(x).

    The network runs in eval mode with frozen weights and is left as it was. With `precision` "bfloat16" its
    layers compute in bfloat16 where torch's autocast does so; energies are float32 (or float64) all the same.

    >>> network = nn.Flatten()
    >>> energy_of(network, "joint")(torch.tensor([[1.0, 5.0]]), torch.tensor([1]))
    tensor([-5.])
    """
    checks.module(network)
    function = ENERGIES[checks.choice(name, ENERGIES, "energy")]
    half = checks.choice(precision, PRECISIONS, "precision") == "bfloat16"

    def energy(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16) if half else contextlib.nullcontext():
            logits = attack_losses.logits_of(network, _laid_out(x))
        return function(logits.to(x.dtype), y)

    return energy


def _laid_out(x: Tensor) -> Tensor:
    """The same images with their channels side by side in memory, in which convolutions on a CPU are faster."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def temperature(*, step_size: float, noise_std: float, momentum: float = 0.0) -> float:
    """Nominal temperature T = σ² (1 − ζ) / 2α of the chain: as α → 0 its law tends to exp(−E/T), clipping aside.

    T = 1, which p(x) needs, takes σ = √(2α) without momentum. With momentum the velocity gathers
    1/(1 − ζ) times the gradient while the noise stays, so the chain is colder by that factor.

    >>> temperature(step_size=1.0, noise_std=0.01)
    5e-05
    """
    checks.number(step_size, "step_size", above=0.0)
    checks.number(noise_std, "noise_std", minimum=0.0)
    return noise_std**2 * (1 - _momentum(momentum)) / (2 * step_size)


# States -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class State:
    """Chains before their step number `step`, and all that is needed to go on.

    x, velocity: (B, …); `energy` (B,): what the last look at each chain found, which is E(x) of a frozen chain and
    the energy one step ago of a moving one (NaN before the first look); `active` (B,) bool: not frozen;
    `n_taken` (B,) int64: steps taken.
    """

    step: int
    x: Tensor
    velocity: Tensor
    energy: Tensor
    active: Tensor
    n_taken: Tensor

    @staticmethod
    def first(x: Tensor) -> State:
        """The state at x_0 = `x`, (B, …) float32 or float64, at rest."""
        if checks.tensor(x, "x").dtype not in checks.FLOATS or x.ndim < 2:
            raise ValueError(
                f"expected x to be float32 (or float64) of shape (B, …), got {x.dtype} of {tuple(x.shape)}"
            )
        x = x.detach().clone()
        count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return State(0, x, torch.zeros_like(x), x.new_full((len(x),), math.nan), count == 0, count)


def save(state: State, path: Path) -> None:
    """Write a state to an `.npz` file, whole or not at all."""
    arrays.write(path, {field.name: getattr(state, field.name) for field in dataclasses.fields(state)})


def load(path: Path, *, device: torch.device | str = "cpu") -> State:
    """The state that `save` wrote; arrays.DamagedFile where the file is not whole."""
    found = arrays.read(path)
    if set(found) != {field.name for field in dataclasses.fields(State)}:
        raise arrays.DamagedFile(f"{path}: expected the arrays of a sampler's state, got {', '.join(found) or 'none'}")
    step = int(found.pop("step"))
    return State(step, **{name: torch.from_numpy(array).to(device) for name, array in found.items()})


# One step -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rule:
    """What defines a chain, checked: see `chain`."""

    energy: Energy
    step_size: float
    momentum: float
    noise_std: float
    gradient: str
    max_gradient: float | None
    clip: tuple[float, float] | None
    project: Project | None
    max_step: float | None
    tolerance: float | None

    def reached(self, energy: Tensor, target: Tensor) -> Tensor:
        """Which chains freeze, (B,) bool."""
        if self.tolerance is None:
            return energy <= target
        return (energy - target).square() < self.tolerance


def _look(energy: Energy, x: Tensor, y: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor]:
    """E (B,) at x and the gradient of ΣE in x alone (or x itself if not asked): no parameter gets a gradient."""
    with torch.set_grad_enabled(gradient):
        point = x.detach().requires_grad_(gradient)
        E = checks.per_sample(energy(point, y), x, "energy")
        if not gradient:
            return E.detach(), x
        slope = torch.autograd.grad(E.sum(), point, allow_unused=True)[0] if E.requires_grad else None
    if slope is None:
        raise ValueError("expected the energy to depend on x, got one without a gradient (a detach inside?)")
    return E.detach(), slope


def _check_finite(E: Tensor, slope: Tensor, *, step: int, index: Tensor) -> None:
    """FloatingPointError where an energy or its gradient is not finite; one look where all are, which a sum shows."""
    if bool(torch.isfinite(E + slope.sum(tuple(range(1, slope.ndim)))).all()):
        return
    checks.finite(E, "energy", step=step, index=index)
    checks.finite(slope.flatten(1).abs().amax(1), "the gradient of the energy", step=step, index=index)


def _moved(rule: _Rule, x: Tensor, velocity: Tensor, slope: Tensor, y: Tensor, key: noise.Key) -> tuple[Tensor, Tensor]:
    """x_{k+1} and v_{k+1} of the rows that move."""
    if rule.gradient == "l2":
        slope = balls.steepest(slope, norm="l2")
    if rule.max_gradient is not None:
        slope = slope.clamp(-rule.max_gradient, rule.max_gradient)
    velocity = (rule.momentum * velocity).sub_(rule.step_size * slope)
    if rule.noise_std > 0:
        step = key.normal(x.shape[1:], dtype=x.dtype).mul_(rule.noise_std).add_(velocity)
    else:
        step = velocity.clone()
    if rule.max_step is not None:
        step.clamp_(-rule.max_step, rule.max_step)
    x = step.add_(x)
    if rule.clip is not None:
        x.clamp_(*rule.clip)
    return (x if rule.project is None else rule.project(x, y)), velocity


def _advance(rule: _Rule, state: State, y: Tensor, key: noise.Key, target: Tensor | None) -> State:
    """Look at the active chains, freeze those at their target, move the others."""
    k, rows = state.step, None if target is None else state.active.nonzero().squeeze(1)

    def of(values: Tensor, which: Tensor | None) -> Tensor:
        return values if which is None else values.index_select(0, which)

    def into(values: Tensor, which: Tensor | None, new: Tensor) -> Tensor:
        return new if which is None else values.index_copy(0, which, new)

    index = of(key.index, rows)
    E, slope = _look(rule.energy, of(state.x, rows), of(y, rows), gradient=True)
    _check_finite(E, slope, step=k, index=index)
    energy, active = into(state.energy, rows, E.to(state.energy.dtype)), state.active
    if target is not None:
        stay = ~rule.reached(E, of(target, rows))
        active = into(active, rows, stay)
        slope, rows = slope[stay], active.nonzero().squeeze(1)
    moving = dataclasses.replace(key, index=of(key.index, rows), step=k)
    x, v = _moved(rule, of(state.x, rows), of(state.velocity, rows), slope, of(y, rows), moving)
    return State(
        k + 1, into(state.x, rows, x), into(state.velocity, rows, v), energy, active, state.n_taken + active.long()
    )


# Checks -------------------------------------------------------------------------------------------------------------


def _momentum(value: float) -> float:
    checks.number(value, "momentum", minimum=0.0, maximum=1.0)
    if value == 1:
        raise ValueError("expected momentum below 1 (at 1 the velocity never decays), got 1")
    return float(value)


def _rule(
    *, energy: Energy, step_size: float, momentum: float, noise_std: float, gradient: str,
    max_gradient: float | None, clip: tuple[float, float] | None, project: Project | None, max_step: float | None,
    stop: str, tolerance: float | None,
) -> _Rule:  # fmt: skip
    checks.number(step_size, "step_size", above=0.0)
    checks.number(noise_std, "noise_std", minimum=0.0)
    checks.choice(gradient, GRADIENTS, "gradient")
    checks.choice(stop, STOPS, "stop")
    for name, bound in (("max_gradient", max_gradient), ("max_step", max_step)):
        if bound is not None:
            checks.number(bound, name, above=0.0)
    if max_gradient is not None and gradient != "plain":
        raise ValueError(f"expected max_gradient only with gradient 'plain', got {max_gradient!r} with {gradient!r}")
    if clip is not None:
        low, high = clip
        checks.number(high, "the upper end of clip", above=checks.number(low, "the lower end of clip"))
    if stop == "energy_within":
        checks.number(math.nan if tolerance is None else tolerance, "tolerance (with stop 'energy_within')", above=0.0)
    elif tolerance is not None:
        raise ValueError(f"expected tolerance only with stop 'energy_within', got {tolerance!r} with {stop!r}")
    return _Rule(
        energy, step_size, _momentum(momentum), noise_std, gradient, max_gradient, clip, project, max_step, tolerance,
    )  # fmt: skip


def _target(target: Tensor | None, x: Tensor, *, stop: str) -> Tensor | None:
    if stop == "steps":
        if target is not None:
            raise ValueError("expected target only with stop 'energy' or 'energy_within', got one with 'steps'")
        return None
    if target is None:
        raise ValueError(f"expected a target, one energy for each chain, with stop {stop!r}, got None")
    if not bool(torch.isfinite(checks.per_sample(target, x, "target")).all()):
        raise ValueError(f"expected finite targets, got {target[~torch.isfinite(target)][0].item()}")
    return target.to(x.device, x.dtype)


# Chains -------------------------------------------------------------------------------------------------------------


def chain(
    energy: Energy,
    start: State,
    y: Tensor,
    *,
    step_size: float,
    momentum: float,
    noise_std: float,
    gradient: Gradient,
    key: noise.Key,
    max_gradient: float | None = None,
    clip: tuple[float, float] | None = (0.0, 1.0),
    project: Project | None = None,
    max_step: float | None = None,
    stop: Stop = "steps",
    target: Tensor | None = None,
    tolerance: float | None = None,
) -> Iterator[State]:
    """The states of momentum SGLD from `start` on, `start` first; see `sgld` for the rule.

    It ends only when every chain is frozen at its target, so never without one (`stop` "steps"). Any state that came
    out can be saved (`save`) and given back as `start`: the states after it are then the same bits.

    >>> valley = lambda x, y: x.square().sum(1) / 2
    >>> states = chain(valley, State.first(torch.full((1, 2), 4.0)), torch.tensor([0]), step_size=0.5, momentum=0.0,
    ...     noise_std=0.0, gradient="plain", key=noise.Key(0, "doc", torch.tensor([0])), clip=None)
    >>> [state.x[0, 0].item() for state in itertools.islice(states, 4)]
    [4.0, 2.0, 1.0, 0.5]
    """
    rule = _rule(
        energy=energy, step_size=step_size, momentum=momentum, noise_std=noise_std, gradient=gradient,
        max_gradient=max_gradient, clip=clip, project=project, max_step=max_step, stop=stop, tolerance=tolerance,
    )  # fmt: skip
    target = _target(target, start.x, stop=stop)
    checks.labels(y, start.x)
    checks.index(key.index, start.x)
    key = dataclasses.replace(key, index=key.index.to(start.x.device))
    return _states(rule, start, y, key, target)


def _states(rule: _Rule, state: State, y: Tensor, key: noise.Key, target: Tensor | None) -> Iterator[State]:
    while True:
        yield state
        if target is not None and not bool(state.active.any()):
            return
        with torch.no_grad():  # entered anew at each step: between two the caller's own setting holds
            state = _advance(rule, state, y, key, target)


def sgld(
    energy: Energy,
    x: Tensor,
    y: Tensor,
    *,
    step_size: float,
    momentum: float,
    noise_std: float,
    n_steps: int,
    gradient: Gradient,
    key: noise.Key,
    max_gradient: float | None = None,
    clip: tuple[float, float] | None = (0.0, 1.0),
    project: Project | None = None,
    max_step: float | None = None,
    stop: Stop = "steps",
    target: Tensor | None = None,
    tolerance: float | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Run one chain of momentum SGLD for each row of `x` (ebm, Eq. 7); the last x (B, …).

        v_{k+1} = ζ v_k − α g_k,   g_k = ∇E(x_k), or ∇E(x_k) / ‖∇E(x_k)‖₂ with `gradient` "l2" (0 where ∇E is 0)
        x_{k+1} = clip(x_k + clamp(v_{k+1} + σ ξ_k, −e, e)),   v_0 = 0,   k < `n_steps`

    α is `step_size`, ζ `momentum` (0 is plain SGLD), σ `noise_std`, e `max_step` (None: no clamp; the velocity is never
    clamped). `max_gradient` c clamps the plain gradient to [−c, c] in each pixel first (None: no clamp; see
    `proximal`). `clip` is the images' range or None; `project(x, y)` may then draw the rows back into a set.
    `energy` maps x (B, …), y (B,) to (B,), lower is likelier; its sum over the batch is descended, so a step does not
    depend on the batch. ξ_k is keyed by `key` (its step is replaced by k): seed, purpose, and the images' `index` (B,).

    `stop` "steps" takes all steps. "energy" freezes a chain at the first x_k with E(x_k) ≤ `target` (B,), and
    "energy_within" (the rule of the paper's code) at the first with (E(x_k) − target)² < `tolerance`: a large step can
    jump over that band. Frozen chains leave the batch. `callback(k, x_k, E(x_k))` sees every state, x_0 and x_n
    included. Inputs are not modified; float32 gives float32.

    Plain SGLD has the nominal temperature σ²/2α (`temperature`); the module says why that is not sampling from p(x).

    Raises ValueError for bad input, FloatingPointError with step and value where E or its gradient is not finite.

    >>> valley = lambda x, y: x.square().sum(1) / 2
    >>> sgld(valley, torch.full((2, 2), 4.0), torch.tensor([0, 0]), step_size=0.5, momentum=0.0, noise_std=0.0,
    ...     n_steps=2, gradient="plain", key=noise.Key(0, "doc", torch.tensor([0, 1])), clip=None)
    tensor([[1., 1.],
            [1., 1.]])
    """
    checks.count(n_steps, "n_steps")
    states = chain(
        energy, State.first(x), y, step_size=step_size, momentum=momentum, noise_std=noise_std, gradient=gradient,
        key=key, max_gradient=max_gradient, clip=clip, project=project, max_step=max_step, stop=stop, target=target,
        tolerance=tolerance,
    )  # fmt: skip
    state = next(states)
    for new in itertools.islice(states, n_steps):
        if callback is not None:
            callback(state.step, state.x, new.energy)
        state = new
    if callback is not None and bool(state.active.any()):
        callback(state.step, state.x, _last_energy(energy, state, y))
    return state.x


def _last_energy(energy: Energy, state: State, y: Tensor) -> Tensor:
    """E(x) (B,) where the chains are now; that of a frozen one is known."""
    rows = state.active.nonzero().squeeze(1)
    E, _ = _look(energy, state.x[rows], y[rows], gradient=False)
    return state.energy.index_copy(0, rows, E.to(state.energy.dtype))
