"""The numbers of an ablation of image generation: one row for each case and sample set, and what a reader is told.

    ablation, setting, network, seed | the knobs (NaN: not taken), then a column for each metric

A case's number is the mean over its sample sets with Student's interval. Sets of one seed share starts and noise over
all settings, so a difference of two settings is taken set by set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import files, metrics, parameters, records, style, tables
from helpers.evidence import with_width
from helpers.metrics import Estimate
from helpers.setting_runs import DIMENSION, FRECHET
from helpers.settings import Case, Setting, named

if TYPE_CHECKING:
    from helpers.parameters import Parameters

PICTURES = "pictures"  # what `setting_runs.measure` keeps besides numbers
KNOBS = tuple(field.name for field in fields(Setting))
REAL_START = "images"  # starts from real images: compared, and never chosen
LOWER = (FRECHET, "kid")  # metrics of which less is better; those of which more is
HIGHER = ("precision", "recall", "class_agreement")


def sets(
    cases: Sequence[Case], measured: Mapping[tuple[str, int], Mapping[str, np.ndarray]], *, network: str, n: int
) -> pd.DataFrame:
    """One row for each case and sample set; `measured` has by setting's key and number of the set what
    `setting_runs.measure` returned. The column `seed` has the number of the set, `n_images` how many it has, `n`."""
    rows = []
    for case in cases:
        for (key, number), found in measured.items():
            if key == case.setting.key:
                knobs = {name: math.nan if value is None else value for name, value in asdict(case.setting).items()}
                numbers = {name: float(value) for name, value in found.items() if name != PICTURES}
                head = {"ablation": case.ablation, "setting": key, "network": network, "seed": number, "n_images": n}
                rows.append({**head, **knobs, **numbers})
    return pd.DataFrame(rows)


def measured_metrics(frame: pd.DataFrame) -> list[str]:
    """The metrics of a frame of `sets`, in its order."""
    known = parameters.metrics()
    return [str(column) for column in frame.columns if column in known and column not in (*KNOBS, "n_images")]


def estimate(values: Sequence[float] | np.ndarray, metric: str, *, n: int, dimension: int) -> Estimate:
    """Mean over sample sets of `n` images with Student's interval, cut at 0 and 100 where it is a percentage.

    None for fewer than three sets, and for a Fréchet distance of fewer images than twice the feature's `dimension`.

    >>> print(estimate([1.0, 2.0, 3.0], "kid", n=200, dimension=96))
    2.0 [-0.5, 4.5]
    >>> print(estimate([1.0, 2.0, 3.0], "frechet_distance", n=100, dimension=96))
    2
    """
    share = parameters.metrics()[metric].unit == "%"
    found = metrics.over_sets(values, share_of=n if share else None)
    if metric == FRECHET and n < 2 * dimension:
        return replace(found, low=math.nan, high=math.nan, kind="none")
    return found


def summary(cases: Sequence[Case], frame: pd.DataFrame, *, n: int, **place: Any) -> list[records.Scalar]:
    """Scalars for a record: each metric of each case over its sample sets of `n` images; `place` holds for all."""
    rows = []
    dimension = int(frame[DIMENSION].iloc[0])
    for case in cases:
        own = frame[(frame["ablation"] == case.ablation) & (frame["setting"] == case.setting.key)]
        seeds = [int(seed) for seed in own["seed"]]
        for metric in measured_metrics(frame):
            found = estimate(own[metric].to_numpy(), metric, n=n, dimension=dimension)
            rows.append(records.scalar(metric, found, n=n, seeds=seeds, **case.place, **place))
    return rows


def of_real(found: Sequence[Mapping[str, float]], *, n: int, **place: Any) -> list[records.Scalar]:
    """Scalars of sets of `n` real images, scored as made ones are (`setting_runs.score`), for comparison."""
    rows = []
    place = {"ablation": "real", "case": "another split", **place}
    for metric in (name for name in found[0] if name != DIMENSION):
        values = [one[metric] for one in found]
        mean = estimate(values, metric, n=n, dimension=int(found[0][DIMENSION]))
        rows.append(records.scalar(metric, mean, n=n, **place))
    return rows


def level(scalars: pd.DataFrame) -> dict[str, float]:
    """The means of the real images in a record (`of_real`), by metric."""
    own = scalars[scalars["ablation"] == "real"]
    return dict(zip(own["metric"], own["value"].astype(float), strict=True))


# What a figure shows: ablations of one number, the knob and the label of its axis; and measures beside each other.
AXES = {
    "momentum": ("momentum", "momentum ζ"),
    "step_size": ("step_size", "step size α"),
    "n_steps": ("n_steps", "steps"),
    "noise": ("noise_std", "noise σ (pixel range)"),
}
CHOICES = ("initialiser", "energy", "gradient", "stop")  # ablations of a name
TRADED = {
    "precision": "precision (%)",
    "class_agreement": "class agreement (%)",
    "recall": "recall (%)",
    "diversity": "diversity (real: 1)",
}
HEADERS = {"case": "setting", **{name: style.label(name) for name in (FRECHET, "kid", "class_agreement")}}
HEADERS |= {"precision": "precision (%)", "recall": "recall (%)", "diversity": "diversity", "contrast": "contrast"}
HEADERS |= {"saturation": "saturation (%)", "joint_energy": "E(x, y) (nat)", "steps_taken": "steps taken"}
COLOUR = style.NATURAL  # of all cases: they are no methods with colours of their own
SELECTED, FRESH = "selected", "fresh"  # protocols: the number that chose, and that of new images


# The score that chooses. It has no bias where the images to compare with are few for a Fréchet distance.
SCORE = "kid"
REPORTED = (SCORE, FRECHET, "class_agreement")
SHOWN = (SCORE, "class_agreement", "diversity", "saturation")


def panels(scalars: pd.DataFrame) -> dict[str, str]:
    """The numbers that pictures show, with their axes; a score is named after the extractor that the record names."""
    return {name: headers(scalars)[name] for name in SHOWN} | {"diversity": "diversity (real: 1)"}


def headers(scalars: pd.DataFrame) -> dict[str, str]:
    """The table's heads; scores by features are named after the record's extractor: "KID (judge 3f2a9c1e)"."""
    extractor = scalars["extractor"].dropna().iloc[0]
    return HEADERS | {name: f"{HEADERS[name]} ({extractor})" for name in (SCORE, FRECHET)}


# What is chosen


def best(cases: Sequence[Case], frame: pd.DataFrame) -> Case:
    """The case of the lowest mean SCORE, the first of equal ones; a start from real images is not eligible."""
    eligible = [case for case in cases if case.setting.initialiser != REAL_START]
    if not eligible:
        raise ValueError("expected a setting that does not start from real images, got none")
    means = frame.groupby("setting")[SCORE].mean()
    return min(eligible, key=lambda case: float(means[case.setting.key]))


# For a reader


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary` as a table: one row for each case, one column for each metric, with intervals."""
    wide = tables.wide(scalars, rows=["ablation", "case"], metrics=list(dict.fromkeys(scalars["metric"])))
    return wide.assign(ablation=wide["ablation"].map(style.label))


def tidy(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary` with one row for each number: ablation, knobs, metric, value, low, high, n, seeds."""
    knobs = [knob for knob in KNOBS if knob in scalars]
    columns = ["ablation", "case", *knobs, "metric", "value", "low", "high", "interval_kind", "n", "seeds"]
    found = scalars.assign(seeds=scalars["seeds"].map(_words))[columns].astype(object)
    return found.where(found.notna(), None)


def _words(seeds: Any) -> str | None:
    return " ".join(map(str, seeds)) if isinstance(seeds, list) else None


def best_table(scalars: pd.DataFrame, *, shown: Sequence[str]) -> pd.DataFrame:
    """The chosen and the base setting, and real images, one row each; a column for each metric and protocol."""
    lines: dict[str, dict[str, Any]] = {}
    for row in scalars[scalars["metric"].isin(list(shown))].to_dict("records"):
        cells = lines.setdefault(str(row["ablation"]), {"": style.label(row["ablation"]), "setting": row["case"]})
        low, high = (None if pd.isna(row[end]) else float(row[end]) for end in ("low", "high"))
        cells[f"{style.label(row['metric'])}, {row['protocol']}"] = tables.Interval(row["value"], low, high)
    return pd.DataFrame(list(lines.values()), dtype=object)


def save_tidy(p: Parameters, record: records.Record) -> Path:
    """Write `tidy` of a record as settings_tidy.csv beside it, and return where it is."""
    path = p.folder / f"{record.name}_tidy.csv"
    files.write_text(path, tables.as_csv(tidy(record.scalars)))
    return path


def against(frame: pd.DataFrame, case: Case, other: Case, metric: str) -> Estimate:
    """The metric of a case less that of another, set by set, with Student's interval over the sets."""
    values = []
    for one in (case, other):
        own = frame[(frame["ablation"] == one.ablation) & (frame["setting"] == one.setting.key)]
        values.append(own.set_index("seed")[metric])
    difference = (values[0] - values[1]).to_numpy()
    return with_width(metrics.student_t(difference), None, share=False)


def verdict(found: Estimate, metric: str) -> str:
    """What a difference says.

    >>> verdict(Estimate(-2.0, -3.0, -1.0, n=3, kind="student_t"), "kid")
    'better'
    >>> verdict(Estimate(2.0, 1.0, 3.0, n=3, kind="student_t"), "diversity")
    'more'
    """
    words = ("better", "worse") if metric in HIGHER else ("worse", "better") if metric in LOWER else ("more", "less")
    return metrics.told_apart(found, *words)


def reading(cases: Sequence[Case], frame: pd.DataFrame, ablation: str, *, shown: Iterable[str]) -> str:
    """Each case of an ablation against its first, the base setting, a line each."""
    first, *others = [case for case in cases if case.ablation == ablation]
    lines = [f"Against the base setting, {named(first)}:"]
    for case in others:
        said = []
        for metric in shown:
            found = against(frame, case, first, metric)
            said.append(f"{style.label(metric)} {_signed(found)}, {verdict(found, metric)}")
        lines.append(f"  {named(case)}: " + "; ".join(said))
    return "\n".join(lines)


def _signed(found: Estimate) -> str:
    return ("+" if found.value > 0 else "") + str(found).replace("-", "\N{MINUS SIGN}")


def told(frames: Mapping[str, pd.DataFrame], final: Sequence[Case], *, n_settings: int) -> str:
    """The chosen setting against the base setting under both protocols, and what choosing is worth on new images."""
    chosen, base = final
    lines = [f"Chosen by {style.label(SCORE)} among {n_settings} settings: {named(chosen)}"]
    for protocol, frame in frames.items():
        found = against(frame, chosen, base, SCORE)
        lines.append(
            f"{protocol}: {style.label(SCORE)} {_signed(found)} against the base setting ({verdict(found, SCORE)})"
        )
    return "\n".join(lines)
