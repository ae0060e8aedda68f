"""The L2 attack of Carlini & Wagner (2017): the smallest change that fools, by penalty and change of variable.

    minimise  ‖x' − x‖² + c · max( z_y(x') − max_{k≠y} z_k(x'), −κ )  over w,   x' = (tanh w + 1) / 2

with Adam. x' stays in [0, 1] by itself; there is no radius. κ ≥ 0 is by how much the network is to
be wrong. A targeted attack has max_{k≠t} z_k − z_t in place of the margin. c is either fixed (as in
torchattacks) or found for each image by the original's search: ten times as large until the attack
succeeds, then halving the interval.

Departs from the authors' code: no early stop when the loss of the whole batch stalls, so that an
image's result depends on no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from helpers import balls, checks, margin_losses, victim
from helpers.balls import column
from helpers.victim import Victim

__all__ = ["RETURNS", "cw", "points"]

Returns = Literal["closest", "first_success", "last"]
RETURNS = ("closest", "first_success", "last")
SQUEEZE = 0.999999  # keeps atanh finite where a pixel is 0 or 1, as in the authors' code
BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8  # Adam (Kingma & Ba 2015)
MANY = 10.0  # what c is multiplied by while nothing succeeds


@dataclass
class _Record:
    """For each image the closest and the first point that met the goal; ∞ and False where none has."""

    closest: Tensor
    distance: Tensor  # squared
    first: Tensor
    met: Tensor

    def note(self, point: Tensor, distance: Tensor, good: Tensor) -> None:
        closer = good & (distance < self.distance)
        self.closest = balls.choose(closer, point, self.closest)
        self.distance = torch.where(closer, distance, self.distance)
        self.first = balls.choose(good & ~self.met, point, self.first)
        self.met = self.met | good


@dataclass
class _Bracket:
    """The search for c, image by image: `low` failed, `high` succeeded."""

    c: Tensor
    low: Tensor
    high: Tensor

    def narrow(self, succeeded: Tensor) -> None:
        self.high = torch.where(succeeded, torch.minimum(self.high, self.c), self.high)
        self.low = torch.where(succeeded, self.low, torch.maximum(self.low, self.c))
        self.c = torch.where(self.high.isfinite(), (self.low + self.high) / 2, self.c * MANY)


def _lack(logits: Tensor, *, y: Tensor, targeted: bool, kappa: float) -> Tensor:
    """What the goal still lacks, down to −κ: how much the margin is below it; (B,)."""
    margin = margin_losses.targeted_margin(logits, y) if targeted else margin_losses.margin(logits, y)
    return (-margin).clamp_min(-kappa)


def _met(seen: victim.Seen, y: Tensor, *, targeted: bool, kappa: float) -> Tensor:
    if kappa > 0:
        return seen.value <= -kappa
    predicted = seen.logits.argmax(1)
    return predicted == y if targeted else predicted != y


def _descend(
    seer: Victim,
    x: Tensor,
    y: Tensor,
    c: Tensor,
    record: _Record,
    *,
    targeted: bool,
    kappa: float,
    step_size: float,
    n_steps: int,
) -> tuple[Tensor, Tensor]:
    """Adam from x with these c; the last point, and which images met the goal on the way."""
    w = torch.atanh((2 * x - 1) * SQUEEZE)
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    succeeded = torch.zeros_like(y, dtype=torch.bool)
    lack = partial(_lack, y=y, targeted=targeted, kappa=kappa)
    point = torch.tanh(w).add_(1).div_(2)
    for k in range(1, n_steps + 2):
        seen = seer.look(point, lack)
        checks.finite(seen.value, "the loss of CW", step=k - 1)
        good = _met(seen, y, targeted=targeted, kappa=kappa)
        d = point - x
        record.note(point, d.square().flatten(1).sum(1), good)
        succeeded |= good
        if k > n_steps:
            break
        gradient = torch.addcmul(2 * d, seen.gradient, column(c, x)) * (2 * point * (1 - point))
        first = torch.lerp(first, gradient, 1 - BETA_1)
        second = torch.lerp(second, gradient.square(), 1 - BETA_2)
        scale = (second / (1 - BETA_2**k)).sqrt_().add_(TINY)
        w = torch.addcdiv(w, first, scale, value=-step_size / (1 - BETA_1**k))
        point = torch.tanh(w).add_(1).div_(2)
    return point, succeeded


def cw(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    c: float,
    n_searches: int,
    kappa: float,
    step_size: float,
    n_steps: int,
    targeted: bool,
    returns: Returns,
    batch_size: int,
) -> Tensor:
    """Carlini and Wagner's L2 attack (2017) on true labels y (N,), or towards targets y; x_adv (N, C, H, W).

    `n_searches` 1 takes `c` as it is; more search for each image's own c, starting there. Each of
    the searches runs `n_steps` of Adam with `step_size`. The authors: c 0.001, 9 searches, κ 0, step size
    0.01, up to 10,000 steps; torchattacks: c 1, 1 search, κ 0, 0.01, 50 steps.
    `returns` says which point comes back:
      "closest"        of all points that met the goal the one nearest to x; x itself if none did;
      "first_success"  the first that met it; x itself if none did;
      "last"           the last iterate of the last search, whether it met it or not.
    The goal is a margin of at least κ, or for κ = 0 another class than y (the target). Nothing is
    drawn, and nothing given is modified. Raises ValueError for bad input.
    """
    checks.choice(returns, RETURNS, "returns")
    found = points(
        network, x, y, c=c, n_searches=n_searches, kappa=kappa, step_size=step_size, n_steps=n_steps,
        targeted=targeted, batch_size=batch_size,
    )  # fmt: skip
    return found[returns]


def points(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    c: float,
    n_searches: int,
    kappa: float,
    step_size: float,
    n_steps: int,
    targeted: bool,
    batch_size: int,
) -> dict[str, Tensor]:
    """All points of one run of `cw` by their names, each (N, C, H, W)."""
    checks.labels(y, checks.images(x))
    checks.number(c, "c", above=0.0)
    checks.number(kappa, "kappa", minimum=0.0)
    checks.number(step_size, "step_size", above=0.0)
    checks.count(n_searches, "n_searches", minimum=1)
    checks.count(n_steps, "n_steps", minimum=1)

    def attack(seer: Victim, rows: Tensor) -> Tensor:
        here, goal = x[rows].detach(), y[rows]
        checks.labels(goal, num_classes=seer.logits(here[:1]).shape[1])
        record = _Record(here, here.new_full((len(here),), torch.inf), here, torch.zeros_like(goal, dtype=torch.bool))
        bracket = _Bracket(here.new_full((len(here),), c), here.new_zeros(len(here)), record.distance.clone())
        last = here
        for _ in range(n_searches):
            last, succeeded = _descend(
                seer, here, goal, bracket.c, record,
                targeted=targeted, kappa=kappa, step_size=step_size, n_steps=n_steps,
            )  # fmt: skip
            bracket.narrow(succeeded)
        return torch.cat([record.closest, record.first, last], dim=1)  # side by side as channels

    together = victim.in_batches(network, attack, x, batch_size=batch_size)
    found = together.chunk(len(RETURNS), dim=1) if len(x) else [together] * len(RETURNS)
    return {name: part.contiguous() for name, part in zip(RETURNS, found, strict=True)}
