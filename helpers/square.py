"""Square Attack (Andriushchenko et al. 2020), L∞ and L2: random search that asks only for logits.

Each query changes one square window of the best image so far and keeps the change if the margin
max_{k≠y} z_k − z_y rises. The side of the windows shrinks on a fixed schedule. In L∞ every entry
sits at x ± ε and a window takes one sign for each channel; in L2 one window's budget is moved to
another and shaped as two pyramids of opposite sign (algorithms 2 and 3 of the paper).

Every image has its own windows and signs, keyed by its index; the authors' code moves the same
window in all images of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from helpers import balls, checks, margin_losses, noise, victim
from helpers.apgd import Found
from helpers.balls import Norm
from helpers.victim import Victim

__all__ = ["RETURNS", "both", "pyramids", "search", "side", "square"]

Returns = Literal["first_success", "max_loss"]
RETURNS = ("first_success", "max_loss")
SHARE = 0.8  # of the image that the first windows cover, as in AutoAttack
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the share halves, section 4.1
AHEAD = 64  # queries whose draws are made at once


@dataclass
class _State:
    """One row for each image that is still attacked; images are flat, (B, C, HW)."""

    place: Tensor  # its row in the batch
    index: Tensor  # its noise key
    y: Tensor
    x: Tensor
    point: Tensor  # the best image so far
    margin: Tensor  # the margin there
    draws: Tensor  # (B, AHEAD, n) uniform numbers for the queries to come


def side(query: int, height: int, width: int, *, norm: Norm) -> int:
    """The side of the window at a query (from 0); in L2 odd and at least 3, and never beyond the picture.

    >>> [side(q, 32, 32, norm="linf") for q in (0, 11, 51, 201, 501, 1001, 2001, 4001)]
    [29, 20, 14, 10, 7, 5, 4, 3]
    """
    share = SHARE / 2 ** sum(query > q for q in HALVINGS)
    s = max(round(math.sqrt(share * height * width)), 1 if norm == "linf" else 3)
    if norm == "l2" and s % 2 == 0:
        s += 1
    return min(s, height, width)


def _pyramid(height: int, width: int) -> Tensor:
    """Concentric rectangles of weight 1, 1/4, 1/9, …, summed: highest at the centre; length 1."""
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    ring = torch.maximum(rows.abs()[:, None], columns.abs()[None])
    weights = 1 / torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** 2
    total = weights.flip(0).cumsum(0).flip(0)[ring.clamp_max(len(weights) - 1)]
    return total / total.norm()


@lru_cache(maxsize=64)
def pyramids(s: int) -> Tensor:
    """The L2 window η of side s: one pyramid on the upper half, its opposite on the lower; (s, s), length 1."""
    lower = -_pyramid(s - s // 2, s)
    eta = torch.cat([_pyramid(s // 2, s), lower]) if s > 1 else lower
    return eta / eta.norm()


# Where the windows are ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _grid(s: int, width: int, device: torch.device) -> Tensor:
    """Flat positions (1, s²) of a window in the corner of a picture."""
    at = torch.arange(s, device=device)
    return (at[:, None] * width + at[None]).flatten()[None]


def _corner(u: Tensor, s: int, shape: torch.Size) -> Tensor:
    """Positions (B, s²) of windows drawn evenly by two uniform numbers `u` (B, 2)."""
    _, height, width = shape
    # floor(u n) is below n, since u < 1 by at least 2⁻²⁴
    row, column = (u[:, 0] * (height - s + 1)).long(), (u[:, 1] * (width - s + 1)).long()
    return torch.add(column, row, alpha=width)[:, None] + _grid(s, width, u.device)


def _over(cells: Tensor, channels: int) -> Tensor:
    return cells[:, None].expand(-1, channels, -1)


# Proposals ---------------------------------------------------------------------------------------------------------


def _propose_linf(s: _State, u: Tensor, a: int, *, shape: torch.Size, epsilon: float) -> tuple[Tensor, Tensor]:
    """Cells (B, C, a²) and their new values: x ± ε in [0, 1], one sign for each channel."""
    cells = _over(_corner(u[:, :2], a, shape), shape[0])
    signs = torch.where(u[:, 2 : 2 + shape[0], None] < 0.5, -epsilon, epsilon)
    return cells, (s.x.gather(2, cells) + signs).clamp_(0.0, 1.0)


def _propose_l2(s: _State, u: Tensor, a: int, *, shape: torch.Size, epsilon: float) -> Tensor:
    """The whole new image: the second window is emptied, the first gets its budget and what was not spent."""
    channels = shape[0]
    first, second = (_over(_corner(u[:, k : k + 2], a, shape), channels) for k in (0, 2))
    delta = s.point - s.x
    old = delta.gather(2, first)
    unspent = (epsilon**2 - delta.square().sum((1, 2), keepdim=True)).clamp_min(0.0) / channels
    emptied = delta.scatter(2, first, 0.0)
    budget = old.square().sum(2, keepdim=True) + emptied.gather(2, second).square().sum(2, keepdim=True) + unspent
    eta = pyramids(a).to(delta)
    eta = torch.where(u[:, 4, None, None] < 0.5, eta, eta.T).flatten(1)[:, None]
    signs = torch.where(u[:, 5 : 5 + channels, None] < 0.5, -1.0, 1.0).to(delta)
    new = eta * signs + old / _length(old)
    new = new / _length(new) * budget.sqrt()
    delta = emptied.scatter_(2, second, 0.0).scatter_(2, first, new)
    return _on_sphere(s.x, delta, epsilon)


def _length(d: Tensor) -> Tensor:
    return torch.linalg.vector_norm(d, dim=2, keepdim=True) + 1e-12


def _on_sphere(x: Tensor, delta: Tensor, epsilon: float) -> Tensor:
    length = torch.linalg.vector_norm(delta, dim=(1, 2), keepdim=True) + 1e-12
    return torch.addcmul(x, delta, epsilon / length).clamp_(0.0, 1.0)


# Starts ------------------------------------------------------------------------------------------------------------


def _stripes(x: Tensor, key: noise.Key, epsilon: float) -> Tensor:
    """L∞ start: vertical stripes one pixel wide, x ± ε, one sign for each channel and column; (B, C, H, W)."""
    _, channels, _, width = x.shape
    signs = torch.where(key.uniform((channels, 1, width)) < 0.5, -epsilon, epsilon).to(x)
    return (x + signs).clamp_(0.0, 1.0)


def _tiles(x: Tensor, key: noise.Key, epsilon: float) -> Tensor:
    """L2 start: a grid of about 5 × 5 windows, each with its own signs and orientation, on the sphere."""
    _, channels, height, width = x.shape
    a = max(min(height, width) // 5, 1)
    n_rows, n_columns = height // a, width // a
    u = key.uniform((channels + 1, n_rows, n_columns)).to(x)
    eta = pyramids(a).to(x)
    turned = (u[:, :1] < 0.5)[..., None, None]
    tiles = torch.where(turned, eta, eta.T) * torch.where(u[:, 1:] < 0.5, -1.0, 1.0).to(x)[..., None, None]
    delta = torch.zeros_like(x)
    top, left = (height - n_rows * a) // 2, (width - n_columns * a) // 2
    grid = tiles.transpose(3, 4).reshape(len(x), channels, n_rows * a, n_columns * a)
    delta[:, :, top : top + n_rows * a, left : left + n_columns * a] = grid
    return _on_sphere(x.flatten(2), delta.flatten(2), epsilon).reshape(x.shape)


# The search --------------------------------------------------------------------------------------------------------


def _try(
    s: _State,
    u: Tensor,
    a: int,
    *,
    margin: Callable[[Tensor, Tensor], Tensor],
    norm: Norm,
    epsilon: float,
    shape: torch.Size,
) -> None:
    """One query for each image: propose, ask, and keep what raised the margin."""
    if norm == "linf":
        cells, new = _propose_linf(s, u, a, shape=shape, epsilon=epsilon)
        old = s.point.gather(2, cells)
        s.point.scatter_(2, cells, new)  # in place, and undone where it did not help: windows are small
        value = margin(s.point, s.y)
        better = value > s.margin
        s.point.scatter_(2, cells, torch.where(better[:, None, None], new, old))
    else:
        moved = _propose_l2(s, u, a, shape=shape, epsilon=epsilon)
        value = margin(moved, s.y)
        better = value > s.margin
        s.point = torch.where(better[:, None, None], moved, s.point)
    s.margin = torch.where(better, value, s.margin)


def search(
    network: Victim,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    n_queries: int,
    returns: Returns,
    key: noise.Key,
    first: Tensor | None = None,
) -> Found:
    """Square Attack on one batch, its arguments unchecked; with "first_success" fooled images leave the batch.

    With "max_loss" a tensor `first` like x is filled with each image's first success, or its last point.
    """
    shape = x.shape[1:]
    n_draws = (2 if norm == "linf" else 5) + shape[0]

    def margin(flat: Tensor, labels: Tensor) -> Tensor:
        return margin_losses.margin(network.logits(flat.reshape(-1, *shape)), labels)

    start = (_stripes if norm == "linf" else _tiles)(x, key, epsilon).flatten(2)
    draws = x.new_zeros(len(x), 0, 0)
    s = _State(torch.arange(len(x), device=x.device), key.index, y, x.flatten(2), start, margin(start, y), draws)
    out, done = start.clone(), torch.zeros_like(y, dtype=torch.bool)
    windows = replace(key, purpose=f"{key.purpose}/windows")
    seen = torch.zeros_like(done)
    for query in range(n_queries):
        if returns == "first_success":
            s = _without_fooled(s, out, done)
        elif first is not None:
            _note_first(s, first, seen)
        if not len(s.place):
            break
        if query % AHEAD == 0:
            ahead = replace(windows, index=s.index, step=query // AHEAD)
            s.draws = ahead.uniform((AHEAD, n_draws), dtype=x.dtype)
        a = side(query, shape[1], shape[2], norm=norm)
        _try(s, s.draws[:, query % AHEAD], a, margin=margin, norm=norm, epsilon=epsilon, shape=shape)
    if first is not None:
        _note_first(s, first, seen)
        first[~seen] = s.point.reshape(x.shape)[~seen]
    left = ~done[s.place]
    out[s.place[left]], done[s.place] = s.point[left], s.margin > 0
    return Found(out.reshape(x.shape), done)


def _note_first(s: _State, first: Tensor, seen: Tensor) -> None:
    """Note the points of images that the last query fooled for the first time; all images are still in the batch."""
    new = (s.margin > 0) & ~seen
    if bool(new.any()):
        first[new], seen[new] = s.point[new].reshape(-1, *first.shape[1:]), True


def _without_fooled(s: _State, out: Tensor, done: Tensor) -> _State:
    """Note the images fooled by the last query in `out` and `done`, and let them leave the batch."""
    new = (s.margin > 0) & ~done[s.place]
    if not bool(new.any()):
        return s
    out[s.place[new]], done[s.place[new]] = s.point[new], True
    return victim.thin(s, ~done[s.place])


def square(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    n_queries: int,
    returns: Returns,
    seed: int,
    index: Tensor,
    batch_size: int,
) -> Tensor:
    """Square Attack (Andriushchenko et al. 2020) in the L∞ or L2 ball; x_adv (N, C, H, W), for true labels y (N,).

    Each image has one start and `n_queries` proposals. `returns` says which point comes back:
      "first_success"  the first fooled point, where an image stops; the highest margin if there is none;
      "max_loss"       the point of highest margin after all queries, fooled or not.
    Draws are keyed by `index` (N,) and `seed`, so neither batch nor order matters. Nothing given is
    modified. Raises ValueError for bad input.
    """
    _check(x, y, norm=norm, epsilon=epsilon, n_queries=n_queries, index=index)
    checks.choice(returns, RETURNS, "returns")

    def attack(seer: Victim, rows: Tensor) -> Tensor:
        key = noise.Key(seed, "square", index.to(x.device)[rows])
        checks.labels(y[rows], num_classes=seer.logits(x[rows][:1]).shape[1])
        return search(
            seer, x[rows].detach(), y[rows], norm=norm, epsilon=epsilon, n_queries=n_queries, returns=returns, key=key
        ).x

    return victim.in_batches(network, attack, x, batch_size=batch_size)


def both(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    n_queries: int,
    seed: int,
    index: Tensor,
    batch_size: int,
) -> dict[str, Tensor]:
    """Both points of `square` by their names, from one run with all its queries; each (N, C, H, W)."""
    _check(x, y, norm=norm, epsilon=epsilon, n_queries=n_queries, index=index)
    first = x.detach().clone()

    def attack(seer: Victim, rows: Tensor) -> Tensor:
        key = noise.Key(seed, "square", index.to(x.device)[rows])
        checks.labels(y[rows], num_classes=seer.logits(x[rows][:1]).shape[1])
        here = x[rows].detach().clone()
        found = search(
            seer, x[rows].detach(), y[rows], norm=norm, epsilon=epsilon, n_queries=n_queries, returns="max_loss",
            key=key, first=here,
        )  # fmt: skip
        first[rows] = here
        return found.x

    best = victim.in_batches(network, attack, x, batch_size=batch_size)
    return {"max_loss": best, "first_success": first}


def _check(x: Tensor, y: Tensor, *, norm: str, epsilon: float, n_queries: int, index: Tensor) -> None:
    checks.labels(y, checks.images(x))
    checks.index(index, x)
    checks.choice(norm, balls.NORMS, "norm")
    checks.radius(epsilon)
    checks.count(n_queries, "n_queries")
