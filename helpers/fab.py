"""FAB-T, the targeted fast adaptive boundary attack (Croce & Hein 2020b), L∞ and L2.

It looks for the closest adversarial point. At x_k the boundary to class t is taken for the plane
π: (z_t − z_y)(x_k) + ∇(z_t − z_y)(x_k) · (x' − x_k) = 0. With P the projection on π met with [0, 1],

    x_{k+1} = clip( (1 − a)(x_k + η (P(x_k) − x_k)) + a (x + η (P(x) − x)) )
    a = min( ‖P(x_k) − x_k‖ / (‖P(x_k) − x_k‖ + ‖P(x) − x‖), 0.1 ),   η = 1.05

and where x_{k+1} is adversarial it is noted if it is the closest so far, and the search goes on
from x + 0.9 (x_{k+1} − x), back on the near side. Nothing is drawn: the attack is deterministic.

Departs from the paper: no random restarts and no final line search, as in the authors' AutoAttack.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from helpers import balls, checks, victim
from helpers.apgd import LOSSES, targets
from helpers.balls import Norm, column
from helpers.victim import Victim

__all__ = ["RETURNS", "Closest", "both", "fab", "onto_plane", "search"]

Returns = Literal["closest", "first_success"]
RETURNS = ("closest", "first_success")
ETA, BETA, ALPHA_MAX = 1.05, 0.9, 0.1  # overshoot, way back and bias to x: section 4 of the paper
NEWTON = 50  # far more rounds than were ever seen (8): the function is piecewise linear and concave


class Closest(NamedTuple):
    """What a search comes back with: points (B, C, H, W), their distance from x (∞: none found), and if it is ≤ ε."""

    x: Tensor
    distance: Tensor
    fooled: Tensor


@dataclass
class _State:
    """One row for each image that is still attacked."""

    place: Tensor  # its row in the batch
    x: Tensor
    y: Tensor
    target: Tensor
    point: Tensor  # x_k
    nearest: Tensor  # distance of the closest adversarial point so far, ∞ if none


@dataclass
class _First:
    """For each image its first adversarial point within ε, where it is `found`; else whatever `x` was."""

    x: Tensor
    found: Tensor

    def note(self, point: Tensor, good: Tensor) -> None:
        new = good & ~self.found
        self.x[new], self.found[new] = point[new], True


def onto_plane(point: Tensor, w: Tensor, c: Tensor, *, norm: Norm) -> Tensor:
    """The shortest d in the norm with w · d = c and point + d in [0, 1]; as far as it goes where there is none.

    `point` and `w` are (B, n), `c` is (B,). Each entry moves by min(λ s_i, r_i) in the direction that
    helps, r_i being its way to the box and s_i = 1 (L∞) or |w_i| (L2), so λ solves the equation

        g(λ) = Σ_i |w_i| min(λ s_i, r_i) = |c| .

    g is concave, rising and piecewise linear: Newton's method from |c| / Σ |w_i| s_i ≤ λ climbs to
    the solution without overshooting and ends in a few rounds, with no sorting of the entries.

    >>> onto_plane(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 3.0]]), torch.tensor([1.0]), norm="l2")
    tensor([[0.1000, 0.3000]])
    """
    sigma = w.sign().mul_(c.sign()[:, None])  # the direction that helps; 0 where w is
    room = (0.5 - point).mul_(sigma).add_(0.5)  # 1 − point upwards, point downwards
    a = w.abs()
    weight = a if norm == "linf" else a * a
    wanted, tiny = c.abs(), torch.finfo(c.dtype).tiny
    scale = wanted / weight.sum(1).clamp_min(tiny)
    moved = room
    for _ in range(NEWTON):
        reach = scale[:, None] if norm == "linf" else a * scale[:, None]
        moved = torch.minimum(room, reach)
        missing = wanted - _dot(a, moved)
        slope = _dot(weight, (room - reach).sign_().clamp_min_(0.0))  # sign and clamp: comparisons are slow on CPUs
        short = (missing > 1e-6 * wanted) & (slope > 0)
        if not bool(short.any()):
            break
        scale = torch.where(short, scale + missing / slope.clamp_min(tiny), scale)
    return moved.mul_(sigma)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)


def _gap(logits: Tensor, *, y: Tensor, target: Tensor) -> Tensor:
    return LOSSES["targeted_margin"](logits, y, target)


def _step(s: _State, seen: victim.Seen, *, norm: Norm) -> Tensor:
    """x_{k+1}."""
    shape = s.x.shape
    w, point, x = seen.gradient.flatten(1), s.point.flatten(1), s.x.flatten(1)
    to_plane = -seen.value
    d_point = onto_plane(point, w, to_plane, norm=norm)
    d_x = onto_plane(x, w, to_plane + _dot(w, point - x), norm=norm)
    far_point, far_x = (balls.distance(d, torch.zeros_like(d), norm=norm).clamp_min(1e-8) for d in (d_point, d_x))
    a = (far_point / (far_point + far_x)).clamp_max(ALPHA_MAX)[:, None]
    moved = torch.lerp(point.add(d_point, alpha=ETA), x.add(d_x, alpha=ETA), a)
    return moved.clamp_(0.0, 1.0).reshape(shape)


def search(
    network: Victim,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    n_steps: int,
    returns: Returns,
    first: _First | None = None,
) -> Closest:
    """FAB towards one target class on one batch, its arguments unchecked; fooled means within ε.

    With "first_success" an image is done at its first adversarial point within ε and leaves the
    batch. Points of images without success are the closest adversarial ones, else x. With "closest" `first` notes
    the first successes too.
    """
    place = torch.arange(len(x), device=x.device)
    s = _State(place, x, y, target, point=x, nearest=torch.full_like(x[:, 0, 0, 0], torch.inf))
    out, nearest = x.clone(), s.nearest.clone()
    for _ in range(n_steps):
        seen = network.look(s.point, partial(_gap, y=s.y, target=s.target))
        s.point = _step(s, seen, norm=norm)
        crossed = network.logits(s.point).argmax(1) != s.y
        far = balls.distance(s.point, s.x, norm=norm)
        closer = crossed & (far < s.nearest)
        if first is not None:
            first.note(s.point, crossed & (far <= epsilon))
        if returns == "first_success":
            closer &= s.nearest > epsilon  # those that are done stay in the batch for a while
        out[s.place[closer]] = s.point[closer]
        s.nearest = torch.where(closer, far, s.nearest)
        back = torch.where(crossed, BETA, 1.0).to(x.dtype)
        s.point = torch.lerp(s.x, s.point, column(back, x))
        nearest[s.place] = s.nearest
        if returns == "first_success":
            s = victim.thin(s, s.nearest > epsilon)
            if not len(s.place):
                break
    return Closest(out, nearest, nearest <= epsilon)


# The attack --------------------------------------------------------------------------------------------------------


def fab(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    n_steps: int,
    n_targets: int,
    returns: Returns,
    batch_size: int,
) -> Tensor:
    """FAB-T (Croce & Hein 2020b) towards the `n_targets` likeliest other classes in turn; x_adv (N, C, H, W).

    `returns` says which point comes back, for true labels y (N,):
      "closest"        the adversarial point nearest to x over all targets, however far: ε plays no part;
      "first_success"  the first adversarial point within ε, where an image stops; x itself if there is none.
    An image that is misclassified already is its own closest point. Nothing is drawn, so neither
    batch nor order matters, and nothing given is modified. Raises ValueError for bad input.
    """
    checks.choice(returns, RETURNS, "returns")
    _check(x, y, norm=norm, epsilon=epsilon, n_steps=n_steps)
    ball: dict[str, Any] = {"norm": norm, "epsilon": epsilon, "n_steps": n_steps, "n_targets": n_targets}
    return _attack(network, x, y, returns=returns, batch_size=batch_size, first=None, **ball)


def both(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    n_steps: int,
    n_targets: int,
    batch_size: int,
) -> dict[str, Tensor]:
    """Both points of `fab` by their names, from one run; each (N, C, H, W)."""
    _check(x, y, norm=norm, epsilon=epsilon, n_steps=n_steps)
    first = x.detach().clone()
    ball: dict[str, Any] = {"norm": norm, "epsilon": epsilon, "n_steps": n_steps, "n_targets": n_targets}
    closest = _attack(network, x, y, returns="closest", batch_size=batch_size, first=first, **ball)
    return {"closest": closest, "first_success": first}


def _attack(
    network: nn.Module, x: Tensor, y: Tensor, *, norm: Norm, epsilon: float, n_steps: int, n_targets: int,
    returns: Returns, batch_size: int, first: Tensor | None,
) -> Tensor:  # fmt: skip
    """`fab`; with "closest" a tensor `first` like x is filled with first successes where there are any."""

    def attack(seer: Victim, rows: Tensor) -> Tensor:
        here, labels, out = x[rows].detach(), y[rows], x[rows].detach().clone()
        clean = seer.logits(here)
        checks.labels(labels, num_classes=clean.shape[1])
        checks.count(n_targets, "n_targets", minimum=1, maximum=clean.shape[1] - 1)
        right = clean.argmax(1) == labels
        nearest, todo = torch.where(right, torch.inf, 0.0).to(x.dtype), right
        noted = None if first is None else _First(here.clone(), ~right)
        for rank in range(1, n_targets + 1):
            left = todo.nonzero().squeeze(1)
            if not len(left):
                break
            seen = None if noted is None else _First(noted.x[left], noted.found[left])
            found = search(
                seer, here[left], labels[left], targets(clean[left], labels[left], rank),
                norm=norm, epsilon=epsilon, n_steps=n_steps, returns=returns, first=seen,
            )  # fmt: skip
            if noted is not None and seen is not None:
                noted.x[left], noted.found[left] = seen.x, seen.found
            closer = found.distance < nearest[left]
            out[left[closer]], nearest[left[closer]] = found.x[closer], found.distance[closer]
            todo = right if returns == "closest" else right & (nearest > epsilon)
        if first is not None and noted is not None:
            first[rows] = noted.x
        return out if returns == "closest" else torch.where(balls.column(nearest <= epsilon, here), out, here)

    return victim.in_batches(network, attack, x, batch_size=batch_size)


def _check(x: Tensor, y: Tensor, *, norm: str, epsilon: float, n_steps: int) -> None:
    checks.labels(y, checks.images(x))
    checks.choice(norm, balls.NORMS, "norm")
    checks.radius(epsilon)
    checks.count(n_steps, "n_steps", minimum=1)
