"""When the training of an energy-based model has gone wrong, as early as its own numbers tell.

JEM's public code gives up at |loss| > 10⁸, SADA-JEM's at 10⁵; until then hours may have gone. `Watch` looks at means
over a window of steps:

    reason         what is compared                                                              limit
    not finite     loss, gradient, or an energy inside the chains or the attack                  –
    energy gap     mean |E(x_d) − E(x_q)| of data and chains                                     divergence_gap
    gap rises      the same, in each of four windows above the one before, and in the last       divergence_gap / 4
    saturation     pixels of chains at an end of the range, less those of the data (%)           divergence_saturation
    gradient norm  norm of the loss's gradient                                                   divergence_gradient
    collapse       mean CE back at chance, log K, after it was below half of that                –
    dead network   energies no longer differ, mean |E(x_d) − E(x_q)| below 0.0001, CE at chance  –

Thresholds are the recipe's, windows are `divergence_window` steps. What follows is `rollback`'s affair.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from helpers import checks

N_RISING = 4  # windows
DEAD_GAP = 1e-4  # nat; a network at its first step is two orders of magnitude above
AT_CHANCE = 0.99  # of log K


class Diverged(FloatingPointError):
    """Training diverged: `reason` in the words of the table, `value` that told, None where it is not finite."""

    def __init__(self, reason: str, value: float | None, said: str) -> None:
        super().__init__(said)
        self.reason, self.value = reason, value


@dataclass(frozen=True)
class Step:
    """What one step of training is judged by: |E(x_d) − E(x_q)| and CE in nat, excess saturation in percentage
    points, norm of the gradient."""

    gap: float
    saturation: float
    gradient: float
    classification: float


@dataclass(frozen=True)
class Limits:
    """Thresholds, each in the unit of `Step`; `chance` is log K, the CE of guessing."""

    gap: float
    saturation: float
    gradient: float
    window: int
    chance: float

    @classmethod
    def of(cls, entry: Mapping[str, Any], *, num_classes: int) -> Limits:
        """Those of a recipe's entry."""
        return cls(
            gap=checks.number(entry["divergence_gap"], "divergence_gap", above=0.0),
            saturation=checks.number(entry["divergence_saturation"], "divergence_saturation", above=0.0),
            gradient=checks.number(entry["divergence_gradient"], "divergence_gradient", above=0.0),
            window=checks.count(entry["divergence_window"], "divergence_window", minimum=1),
            chance=math.log(checks.count(num_classes, "num_classes", minimum=2)),
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


@dataclass
class Watch:
    """The last steps of a training, judged one by one.

    >>> watch = Watch(Limits(gap=10, saturation=50, gradient=100, window=2, chance=math.log(10)))
    >>> watch.see(Step(gap=1, saturation=0, gradient=1, classification=2))
    >>> watch.see(Step(gap=30, saturation=0, gradient=1, classification=2))
    Traceback (most recent call last):
    helpers.divergence.Diverged: energy gap: 15.5 over 2 steps, limit 10
    """

    limits: Limits
    gaps: list[float] = field(default_factory=list)  # the last N_RISING windows
    saturations: list[float] = field(default_factory=list)  # the last window, as the others
    gradients: list[float] = field(default_factory=list)
    classifications: list[float] = field(default_factory=list)
    learned: bool = False  # CE was below half of chance over a window

    def see(self, step: Step) -> None:
        """Take one step in; raises Diverged where the steps so far say so."""
        n = self.limits.window
        for kept, value, size in (
            (self.gaps, step.gap, n * N_RISING),
            (self.saturations, step.saturation, n),
            (self.gradients, step.gradient, n),
            (self.classifications, step.classification, n),
        ):
            kept.append(abs(value) if kept is self.gaps else value)
            del kept[:-size]
        if len(self.gradients) == n:
            self._judge()

    def _judge(self) -> None:
        limits, n = self.limits, self.limits.window
        windows = [_mean(self.gaps[k : k + n]) for k in range(len(self.gaps) % n, len(self.gaps), n)]
        self._compare("energy gap", windows[-1], limits.gap)
        self._compare("saturation", _mean(self.saturations), limits.saturation)
        self._compare("gradient norm", _mean(self.gradients), limits.gradient)
        if len(self.gaps) == n * N_RISING and all(a < b for a, b in itertools.pairwise(windows)):
            self._compare("gap rises", windows[-1], limits.gap / 4)
        loss = _mean(self.classifications)
        if self.learned:
            self._compare("collapse", loss, limits.chance)
        if windows[-1] < DEAD_GAP and loss > AT_CHANCE * limits.chance:
            said = f"dead network: energies of data and chains differ by {windows[-1]:.3g}, CE is {loss:.6g}"
            raise Diverged("dead network", loss, said)
        self.learned = self.learned or loss < limits.chance / 2

    def _compare(self, reason: str, value: float, limit: float) -> None:
        if value > limit:
            raise Diverged(reason, value, f"{reason}: {value:.6g} over {self.limits.window} steps, limit {limit:.6g}")

    def facts(self) -> dict[str, Any]:
        """All that changes, for a checkpoint."""
        return {name: value for name, value in vars(self).items() if name != "limits"}

    @classmethod
    def restored(cls, limits: Limits, facts: Mapping[str, Any]) -> Watch:
        """The watch of `facts`, which goes on as the one they are of."""
        kept: dict[str, Any] = {name: list(v) if isinstance(v, list) else v for name, v in facts.items()}
        return cls(limits, **kept)
