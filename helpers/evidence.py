"""What the records of a profile hold for the claims: one term of evidence becomes a sample with its interval.

A term is one scalar of a record, or rows of one of its frames: the numbers of each seed over a range of epochs, of each
seed and image, or of each seed alone, by which differences can be paired. Where the term names the checks of its
attack (`health`), the sample says by how much it may be too high; without that record, or of a network that it did not
examine, nothing is said against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from helpers import doubts, files, metrics, parameters, records
from helpers.doubts import Doubt
from helpers.ledger import Evidence
from helpers.metrics import Estimate

if TYPE_CHECKING:
    from helpers.parameters import Parameters

N_RESAMPLES = 2000
LEVEL = 0.95  # of every interval that decides
# Metric → its value for each row of a frame of image pairs (landscape.measure); shares are in per cent.
PER_IMAGE: dict[str, Callable[[pd.DataFrame], Any]] = {
    "delta_energy": lambda f: f["E"] - f["E_adv"],
    "delta_joint_energy": lambda f: f["E_y"] - f["E_y_adv"],
    "delta_energy_size": lambda f: (f["E"] - f["E_adv"]).abs(),
    "delta_energy_std": lambda f: f["E"] - f["E_adv"],
    "energy": lambda f: f["E"],
    "joint_energy": lambda f: f["E_y"],
    "share_lowered": lambda f: 100.0 * (f["E_adv"] < f["E"]),
    "share_joint_lowered": lambda f: 100.0 * (f["E_y_adv"] < f["E_y"]),
    "accuracy": lambda f: 100.0 * f["correct"],
    "robust_accuracy": lambda f: 100.0 * f["correct_adv"],
    "success_rate": lambda f: 100.0 * f["reached"],
}
SPREADS = {"delta_energy_std"}  # standard deviations over images; the others are means


class NotRun(Exception):
    """The records do not hold what a claim asks for; the text says which record, and what is missing in it."""


@dataclass(frozen=True)
class Sample:
    """What a term measured: its estimate, and where a frame was read the numbers behind it.

    `by_seed` (n_seeds,); `by_image` (n_seeds, n_images), of the images `images`, where the term is over images.
    """

    estimate: Estimate
    seeds: tuple[int, ...] = ()
    by_seed: np.ndarray | None = None
    by_image: np.ndarray | None = None
    images: tuple[int, ...] = ()
    spread: bool = False
    share: bool = False
    n_images: int | None = None
    doubt: Doubt | None = None  # of a robust accuracy: what the checks of its attack say against it


class Results:
    """The records of one profile, each read once; only what a notebook that came to its end has written counts."""

    def __init__(self, p: Parameters) -> None:
        self.p = p
        self._read: dict[tuple[str, str], records.Record] = {}

    def record(self, notebook: str, name: str) -> records.Record:
        """The record, or NotRun with the reason."""
        key = notebook, name
        if key not in self._read:
            if name not in self.made(notebook):
                raise NotRun(f"{notebook} has made no record {name}")
            try:
                self._read[key] = records.find(self.p, name, notebook=notebook)
            except records.RecordError as error:
                raise NotRun(str(error).replace(f"{self.p.folder.parent}/", "")) from None
        return self._read[key]

    def made(self, notebook: str) -> list[str]:
        """The names of the records that the notebook made, or NotRun where it has not come to its end."""
        finished = files.read_json(self.p.folder.parent / notebook / "finished.json")
        if not isinstance(finished, dict):
            there = notebook in parameters.notebooks(self.p.profile)
            raise NotRun(f"{notebook} has not come to its end" if there else f"{notebook} is not in this profile")
        return [one.get("name") for one in finished.get("outputs", []) if one.get("kind") == "record"]


def measure(term: Evidence, results: Results) -> Sample:
    """The term's sample; NotRun where the records do not hold it."""
    record = results.record(term.notebook, term.record)
    if term.frame is None:
        sample, networks = _scalar(term, record), [value for key, value in term.where if key == "network"]
    else:
        frame = _rows(term, record)
        sample, networks = _frame(term, frame), list(frame.get("network", pd.Series(dtype=str)).unique())
    if term.health is None or term.health not in results.made(term.notebook):
        return sample
    checked = results.record(term.notebook, term.health)
    (name,) = checked.content["frames"]  # called health in 01 and findings elsewhere, with the same columns
    attack, accuracy = dict(term.where).get("attack"), sample.estimate.value
    return replace(sample, doubt=doubts.against(checked.frame(name), networks, attack=attack, accuracy=accuracy))


def _asked(term: Evidence) -> str:
    """The filters of a term, after what was looked for."""
    return f" where {', '.join(f'{key} = {value}' for key, value in term.where)}" if term.where else ""


def _scalar(term: Evidence, record: records.Record) -> Sample:
    rows = [row for row in record.content["scalars"] if row["metric"] == term.metric]
    rows = [row for row in rows if all(row.get(key) == value for key, value in term.where)]
    if not rows:
        raise NotRun(f"{term.place} has no {term.metric}{_asked(term)}")
    if len(rows) > 1:
        raise NotRun(f"{term.place} has {len(rows)} of {term.metric}{_asked(term)}; name more of their keys")
    row = rows[0]
    if row["value"] is None:
        raise NotRun(f"{term.place}: {row.get('reason')}")
    seeds = tuple(row["seeds"] or ())
    if row["level"] not in (None, LEVEL):
        raise NotRun(
            f"{term.place}: {term.metric}{_asked(term)} has an interval of level {row['level']:g}, not {LEVEL:g}"
        )
    low, high = (math.nan if row[key] is None else float(row[key]) for key in ("low", "high"))
    estimate = Estimate(float(row["value"]), low, high, row["n"] or 1, cast(Any, row["interval_kind"] or "none"))
    n_images = row["n"] if row["n"] is not None and row["n"] > len(seeds) else None
    share = row["unit"] == "%"
    return Sample(with_width(estimate, n_images, share=share), seeds, share=share, n_images=n_images)


def with_width(estimate: Estimate, n_images: int | None, *, share: bool) -> Estimate:
    """Student's interval of equal numbers has no width, which is no certainty: Wilson's of a share of images, or none.

    >>> print(with_width(metrics.student_t([100.0, 100.0, 100.0]), 360, share=True))
    100.00 [98.94, 100.00]
    """
    if estimate.kind != "student_t" or estimate.high > estimate.low:
        return estimate
    if n_images is None or not share:
        return replace(estimate, low=math.nan, high=math.nan, kind="none")
    return metrics.wilson(round(estimate.value * n_images / 100), n_images)


def _rows(term: Evidence, record: records.Record) -> pd.DataFrame:
    """The rows of its frame that a term asks for."""
    try:
        frame = record.frame(str(term.frame))
    except records.RecordError:
        raise NotRun(f"{term.place} has no frame {term.frame}") from None
    for key, value in term.where:
        if key not in frame:
            raise NotRun(f"{term.place}, {term.frame} has no column {key}")
        frame = frame[frame[key] == value]
    if frame.empty:
        raise NotRun(f"{term.place} has nothing{_asked(term)}")
    return frame


def _frame(term: Evidence, frame: pd.DataFrame) -> Sample:
    if "seed" not in frame:
        raise NotRun(f"{term.place}, {term.frame} has no column seed")
    if "epoch" in frame:
        return _over_epochs(term, frame)
    return _over_images(term, frame) if "image" in frame else _over_seeds(term, frame)


def _over_seeds(term: Evidence, frame: pd.DataFrame) -> Sample:
    """One number for each seed, the column that is named as the metric: of sets of generated images, say."""
    if term.metric not in frame:
        raise NotRun(f"{term.place}, {term.frame} has no column {term.metric}")
    if frame["seed"].duplicated().any():
        raise NotRun(f"{term.place}: several rows for a seed{_asked(term)}; name more of their keys")
    rows = frame.sort_values("seed")
    by_seed, seeds = rows[term.metric].to_numpy(dtype=float), tuple(int(one) for one in rows["seed"])
    n_images = int(rows["n_images"].min()) if "n_images" in rows else None
    share = parameters.metrics()[term.metric].unit == "%"
    estimate = with_width(metrics.student_t(by_seed), n_images, share=share)
    if share:
        estimate = replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 100.0))
    return Sample(estimate, seeds, by_seed, share=share, n_images=n_images)


def _over_epochs(term: Evidence, frame: pd.DataFrame) -> Sample:
    """One number for each seed: the curve in a range of training, or read at one place of it."""
    if term.metric not in frame or term.epochs is None:
        raise NotRun(f"{term.place}, {term.frame} has no column {term.metric}, or the claim names no epochs")
    first, last = term.epochs
    values = {}
    for seed, curve in frame.groupby("seed"):
        if curve["epoch"].duplicated().any():
            raise NotRun(f"{term.place}: several curves{_asked(term)}; name more of their keys")
        curve = curve.sort_values("epoch")
        t, y = curve["epoch"].to_numpy(dtype=float), curve[term.metric].to_numpy(dtype=float)
        inside = y[(t >= first * t.max() - 1e-9) & (t <= last * t.max() + 1e-9)]
        if first == last or not inside.size:
            inside = np.interp([first * t.max(), last * t.max()], t, y)
        values[int(str(seed))] = float(_TAKEN[term.take](inside))
    by_seed = np.array(list(values.values()))
    share = parameters.metrics()[term.metric].unit == "%"
    return Sample(with_width(metrics.student_t(by_seed), None, share=share), tuple(values), by_seed, share=share)


_TAKEN: dict[str, Callable[[np.ndarray], Any]] = {
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "max_abs": lambda values: np.max(np.abs(values)),
}


def _over_images(term: Evidence, frame: pd.DataFrame) -> Sample:
    """One number for each seed and image of a frame of image pairs."""
    if term.metric not in PER_IMAGE or "image" not in frame:
        raise NotRun(f"{term.place}, {term.frame} does not give {term.metric} by image")
    try:
        for column, (low, high) in term.quantiles:
            ranked = frame.groupby("seed")[column]
            bottom, top = ranked.transform("quantile", low), ranked.transform("quantile", high)
            frame = frame[((frame[column] > bottom) | (low == 0)) & (frame[column] <= top)]
        values = frame.assign(value=PER_IMAGE[term.metric](frame))
    except KeyError as missing:
        raise NotRun(f"{term.place}, {term.frame} has no column {missing}") from None
    if values.duplicated(["seed", "image"]).any():
        raise NotRun(f"{term.place}: several rows for an image{_asked(term)}; name more of their keys")
    spread, share = term.metric in SPREADS, parameters.metrics()[term.metric].unit == "%"
    groups = {int(str(seed)): rows.set_index("image")["value"] for seed, rows in values.groupby("seed")}
    by_seed = np.array([_reduced(one.to_numpy(), spread) for one in groups.values()], dtype=float)
    n_images = int(min(len(one) for one in groups.values()))
    table = pd.DataFrame(groups).sort_index()
    images: tuple[int, ...] = ()
    by_image = None
    if not table.isna().to_numpy().any():
        images, by_image = tuple(int(one) for one in table.index), table.to_numpy(dtype=float).T
    one = next(iter(groups.values())).to_numpy(dtype=float)
    estimate = with_width(metrics.student_t(by_seed), n_images, share=share)
    if len(groups) == 1:
        estimate = _of_one(one, spread=spread, share=share)
    elif share:
        estimate = replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 100.0))
    return Sample(estimate, tuple(groups), by_seed, by_image, images, spread, share, n_images)


def _reduced(values: np.ndarray, spread: bool) -> Any:
    return values.std(axis=-1) if spread else values.mean(axis=-1)


def _of_one(values: np.ndarray, *, spread: bool, share: bool) -> Estimate:
    """One network's estimate over its images."""
    if spread:
        return replace(resampled([values], [1.0], seed=0), kind="bootstrap")
    return metrics.accuracy(values > 50) if share else metrics.mean_over_images(values)


def resampled(networks: list[np.ndarray], factors: list[float], *, seed: int) -> Estimate:
    """Σ factor · std over images, with the percentile interval of a bootstrap over the images that all share."""
    generator, n = np.random.default_rng(seed), len(networks[0])
    sums = np.empty(N_RESAMPLES)
    for i in range(N_RESAMPLES):
        drawn = generator.integers(n, size=n)
        sums[i] = sum(factor * one[drawn].std() for factor, one in zip(factors, networks, strict=True))
    value = sum(factor * float(one.std()) for factor, one in zip(factors, networks, strict=True))
    low, high = np.quantile(sums, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), n, "paired_bootstrap")
