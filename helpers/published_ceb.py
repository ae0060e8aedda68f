"""The corruption table that Fischer & Alemi (2020) printed: read, recomputed from its own rows, its gains over XEnt.

Errors in %, 21 measures of 14 ImageNet networks (params/published/ceb_table.csv), named as in
`helpers.corruption_scores`. Every column with a bottleneck has a twin trained with cross-entropy (XEnt).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache

import pandas as pd

from helpers import corruption_errors, records
from helpers.corruption_settings import names
from helpers.parameters import ROOT

__all__ = ["BESIDE", "PRINTED", "gains", "label", "reading", "recomputed", "summary", "table", "values"]

FOLDER = ROOT / "params" / "published"
PRINTED = {
    "clean": "Clean", "mce": "mCE", "average_ce": "Average CE",
    "gaussian_noise": "Gauss. Noise", "shot_noise": "Shot Noise", "impulse_noise": "Impulse Noise",
    "defocus_blur": "Defocus Blur", "glass_blur": "Glass Blur", "motion_blur": "Motion Blur", "zoom_blur": "Zoom Blur",
    "snow": "Snow", "frost": "Frost", "fog": "Fog", "brightness": "Brightness",
    "contrast": "Contrast", "elastic_transform": "Elastic Trans.", "pixelate": "Pixelate",
    "jpeg_compression": "JPEG Comp.", "imagenet_a": "ImageNet-A", "pgd_l2": "PGD L2", "pgd_linf": "PGD Linf",
}  # fmt: skip
BESIDE = ("R50x2_XEnt", "R50x2_CEB_rho3", "R50x2_cCEB_rho4")  # the smallest network that was trained with all three
HEAD = "published error (%)"
TOLERANCE = {"mce": 0.05, "average_ce": 0.055}  # of numbers printed to 0.1: the sums of 15 rows round once more


@lru_cache(maxsize=1)
def values() -> Mapping[str, Mapping[str, float]]:
    """The printed table: column → measure, as in PRINTED → error (%).

    >>> values()["R50_XEnt"]["mce"]
    64.4
    """
    with (FOLDER / "ceb_table.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    columns = [name for name in rows["Clean"] if name != "metric"]
    return {c: {measure: float(rows[printed][c]) for measure, printed in PRINTED.items()} for c in columns}


@lru_cache(maxsize=1)
def _columns() -> Mapping[str, dict[str, str]]:
    with (FOLDER / "ceb_table_columns.csv").open(encoding="utf-8", newline="") as file:
        return {row["column"]: row for row in csv.DictReader(file)}


def label(column: str) -> str:
    """A column's head.

    >>> label("R50x2_CEB_rho3"), label("R50_noAA_XEnt")
    ('ResNet50x2 CEB, ρ = 3', 'ResNet50 XEnt, no AutoAugment')
    """
    facts = _columns()[column]
    rho = f", ρ = {facts['rho']}" if facts["rho"] else ""
    plain = "" if facts["autoaugment"] == "yes" else ", no AutoAugment"
    architecture = f"ResNet{facts['depth']}" + ("x2" if facts["width_multiplier"] == "2" else "")
    return f"{architecture} {facts['objective']}{rho}{plain}"


def _twin(column: str) -> str:
    """The cross-entropy column of the same architecture and augmentation."""
    facts, same = _columns()[column], ("depth", "width_multiplier", "autoaugment")
    return next(
        name
        for name, other in _columns().items()
        if other["objective"] == "XEnt" and all(other[key] == facts[key] for key in same)
    )


def gains() -> Mapping[str, Mapping[str, float]]:
    """Printed error less that of the twin, in points: each of the eight columns with a bottleneck → measure.

    >>> round(gains()["R50_noAA_CEB_rho4"]["mce"], 1)
    -5.0
    """
    found = values()
    bottlenecks = [name for name in found if _columns()[name]["rho"]]
    return {name: {key: found[name][key] - found[_twin(name)][key] for key in PRINTED} for name in bottlenecks}


def recomputed() -> pd.DataFrame:
    """mCE and Average CE from the 15 printed rows: `column`, `measure`, `printed`, `recomputed`, `deviation`."""
    divisor, rows = corruption_errors.over_severities(corruption_errors.alexnet()), []
    for column, printed in values().items():
        ce = {name: printed[name] for name in names()}
        ours = {"mce": corruption_errors.mce(ce, reference=divisor), "average_ce": corruption_errors.average_ce(ce)}
        for measure, value in ours.items():
            row = {"column": column, "measure": measure, "printed": printed[measure], "recomputed": value}
            rows.append({**row, "deviation": value - printed[measure]})
    return pd.DataFrame(rows)


def summary(found: pd.DataFrame) -> list[records.Scalar]:
    """Scalars for a record of `recomputed`: the largest deviation of each summary over the columns."""
    return [
        records.scalar(
            "largest_deviation", float(part["deviation"].abs().max()), measure=str(measure), n_columns=len(part)
        )
        for measure, part in found.groupby("measure", sort=False)
    ]


def reading(found: pd.DataFrame) -> str:
    """In how many columns each printed summary follows from the printed rows; a line each."""
    lines = []
    for measure, part in found.groupby("measure", sort=False):
        size, bound = part["deviation"].abs(), TOLERANCE[str(measure)]
        worst = str(part["column"].to_list()[int(size.to_numpy().argmax())])
        lines.append(
            f"{PRINTED[str(measure)]} from the 15 printed rows: within {bound:g} points in "
            f"{int((size < bound).sum())} of {len(part)} columns; largest deviation {size.max():.3f} ({label(worst)})"
        )
    return "\n".join(lines)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """The printed table, all 14 columns, with the two summaries of `recomputed` below those that were printed."""
    again = {(row["measure"], row["column"]): round(float(row["recomputed"]), 2) for row in found.to_dict("records")}
    rows: list[dict[str, str | float]] = []
    for measure, printed in PRINTED.items():
        rows.append({HEAD: printed} | {label(c): column[measure] for c, column in values().items()})
        if measure in TOLERANCE:
            rows.append({HEAD: f"{printed}, recomputed"} | {label(c): again[measure, c] for c in values()})
    return pd.DataFrame(rows, dtype=object)
