"""Means with their intervals, one line for each method, one panel for each measure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, ScalarFormatter

from helpers import style
from helpers.frames import groups, needed


def interval_dots(
    means: pd.DataFrame,
    *,
    by: str,
    panels: Mapping[str, str],
    seeds: pd.DataFrame | None = None,
    measure: str = "measure",
    value: str = "value",
    low: str = "low",
    high: str = "high",
    each: str = "a seed",
    mark: str = "mean, 95 % interval",
    level: float | None = None,
    log: bool = False,
    colour: str | None = None,
) -> Figure:
    """A dot with its interval for each method (`by`, from top to bottom) and, small, its seeds; a panel a measure.

    `means` has one row for each method and `measure`; `low` and `high` may be missing in a row, which then has no bar.
    `seeds` has one row for each method, measure and seed, or whatever `each` calls the small marks; `mark` says what a
    dot with its interval is. `panels` maps a
    measure to the label of its axis.
    `level` is a value with a line across all methods, `log` makes the axes logarithmic.
    Methods have their own colours; `colour` is one for all lines, where they are no methods.
    """
    needed(means, [by, measure, value])
    methods = groups(means, by)
    # A line has a label of its own, so variants of one method keep its colour.
    palette = {name: colour or style.colours([name])[name] for name in methods}
    with style.in_style():
        figure = style.canvas(1.9 + 2.1 * len(panels), 0.8 + 0.3 * len(methods))
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (name, label) in zip(axes, panels.items(), strict=True):
            for place, (method, rows) in enumerate(methods.items()):
                for row in rows[rows[measure] == name].to_dict("records"):
                    ends = np.array([[row[low]], [row[high]]], dtype=float)
                    reach = np.nan_to_num(np.abs(ends - row[value]))
                    ax.errorbar(row[value], place, xerr=reach, fmt="o", markersize=5, capsize=3, linewidth=1.4,
                                color=palette[method])  # fmt: skip
                if seeds is not None:
                    own = seeds[(seeds[by] == method) & (seeds[measure] == name)][value]
                    ax.plot(own, np.full(len(own), place + 0.22), "|", markersize=6, color=palette[method], alpha=0.8)
            if level is not None:
                ax.axvline(level, color=style.NEUTRAL, linewidth=0.9, linestyle=style.DASHES[1])
            if log:
                ax.set_xscale("log")
                ax.xaxis.set_major_formatter(ScalarFormatter())
                ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set(xlabel=label, ylim=(len(methods) - 0.5, -0.5))
            ax.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(methods)), [style.label(name) for name in methods])
        handles = [Line2D([], [], marker="o", color=style.NEUTRAL, label=mark)]
        if seeds is not None:
            handles.append(Line2D([], [], marker="|", linestyle="", color=style.NEUTRAL, label=each))
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
