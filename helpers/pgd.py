"""FGSM and PGD in the L∞ and L2 ball (Goodfellow et al. 2015, Madry et al. 2018), on any loss of an image.

An attack raises a per-sample loss by moving images x (B, C, H, W) in [0, 1] within radius ε:

    pgd(loss, x, y, *, norm, epsilon, …) -> x_adv

`loss` maps (x, y) to a `LossValue`; attack_losses.py and margin_losses.py make one from a network,
which they run in eval mode with frozen weights and leave as they found it.

The caller says which point comes back, since the point decides what is measured: at the last
iterate an untargeted attack has long passed the boundary and keeps lowering E(x).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from helpers import balls, checks, noise
from helpers.attack_losses import AttackLoss, LossValue
from helpers.balls import Norm, column
from helpers.first_points import STARTS, Start, first_point

__all__ = ["RETURNS", "STARTS", "Callback", "Returns", "Start", "fgsm", "pgd"]

Returns = Literal["last", "first_success", "max_loss"]

RETURNS = ("last", "first_success", "max_loss")

Callback = Callable[[int, Tensor, LossValue], None]


# Steps ---------------------------------------------------------------------------------------------------


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
    return _Point(torch.where(column(take, new.x), new.x, old.x), LossValue(value, fooled))


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
    move: Callable[[Tensor, Tensor], Tensor],
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
        finite.watch(gradient.flatten(1).abs().amax(1), "the gradient of the attack's loss", k)
        moved = move(x, gradient)
        if returns == "first_success":
            done = done | said.fooled
            if callback is None and done.device.type == "cpu" and bool(done.all()):
                break
            moved = torch.where(column(done, x), x, moved)
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
    balls.check(norm=norm, epsilon=epsilon, step_size=step_size, n_steps=n_steps)
    _check_run(start=start, start_std=start_std, n_restarts=n_restarts, returns=returns)
    key = noise.Key(seed, purpose, checks.index(index, x).to(x.device))

    def move(x_k: Tensor, gradient: Tensor) -> Tensor:
        step = step_size * balls.steepest(gradient, norm=norm)
        return balls.project(x_k + step, x, norm=norm, epsilon=epsilon)

    judge = n_restarts > 1 or returns == "max_loss" or callback is not None
    best: _Point | None = None
    for restart in range(n_restarts):
        first = first_point(x, key.at(restart), norm=norm, epsilon=epsilon, start=start, start_std=start_std)
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
