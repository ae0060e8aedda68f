"""Phases of a training curve: a continuous piecewise-linear fit, and whether its pieces are worth their parameters.

The paper reads three phases off the curve of ΔE(x) over the epochs by eye. Here the breaks come from least squares and
the number of phases from the Bayesian information criterion, so that "no phase found" is a possible answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from helpers.history import History

PROBES = ("train", "test")

# A break must lower the BIC by this much: "very strong" on the scale of Kass & Raftery (1995, JASA 90, p. 777).
# Measured on 1,000 flat curves of 30 epochs with white noise: a break is found in 0.1 % (with margin 0 in 9 %, because
# breaks are searched for). Noise that carries over from epoch to epoch costs: 2.5 % at correlation 0.3, 23 % at 0.6.
BIC_MARGIN = 10.0
FLOAT32_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Fit:
    """One continuous piecewise-linear curve: `breaks` are epochs, `slopes` change of value per epoch in each piece."""

    breaks: tuple[float, ...]
    slopes: tuple[float, ...]
    rss: float
    bic: float
    fitted: np.ndarray

    @property
    def pieces(self) -> int:
        return len(self.slopes)


@dataclass(frozen=True)
class Phases:
    """The fit that was chosen and all that were tried, by number of pieces. `found`: more than one piece was chosen."""

    chosen: Fit
    tried: tuple[Fit, ...]

    @property
    def found(self) -> bool:
        return self.chosen.pieces > 1

    def statement(self) -> str:
        """One sentence for a reader, with the improvement over fewer pieces."""
        line = self.tried[0]
        if not self.found:
            rival = min(self.tried[1:], key=lambda fit: fit.bic, default=line)
            gain = line.bic - rival.bic
            return f"no phase found: the best broken line gains {gain:.1f} in BIC, {BIC_MARGIN:g} are asked for"
        fewer = self.tried[self.chosen.pieces - 2]
        breaks = " and ".join(f"{epoch:g}" for epoch in self.chosen.breaks)
        slopes = ", ".join(f"{slope:+.2g}" for slope in self.chosen.slopes)
        kept = 1 - self.chosen.rss / fewer.rss if fewer.rss > 0 else 0.0
        return (
            f"{self.chosen.pieces} phases, breaks at epoch {breaks}, slopes {slopes} per epoch; BIC "
            f"{fewer.bic - self.chosen.bic:.1f} below {fewer.pieces} piece{'s' * (fewer.pieces > 1)}, "
            f"squared error {kept:.0%} smaller"
        )


def curves(histories: Mapping[tuple[str, int], History]) -> pd.DataFrame:
    """Every curve of some trainings, by (network, seed), as one tidy frame: one row for each probe and epoch.

    Columns: network, seed, probe ("train" or "test"), epoch, and what the histories follow on both probes, named
    without the probe: clean_error, pgd_error (%), energy, energy_adv, delta_energy … (nat). Raises ValueError for a
    network that was followed without an attack.
    """
    blocks = []
    for (network, seed), history in histories.items():
        for probe in PROBES:
            names = [name for name in history.scalars if name.endswith(f"_{probe}")]
            columns = {name.removesuffix(f"_{probe}"): history.scalars[name] for name in names}
            if "delta_energy" not in columns:
                raise ValueError(f"expected a history with ΔE on the {probe} probe, got {network} without an attack")
            where = {"network": network, "seed": seed, "probe": probe, "epoch": history.scalars["epoch"]}
            blocks.append(pd.DataFrame(where | columns))
    return pd.concat(blocks, ignore_index=True)


def plane(history: History, *, probe: str, n_shown: int) -> pd.DataFrame:
    """Energies of the first `n_shown` images of a probe in each epoch: epoch, image, E, E_y, E_adv, E_y_adv."""
    energies = {name: history.arrays[f"{probe}/{name}"][:, :n_shown] for name in ("E", "E_y", "E_adv", "E_y_adv")}
    epochs, n = energies["E"].shape
    where = {"epoch": np.repeat(np.asarray(history.scalars["epoch"]), n)}
    where["image"] = np.tile(history.arrays[f"{probe}/index"][:n], epochs)
    return pd.DataFrame(where | {name: values.reshape(-1) for name, values in energies.items()})


def phases(epochs: np.ndarray, values: np.ndarray, *, max_pieces: int = 3, shortest: int = 3) -> Phases:
    """Fit 1 … `max_pieces` linear pieces and choose how many: the three phases of the paper's Fig. 1(a), by a rule.

        value(t) = a + b t + Σ_j c_j max(t − τ_j, 0),    τ over all epochs that leave `shortest` epochs in each piece

    by least squares over every choice of breaks τ. With k pieces the curve has 2k parameters (breaks count), and
    BIC = n log(RSS / n) + 2k log n. A fit with more pieces is taken when it lowers the BIC by `BIC_MARGIN` below the
    best fit with fewer. `epochs` (n,) increasing, `values` (n,).

    The rule takes the noise of epochs as independent and does not know smooth bends: a parabola is given pieces too.
    So breaks are believed where seeds agree on them.

    Raises ValueError for unequal lengths, epochs that do not increase, non-finite values or too few epochs.

    >>> t = np.arange(30.0)
    >>> phases(t, np.where(t < 12, 0.0, -0.1 * (t - 12))).chosen.breaks
    (12.0,)
    """
    t, v = _checked(epochs, values, max_pieces=max_pieces, shortest=shortest)
    tried = tuple(_best(t, v, pieces=k, shortest=shortest) for k in range(1, max_pieces + 1))
    chosen = tried[0]
    for fit in tried[1:]:
        if fit.bic < chosen.bic - BIC_MARGIN:
            chosen = fit
    return Phases(chosen=chosen, tried=tried)


def table(curves: pd.DataFrame, *, by: Sequence[str], value: str, max_pieces: int = 3) -> pd.DataFrame:
    """Phases of every curve in a tidy frame: one row for each group of `by` (network, seed, probe).

    `curves` holds the columns `by`, "epoch" and `value`. Columns of the result: `by`, "phases", "break_1",
    "break_2", … (NaN where there is none), "slope_1", …, "bic_gain" (over one straight line) and "statement".
    """
    rows = []
    for group, curve in curves.groupby(list(by), sort=False):
        curve = curve.sort_values("epoch")
        found = phases(curve["epoch"].to_numpy(), curve[value].to_numpy(), max_pieces=max_pieces)
        row = dict(zip(by, group, strict=True)) | {"phases": found.chosen.pieces}
        for k in range(max_pieces - 1):
            row[f"break_{k + 1}"] = found.chosen.breaks[k] if k < len(found.chosen.breaks) else np.nan
        for k in range(max_pieces):
            row[f"slope_{k + 1}"] = found.chosen.slopes[k] if k < found.chosen.pieces else np.nan
        row["bic_gain"] = found.tried[0].bic - found.chosen.bic
        rows.append(row | {"statement": found.statement()})
    return pd.DataFrame(rows)


def at_epochs(epochs: np.ndarray, values: np.ndarray, at: np.ndarray, *, of: float) -> np.ndarray:
    """Read a curve at the same *fraction of training* as another: `at` epochs out of `of`, linearly interpolated.

    Our training is shorter than the published one, so epoch 78 of 100 stands beside 78 % of ours.

    >>> at_epochs(np.arange(11.0), np.arange(11.0) ** 2, np.array([50.0, 98.0]), of=100)
    array([25. , 96.2])
    """
    t = np.asarray(epochs, dtype=float)
    return np.interp(np.asarray(at, dtype=float) / of * float(t.max()), t, np.asarray(values, dtype=float))


def _checked(
    epochs: np.ndarray, values: np.ndarray, *, max_pieces: int, shortest: int
) -> tuple[np.ndarray, np.ndarray]:
    t, v = np.asarray(epochs, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if t.ndim != 1 or t.shape != v.shape:
        raise ValueError(f"epochs and values must be two vectors of one length, got shapes {t.shape} and {v.shape}")
    if np.any(np.diff(t) <= 0):
        raise ValueError("epochs must increase")
    if not np.isfinite(v).all():
        raise ValueError(f"values must be finite, got {int((~np.isfinite(v)).sum())} that are not")
    needed = max(max_pieces * shortest, 2 * max_pieces + 2)
    if len(t) < needed:
        raise ValueError(f"{max_pieces} pieces need at least {needed} epochs, got {len(t)}")
    return t, v


def _best(t: np.ndarray, v: np.ndarray, *, pieces: int, shortest: int) -> Fit:
    """Least squares over every admissible choice of breaks (indices into t)."""
    n = len(t)
    inner = range(shortest, n - shortest + 1)
    choices = (
        choice
        for choice in itertools.combinations(inner, pieces - 1)
        if all(b - a >= shortest for a, b in itertools.pairwise(choice))
    )
    # Energies are float32: a residual below their rounding is no reason for another break (nor for log 0).
    floor = n * (FLOAT32_EPS * max(float(np.abs(v).max()), 1e-30)) ** 2
    best: tuple[float, tuple[int, ...], np.ndarray, np.ndarray] | None = None
    for choice in choices:
        design = np.column_stack([np.ones(n), t, *(np.maximum(t - t[i], 0.0) for i in choice)])
        coefficients = np.linalg.lstsq(design, v, rcond=None)[0]
        fitted = design @ coefficients
        rss = max(float(((v - fitted) ** 2).sum()), floor)
        if best is None or rss < best[0]:
            best = rss, choice, coefficients, fitted
    assert best is not None, "_checked admits at least one choice of breaks"
    rss, choice, coefficients, fitted = best
    return Fit(
        breaks=tuple(float(t[i]) for i in choice),
        slopes=tuple(np.cumsum(coefficients[1:]).tolist()),
        rss=rss,
        bic=float(n * np.log(rss / n) + 2 * pieces * np.log(n)),
        fitted=fitted,
    )
