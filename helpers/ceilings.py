"""What this machine can do at most, measured: the rate of matrix products, and of copying memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.counting import Counts

__all__ = ["Ceilings", "best_seconds", "measured", "synchronise"]

SIDE = {"cpu": 512, "cuda": 8192}  # of the matrices; on a CPU milliseconds, so that a busy machine lets one run through
COPIED = {"cpu": 1 << 26, "cuda": 1 << 30}  # bytes, more than a cache holds
PATIENCE = 0.4  # seconds for each of the measurements


@dataclass(frozen=True)
class Ceilings:
    """Operations a second of a matrix product in float32 and in bfloat16; bytes a second read and written by a copy."""

    float32: float
    bfloat16: float
    bandwidth: float

    def least_seconds(self, counts: Counts) -> float:
        """The time that `counts` take at least in float32: the longer of computing and of moving, one behind the other.

        >>> Ceilings(float32=1e9, bfloat16=2e9, bandwidth=1e8).least_seconds(Counts(operations=5e8, bytes_moved=1e8))
        1.0
        """
        return max(counts.operations / self.float32, counts.bytes_moved / self.bandwidth)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_seconds(work: Callable[[], object], device: torch.device, *, patience: float = PATIENCE) -> float:
    """The shortest of several runs of `work` after an untimed one: at least three, and until `patience` ends."""
    work()
    synchronise(device)
    times: list[float] = []
    while len(times) < 3 or sum(times) < patience:
        began = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return min(times)


def measured(device: torch.device) -> Ceilings:
    """The ceilings of `device` with the threads in force: the best of several runs."""
    kind = device.type
    rates = [_products(device, SIDE[kind], dtype) for dtype in (torch.float32, torch.bfloat16)]
    source = torch.ones(COPIED[kind] // 4, device=device)
    target = torch.empty_like(source)
    seconds = best_seconds(lambda: target.copy_(source), device)
    return Ceilings(rates[0], rates[1], 2 * COPIED[kind] / seconds)


def _products(device: torch.device, side: int, dtype: torch.dtype) -> float:
    a: Tensor = torch.ones(side, side, device=device, dtype=dtype)
    out = torch.empty_like(a)
    return 2 * side**3 / best_seconds(lambda: torch.mm(a, a, out=out), device)
