"""The corruption table that Fischer & Alemi (2020) printed: read, recomputed from its own rows, and its gains over XEnt.

Errors in %, 21 measures of 14 ImageNet networks (params/published/ceb_table.csv), named as in
`helpers.corruption_scores`. Every column with a bottleneck has a twin trained with cross-entropy (XEnt).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import pandas as pd

from helpers import corruption_errors, records, tables
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
TOLERANCE = {"mce": 0.05, "average_ce": 0.055}  # of numbers printed to 0.1: the sums of 15 rows round once more


@lru_cache(maxsize=1)
def values() -> pd.DataFrame:
    """The printed table: measures (rows of PRINTED) by the 14 columns' names."""
    found = pd.read_csv(FOLDER / "ceb_table.csv").set_index("metric")
    return found.loc[list(PRINTED.values())].set_axis(list(PRINTED), axis=0)


@lru_cache(maxsize=1)
def _columns() -> Mapping[str, dict[str, object]]:
    found = pd.read_csv(FOLDER / "ceb_table_columns.csv", dtype={"rho": str}, keep_default_na=False)
    return {str(row["column"]): {str(k): v for k, v in row.items()} for row in found.to_dict("records")}


def label(column: str) -> str:
    """A column's head.

    >>> label("R50x2_CEB_rho3"), label("R50_noAA_XEnt")
    ('ResNet50x2 CEB, ρ = 3', 'ResNet50 XEnt, no AutoAugment')
    """
    facts = _columns()[column]
    rho = f", ρ = {facts['rho']}" if facts["rho"] else ""
    plain = "" if facts["autoaugment"] == "yes" else ", no AutoAugment"
    architecture = f"ResNet{facts['depth']}" + ("x2" if str(facts["width_multiplier"]) == "2" else "")
    return f"{architecture} {facts['objective']}{rho}{plain}"


def _twin(column: str) -> str:
    """The cross-entropy column of the same architecture and augmentation."""
    facts, same = _columns()[column], ("depth", "width_multiplier", "autoaugment")
    return next(
        name
        for name, other in _columns().items()
        if other["objective"] == "XEnt" and all(other[key] == facts[key] for key in same)
    )


def gains() -> pd.DataFrame:
    """Printed error less that of the twin, in points: measures by the eight columns with a bottleneck.

    >>> round(float(gains().loc["mce", "R50_noAA_CEB_rho4"]), 1)
    -5.0
    """
    found = values()
    return pd.DataFrame({name: found[name] - found[_twin(name)] for name in found if _columns()[name]["rho"]})


def recomputed() -> pd.DataFrame:
    """mCE and Average CE from the 15 printed rows: `column`, `measure`, `printed`, `recomputed`, `deviation`, one row each."""
    found, divisor = values(), corruption_errors.over_severities(corruption_errors.alexnet())
    rows = []
    for column in found:
        ce = {name: float(found.loc[name, column]) for name in names()}
        ours = {"mce": corruption_errors.mce(ce, reference=divisor), "average_ce": corruption_errors.average_ce(ce)}
        for measure, value in ours.items():
            printed = float(found.loc[measure, column])
            where = {"column": str(column), "measure": measure}
            rows.append({**where, "printed": printed, "recomputed": value, "deviation": value - printed})
    return pd.DataFrame(rows)


def summary(found: pd.DataFrame) -> list[records.Scalar]:
    """Scalars for a record of `recomputed`: the largest deviation of each summary over the columns."""
    return [
        records.scalar("largest_deviation", float(part["deviation"].abs().max()), n=len(part), measure=str(measure))
        for measure, part in found.groupby("measure", sort=False)
    ]


def reading(found: pd.DataFrame) -> str:
    """In how many columns each printed summary follows from the printed rows; a line each."""
    lines = []
    for measure, part in found.groupby("measure", sort=False):
        size, bound = part["deviation"].abs(), TOLERANCE[str(measure)]
        worst = part.loc[size.idxmax(), "column"]
        lines.append(
            f"{PRINTED[str(measure)]} from the 15 printed rows: within {bound:g} points in {int((size < bound).sum())} of "
            f"{len(part)} columns; largest deviation {size.max():.3f} ({label(worst)})"
        )
    return "\n".join(lines)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """The printed table, all 14 columns, with the two summaries of `recomputed` below those that were printed."""
    again = found.pivot(index="measure", columns="column", values="recomputed")
    rows = []
    for measure, row in values().iterrows():
        rows.append({"published error (%)": PRINTED[str(measure)]} | {label(str(c)): float(v) for c, v in row.items()})
        if measure in again.index:
            line = {label(str(c)): tables.Interval(round(float(again.loc[measure, c]), 2), None, None) for c in row.index}
            rows.append({"published error (%)": f"{PRINTED[str(measure)]}, recomputed"} | line)
    return pd.DataFrame(rows, dtype=object)
