"""Learning rate and momentum as functions of the step: a resumed run needs no scheduler's state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# PyTorch's OneCycleLR: first rate max/25, last rate first/10⁴, momentum 0.95 → 0.85 → 0.95.
START_DIVISOR, END_DIVISOR = 25.0, 1e4
HIGH_MOMENTUM, LOW_MOMENTUM = 0.95, 0.85


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def one_cycle(
    step: int, *, n_steps: int, learning_rate: float, pct_start: float, momentum: float | None
) -> tuple[float, float]:
    """PyTorch's OneCycleLR (cosine, two phases) at `step` of 0 … n_steps − 1: (learning rate, momentum).

    Without a `momentum` it cycles 0.95 → 0.85 → 0.95, as PyTorch's does whatever momentum the optimiser was given.

    >>> [round(one_cycle(k, n_steps=5, learning_rate=1.0, pct_start=0.4, momentum=None)[0], 6) for k in range(5)]
    [0.04, 1.0, 0.750001, 0.250003, 4e-06]
    """
    start, end = learning_rate / START_DIVISOR, learning_rate / START_DIVISOR / END_DIVISOR
    top, last = pct_start * n_steps - 1, n_steps - 1
    if step <= top:
        share = step / top if top > 0 else 1.0
        rate, cycled = _cosine(start, learning_rate, share), _cosine(HIGH_MOMENTUM, LOW_MOMENTUM, share)
    else:
        share = (step - top) / (last - top)
        rate, cycled = _cosine(learning_rate, end, share), _cosine(LOW_MOMENTUM, HIGH_MOMENTUM, share)
    return rate, cycled if momentum is None else momentum


def at(step: int, *, entry: Mapping[str, Any], n_steps: int, steps_per_epoch: int) -> tuple[float, float]:
    """(learning rate, momentum) of a recipe at `step` of 0 … n_steps − 1.

    "one_cycle": see there. "step": learning_rate × decay^(milestones reached), milestones in finished epochs.
    "constant": learning_rate. The last two rise over the first `warmup_steps` s, by (step + 1)/s. Raises ValueError for
    another name.

    >>> entry = {"schedule": "constant", "learning_rate": 1.0, "warmup_steps": 4}
    >>> [at(k, entry=entry, n_steps=9, steps_per_epoch=3)[0] for k in (0, 3, 8)]
    [0.25, 1.0, 1.0]
    """
    rate, momentum = entry["learning_rate"], entry.get("momentum")
    if entry["schedule"] == "one_cycle":
        return one_cycle(step, n_steps=n_steps, learning_rate=rate, pct_start=entry["pct_start"], momentum=momentum)
    rate *= min(1.0, (step + 1) / (entry.get("warmup_steps") or 1))
    if entry["schedule"] == "step":
        reached = sum(step // steps_per_epoch >= m for m in entry["milestones"])
        return rate * entry["decay"] ** reached, momentum or 0.0
    if entry["schedule"] == "constant":
        return rate, momentum or 0.0
    raise ValueError(f"expected schedule one_cycle, step or constant, got {entry['schedule']!r}")
