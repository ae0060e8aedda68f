"""Which images stand under PGD, and nothing else: a network's verdicts as fast as they can be had.

    stands = standing(network, x, y, norm="linf", epsilon=8/255, …)

An image that the network gets wrong is not attacked, one that is fooled leaves its batch at once, and batches are laid
out as convolutions like them (channels last). The verdict of an image is that of the plain way,

    x_adv = pgd(cross_entropy(network), x, y, returns="first_success", …);   right on x and on x_adv

but for margins below 1e-4, where float32 rounding decides. With `precision` "bfloat16" the gradients are those of the
network in bfloat16, half the time of large networks; whether an image is fooled is then asked of float32 wherever
bfloat16 says so, and of all that stand in the end. So bfloat16 condemns nobody, and where its steps go another way the
search is another one of the same strength. Points and energies are not to be had here: an attack that
is stopped at its success says nothing about either (see `pgd`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from helpers import balls, checks, losses, noise, victim
from helpers.balls import Norm
from helpers.first_points import Start, first_point
from helpers.halved import InBfloat16

__all__ = ["PRECISIONS", "standing"]

Precision = Literal["float32", "bfloat16"]
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class _Duel:
    """What all batches share: who judges, whose gradients lead, and the attack's rule."""

    judge: victim.Victim
    guide: victim.Victim
    norm: Norm
    epsilon: float
    step_size: float
    n_steps: int


@dataclass
class _State:
    """One row for each image that is still attacked."""

    place: Tensor
    x: Tensor
    y: Tensor
    point: Tensor


@torch.no_grad()
def standing(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    step_size: float,
    n_steps: int,
    n_restarts: int,
    start: Start = "uniform",
    seed: int,
    index: Tensor,
    batch_size: int,
    precision: Precision = "float32",
    purpose: str = "attack",
) -> Tensor:
    """Whether the network is right on x and at every point x_0, …, x_n of PGD on cross-entropy, bool (N,).

    x (N, C, H, W) in [0, 1], ε and `step_size` in its scale; draws are those of `pgd` with the same seed, index and
    purpose. Verdicts are of float32, whatever the `precision` of the search. The network is left as it was.
    ValueError for bad input, FloatingPointError with step and image where the loss is not finite.

    >>> _ = torch.manual_seed(0)
    >>> network, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
    >>> y = network(x).argmax(1)
    >>> standing(network, x, y, norm="linf", epsilon=1.0, step_size=0.5, n_steps=4, n_restarts=1, seed=0,
    ...     index=torch.arange(3), batch_size=2)
    tensor([False, False, False])
    """
    checks.labels(y, checks.images(x))
    balls.check(norm=norm, epsilon=epsilon, step_size=step_size, n_steps=n_steps)
    checks.choice(precision, PRECISIONS, "precision")
    checks.count(n_restarts, "n_restarts", minimum=1)
    checks.count(batch_size, "batch_size", minimum=1)
    key = noise.Key(seed, purpose, checks.index(index, x).to(x.device))
    stands = torch.zeros_like(y, dtype=torch.bool)
    with victim.attacked(network) as seer:
        guide = victim.Victim(InBfloat16(network, x.device)) if precision == "bfloat16" else seer
        duel = _Duel(seer, guide, norm, epsilon, step_size, n_steps)
        rows = torch.arange(len(x), device=x.device)
        stands[:] = torch.cat([seer.logits(x[part]).argmax(1) == y[part] for part in rows.split(batch_size)])
        for restart in range(n_restarts):
            for part in stands.nonzero().squeeze(1).split(batch_size):
                here = key.rows(part).at(restart)
                point = first_point(x[part], here, norm=norm, epsilon=epsilon, start=start, start_std=None)
                state = _State(part, x[part], y[part], point.contiguous(memory_format=torch.channels_last))
                stands[_climb(duel, state, key)] = False
    return stands


def _raised(logits: Tensor, *, y: Tensor) -> Tensor:
    return losses.cross_entropy(logits, y)


def _fooled(duel: _Duel, s: _State, seen: victim.Seen) -> Tensor:
    """Which images are fooled where they are, (B,) bool, by the judge: asked again only where another led there."""
    fooled = seen.logits.argmax(1) != s.y
    if duel.guide is not duel.judge and bool(fooled.any()):
        rows = fooled.nonzero().squeeze(1)
        fooled[rows] = duel.judge.logits(s.point[rows]).argmax(1) != s.y[rows]
    return fooled


def _climb(duel: _Duel, s: _State, key: noise.Key) -> Tensor:
    """The places of the images that were fooled on the way."""
    fallen = []
    for k in range(duel.n_steps):
        seen = duel.guide.look(s.point, partial(_raised, y=s.y))
        checks.finite(seen.value, "the attack's loss", step=k, index=key.index[s.place])
        fooled = _fooled(duel, s, seen)
        fallen.append(s.place[fooled])
        step = duel.step_size * balls.steepest(seen.gradient, norm=duel.norm)
        s.point = balls.project(s.point + step, s.x, norm=duel.norm, epsilon=duel.epsilon)
        s = victim.keep(s, ~fooled) if bool(fooled.any()) else s
        if not len(s.place):
            return torch.cat(fallen)
    fallen.append(s.place[duel.judge.logits(s.point).argmax(1) != s.y])
    return torch.cat(fallen)
