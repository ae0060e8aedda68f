"""Attacks: FGSM and PGD in the L∞ and L2 ball, on cross-entropy or KL, untargeted and targeted.

An attack raises a per-sample loss by moving images x (B, C, H, W) in [0, 1] within radius ε:

    pgd(loss, x, y, *, norm, epsilon, …) -> x_adv

`loss` maps (x, y) to a `LossValue`; `cross_entropy(network)` and its like below make one from
a network, which they run in eval mode with frozen weights and leave as they found it. `run`
takes the attack by its name in the YAML and works in batches.

Every attack says which point it returns, since the point decides what is measured: at the
last iterate an untargeted attack has long passed the boundary and keeps lowering E(x).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from helpers import checks, context, noise
from helpers.attack_losses import (
    AttackLoss,
    LossValue,
    cross_entropy,
    kl_divergence,
    least_likely,
    logits_of,
    random_targets,
    targeted_cross_entropy,
)

__all__ = [
    "NAMED",
    "AttackLoss",
    "LossValue",
    "Named",
    "cross_entropy",
    "fgsm",
    "kl_divergence",
    "least_likely",
    "pgd",
    "random_targets",
    "run",
    "targeted_cross_entropy",
]

Norm = Literal["linf", "l2"]
Start = Literal["none", "uniform", "gaussian"]
Returns = Literal["last", "first_success", "max_loss"]

NORMS = ("linf", "l2")
STARTS = ("none", "uniform", "gaussian")
RETURNS = ("last", "first_success", "max_loss")

Callback = Callable[[int, Tensor, LossValue], None]


# Steps, projections and starts --------------------------------------------------------------------------------------


def _column(values: Tensor, x: Tensor) -> Tensor:
    """Numbers (B,) in a shape that broadcasts against images (B, C, H, W)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def _length(d: Tensor) -> Tensor:
    return _column(torch.linalg.vector_norm(d.flatten(1), dim=1), d)


def _direction(gradient: Tensor, peak: Tensor, *, norm: Norm) -> Tensor:
    """Steepest ascent of length 1 in the norm; 0 where the gradient is 0. `peak` (B,) is its largest entry."""
    if norm == "linf":
        return gradient.sign()
    # Divided by the peak first, since the squares of a confident network's gradient underflow. The length is then
    # at least 1, or the gradient was 0.
    scaled = gradient / _column(peak.where(peak > 0, 1.0), gradient)
    return scaled / _length(scaled).clamp_min(1.0)


def _projected(x_adv: Tensor, x: Tensor, *, norm: Norm, epsilon: float) -> Tensor:
    """Into the ball around x, then into [0, 1]; that holds x, so the second brings no entry farther from it."""
    d = x_adv - x
    if norm == "linf":
        d = d.clamp(-epsilon, epsilon)
    else:
        d = d * (epsilon / _length(d).clamp_min(torch.finfo(d.dtype).tiny)).clamp_max(1.0)
    return (x + d).clamp(0.0, 1.0)


def _first(x: Tensor, key: noise.Key, *, norm: Norm, epsilon: float, start: Start, start_std: float | None) -> Tensor:
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
        d = (z * (epsilon * _column(u ** (1 / shape.numel()), z) / _length(z))).to(x.dtype)
    return _projected(x + d, x, norm=norm, epsilon=epsilon)


def _evaluate(loss: AttackLoss, x: Tensor, y: Tensor, *, gradient: bool) -> tuple[LossValue, Tensor | None]:
    """The loss at x and, if asked, the gradient of its sum in x alone: no parameter gets a gradient."""
    with torch.set_grad_enabled(gradient):
        point = x.detach().requires_grad_(gradient)
        value, fooled = loss(point, y)
        checks.per_sample(value, x, "the attack's loss")
        if checks.per_sample(fooled, x, "the attack's fooled").dtype != torch.bool:
            raise ValueError(f"expected the attack's fooled to be bool, got {fooled.dtype}")
        if not gradient:
            return LossValue(value, fooled), None
        slope = torch.autograd.grad(value.sum(), point, allow_unused=True)[0] if value.requires_grad else None
    if slope is None:
        raise ValueError("expected the attack's loss to depend on x, got one without a gradient (a detach inside?)")
    return LossValue(value.detach(), fooled), slope


class _Point(NamedTuple):
    """A candidate x (B, C, H, W) and what the loss says of it; `said` is None where nobody will ask."""

    x: Tensor
    said: LossValue | None


def _merged(old: _Point, new: _Point, better: Callable[[LossValue, LossValue], Tensor]) -> _Point:
    """Image by image the new point where it is better, else the old one."""
    assert old.said is not None
    assert new.said is not None
    take = better(old.said, new.said)
    value = torch.where(take, new.said.value, old.said.value)
    fooled = torch.where(take, new.said.fooled, old.said.fooled)
    return _Point(torch.where(_column(take, new.x), new.x, old.x), LossValue(value, fooled))


def _higher(old: LossValue, new: LossValue) -> Tensor:
    return new.value > old.value


def _stronger(old: LossValue, new: LossValue) -> Tensor:
    return (new.fooled & ~old.fooled) | ((new.fooled == old.fooled) & _higher(old, new))


def _sooner(old: LossValue, new: LossValue) -> Tensor:
    return ~old.fooled & _stronger(old, new)


def _climb(
    loss: AttackLoss,
    x: Tensor,
    y: Tensor,
    *,
    move: Callable[[Tensor, Tensor, Tensor], Tensor],
    n_steps: int,
    returns: Returns,
    judge: bool,
    finite: checks.Finite,
    callback: Callback | None,
) -> _Point:
    """One run of PGD from x_0 = `x`: the point that `returns` names, with what the loss says there if `judge`."""
    best, done = _Point(x, None), torch.zeros_like(y, dtype=torch.bool)
    for k in range(n_steps + judge):
        said, gradient = _evaluate(loss, x, y, gradient=k < n_steps)
        finite.watch(said.value, "the attack's loss", k)
        if callback is not None:
            callback(k, x, said)
        keep = returns == "max_loss" and best.said is not None
        best = _merged(best, _Point(x, said), _higher) if keep else _Point(x, said)
        if gradient is None:
            break
        peak = gradient.flatten(1).abs().amax(1)
        finite.watch(peak, "the gradient of the attack's loss", k)
        moved = move(x, gradient, peak)
        if returns == "first_success":
            done = done | said.fooled
            if callback is None and done.device.type == "cpu" and bool(done.all()):
                break
            moved = torch.where(_column(done, x), x, moved)
        x = moved
    finite.look()
    return best if judge else _Point(x, None)


# Attacks -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def pgd(
    loss: AttackLoss,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    step_size: float,
    n_steps: int,
    start: Start,
    start_std: float | None = None,
    n_restarts: int,
    returns: Returns,
    seed: int,
    index: Tensor,
    purpose: str = "attack",
    callback: Callback | None = None,
) -> Tensor:
    """Projected gradient ascent on a per-sample loss (Madry et al. 2018), L∞ or L2; x_adv (B, C, H, W).

        x_{k+1} = clip_[0,1] Π_ε( x_k + α d_k ),   d_k = sign ∇ℓ  (L∞)   or   ∇ℓ / ‖∇ℓ‖₂  (L2)

    ε is `epsilon` and α is `step_size`, in the images' scale [0, 1]; Π_ε projects on the ball around x.
    x_0 is x (`start` "none"), even in the ball ("uniform"), or x + `start_std` · N(0, 1) ("gaussian").
    `returns` says which of x_0, …, x_n comes back:
      "last"           x_n;
      "first_success"  the first fooled point, where an image stops; x_n if it was never fooled;
      "max_loss"       the point of highest loss, x_0 included, fooled or not.
    Of several restarts the strongest is kept: fooled beats not, then the higher loss; with
    "first_success" an image that was fooled is done, and later restarts leave it alone.
    `index` (B,) is each image's place in its data set: it keys the start, together with `seed`,
    `purpose` and the restart, so the batch does not matter. `callback(k, x_k, said)` sees every
    iterate of every restart, x_0 and x_n included. `x` and `y` are not modified.

    Raises ValueError for bad input, and FloatingPointError with step and value when the loss or
    its gradient is not finite.

    >>> uphill = lambda x, y: LossValue(x.sum((1, 2, 3)), y > 0)
    >>> x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    >>> pgd(uphill, x, y, norm="linf", epsilon=0.25, step_size=0.125, n_steps=9, start="none",
    ...     n_restarts=1, returns="last", seed=0, index=torch.tensor([0]))
    tensor([[[[0.7500, 0.7500]]]])
    """
    checks.labels(y, checks.images(x))
    _check_ball(norm=norm, epsilon=epsilon, step_size=step_size, n_steps=n_steps)
    _check_run(start=start, start_std=start_std, n_restarts=n_restarts, returns=returns)
    key = noise.Key(seed, purpose, checks.index(index, x).to(x.device))

    def move(x_k: Tensor, gradient: Tensor, peak: Tensor) -> Tensor:
        step = step_size * _direction(gradient, peak, norm=norm)
        return _projected(x_k + step, x, norm=norm, epsilon=epsilon)

    judge = n_restarts > 1 or returns == "max_loss" or callback is not None
    best: _Point | None = None
    for restart in range(n_restarts):
        first = _first(x, key.at(restart), norm=norm, epsilon=epsilon, start=start, start_std=start_std)
        found = _climb(
            loss, first, y, move=move, n_steps=n_steps, returns=returns, judge=judge,
            finite=checks.Finite(index), callback=callback,
        )  # fmt: skip
        best = found if best is None else _merged(best, found, _sooner if returns == "first_success" else _stronger)
    assert best is not None
    return best.x


def fgsm(
    loss: AttackLoss,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    returns: Returns = "last",
    index: Tensor | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Fast gradient sign method (Goodfellow et al. 2015): one step of length ε from x itself.

        x_adv = clip_[0,1]( x + ε sign ∇ℓ(x) )

    `norm` "l2" steps along ∇ℓ/‖∇ℓ‖₂ instead. Nothing is drawn; `index` only names the image of an error.
    """
    index = torch.arange(len(x)) if index is None else index
    return pgd(
        loss, x, y, norm=norm, epsilon=epsilon, step_size=epsilon, n_steps=1, start="none",
        n_restarts=1, returns=returns, seed=0, index=index, callback=callback,
    )  # fmt: skip


def _check_ball(*, norm: str, epsilon: float, step_size: float, n_steps: int) -> None:
    checks.choice(norm, NORMS, "norm")
    checks.radius(epsilon)
    checks.count(n_steps, "n_steps")
    checks.number(step_size, "step_size", minimum=0.0)
    if n_steps > 0 and epsilon > 0:
        checks.number(step_size, "step_size (with n_steps > 0)", above=0.0)


def _check_run(*, start: str, start_std: float | None, n_restarts: int, returns: str) -> None:
    checks.choice(start, STARTS, "start")
    checks.choice(returns, RETURNS, "returns")
    checks.count(n_restarts, "n_restarts", minimum=1)
    if start == "gaussian":
        checks.number(float("nan") if start_std is None else start_std, "start_std", above=0.0)
    elif start_std is not None:
        raise ValueError(f"expected start_std only with start 'gaussian', got {start_std!r} with {start!r}")
    if start == "none" and n_restarts > 1:
        raise ValueError(f"expected n_restarts to be 1 with start 'none' (each would be the same), got {n_restarts}")


# By name -----------------------------------------------------------------------------------------------------------


class Named(NamedTuple):
    """What an attack's name in a YAML stands for: its loss, its labels or targets, and where it starts."""

    loss: Literal["ce", "targeted", "kl"]
    target: Literal["none", "random", "least_likely"] = "none"
    start: Start = "uniform"
    start_std: float | None = None
    one_step: bool = False


NAMED: dict[str, Named] = {
    "fgsm": Named("ce", start="none", one_step=True),
    "pgd_ce": Named("ce"),
    "pgd_ce_targeted": Named("targeted", target="random"),
    "pgd_ce_least_likely": Named("targeted", target="least_likely"),
    "pgd_kl": Named("kl", start="gaussian", start_std=0.001),  # the start of TRADES (ebm.md, section 5)
}


@torch.no_grad()
def run(
    name: str,
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    step_size: float,
    n_steps: int,
    returns: Returns,
    n_restarts: int,
    seed: int,
    index: Tensor,
    batch_size: int,
    callback: Callback | None = None,
) -> Tensor:
    """An attack by its name in the YAML (`NAMED`), in batches; x_adv (N, C, H, W) on the device of `x`.

    `y` are the true labels (N,), also for targeted attacks, which draw a random other class or
    take the least likely one. "fgsm" is one step of length ε from x: `step_size`, `n_steps` and
    `n_restarts` do not concern it. The other arguments are those of `pgd`; `callback` sees the
    iterates of one batch after another. The result does not depend on `batch_size`, but for
    images whose margin is so small (1e-4) that float32 rounding decides.
    """
    named = NAMED[checks.choice(name, NAMED, "attack")]
    checks.module(network)
    checks.labels(y, checks.images(x))
    checks.index(index, x)
    checks.count(batch_size, "batch_size", minimum=1)
    if named.one_step:
        step_size, n_steps, n_restarts = epsilon, 1, 1
    parts = [x[:0]]
    with context.eval_mode(network), context.frozen(network):
        for rows in (slice(k, k + batch_size) for k in range(0, len(x), batch_size)):
            loss, goal = _goal(named, network, x[rows], y[rows], seed=seed, index=index[rows])
            parts.append(
                pgd(
                    loss, x[rows], goal, norm=norm, epsilon=epsilon, step_size=step_size, n_steps=n_steps,
                    start=named.start, start_std=named.start_std, n_restarts=n_restarts, returns=returns,
                    seed=seed, index=index[rows], callback=callback,
                )
            )  # fmt: skip
    return torch.cat(parts)


def _goal(
    named: Named, network: nn.Module, x: Tensor, y: Tensor, *, seed: int, index: Tensor
) -> tuple[AttackLoss, Tensor]:
    """The loss to raise, and the labels or targets that it is told."""
    logits = logits_of(network, x)
    checks.labels(y, x, num_classes=logits.shape[1])
    if named.loss == "kl":
        return kl_divergence(network, logits), y
    if named.loss == "ce":
        return cross_entropy(network), y
    if named.target == "random":
        return targeted_cross_entropy(network), random_targets(y, logits.shape[1], seed=seed, index=index)
    return targeted_cross_entropy(network), least_likely(network, x, y)
