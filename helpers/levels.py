"""Energies of several sets of images under hybrid models: data, foreign, attacked and generated images, and gaps.

    network, seed, set | n_images, energy            E(x), the mean over the set's images, in nats
    network, seed, set | E                           image by image, for the histograms

A level of E(x) means something within one network only: log Z is another one's in each. Gaps within a network compare:

    clean − adversarial    mean E(x) − E(x*), landscape.summary's delta_energy; positive where the attack lowers E(x)
    data − samples         mean E(test) − mean E(generated); positive where samples lie lower than data
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers import looks, metrics, records, robustness, style
from helpers.metrics import Estimate

TRAIN, TEST, ADVERSARIAL = "train", "test", "adversarial"
GENERATED = "generated"  # with the start in words after it, where there are several
COLOURS = {
    TRAIN: style.MARGINAL,
    TEST: style.NATURAL,
    ADVERSARIAL: style.ADVERSARIAL,
}
SAMPLES = "#228833"


def collected(
    found: Mapping[str, np.ndarray],
    adversarial: np.ndarray,
    generated: Mapping[str, np.ndarray],
    outside: Sequence[str],
) -> dict[str, np.ndarray]:
    """E(x) of each set of one network, (n,) each: from `looks.look`, an attack's points, and samples by their start."""
    return {
        TRAIN: looks.energy(found, TRAIN),
        TEST: looks.energy(found, TEST),
        ADVERSARIAL: adversarial,
        **{sampled(start): energy for start, energy in generated.items()},
        **{name: looks.energy(found, name) for name in outside},
    }


def sampled(start: str) -> str:
    """The set of samples from a start, as the frames name it.

    >>> sampled("class_gaussian")
    'generated@class Gaussian'
    """
    return f"{GENERATED}@{style.label(start)}"


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each set of the histograms; foreign images are grey."""
    return {
        name: SAMPLES if name.startswith(GENERATED) else COLOURS.get(name, style.NEUTRAL)
        for name in dict.fromkeys(names)
    }


Pieces = Mapping[tuple[str, int], Mapping[str, np.ndarray]]  # (network, seed) → what `collected` returned


def by_image(pieces: Pieces) -> pd.DataFrame:
    """One row for each network, seed, set and image."""
    blocks = [
        pd.DataFrame({"network": network, "seed": seed, "set": name, "E": values.astype(np.float64)})
        for (network, seed), piece in pieces.items()
        for name, values in piece.items()
    ]
    return pd.concat(blocks, ignore_index=True)


def frame(pieces: Pieces) -> pd.DataFrame:
    """One row for each network, seed and set, and its gap to the samples where it is one of samples."""
    rows = []
    for (network, seed), piece in pieces.items():
        data = float(piece[TEST].mean(dtype=np.float64))
        for name, values in piece.items():
            mean = float(values.mean(dtype=np.float64))
            gap = data - mean if name.startswith(GENERATED) else np.nan
            where = {"network": network, "seed": seed, "set": name, "n_images": len(values)}
            rows.append({**where, "energy": mean, "data_sample_gap": gap})
    return pd.DataFrame(rows)


def summary(pieces: Pieces) -> list[records.Scalar]:
    """Scalars for a record, over seeds: the mean energy of each set, and data − samples for each kind of samples."""
    rows = []
    for network in dict.fromkeys(name for name, _ in pieces):
        mine = {seed: piece for (name, seed), piece in pieces.items() if name == network}
        for name in next(iter(mine.values())):
            where: dict[str, Any] = {"network": network, "set": name}
            about: dict[str, Any] = {"seeds": list(mine), "n": len(next(iter(mine.values()))[name])}
            rows.append(records.scalar("energy", _level([piece[name] for piece in mine.values()]), **about, **where))
            if name.startswith(GENERATED):
                pairs = [(piece[TEST], piece[name]) for piece in mine.values()]
                rows.append(records.scalar("data_sample_gap", _gap(pairs), **about, **where))
    return rows


def _level(several: list[np.ndarray]) -> Estimate:
    if len(several) == 1:
        return metrics.mean_over_images(several[0])
    return metrics.student_t([values.mean(dtype=np.float64) for values in several])


def _gap(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Estimate:
    """Mean of the first less that of the second, over seeds; of one network over two independent sets of images."""
    gaps = [float(a.mean(dtype=np.float64) - b.mean(dtype=np.float64)) for a, b in pairs]
    if len(gaps) > 1:
        return metrics.student_t(gaps)
    reach = [one.high - one.value for one in map(metrics.mean_over_images, pairs[0])]
    half = math.hypot(*reach)
    return Estimate(gaps[0], gaps[0] - half, gaps[0] + half, sum(map(len, pairs[0])), "normal")


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """Records of `summary` and of landscape.summary under one attack: the gaps of each network in nats."""
    rows: dict[str, dict[str, Any]] = {}
    for row in scalars[scalars["metric"].isin(["delta_energy", "data_sample_gap"])].to_dict("records"):
        line = rows.setdefault(row["network"], {"network": style.label(row["network"])})
        what = "E(x) − E(x*)" if row["metric"] == "delta_energy" else f"E(test) − E({style.label(row['set'])})"
        line[f"{what} (nat)"] = robustness.interval(row)
    return pd.DataFrame(list(rows.values()), dtype=object)


def reading(scalars: pd.DataFrame) -> str:
    """Which way each gap of each network goes, a line for each."""
    lines = []
    for row in scalars[scalars["metric"] == "data_sample_gap"].to_dict("records"):
        gap = robustness.interval(row)
        way = metrics.told_apart(gap, "samples lie lower", "samples lie higher")
        lines.append(f"{style.label(row['network'])}, {style.label(row['set'])}: data − samples {gap} nat: {way}")
    return "\n".join(lines)
