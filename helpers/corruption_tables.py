"""CEB's corruption table as readers see it: ours in the paper's layout with published columns beside, and its gains."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from helpers import published_ceb, robustness, style, tables
from helpers.corruption_settings import names
from helpers.published_ceb import BESIDE, PRINTED

__all__ = ["best_rungs", "cells", "gains", "ladder", "named", "panels", "reading", "rising", "table"]

NOT_RUN = "not run"
OURS_ONLY = {"relative_mce": "relative mCE", "imagenet_a_whole": "ImageNet-A, of all 1000 logits"}
SLICED = "imagenet_a_sliced"
NAMES = PRINTED | OURS_ONLY | {SLICED: "ImageNet-A", "pgd_linf": "PGD L∞"}


def named(measure: str) -> str:
    """A measure as the paper prints it.

    >>> named("gaussian_noise"), named("relative_mce")
    ('Gauss. Noise', 'relative mCE')
    """
    return NAMES.get(measure, measure)


def table(scalars: pd.DataFrame, networks: Sequence[str]) -> pd.DataFrame:
    """The paper's rows: clean, mCE, Average CE, 15 corruptions, ImageNet-A, PGD; a column for each of `networks`, then
    the published ones of BESIDE, which say so. What was not run says so.
    """
    theirs = published_ceb.values()
    rows: list[dict[str, Any]] = []
    for measure in PRINTED:
        printed = named(measure)
        own = _line(scalars, networks, SLICED if measure == "imagenet_a" else measure)
        ran = any(value is not None for value in own.values())
        line: dict[str, Any] = {"error (%)": printed if ran else f"{printed} ({NOT_RUN} by us)"} | own
        line |= {f"published: {published_ceb.label(c)}": theirs[c][measure] for c in BESIDE}
        rows.append(line)
    for measure, printed in OURS_ONLY.items():
        if (scalars["measure"] == measure).any():
            rows.insert(2, {"error (%)": printed} | _line(scalars, networks, measure))
    return pd.DataFrame(rows, dtype=object)


def _line(scalars: pd.DataFrame, networks: Sequence[str], measure: str) -> dict[str, tables.Interval | None]:
    found: dict[str, tables.Interval | None] = {}
    for network in networks:
        rows = scalars[(scalars["network"] == network) & (scalars["measure"] == measure)]
        rows = rows[(rows["metric"] != "error_difference") & rows["value"].notna()]
        head = style.label(rows["case"].iloc[0]) if len(rows) else _case(scalars, network)
        found[head] = robustness.interval(rows.iloc[0].to_dict()) if len(rows) else None
    return found


def _case(scalars: pd.DataFrame, network: str) -> str:
    return style.label(scalars.loc[scalars["network"] == network, "case"].iloc[0])


def gains(scalars: pd.DataFrame) -> pd.DataFrame:
    """What each network adds to the errors of the one it is `against`, in points, one row for each measure; beside, the
    least, middle and most that the eight published pairs with cross-entropy have.
    """
    chosen = scalars[scalars["metric"] == "error_difference"]
    theirs = published_ceb.gains()
    rows = []
    for measure in [one for one in PRINTED if (chosen["measure"] == one).any()]:
        line: dict[str, Any] = {"error (%)": named(measure)}
        for row in chosen[chosen["measure"] == measure].to_dict("records"):
            line[_pair(row)] = robustness.interval(row)
        several = [column[measure] for column in theirs.values()]
        spread = {"least": max(several), "middle": statistics.median(several), "most": min(several)}
        rows.append(line | {f"published CEB − XEnt, {k}": round(v, 2) for k, v in spread.items()})
    return pd.DataFrame(rows, dtype=object)


def _pair(row: Mapping[Any, Any]) -> str:
    return f"{style.label(row['case'])} − {style.label(row['against'])}"


def cells(scalars: pd.DataFrame) -> pd.DataFrame:
    """For `plots.heat_map`: errors and differences by corruption and severity, corruptions by their printed names in
    `corruption_name`, the first one last, since a map begins below.
    """
    order = {name: place for place, name in enumerate(reversed(names()))}
    both = scalars.assign(corruption_name=scalars["corruption"].map(named))
    return both.sort_values("corruption", key=lambda column: column.map(order), kind="stable")


def panels(scalars: pd.DataFrame) -> dict[str, str]:
    """The titles of the two maps: metric → whose errors, and which difference."""
    error = scalars[scalars["metric"] == "corruption_error"].iloc[0].to_dict()
    other = scalars[scalars["metric"] == "error_difference"].iloc[0].to_dict()
    return {
        "corruption_error": f"{style.label(error['case'])}: error (%)",
        "error_difference": f"{_pair(other)} (points)",
    }


def ladder(scalars: pd.DataFrame) -> pd.DataFrame:
    """The measures for `plots.rungs`, in the table's order: `place` as printed, `panel` the kind that has values of ρ.

    Networks without one are levels of every panel. Where no network has a ρ, all stand in one panel as they are.
    """
    chosen = scalars[(scalars["metric"] != "error_difference") & scalars["value"].notna()]
    chosen = chosen[chosen["measure"].isin([*PRINTED, SLICED])]
    order = {name: place for place, name in enumerate([*PRINTED, SLICED])}
    chosen = chosen.sort_values("measure", key=lambda column: column.map(order), kind="stable")
    chosen = chosen.assign(place=chosen["measure"].map(named), line=chosen["case"])
    rho = chosen["rho"] if "rho" in chosen else pd.Series(float("nan"), index=chosen.index)
    chosen = chosen.assign(rho=rho)
    kinds = list(dict.fromkeys(chosen.loc[chosen["rho"].notna(), "kind"]))
    if not kinds:
        return chosen.assign(panel="networks")
    levels = chosen[chosen["rho"].isna()]
    return pd.concat([pd.concat([levels, chosen[chosen["kind"] == kind]]).assign(panel=kind) for kind in kinds])


def reading(scalars: pd.DataFrame) -> str:
    """For each pair of networks mCE and Average CE, and on which corruptions the difference is told apart from none."""
    chosen = scalars[scalars["metric"] == "error_difference"]
    lines = []
    for pair in dict.fromkeys(_pair(row) for row in chosen.to_dict("records")):
        mine = {row["measure"]: row for row in chosen.to_dict("records") if _pair(row) == pair}
        less = [named(one) for one in names() if mine[one]["high"] < 0]
        more = [named(one) for one in names() if mine[one]["low"] > 0]
        below = sum(mine[one]["value"] < 0 for one in names())
        best = min(names(), key=lambda one: float(mine[one]["value"]))
        lines.append(
            f"{pair}: mCE {_points(mine['mce'])}, Average CE {_points(mine['average_ce'])} points; lower on {below} of "
            f"{len(names())} corruptions, clearly on {', '.join(less) or 'none'}; clearly higher on "
            f"{', '.join(more) or 'none'}; largest gain {named(best)}, {_points(mine[best])}"
        )
    return "\n".join(lines)


def best_rungs(scalars: pd.DataFrame) -> str:
    """For each kind with values of ρ: at which of them each summary is lowest, and on how many corruptions its lowest
    rung lies below every network without ρ. The choice is made on the very images that are counted. A line each.
    """
    chosen = ladder(scalars)
    lines = []
    for kind, rows in chosen[chosen["rho"].notna()].groupby("kind", sort=False):
        levels = chosen[(chosen["panel"] == kind) & chosen["rho"].isna()]
        lowest = rows.loc[rows.astype({"value": float}).groupby("measure", sort=False)["value"].idxmin().tolist()]
        floor = levels.astype({"value": float}).groupby("measure")["value"].min()
        under = [row for row in lowest.to_dict("records") if row["value"] < floor[row["measure"]]]
        n = sum(row["measure"] in names() for row in under)
        at = {str(row["measure"]): float(row["rho"]) for row in lowest.to_dict("records")}
        said = ", ".join(f"{named(one)} at ρ = {at[one]:g}" for one in ("clean", "mce", "average_ce"))
        lines.append(
            f"{style.label(kind)}: lowest {said}; its lowest rung is below all lines on {n} of {len(names())} "
            f"corruptions (chosen on these images)"
        )
    return "\n".join(lines) or "No network here has a ρ."


def rising(scalars: pd.DataFrame) -> str:
    """On how many corruptions the error of a heat map rises from severity 1 to 5, its highest, and how many of the
    differences are told apart from none, where one in twenty would be by chance.
    """
    errors = scalars[scalars["metric"] == "corruption_error"]
    wide = errors.astype({"value": float}).pivot_table(index="corruption", columns="severity", values="value")
    n, worst = int((wide[5] > wide[1]).sum()), max(errors.to_dict("records"), key=lambda row: float(row["value"]))
    differences = scalars[scalars["metric"] == "error_difference"]
    below, above = int((differences["high"] < 0).sum()), int((differences["low"] > 0).sum())
    return (
        f"{style.label(worst['case'])}: the error rises from severity 1 to 5 on {n} of {len(wide)} corruptions; "
        f"highest {named(worst['corruption'])} at {worst['severity']:g}, {robustness.interval(worst)} %\n"
        f"{_pair(differences.iloc[0].to_dict())}: clearly lower in {below} and clearly higher in {above} of "
        f"{len(differences)} cells, about {len(differences) / 20:.0f} by chance"
    )


def _points(row: Mapping[Any, Any]) -> str:
    return str(robustness.interval(row)).replace("-", "\N{MINUS SIGN}")
