"""The network under attack: in eval mode, frozen, and counted; and the rows of a batch that are still attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from helpers import checks, context

__all__ = ["Cost", "Seen", "Victim", "attacked", "in_batches", "keep", "thin"]

CROWD = 8

Rows = TypeVar("Rows")
Criterion = Callable[[Tensor], Tensor]  # logits (B, K) -> what is raised, (B,)


@dataclass
class Cost:
    """What an attack cost: images sent `forward` through the network, and how many of them `backward` too."""

    forward: int = 0
    backward: int = 0


class Seen(NamedTuple):
    """What the network says at a point: `logits` (B, K), `value` (B,) of the loss, its `gradient` (B, C, H, W)."""

    logits: Tensor
    value: Tensor
    gradient: Tensor


class Victim:
    """A network as attacks see it, which also counts what it was asked. Make it with `attacked`."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.cost = Cost()

    def logits(self, x: Tensor) -> Tensor:
        """f(x), (B, K), without a graph."""
        self.cost.forward += len(x)
        with torch.no_grad():
            return self._checked(x)

    def look(self, x: Tensor, criterion: Criterion) -> Seen:
        """The logits, and `criterion` of them with its gradient in x, in one forward and one backward pass."""
        self.cost.forward += len(x)
        self.cost.backward += len(x)
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            logits = self._checked(point)
            value = criterion(logits)
            slope = torch.autograd.grad(value.sum(), point, allow_unused=True)[0] if value.requires_grad else None
        if slope is None:
            raise ValueError("expected the network's logits to depend on x, got some without a gradient")
        return Seen(logits.detach(), value.detach(), slope)

    def confirmed(self, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The logits (B, K) that decide whether the network is fooled at x, where `look` said `logits`."""
        return logits

    def _checked(self, x: Tensor) -> Tensor:
        logits = checks.logits(self._network(x), "the network's output")
        if len(logits) != len(x):
            raise ValueError(f"expected logits of shape ({len(x)}, K) from the network, got {tuple(logits.shape)}")
        return logits


@contextmanager
def attacked(network: nn.Module) -> Iterator[Victim]:
    """The network in eval mode with frozen weights, wrapped and counted; afterwards it is as it was."""
    with context.eval_mode(network), context.frozen(network), torch.no_grad():
        yield Victim(network)


def in_batches(network: nn.Module, attack: Callable[[Victim, Tensor], Tensor], x: Tensor, *, batch_size: int) -> Tensor:
    """What `attack(victim, rows)` makes of each batch of rows of x, joined."""
    checks.count(batch_size, "batch_size", minimum=1)
    with attacked(network) as seer:
        parts = [attack(seer, rows) for rows in torch.arange(len(x), device=x.device).split(batch_size) if len(rows)]
    return torch.cat(parts) if parts else x.detach().clone()


def keep(state: Rows, rows: Tensor) -> Rows:
    """A dataclass of tensors (B, …) with only the rows that are true in `rows` (B,)."""
    picked = rows.nonzero().squeeze(1)
    old: dict[str, Tensor] = {f.name: getattr(state, f.name) for f in fields(state)}  # type: ignore[arg-type]
    new: dict[str, Any] = {name: values.index_select(0, picked) for name, values in old.items()}
    return replace(state, **new)  # type: ignore[type-var]


def thin(state: Rows, alive: Tensor) -> Rows:
    """The rows still alive, once more than one in eight is not or none is; else all: moving the rest has a price."""
    left = int(alive.sum())
    return keep(state, alive) if left == 0 or (len(alive) - left) * CROWD > len(alive) else state
