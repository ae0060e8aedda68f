"""Several ways of doing one thing, timed in turn: first each once untimed, then a round of all of them, and again.

Whatever slows the machine down for a while slows all of a round down, so the ratios within a round are compared and
not times of different rounds. Wall time is what a reader waits; the processor's time says what was computed, whoever
else was there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from helpers import checks
from helpers.ceilings import synchronise

__all__ = ["Course", "Way", "timed"]


@dataclass(frozen=True)
class Way:
    """One way: `run(k)` is round k, which handles `items` of what is counted; it may return verdicts, (n,) bool."""

    run: Callable[[int], Tensor | None]
    items: float


@dataclass
class Course:
    """What the rounds of one way took, in seconds for each item; `verdicts` of all rounds, where it gives any."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    verdicts: list[bool] = field(default_factory=list)


def timed(ways: Mapping[str, Way], *, rounds: int, device: torch.device, warm: bool = True) -> dict[str, Course]:
    """`rounds` rounds of all ways, by turns from the front and from the back; `warm`: each once before, untimed.

    >>> courses = timed({"a": Way(lambda k: None, 2.0)}, rounds=3, device=torch.device("cpu"))
    >>> len(courses["a"].wall)
    3
    """
    checks.count(rounds, "rounds", minimum=1)
    courses = {name: Course() for name in ways}
    for way in ways.values() if warm else ():
        way.run(0)
    for k in range(rounds):
        for name in list(ways)[:: 1 if k % 2 == 0 else -1]:
            torch.manual_seed(k)  # for the draws of others; ours are keyed
            np.random.seed(k)  # noqa: NPY002 — theirs is the global one
            synchronise(device)
            wall, cpu = time.perf_counter(), time.process_time()
            said = ways[name].run(k)
            synchronise(device)
            courses[name].wall.append((time.perf_counter() - wall) / ways[name].items)
            courses[name].cpu.append((time.process_time() - cpu) / ways[name].items)
            courses[name].verdicts += [] if said is None else said.tolist()
    return courses
