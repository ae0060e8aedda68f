"""How far the probabilities of trained methods can be trusted, over seeds: calibration by network and seed.

One row for each network and seed, and for each bin of its reliability diagram:

    network, seed | n_images, accuracy, ece, ece_floor, adaptive_ece, nll, brier, temperature, scaled_ece
    network, seed | low, high, count, confidence, accuracy, accuracy_low, accuracy_high

The temperature is fitted on validation images, which neither train nor test a network; where the recipes have none in
common it is not fitted and its columns are NaN. A method's number is the mean over its seeds with Student's interval;
of one network it is that of `helpers.calibration`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from helpers import calibration, looks, metrics, records, style, tables
from helpers.calibration import Calibration
from helpers.data import ImageSet
from helpers.metrics import Estimate

Piece = Mapping[str, Any]
TEST, VALIDATION = "test", "validation"
BOUNDS = {  # of each number, where an interval ends
    "accuracy": (0.0, 100.0),
    "ece": (0.0, 100.0),
    "adaptive_ece": (0.0, 100.0),
    "scaled_ece": (0.0, 100.0),
    "nll": (0.0, np.inf),
    "brier": (0.0, 2.0),
    "temperature": (calibration.LOWEST, calibration.HIGHEST),
}
HEADERS = {
    "accuracy": "accuracy (%)",
    "ece": "ECE (points)",
    "ece_floor": "of it noise",
    "adaptive_ece": "adaptive ECE (points)",
    "nll": "NLL (nat)",
    "brier": "Brier",
    "temperature": "T",
    "scaled_ece": "ECE at T (points)",
}
NO_VALIDATION = "not run: the recipes keep no validation images in common to fit a temperature on"


def measured(
    found: Mapping[str, np.ndarray], sets: Mapping[str, ImageSet], *, n_bins: int, seed: int, n_seeds: int
) -> dict[str, Any]:
    """One network's numbers as Estimates by metric (`ece_floor` is a plain number), and `bins`, a `calibration.Bins`.

    `found` is what `looks.look` returned for `sets`, of which "test" is judged and "validation", where there is one,
    gives the temperature (None without it). `seed` is that of the bootstrap behind floor and intervals; it is short for
    the ECEs that show no floor where a method has several networks (`n_seeds`), whose spread makes the interval then.
    """
    logits, y = looks.logits(found, TEST), sets[TEST].labels.cpu()
    given: dict[str, Any] = {"n_bins": n_bins, "seed": seed}
    plain = calibration.ece(logits, y, binning="equal_width", **given)
    given["n_resamples"] = 1000 if n_seeds == 1 else 100
    adaptive = calibration.ece(logits, y, binning="equal_mass", **given)
    numbers: dict[str, Any] = {
        "accuracy": metrics.accuracy(logits.argmax(1) == y),
        "ece": plain.ece,
        "ece_floor": plain.floor,
        "adaptive_ece": adaptive.ece,
        "nll": calibration.nll(logits, y),
        "brier": calibration.brier(logits, y),
        "temperature": None,
        "scaled_ece": None,
        "bins": plain.bins,
    }
    if VALIDATION in sets:
        fitted = calibration.fit_temperature(looks.logits(found, VALIDATION), sets[VALIDATION].labels.cpu())
        scaled: Calibration = calibration.ece(logits / fitted.value, y, binning="equal_width", **given)
        numbers |= {"temperature": fitted.estimate, "scaled_ece": scaled.ece}
    return numbers


Pieces = Mapping[tuple[str, int], Piece]  # (network, seed) → what `measured` returned


def of_networks(
    looked: Mapping[tuple[str, int], Mapping[str, np.ndarray]], sets: Mapping[str, ImageSet], *, n_bins: int, seed: int
) -> dict[tuple[str, int], dict[str, Any]]:
    """`measured` of each network and seed in `looked`, which holds what `looks.look` returned for `sets`."""
    n_seeds = Counter(network for network, _ in looked)
    given: dict[str, Any] = {"n_bins": n_bins, "seed": seed}
    return {one: measured(found, sets, **given, n_seeds=n_seeds[one[0]]) for one, found in looked.items()}


def frame(pieces: Pieces) -> pd.DataFrame:
    """One row for each network and seed; NaN for a temperature that was not fitted."""
    rows = []
    for (network, seed), piece in pieces.items():
        row: dict[str, Any] = {"network": network, "seed": seed, "n_images": piece["accuracy"].n}
        rows.append(row | {name: _value(piece[name]) for name in HEADERS})
    return pd.DataFrame(rows)


def _value(one: Estimate | float | None) -> float:
    return np.nan if one is None else one.value if isinstance(one, Estimate) else float(one)


def bins(pieces: Pieces) -> pd.DataFrame:
    """The bins of every network and seed."""
    blocks = [
        pd.DataFrame(piece["bins"].arrays()).assign(network=network, seed=seed)
        for (network, seed), piece in pieces.items()
    ]
    return pd.concat(blocks, ignore_index=True)


def summary(pieces: Pieces, *, n_bins: int) -> list[records.Scalar]:
    """Scalars for a record: each number of each network, over its seeds. `n_bins` goes along with every ECE."""
    rows = []
    for network in dict.fromkeys(name for name, _ in pieces):
        mine = {seed: piece for (name, seed), piece in pieces.items() if name == network}
        about: dict[str, Any] = {"seeds": list(mine), "n": next(iter(mine.values()))["accuracy"].n}
        for metric in HEADERS:
            where: dict[str, Any] = {"network": network} | ({"n_bins": n_bins} if metric.endswith("ece") else {})
            values = [piece[metric] for piece in mine.values()]
            if metric == "ece_floor":
                rows.append(records.scalar(metric, float(np.mean(values)), **about, **where))
            elif any(one is None for one in values):
                rows.append(records.scalar(metric, None, **about, **where, reason=NO_VALIDATION))
            else:
                low, high = BOUNDS[metric]
                rows.append(records.scalar(metric, metrics.over_seeds(values, low=low, high=high), **about, **where))
    return rows


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary`: one row for each network."""
    found = tables.wide(scalars, rows=["network"], metrics=list(HEADERS))
    found["network"] = found["network"].map(style.label)
    return found.rename(columns=HEADERS)


def notes(scalars: pd.DataFrame) -> dict[str, str]:
    """What stands over each network's reliability diagram: its ECE over seeds, and how much of it is noise."""
    found = tables.wide(scalars, rows=["network"], metrics=["ece", "ece_floor"])
    return {
        row["network"]: f"ECE {row['ece'].value:.1f}, noise {row['ece_floor'].value:.1f}"
        for row in found.to_dict("records")
    }


def reading(scalars: pd.DataFrame) -> str:
    """What a record says of each network: whether its ECE is more than noise, and which way it errs; a line each."""
    wide = tables.wide(scalars, rows=["network"], metrics=["ece", "ece_floor", "temperature"])
    lines = []
    for row in wide.to_dict("records"):
        floor = row["ece_floor"].value
        clear = row["ece"].low is not None and row["ece"].low > floor
        said = "more than noise" if clear else "not told apart from noise"
        lines.append(
            f"{style.label(row['network'])}: ECE {row['ece']} points, of a calibrated network {floor:.1f}: "
            f"{said}{_way(row['temperature'])}"
        )
    return "\n".join(lines)


def _way(t: tables.Interval | None) -> str:
    """What the fitted temperature says, as the end of a line."""
    if t is None or t.low is None or t.high is None:
        return ""
    said = "too sure" if t.low > 1 else "not sure enough" if t.high < 1 else "T not told apart from 1"
    return f"; {said} (T = {t})"
