"""Overfitting in adversarial training: robust (the error under attack turns up), catastrophic (the attack goes blind).

The lowest point of a noisy curve lies below its end even where nothing turned up. So the best epoch of a seed is
chosen on the *other* seeds, and a rise is a mean over seeds with Student's t: it may be negative.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from helpers import metrics, records, style, tables

WINDOW = 5  # epochs over which a curve is averaged before it is read


def best_epochs(errors: np.ndarray, *, window: int = WINDOW) -> np.ndarray:
    """For each seed the epoch (counted from 0) at which the *others* err least; `errors` (seeds, epochs) → (seeds,).

    Errors are averaged over the `window` epochs that end there. At least two seeds.

    >>> best_epochs(np.array([[3.0, 1.0, 2.0], [3.0, 2.0, 1.0]]), window=1)
    array([2, 1])
    """
    if errors.ndim != 2 or len(errors) < 2 or errors.shape[1] < window:
        raise ValueError(f"expected errors of at least 2 seeds over {window} epochs, got shape {errors.shape}")
    smooth = smoothed(errors, window=window)
    others = (smooth.sum(0) - smooth) / (len(smooth) - 1)
    return others.argmin(1) + window - 1


def smoothed(values: np.ndarray, *, window: int = WINDOW) -> np.ndarray:
    """Means over the last `window` epochs, (seeds, epochs) → (seeds, epochs − window + 1).

    >>> smoothed(np.array([[1.0, 2.0, 6.0]]), window=2)
    array([[1.5, 4. ]])
    """
    return np.lib.stride_tricks.sliding_window_view(values, window, axis=1).mean(-1)


def measured(curves: pd.DataFrame, *, window: int = WINDOW) -> list[records.Scalar]:
    """Scalars for a record, for each network: means over seeds with Student's t, read over the last `window` epochs.

    pgd_error_rise         error under PGD on test images at the end, less that at the best epoch (`best_epochs`)
    abs_delta_energy       |mean ΔE(x)| on training images at the end
    abs_delta_energy_rise  |mean ΔE(x)| on training images at the end, less that at the same epoch
    training_error         error under training's own attack at the end, on all training images
    blind_spot             error under PGD on the training probe less training_error, at the end
    robust_gap             error under PGD on test images less that on the training probe, at the end
    best_epoch             where the error under PGD on test images, mean over seeds, is least

    `curves` are `dynamics.curves(…, also=["train_error"])`. The network is in training mode where training_error is
    taken, and in eval mode under PGD, so a blind spot of a few points means nothing. A network of one seed has no rise.
    """
    rows = []
    for network, method in curves.groupby("network", sort=False):
        seeds = sorted(set(method["seed"]))
        table = {probe: _tables(part) for probe, part in method.groupby("probe")}
        pgd, delta = table["test"]("pgd_error"), table["train"]("delta_energy")
        own, caught = table["train"]("train_error"), table["train"]("pgd_error")
        end = [part[:, -window:].mean(1) for part in (pgd, np.abs(delta), own, caught)]
        values = {"training_error": end[2], "blind_spot": end[3] - end[2], "robust_gap": end[0] - end[3]}
        values["abs_delta_energy"] = end[1]
        if len(seeds) > 1:
            at, row = best_epochs(pgd, window=window) - window + 1, np.arange(len(seeds))
            values["pgd_error_rise"] = end[0] - smoothed(pgd, window=window)[row, at]
            values["abs_delta_energy_rise"] = end[1] - np.abs(smoothed(delta, window=window))[row, at]
        for metric, value in values.items():
            rows.append(records.scalar(metric, metrics.student_t(value), seeds=seeds, network=str(network)))
        best = int(smoothed(pgd.mean(0, keepdims=True), window=window).argmin()) + window
        rows.append(records.scalar("best_epoch", best, seeds=seeds, network=str(network)))
    return rows


def _tables(part: pd.DataFrame) -> Callable[[str], np.ndarray]:
    """The curves of one network and probe by name, (seeds, epochs)."""
    return lambda name: part.pivot_table(index="seed", columns="epoch", values=name).to_numpy(dtype=float)


def robust(scalars: pd.DataFrame) -> str:
    """What a record of `measured` says of robust overfitting, a line for each network."""
    lines = []
    for network, found in scalars.groupby("network", sort=False):
        row = _intervals(found)
        if "pgd_error_rise" not in row:
            lines.append(f"{style.label(network)}: one seed, so no rise can be told from noise.")
            continue
        rise, drift, gap = (row[name] for name in ("pgd_error_rise", "abs_delta_energy_rise", "robust_gap"))
        verdict = "no rise told from noise"
        if rise.low is not None and rise.high is not None and (rise.low > 0 or rise.high <= 0):
            verdict = "robust overfitting" if rise.low > 0 else "no robust overfitting seen at these settings"
        lines.append(
            f"{style.label(network)}: {verdict}. The error under PGD on test images ends {rise} points above its best "
            f"epoch (about {row['best_epoch'].value:.0f}) and {gap} points above that on training images; "
            f"|ΔE(x)| on training images is {drift} nat larger than at the best epoch."
        )
    return "\n".join(lines)


def catastrophic(scalars: pd.DataFrame) -> str:
    """What a record of `measured` says of catastrophic overfitting, a line for each network.

    Called so where training's own attack has gone blind: PGD finds more errors beyond it (by the interval's lower end)
    than it finds itself. Whether PGD's error has risen since its best epoch is told apart, for seeds go blind at
    different epochs.
    """
    lines = []
    for network, found in scalars.groupby("network", sort=False):
        row = _intervals(found)
        own, blind, size = (row[name] for name in ("training_error", "blind_spot", "abs_delta_energy"))
        rise = row.get("pgd_error_rise")
        twice = (blind.low if blind.low is not None else blind.value) > own.value
        if rise is None:
            verdict = "one seed, so no rise can be told from noise"
            verdict += "" if twice else "; no catastrophic overfitting seen in it"
        elif twice:
            verdict = "catastrophic overfitting" + ("" if (rise.low or 0) > 0 else " (a rise is not told from noise)")
        else:
            verdict = "no catastrophic overfitting seen at these settings"
        risen = f"; on test images it ends {rise} points above its best epoch" if rise else ""
        lines.append(
            f"{style.label(network)}: {verdict}. Training's own attack leaves {own} % of the training images "
            f"misclassified, PGD {blind} points more{risen}. |ΔE(x)| on training images under PGD is {size} nat."
        )
    return "\n".join(lines)


def _intervals(scalars: pd.DataFrame) -> dict[str, tables.Interval]:
    """The values of one network by metric."""
    found = {}
    for row in scalars.to_dict("records"):
        low, high = (None if pd.isna(row[end]) else row[end] for end in ("low", "high"))
        found[str(row["metric"])] = tables.Interval(row["value"], low, high)
    return found
