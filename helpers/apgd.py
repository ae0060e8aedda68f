"""Auto-PGD (Croce & Hein 2020, algorithm 1): PGD with momentum whose step size sets itself.

    z_{k+1} = Π( x_k + η_k s(∇ℓ(x_k)) )
    x_{k+1} = Π( x_k + α (z_{k+1} − x_k) + (1 − α)(x_k − x_{k−1}) ),   α = 0.75, and 1 in the first step

s is the sign (L∞) or the gradient over its length (L2), Π the projection on the ball and [0, 1],
η_0 = 2ε. At checkpoints, ever closer, η is halved and the search goes back to the best point so
far, x_max, when less than ρ = 75 % of the steps since the last one raised ℓ, or when neither η nor
ℓ(x_max) has changed since. Nothing is left to tune but the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from helpers import balls, checks, losses, margin_losses, noise, victim
from helpers.attack_losses import LossValue
from helpers.balls import Norm, column
from helpers.victim import Victim

__all__ = ["LOSSES", "RETURNS", "Found", "apgd", "checkpoints", "climb", "fitting", "targets"]

Loss = Literal["ce", "dlr", "margin", "targeted_dlr", "targeted_margin"]
Returns = Literal["last", "first_success", "max_loss"]
Callback = Callable[[int, Tensor, LossValue], None]

RETURNS = ("last", "first_success", "max_loss")
ALPHA, RHO = 0.75, 0.75  # momentum and the share of rising steps, section 3.2 of the paper
ROUNDING = 16  # units in the last place by which two sums of the same numbers may differ

Measure = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits, true labels, targets -> what is raised, (B,)
LOSSES: dict[str, Measure] = {
    "ce": lambda z, y, t: losses.cross_entropy(z, y),
    "dlr": lambda z, y, t: margin_losses.dlr(z, y),
    "margin": lambda z, y, t: margin_losses.margin(z, y),
    "targeted_dlr": margin_losses.targeted_dlr,
    # Two or three classes have no targeted DLR: its numerator alone, z_t − z_y.
    "targeted_margin": lambda z, y, t: (z.gather(1, t[:, None]) - z.gather(1, y[:, None])).squeeze(1),
}


class Found(NamedTuple):
    """What one run of an attack comes back with: points (B, C, H, W), and whether the network is fooled there."""

    x: Tensor
    fooled: Tensor


@dataclass
class _State:
    """One row for each image that is still attacked."""

    place: Tensor  # its row in the batch
    y: Tensor
    target: Tensor
    low: Tensor  # L∞: the lowest and highest values allowed; L2: both are x
    high: Tensor
    point: Tensor  # x_k
    before: Tensor  # x_{k−1}
    gradient: Tensor  # at x_k
    value: Tensor  # ℓ(x_k)
    best: Tensor  # x_max
    best_gradient: Tensor
    best_value: Tensor
    step: Tensor  # η
    rises: Tensor  # steps since the last checkpoint that raised ℓ
    halved: Tensor  # whether the last checkpoint halved η
    best_then: Tensor  # ℓ(x_max) at the last checkpoint


def checkpoints(n_steps: int) -> list[int]:
    """The steps after which η is reconsidered: 22 % of them, then intervals shrinking by 3 % down to 6 %.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    interval, least, less = (max(int(share * n_steps), 1) for share in (0.22, 0.06, 0.03))
    steps, at = [], interval
    while at <= n_steps:
        steps.append(at)
        interval = max(interval - less, least)
        at += interval
    return steps


def fitting(loss: str, num_classes: int) -> Loss:
    """The loss to raise where `loss` is wanted: two classes have no DLR, three no targeted DLR; their numerators then.

    >>> fitting("dlr", 2), fitting("targeted_dlr", 3), fitting("targeted_dlr", 10)
    ('margin', 'targeted_margin', 'targeted_dlr')
    """
    checks.choice(loss, LOSSES, "loss")
    if loss == "dlr" and num_classes < 3:
        return "margin"
    if loss == "targeted_dlr" and num_classes < 4:
        return "targeted_margin"
    return cast(Loss, loss)


def targets(logits: Tensor, y: Tensor, rank: int) -> Tensor:
    """The class that the network finds `rank`-th likeliest among those other than y, rank ≥ 1; int64 (B,).

    >>> targets(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]), 1)
    tensor([2])
    """
    order = logits.scatter(1, y[:, None], torch.inf).argsort(dim=1, descending=True, stable=True)
    return order[:, rank]


def _start(x: Tensor, key: noise.Key, *, norm: Norm, epsilon: float) -> Tensor:
    """x_0 on the ball's surface: an even draw of the cube (L∞) or sphere (L2), stretched to length ε."""
    shape = x.shape[1:]
    d = 2 * key.uniform(shape, dtype=x.dtype) - 1 if norm == "linf" else key.normal(shape, dtype=x.dtype)
    length = balls.distance(d, torch.zeros_like(d), norm=norm).clamp_min(1e-12)
    return (x + d * column(epsilon / length, d)).clamp_(0.0, 1.0)


def _projected(z: Tensor, s: _State, *, norm: Norm, epsilon: float) -> Tensor:
    if norm == "linf":
        return torch.clamp(z, s.low, s.high)
    return balls.project(z, s.low, norm=norm, epsilon=epsilon)


def _move(s: _State, *, norm: Norm, epsilon: float, first: bool) -> Tensor:
    """x_{k+1} from x_k and x_{k−1}."""
    z = torch.addcmul(s.point, balls.steepest(s.gradient, norm=norm), column(s.step, s.point))
    z = _projected(z, s, norm=norm, epsilon=epsilon)
    if first:
        return z
    z = torch.lerp(s.point, z, ALPHA).add_(s.point - s.before, alpha=1 - ALPHA)
    return _projected(z, s, norm=norm, epsilon=epsilon)


def _reconsider(s: _State, interval: int) -> None:
    """At a checkpoint: halve η and go back to x_max where the search does not rise enough."""
    stuck = (s.rises <= RHO * interval) | (~s.halved & (~_above(s.best_value, s.best_then)))
    s.step = torch.where(stuck, s.step / 2, s.step)
    s.point = balls.choose(stuck, s.best, s.point)
    s.gradient = balls.choose(stuck, s.best_gradient, s.gradient)
    # The value stays that of the last step: the next one counts as a rise if it beats where the search really was.
    s.halved, s.best_then, s.rises = stuck, s.best_value, torch.zeros_like(s.rises)


def _begin(x: Tensor, y: Tensor, target: Tensor, point: Tensor, *, norm: Norm, epsilon: float) -> _State:
    nothing = x.new_zeros(len(x))
    low, high = ((x - epsilon).clamp_(0, 1), (x + epsilon).clamp_(0, 1)) if norm == "linf" else (x, x)
    return _State(
        place=torch.arange(len(x), device=x.device), y=y, target=target, low=low, high=high,
        point=point, before=point, gradient=point, value=nothing, best=point, best_gradient=point,
        best_value=nothing, step=nothing + 2 * epsilon, rises=nothing.clone(),
        halved=torch.ones_like(y, dtype=torch.bool), best_then=nothing,
    )  # fmt: skip


def _above(new: Tensor, old: Tensor) -> Tensor:
    """Whether the loss rose by more than rounding. Else the batch decides: L∞ searches often step between two
    corners, and whether the same corner is higher the second time would be the noise of a sum's order."""
    return new > old + ROUNDING * torch.finfo(old.dtype).eps * old.abs()


def _see(s: _State, seen: victim.Seen, *, first: bool) -> None:
    """Take in what the network said at x_k."""
    if first:
        s.gradient = s.best_gradient = seen.gradient
        s.value = s.best_value = s.best_then = seen.value
        return
    s.rises = s.rises + _above(seen.value, s.value)
    better = _above(seen.value, s.best_value)
    s.best = balls.choose(better, s.point, s.best)
    s.best_gradient = balls.choose(better, seen.gradient, s.best_gradient)
    s.best_value = torch.where(better, seen.value, s.best_value)
    s.value, s.gradient = seen.value, seen.gradient


def _measured(logits: Tensor, *, loss: Loss, y: Tensor, target: Tensor) -> Tensor:
    return LOSSES[loss](logits, y, target)


def climb(
    network: Victim,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    *,
    loss: Loss,
    norm: Norm,
    epsilon: float,
    n_steps: int,
    returns: Returns,
    key: noise.Key,
    callback: Callback | None = None,
) -> Found:
    """One run of APGD on one batch from one random start, its arguments unchecked.

    `target` (B,) counts where the loss is targeted; fooled means all the same that the class is
    not y, since another class than the intended one will do. With "first_success" images rest at
    their first fooled point and leave the batch.
    """
    s = _begin(x, y, target, _start(x, key, norm=norm, epsilon=epsilon), norm=norm, epsilon=epsilon)
    out, done = s.point.clone(), torch.zeros_like(y, dtype=torch.bool)
    marks = checkpoints(n_steps)
    for k in range(n_steps + 1):
        seen = network.look(s.point, partial(_measured, loss=loss, y=s.y, target=s.target))
        checks.finite(seen.value, "the loss of APGD", step=k, index=key.index[s.place])
        fooled = network.confirmed(seen.logits, s.point, s.y).argmax(1) != s.y
        if callback is not None:
            callback(k, s.point, LossValue(seen.value, fooled))
        _see(s, seen, first=k == 0)
        if returns == "first_success":
            new = fooled & ~done[s.place]
            out[s.place[new]], done[s.place[new]] = s.point[new], True
            if callback is None:
                s = victim.thin(s, ~done[s.place])
            if not len(s.place):
                return Found(out, done)
        if k == n_steps:
            break
        if k in marks:
            _reconsider(s, interval=k - max([0, *(m for m in marks if m < k)]))
        s.point, s.before = _move(s, norm=norm, epsilon=epsilon, first=k == 0), s.point
    if returns == "first_success":
        rest = ~done[s.place]
        out[s.place[rest]] = s.point[rest]
        return Found(out, done)
    if returns == "last":
        return Found(s.point, fooled)
    return Found(s.best, network.logits(s.best).argmax(1) != y)


# The attack --------------------------------------------------------------------------------------------------------


def apgd(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss,
    norm: Norm,
    epsilon: float,
    n_steps: int,
    n_restarts: int,
    n_targets: int | None = None,
    returns: Returns,
    seed: int,
    index: Tensor,
    batch_size: int,
    callback: Callback | None = None,
) -> Tensor:
    """Auto-PGD (Croce & Hein 2020) in the L∞ or L2 ball; x_adv (N, C, H, W), for true labels y (N,).

    `loss` is raised: "ce", "dlr" (K ≥ 3), "margin", or in turn for the `n_targets` likeliest other
    classes "targeted_dlr" (K ≥ 4) and "targeted_margin". ε is in the images' scale [0, 1].
    `returns` says which point of x_0, …, x_n comes back:
      "last"           x_n;
      "first_success"  the first fooled point, where an image stops; x_n if it was never fooled;
      "max_loss"       x_max, the point of highest loss, fooled or not.
    A further restart or target is tried only on images that are not fooled at that point; an image
    that never is keeps the point of its last run. An image's start is keyed by `index` (N,) and
    `seed`, so neither batch nor order matters. `callback(k, x_k, said)` sees every iterate of every
    run of every batch, and keeps fooled images in the batch. Nothing given is modified.

    Raises ValueError for bad input and FloatingPointError when the loss is not finite.
    """
    checks.labels(y, checks.images(x))
    checks.index(index, x)
    checks.choice(loss, LOSSES, "loss")
    checks.choice(norm, balls.NORMS, "norm")
    checks.choice(returns, RETURNS, "returns")
    checks.radius(epsilon)
    checks.count(n_steps, "n_steps", minimum=1)
    checks.count(n_restarts, "n_restarts", minimum=1)
    if loss.startswith("targeted") != (n_targets is not None):
        raise ValueError(f"expected n_targets with a targeted loss and with no other, got {n_targets} with {loss!r}")
    runs = [(rank, k) for rank in range(1, (n_targets or 1) + 1) for k in range(n_restarts)]

    def attack(seer: Victim, rows: Tensor) -> Tensor:
        clean = seer.logits(x[rows])
        checks.labels(y[rows], num_classes=clean.shape[1])
        if n_targets is not None:
            checks.count(n_targets, "n_targets", minimum=1, maximum=clean.shape[1] - 1)
        out, left = x[rows].detach().clone(), torch.arange(len(rows), device=x.device)
        for number, (rank, _) in enumerate(runs):
            here = rows[left]
            found = climb(
                seer, x[here].detach(), y[here], targets(clean[left], y[here], rank if n_targets else 0), loss=loss,
                norm=norm, epsilon=epsilon, n_steps=n_steps, returns=returns,
                key=noise.Key(seed, f"apgd/{loss}", index.to(x.device)[here], number), callback=callback,
            )  # fmt: skip
            out[left] = found.x
            left = left[~found.fooled]
            if not len(left):
                break
        return out

    return victim.in_batches(network, attack, x, batch_size=batch_size)
