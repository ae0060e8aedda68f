"""Curves over a knob in a grid of panels, with the levels of what has no such knob: accuracy over ρ, say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers import style
from helpers.frames import groups, needed
from helpers.panel_marks import legend_below


def ladder(
    means: pd.DataFrame,
    *,
    x: str,
    x_label: str,
    columns: str,
    rows: Mapping[str, str],
    by: str,
    seeds: pd.DataFrame | None = None,
    row: str = "row",
    value: str = "value",
    low: str = "low",
    high: str = "high",
) -> Figure:
    """A panel for each value of `columns` and each of `rows` (name → label of its axis); panels of a row share it.

    `means` has one row for each number. Where `x` is a number it is a point, with its interval, of the curve of `by`;
    where `x` is missing it is a level of that panel: a dashed line across, its interval a band. `low` and `high` may be
    missing. `seeds` has the numbers behind the means with a column `seed`: a thin curve for each.
    Raises ValueError where a panel has no number at all.
    """
    needed(means, [columns, by, row, value])
    across, lines = groups(means, columns), list(dict.fromkeys(means[by]))
    palette, dashes = style.colours(lines), style.lines(lines)
    with style.in_style():
        figure = style.canvas(0.9 + 2.35 * len(across), 0.8 + 1.75 * len(rows))
        axes = figure.subplots(len(rows), len(across), sharex="col", sharey="row", squeeze=False)
        for i, (name, label) in enumerate(rows.items()):
            axes[i, 0].set_ylabel(label)
            for j, (column, part) in enumerate(across.items()):
                mine = part[part[row] == name]
                if mine.empty:
                    raise ValueError(f"means: expected numbers of {name} for {column}, got none")
                if seeds is not None:
                    _thin(axes[i, j], seeds[(seeds[columns] == column) & (seeds[row] == name)], x=x, by=by, value=value,
                          palette=palette)  # fmt: skip
                for line, numbers in groups(mine, by).items():
                    _line(axes[i, j], numbers, x=x, ends=(value, low, high), colour=palette[line], dash=dashes[line])
                if i == 0:
                    axes[i, j].set_title(style.label(column))
        for ax in axes[-1]:
            ax.set_xlabel(x_label)
        legend_below(figure, [_handle(means, line, by=by, x=x, colour=palette[line], dash=dashes[line])
                              for line in lines])  # fmt: skip
    return figure


def _line(ax: Axes, numbers: pd.DataFrame, *, x: str, ends: tuple[str, str, str], colour: str, dash: Any) -> None:
    value, low, high = ends
    for one in numbers[numbers[x].isna()].to_dict("records"):
        ax.axhline(one[value], color=colour, linewidth=1.1, linestyle=style.DASHES[1])
        if not (pd.isna(one[low]) or pd.isna(one[high])):
            ax.axhspan(one[low], one[high], color=colour, alpha=0.10, linewidth=0)
    points = numbers[numbers[x].notna()].sort_values(x)
    if points.empty:
        return
    middle = points[value].to_numpy(dtype=float)
    reach = np.nan_to_num(np.abs(points[[low, high]].to_numpy(dtype=float) - middle[:, None])).T
    ax.errorbar(points[x].to_numpy(dtype=float), middle, reach, fmt="o", markersize=3.5, capsize=2, linewidth=1,
                color=colour)  # fmt: skip
    ax.plot(points[x].to_numpy(dtype=float), middle, color=colour, linestyle=dash)


def _thin(ax: Axes, numbers: pd.DataFrame, *, x: str, by: str, value: str, palette: Mapping[str, str]) -> None:
    """A curve for each seed; what has no `x` has none."""
    for (line, _), part in numbers[numbers[x].notna()].sort_values(x).groupby([by, "seed"], sort=False):
        ax.plot(
            part[x].to_numpy(), part[value].to_numpy(), color=palette[str(line)], linewidth=0.6, alpha=0.7, zorder=1.8
        )


def _handle(means: pd.DataFrame, line: str, *, by: str, x: str, colour: str, dash: Any) -> Line2D:
    level = bool(means.loc[means[by] == line, x].isna().all())
    marker, drawn = (None, style.DASHES[1]) if level else ("o", dash)
    return Line2D([], [], color=colour, marker=marker, markersize=3.5, linestyle=drawn, label=style.label(line))
