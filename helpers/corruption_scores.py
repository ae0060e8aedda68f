"""The numbers of CEB's corruption table from the verdicts of `helpers.corrupted`: by seed, with intervals, and paired.

    measure                       number (%)
    clean                         top-1 error on clean images
    gaussian_noise …              CE_c, the error averaged over five severities
    average_ce, mce, relative_mce as in helpers/corruption_errors.py
    pgd_l2, pgd_linf              error under targeted PGD
    imagenet_a_sliced, …_whole    error on ImageNet-A, by convention

mCE divides by AlexNet on ImageNet-C. Elsewhere nobody has agreed on a divisor: it is one's own cross-entropy network,
the mean over its seeds, taken as known; so that network has an mCE of 100, and numbers of two data sets do not compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from helpers import corruption_errors, metrics, records, robustness
from helpers.arms import Arm
from helpers.corrupted import CLEAN
from helpers.corruption_settings import GROUPS, SEVERITIES, Profile, names
from helpers.metrics import Estimate

__all__ = [
    "Reference",
    "against",
    "cell_differences",
    "cell_scalars",
    "cells",
    "clean",
    "missing",
    "reference",
    "summaries",
    "summary",
]

Piece = Mapping[str, np.ndarray]
Pieces = Mapping[tuple[str, int], Piece]  # (network, seed) → its verdicts
SUMMED = {"clean": "clean_error", "average_ce": "average_ce", "mce": "mce", "relative_mce": "relative_mce"}
N_RESAMPLES = 1000


@dataclass(frozen=True)
class Reference:
    """What mCE divides by: errors (%) by corruption, and on clean images where they are known."""

    name: str
    ce: Mapping[str, float]
    clean: float | None


def reference(pieces: Pieces, network: str, *, profile: Profile) -> Reference:
    """AlexNet for ImageNet-C's constants, else the mean over seeds of `network`."""
    if profile == "imagenet":
        return Reference("AlexNet", corruption_errors.over_severities(corruption_errors.alexnet()), None)
    mine = _of(pieces, network)
    found = {name: float(np.mean([_ce(one)[name] for one in mine.values()])) for name in names()}
    return Reference(network, found, float(np.mean([100 * one[CLEAN].mean() for one in mine.values()])))


# By seed and by image


def _of(pieces: Pieces, network: str) -> dict[int, Piece]:
    found = {seed: piece for (name, seed), piece in pieces.items() if name == network}
    if not found:
        raise ValueError(f"expected verdicts of {network}, got those of {sorted({name for name, _ in pieces})}")
    return found


def _ce(piece: Piece) -> dict[str, float]:
    return corruption_errors.over_severities({name: list(100 * piece[name].mean(1)) for name in names()})


def _by_image(piece: Piece, divisor: Reference) -> dict[str, np.ndarray]:
    """Each measure's contribution of each image, (N,): its mean is the measure. All are linear in the verdicts."""
    found = {CLEAN: 100.0 * piece[CLEAN]} | {name: 100.0 * piece[name].mean(0) for name in names()}
    stacked = np.stack([found[name] for name in names()])
    found["average_ce"] = stacked.mean(0)
    found["mce"] = 100 * (stacked / np.array([divisor.ce[name] for name in names()])[:, None]).mean(0)
    others = {key: 100.0 * value for key, value in piece.items() if key not in found}
    return found | others


def _summed(piece: Piece, divisor: Reference) -> dict[str, float]:
    """The four summaries of one network; relative_mce is missing where it means nothing."""
    ce, clean = _ce(piece), 100 * float(piece[CLEAN].mean())
    found = {
        "clean": clean,
        "average_ce": corruption_errors.average_ce(ce),
        "mce": corruption_errors.mce(ce, reference=divisor.ce),
    }
    if divisor.clean is not None and all(value > divisor.clean for value in divisor.ce.values()):
        found["relative_mce"] = corruption_errors.relative_mce(
            ce, clean=clean, reference=divisor.ce, reference_clean=divisor.clean
        )
    return found


def _measures(piece: Piece, divisor: Reference) -> dict[str, float]:
    others = {key: 100 * float(value.mean()) for key, value in piece.items()}
    return others | _summed(piece, divisor)


# Frames


def cells(pieces: Pieces, arms: Mapping[str, Arm]) -> pd.DataFrame:
    """One row for each network, seed, corruption and severity: `corruption_error` (%) and `n_images`."""
    rows = []
    for (network, seed), piece in pieces.items():
        for name in names():
            for severity, wrong in zip(SEVERITIES, piece[name], strict=True):
                where = {"corruption": name, "severity": severity, "n_images": len(wrong)}
                error = {"corruption_error": 100 * float(wrong.mean())}
                rows.append(vars(arms[network]) | {"seed": seed} | where | error)
    return pd.DataFrame(rows)


def clean(pieces: Pieces, arms: Mapping[str, Arm], index: ArrayLike, *, table: Iterable[str]) -> pd.DataFrame:
    """One row for each network, seed and clean image (`image`, of `index`): `correct`; `shown` as in `summaries`."""
    blocks = []
    for (network, seed), piece in pieces.items():
        where = vars(arms[network]) | {"seed": seed, "shown": "table" if network in table else "ladder"}
        blocks.append(pd.DataFrame({"image": np.asarray(index), "correct": ~piece[CLEAN]}).assign(**where))
    return pd.concat(blocks, ignore_index=True)


def summaries(
    pieces: Pieces, arms: Mapping[str, Arm], divisor: Reference, *, plain: str, table: Iterable[str]
) -> pd.DataFrame:
    """One row for each network and seed, what claims are about: clean_error, average_ce, mce and two counts.

    Against the cross-entropy network `plain` of the same seed, `n_corruptions_lower` (of 15) and `noise_advantage`: by
    how many points more the error falls on the three noises than on the other twelve. `shown` is "table" for the
    networks in `table`, else "ladder". ValueError where `plain` lacks a seed.
    """
    rows, noises = [], GROUPS["noise"]
    for (network, seed), piece in pieces.items():
        if (plain, seed) not in pieces:
            raise ValueError(f"expected {plain} with seed {seed}, as {network} has")
        ce, theirs = _ce(piece), _ce(pieces[plain, seed])
        gain = {name: theirs[name] - ce[name] for name in names()}
        quiet = [gain[name] for name in names() if name not in noises]
        found = _summed(piece, divisor)
        rows.append(
            vars(arms[network])
            | {"seed": seed, "shown": "table" if network in table else "ladder", "n_images": len(piece[CLEAN])}
            | {SUMMED[key]: found[key] for key in ("clean", "average_ce", "mce")}
            | {"n_corruptions_lower": float(sum(value > 0 for value in gain.values()))}
            | {"noise_advantage": float(np.mean([gain[name] for name in noises]) - np.mean(quiet))}
        )
    return pd.DataFrame(rows)


# Scalars


def summary(pieces: Pieces, arms: Mapping[str, Arm], divisor: Reference) -> list[records.Scalar]:
    """Scalars for a record: every measure of each network, over its seeds or, of one network, over its images."""
    rows = []
    for network in dict.fromkeys(name for name, _ in pieces):
        mine = _of(pieces, network)
        by_seed = [_measures(one, divisor) for one in mine.values()]
        for measure in by_seed[0]:
            found = _estimate([one[measure] for one in by_seed], measure, next(iter(mine.values())), divisor)
            where = arms[network].where | {"measure": measure}
            n = len(next(iter(mine.values())).get(measure, next(iter(mine.values()))[CLEAN]).T)
            if measure in ("mce", "relative_mce"):
                where["divisor"] = divisor.name
            rows.append(records.scalar(_metric(measure), found, n=n, seeds=list(mine), **where))
    return rows


def missing(arms: Mapping[str, Arm], reason: str) -> list[records.Scalar]:
    """Scalars that say why ImageNet-A was not run, one for each network; none where there is no reason."""
    said: dict[str, Any] = {"measure": "imagenet_a_sliced", "reason": f"not run: {reason}"}
    return [records.scalar("natural_error", None, **one.where, **said) for one in arms.values() if reason]


def _metric(measure: str) -> str:
    if measure.startswith("pgd"):
        return "pgd_error"
    return SUMMED.get(measure, "natural_error" if measure.startswith("imagenet_a") else "corruption_error")


def _estimate(values: Sequence[float], measure: str, piece: Piece, divisor: Reference) -> Estimate:
    """Student's interval over seeds; of one network, or where all seeds agree, that over its images."""
    if len(set(values)) > 1:
        found = metrics.student_t(values)
    elif measure in piece and piece[measure].ndim == 1:
        return metrics.accuracy(piece[measure])
    elif measure == "relative_mce":
        return Estimate(values[0], np.nan, np.nan, 1, "none")
    else:
        found = replace(metrics.mean_over_images(_by_image(piece, divisor)[measure]), value=values[0])
    high = np.inf if measure.endswith("mce") else 100.0
    return replace(found, low=max(found.low, -np.inf if measure == "relative_mce" else 0.0), high=min(found.high, high))


def cell_scalars(pieces: Pieces, arms: Mapping[str, Arm], network: str) -> list[records.Scalar]:
    """Scalars: one network's error at each corruption and severity."""
    mine, rows = _of(pieces, network), []
    for name in names():
        for severity in SEVERITIES:
            several = [piece[name][severity - 1] for piece in mine.values()]
            where = arms[network].where | {"corruption": name, "severity": severity}
            found = robustness.estimate(several)
            rows.append(records.scalar("corruption_error", found, n=len(several[0]), seeds=list(mine), **where))
    return rows


# Differences


def against(
    pieces: Pieces, arms: Mapping[str, Arm], pairs: Sequence[tuple[str, str]], divisor: Reference, *, seed: int
) -> list[records.Scalar]:
    """Scalars: for each pair (network, other) the difference in every measure but relative_mce, in points, with the
    interval of a bootstrap over (seed, image) of the seeds that both have.
    """
    rows = []
    for one, two in pairs:
        seeds, a, b = _paired(pieces, one, two, lambda piece: _by_image(piece, divisor))
        for measure in a:
            found = metrics.paired_bootstrap(a[measure], b[measure], seed=seed, n_resamples=N_RESAMPLES)
            where = arms[one].where | {"against": two, "measure": measure}
            n = a[measure].shape[1]
            rows.append(records.scalar("error_difference", found, n=n, seeds=seeds, **where))
    return rows


def cell_differences(pieces: Pieces, arms: Mapping[str, Arm], one: str, two: str, *, seed: int) -> list[records.Scalar]:
    """The same of each corruption and severity: error_difference by `corruption` and `severity`."""
    seeds, a, b = _paired(pieces, one, two, lambda piece: {name: 100.0 * piece[name] for name in names()})
    rows = []
    for name in names():
        for severity in SEVERITIES:
            first, second = (side[name][:, severity - 1] for side in (a, b))
            found = metrics.paired_bootstrap(first, second, seed=seed, n_resamples=N_RESAMPLES)
            where = arms[one].where | {"against": two, "corruption": name, "severity": severity}
            rows.append(records.scalar("error_difference", found, n=first.shape[1], seeds=seeds, **where))
    return rows


def _paired(
    pieces: Pieces, one: str, two: str, values: Callable[[Piece], Mapping[str, Any]]
) -> tuple[list[int], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The seeds that both have, and by measure their numbers stacked over them."""
    first, second = _of(pieces, one), _of(pieces, two)
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        raise ValueError(f"expected seeds that {one} and {two} share, got {sorted(first)} and {sorted(second)}")
    sides = [[values(side[seed]) for seed in seeds] for side in (first, second)]
    shared = [key for key in sides[0][0] if key in sides[1][0]]
    a, b = ({key: np.stack([found[key] for found in side]) for key in shared} for side in sides)
    return seeds, a, b
