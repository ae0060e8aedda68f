"""The end of a sweep: every point's numbers in one tidy table, a CSV, a record and a figure. No torch."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers import files, parameters, plots, records, style, tables
from helpers.scalars import RESERVED
from helpers.sweeps import Point, Sweep, missing, values


def write(sweep: Sweep) -> int:
    """Write <sweep>.csv, the record and the figure of the points that are done; 1 where none is.

    A point that is not done is told on stderr, with the reason, and left out.
    """
    lacking = missing(sweep)
    for name, reason in lacking.items():
        print(f"left out, {name}: {reason}", file=sys.stderr)
    rows = [row for point in sweep.points if point.name not in lacking for row in numbers(sweep, point)]
    if not rows:
        print(f"{sweep.name}: no point of {len(sweep.points)} has results", file=sys.stderr)
        return 1
    frame = pd.DataFrame(rows)
    files.write_text(sweep.table, tables.as_csv(frame.astype(object).where(frame.notna(), None)))
    p = parameters.Parameters(
        sweep.notebook, sweep.profile, values=parameters.read(sweep.notebook, sweep.profile), folder=sweep.home
    )
    record = records.save(p, "sweep", scalars=[_scalar(row) for row in rows])
    _figure(sweep, frame, p=p, record=record, n_missing=len(lacking))
    print(sweep.table.relative_to(parameters.ROOT))
    return 0


def numbers(sweep: Sweep, point: Point) -> list[dict[str, Any]]:
    """The scalars of all records that the point's notebook made, the swept values first.

    A scalar's own key that has the name of a swept column is called `of_<key>`.
    """
    folder = values(sweep, point).folder
    finished = files.read_json(folder / "finished.json")
    rows = []
    for one in finished["outputs"]:
        if one["kind"] == "record":
            for scalar in records.load(folder / f"{one['name']}.json").content["scalars"]:
                rows.append(_row(point, one["name"], scalar))
    return rows


def _row(point: Point, record: str, scalar: Mapping[str, Any]) -> dict[str, Any]:
    head = {**{key: _cell(value) for key, value in point.swept.items()}, "point": point.name, "record": record}
    measured = {key: scalar[key] for key in RESERVED if key != "id"}
    measured["seeds"] = None if scalar["seeds"] is None else " ".join(map(str, scalar["seeds"]))
    where = {f"of_{key}" if key in head else key: value for key, value in scalar.items() if key not in RESERVED}
    return {**head, **where, **{key: value for key, value in measured.items()}}


def _cell(value: Any) -> Any:
    """A swept value as a cell of the table: a list of one as that one, so that a number stays a number.

    >>> _cell([0.5]), _cell(["fgsm", "pgd_ce"]), _cell(3)
    (0.5, 'fgsm+pgd_ce', 3)
    """
    if not isinstance(value, list):
        return value
    return value[0] if len(value) == 1 else "+".join(map(str, value))


def _scalar(row: Mapping[str, Any]) -> records.Scalar:
    where = {key: value for key, value in row.items() if key not in RESERVED}
    seeds = None if row["seeds"] is None else [int(seed) for seed in row["seeds"].split()]
    ends = None if row["low"] is None else (row["low"], row["high"])
    kind, level = row["interval_kind"], row["level"]
    return records.scalar(
        row["metric"], row["value"], n=row["n"], seeds=seeds, interval=ends, interval_kind=kind, level=level, **where
    )


def _figure(
    sweep: Sweep, frame: pd.DataFrame, *, p: parameters.Parameters, record: records.Record, n_missing: int
) -> None:
    picture = sweep.figure
    if picture is None:
        return
    shown = frame[frame["metric"] == picture.metric]
    for key, value in picture.where:
        shown = shown[shown[key] == value] if key in shown else shown.iloc[:0]
    shown = shown.dropna(subset=["value"])
    by = [name for name in picture.by if name in shown]
    if shown.empty or not by:
        print(f"no figure: no {picture.metric} that it asks for", file=sys.stderr)
        return
    term = (parameters.recipe_terms() | parameters.glossary())[picture.x]
    metric = parameters.metrics()[picture.metric]
    line = shown[by].map(style.label).agg(", ".join, axis=1)
    figure = plots.interval_curves(
        shown.assign(line=line),
        x=picture.x,
        by="line",
        x_label=_axis(term.meaning, term.unit),
        y_label=textwrap.fill(_axis(metric.meaning, metric.unit), 40),
    )
    caption = f"{sweep.title}: {metric.meaning.partition(';')[0]}, by {picture.x}, with 95 % intervals"
    caption += f"; {n_missing} of {len(sweep.points)} points are missing." if n_missing else "."
    plots.save(figure, p, "sweep", record, caption=caption)


def _axis(meaning: str, unit: str) -> str:
    """An axis' label in the glossary's words.

    >>> _axis("steps of the attack", "step"), _axis("mean of E(x) − E(x*); positive where lowered", "nat")
    ('steps of the attack', 'mean of E(x) − E(x*) (nat)')
    """
    words = meaning.partition(";")[0]
    said = unit in ("", "1") or {unit, f"{unit}s"} & set(words.split())
    return words if said else style.quantity(words, unit)
