"""What a computation asks of a machine: operations, bytes moved, and what is kept for a gradient. Counted, not timed.

    with counting() as counts:
        network(x)
    counts.operations, counts.bytes_moved

Operations: of matrix products and convolutions their multiplications and additions (torch's formulas), of every other
kernel one for each number that it writes. Bytes: what each kernel reads and writes, as if no cache kept anything; views
move nothing. Both are the same on every machine that runs the same kernels.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["Counts", "Held", "counting", "kept_for_gradient"]

# Kernels that hand out what is there already, or memory that nobody has written yet.
_FREE = {torch.ops.aten.detach, torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.empty_strided}


@dataclass
class Counts:
    """What was counted so far."""

    operations: float = 0.0
    bytes_moved: float = 0.0


class _Counting(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given: dict[str, Any] = kwargs or {}
        out = func(*args, **given)
        packet = func._overloadpacket
        if func.is_view or packet in _FREE:
            return out
        read = [one for one in tree_leaves((args, given)) if isinstance(one, Tensor)]
        made = [one for one in tree_leaves(out) if isinstance(one, Tensor)]
        self.counts.bytes_moved += sum(one.nbytes for one in (*read, *made))
        if packet in flop_registry:
            self.counts.operations += flop_registry[packet](*args, **given, out_val=out)
        else:
            self.counts.operations += sum(one.numel() for one in made)
        return out


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what is computed inside.

    >>> with counting() as counts:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
    >>> counts.operations  # 2 · 2 · 3 · 4, and 18 ones written
    66.0
    """
    counts = Counts()
    with _Counting(counts):
        yield counts


class Held:
    """Bytes of tensors that are kept for a gradient: `peak` is the most at any one time."""

    def __init__(self) -> None:
        self.peak = 0
        self._live: dict[int, list[int]] = {}  # storage → [its bytes, how many tensors hold it]

    def hold(self, tensor: Tensor) -> _Kept:
        """Pack hook: a tensor that autograd keeps."""
        kept, place = _Kept(tensor), tensor.untyped_storage().data_ptr()
        self._live.setdefault(place, [tensor.untyped_storage().nbytes(), 0])[1] += 1
        self.peak = max(self.peak, sum(size for size, _ in self._live.values()))
        weakref.finalize(kept, self._release, place)
        return kept

    def _release(self, place: int) -> None:
        self._live[place][1] -= 1
        if not self._live[place][1]:
            del self._live[place]


class _Kept:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@contextmanager
def kept_for_gradient() -> Iterator[Held]:
    """Watch what autograd keeps: activations, and the weights that it needs; each storage counts once.

    >>> x = torch.ones(8, requires_grad=True)
    >>> with kept_for_gradient() as held:
    ...     y = (x * 2).square().sum()
    >>> held.peak  # 2x, eight numbers of four bytes
    32
    """
    held = Held()
    with torch.autograd.graph.saved_tensors_hooks(held.hold, lambda kept: kept.tensor):
        yield held
