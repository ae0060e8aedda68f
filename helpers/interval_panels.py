"""Panels of means with their intervals: a column of panels for each thing that is varied, a row for each measure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers import style
from helpers.frames import needed
from helpers.panel_marks import legend_below

LABEL_WIDTH = 18  # characters that stand along one panel


def interval_panels(
    means: pd.DataFrame,
    *,
    columns: Mapping[str, tuple[str, str]],
    rows: Mapping[str, str],
    by: str,
    marked: Mapping[str, float] | None = None,
    level: Mapping[str, float] | None = None,
    level_label: str = "",
    measure: str = "metric",
    value: str = "value",
    low: str = "low",
    high: str = "high",
) -> Figure:
    """The mean and its interval over the values of a knob, evenly spaced in rising order; a row shares its axis.

    `columns` maps a value of `by` to the column of `means` that it varies and the label of that axis; `rows` maps a
    measure to the label of its axis. `marked`, by column, is the value that the others are compared with, shown by
    a full dot; `level`, by measure, a line across the row that `level_label` names.
    """
    needed(means, [by, measure, value])
    with style.in_style():
        figure = style.canvas(0.9 + 1.75 * len(columns), 0.7 + 1.35 * len(rows))
        axes = figure.subplots(len(rows), len(columns), sharey="row", squeeze=False)
        for i, (name, label) in enumerate(rows.items()):
            axes[i, 0].set_ylabel(textwrap.fill(label, LABEL_WIDTH))
            for j, (group, (x, x_label)) in enumerate(columns.items()):
                part = means[(means[by] == group) & (means[measure] == name)].sort_values(x)
                if part.empty:
                    raise ValueError(f"means: expected {name} of {group}, got none")
                _panel(axes[i, j], part, x=x, ends=(value, low, high), marked=(marked or {}).get(group))
                if level and name in level:
                    axes[i, j].axhline(level[name], color=style.NEUTRAL, linewidth=0.9, linestyle=style.DASHES[1])
                if i == len(rows) - 1:
                    axes[i, j].set_xlabel(x_label)
                else:
                    axes[i, j].tick_params(labelbottom=False)
        legend_below(figure, _handles(bool(marked), level_label if level else ""))
    return figure


def _panel(ax: Axes, part: pd.DataFrame, *, x: str, ends: tuple[str, str, str], marked: float | None) -> None:
    value, low, high = ends
    middle, place = part[value].to_numpy(dtype=float), np.arange(len(part))
    both = part[[low, high]].to_numpy(dtype=float)
    reach = np.nan_to_num(np.abs(both - middle[:, None])).T
    ax.errorbar(place, middle, reach, fmt="-", capsize=2.5, linewidth=1.2, color=style.NATURAL)
    full = np.array([marked is not None and one == marked for one in part[x]])
    for which, face in ((full, style.NATURAL), (~full, "white")):
        ax.plot(place[which], middle[which], "o", markersize=5, color=style.NATURAL, markerfacecolor=face)
    ax.set_xticks(place, [f"{one:g}" for one in part[x]])
    ax.set_xlim(-0.4, len(part) - 0.6)


def _handles(marked: bool, level_label: str) -> list[Line2D]:
    found = [Line2D([], [], marker="o", color=style.NATURAL, markerfacecolor="white", label="mean, 95 % interval")]
    if marked:
        found.append(Line2D([], [], marker="o", linestyle="", color=style.NATURAL, label="base setting"))
    if level_label:
        found.append(Line2D([], [], color=style.NEUTRAL, linewidth=0.9, linestyle=style.DASHES[1], label=level_label))
    return found
