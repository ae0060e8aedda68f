"""Phases of a training curve: a continuous piecewise-linear fit, and whether its pieces are worth their parameters.

The paper reads three phases off the curve of ΔE(x) over the epochs by eye. Here the breaks come from least squares and
the number of phases from the Bayesian information criterion, so that "no phase found" is a possible answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import metrics, records, style, tables

if TYPE_CHECKING:
    from helpers.history import History

PROBES = ("train", "test")
FOLLOWED = ("delta_energy", "energy", "clean_error", "pgd_error")  # of the curves, at the end of training
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


def curves(histories: Mapping[tuple[str, int], History], *, also: Sequence[str] = ()) -> pd.DataFrame:
    """Every curve of some trainings, by (network, seed), as one tidy frame: one row for each probe and epoch.

    Columns: network, seed, probe ("train" or "test"), epoch, and what the histories follow on both probes, named
    without the probe: clean_error, pgd_error (%), energy, energy_adv, delta_energy … (nat); then the curves named in
    `also` that belong to no probe, such as train_error. Raises ValueError for a network followed without an attack.
    """
    blocks = []
    for (network, seed), history in histories.items():
        for probe in PROBES:
            names = [name for name in history.scalars if name.endswith(f"_{probe}")]
            columns = {name.removesuffix(f"_{probe}"): history.scalars[name] for name in names}
            if "delta_energy" not in columns:
                raise ValueError(f"expected a history with ΔE on the {probe} probe, got {network} without an attack")
            where = {"network": network, "seed": seed, "probe": probe, "epoch": history.scalars["epoch"]}
            blocks.append(pd.DataFrame(where | columns | {name: history.scalars[name] for name in also}))
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


def table(curves: pd.DataFrame, *, value: str, max_pieces: int = 3) -> pd.DataFrame:
    """Phases of each seed's curve and, where there are several, of their mean, which is less noisy.

    `curves` holds the columns network, seed, epoch and `value`, one probe only. One row for each network and curve;
    columns network, curve ("seed 0", …, "mean"), phases, break_1, … (NaN where there is none), slope_1, …, bic_gain
    (over one straight line) and statement. A curve of too few epochs is asked for no phases: NaN, and it is said.
    """
    rows = []
    for network, method in curves.groupby("network", sort=False):
        by_seed = method.pivot_table(index="epoch", columns="seed", values=value, sort=True)
        several = {f"seed {seed}": by_seed[seed] for seed in by_seed}
        if len(several) > 1:
            several["mean"] = by_seed.mean(axis=1)
        for curve, values in several.items():
            row = {"network": network, "curve": curve}
            if len(values) < epochs_needed(max_pieces):
                rows.append(row | _unasked(len(values), max_pieces))
                continue
            found = phases(values.index.to_numpy(), values.to_numpy(), max_pieces=max_pieces)
            row["phases"] = found.chosen.pieces
            for k in range(max_pieces - 1):
                row[f"break_{k + 1}"] = found.chosen.breaks[k] if k < len(found.chosen.breaks) else np.nan
            for k in range(max_pieces):
                row[f"slope_{k + 1}"] = found.chosen.slopes[k] if k < found.chosen.pieces else np.nan
            row["bic_gain"] = found.tried[0].bic - found.chosen.bic
            rows.append(row | {"statement": found.statement()})
    return pd.DataFrame(rows)


def _unasked(n_epochs: int, max_pieces: int) -> dict[str, Any]:
    """The columns of `table` for a curve that is too short to look for phases in."""
    found: dict[str, Any] = dict.fromkeys(["phases", *(f"break_{k}" for k in range(1, max_pieces))], np.nan)
    found |= dict.fromkeys([*(f"slope_{k + 1}" for k in range(max_pieces)), "bic_gain"], np.nan)
    said = f"{n_epochs} epochs are too few, {epochs_needed(max_pieces)} are needed"
    return found | {"statement": f"not asked for phases: {said}"}


def stacked(curves: pd.DataFrame, series: Mapping[str, str]) -> pd.DataFrame:
    """Several columns of `curves` as curves of one figure, named network@label; columns curve, seed, epoch, value.

    >>> curves = pd.DataFrame({"network": ["madry"], "seed": [0], "epoch": [1], "energy": [-2.0], "energy_adv": [-1.5]})
    >>> stacked(curves, {"E(x)": "energy", "E(x*)": "energy_adv"})[["curve", "value"]].to_numpy().tolist()
    [['madry@E(x)', -2.0], ['madry@E(x*)', -1.5]]
    """
    return pd.concat(
        [
            pd.DataFrame({"curve": curves["network"] + f"@{label}", "value": curves[column]})
            .assign(seed=curves["seed"], epoch=curves["epoch"])
            for label, column in series.items()
        ],
        ignore_index=True,
    )  # fmt: skip


def by_probe(curves: pd.DataFrame) -> pd.DataFrame:
    """`curves` with a column `curve` that tells networks and probes apart: network@probe images.

    >>> by_probe(pd.DataFrame({"network": ["madry"], "probe": ["test"]}))["curve"].item()
    'madry@test images'
    """
    return curves.assign(curve=curves["network"] + "@" + curves["probe"] + " images")


def final(curves: pd.DataFrame) -> list[records.Scalar]:
    """Scalars for a record: where the curves end, for each network and probe; mean over seeds with Student's t."""
    last = curves[curves["epoch"] == curves.groupby(["network", "seed"])["epoch"].transform("max")]
    return [
        records.scalar(
            metric,
            metrics.student_t(group[metric].to_numpy()),
            n=len(group),
            seeds=group["seed"].tolist(),
            network=str(network),
            probe=str(probe),
        )
        for (network, probe), group in last.groupby(["network", "probe"], sort=False)
        for metric in FOLLOWED
    ]


def reading(scalars: pd.DataFrame) -> str:
    """What a record of `final` says of ΔE(x), a line for each network and probe."""
    lines = []
    for row in scalars[scalars["metric"] == "delta_energy"].to_dict("records"):
        low, high = (None if pd.isna(row[side]) else row[side] for side in ("low", "high"))
        end, n = tables.Interval(row["value"], low, high), len(row["seeds"])
        way = "lowers" if (low or 0) > 0 else "raises" if (high or 0) < 0 else "does not clearly move"
        if n == 1:
            way = "moves"
        over = f"over {n} seeds" if n > 1 else "in one network, so without an interval"
        lines.append(
            f"{style.label(row['network'])}, {row['probe']} images: after training the attack {way} E(x), "
            f"mean ΔE(x) = {end} nat {over}"
        )
    return "\n".join(lines)


def breaks(phases_of: pd.DataFrame) -> list[records.Scalar]:
    """Scalars for a record: the epoch at which each phase of `table` after the first starts, and how many seeds have.

    The number of phases is the mean over a network's seeds, with Student's t.
    """
    asked = phases_of[phases_of["phases"].notna()]
    starts = [
        records.scalar("phase_start", row[f"break_{k}"], network=row["network"], curve=row["curve"], phase=k + 1)
        for row in asked.to_dict("records")
        for k in range(1, int(row["phases"]))
    ]
    of_seeds = asked[asked["curve"] != "mean"]
    return starts + [
        records.scalar(
            "phases",
            metrics.student_t(rows["phases"].to_numpy()),
            seeds=[int(str(curve).removeprefix("seed ")) for curve in rows["curve"]],
            network=str(network),
        )
        for network, rows in of_seeds.groupby("network", sort=False)
    ]


def marks(phases_of: pd.DataFrame) -> list[tuple[float, str]]:
    """Upright lines for a figure of one network: where the phases of its mean curve (or only seed) start.

    >>> marks(pd.DataFrame({"phases": [1, 3], "break_1": [np.nan, 10.0], "break_2": [np.nan, 78.0]}))
    [(10.0, 'phase 2'), (78.0, 'phase 3')]
    """
    last = phases_of.iloc[-1]
    if pd.isna(last["phases"]):
        return []
    return [(float(last[f"break_{k}"]), f"phase {k + 1}") for k in range(1, int(last["phases"]))]


def told(phases_of: pd.DataFrame, *, network: str) -> str:
    """For a caption: how many breaks of a network's curve a frame of `table` has, and in which curve of it.

    >>> told(pd.DataFrame({"network": ["madry"], "curve": ["seed 0"], "phases": [np.nan]}), network="madry")
    'too few epochs to look for phases'
    """
    last = phases_of[phases_of["network"] == network].iloc[-1]
    if pd.isna(last["phases"]):
        return "too few epochs to look for phases"
    where = "the mean over seeds" if last["curve"] == "mean" else "its one seed"
    return f"{int(last['phases']) - 1 or 'no'} break(s) found in {where}"


def epochs_needed(max_pieces: int, *, shortest: int = 3) -> int:
    """How many epochs a curve must have to be tried with `max_pieces` pieces of at least `shortest` epochs.

    >>> epochs_needed(3)
    9
    """
    return max(max_pieces * shortest, 2 * max_pieces + 2)


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
    needed = epochs_needed(max_pieces, shortest=shortest)
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
