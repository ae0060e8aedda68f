"""Ladders beside each other: at each place levels of some methods, and rungs of one over a knob (ceb, Figs. 3, 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers import style
from helpers.frames import groups, needed
from helpers.panel_marks import legend_below

WIDTH = 0.8  # of a place, across which its marks are spread


def rungs(
    means: pd.DataFrame,
    *,
    places: str,
    panels: str,
    knob: str,
    knob_label: str,
    by: str,
    y_label: str,
    root: bool = False,
    value: str = "value",
    low: str = "low",
    high: str = "high",
) -> Figure:
    """A panel for each value of `panels`, all with the same `places` from left to right.

    `means` has one row for each number. Where `knob` is missing the row of `by` is a level: a line across its place,
    with its interval as a band. Where it is a number it is a rung: a dot with its interval, from the knob's lowest
    value at the left to its highest, joined by a line. Places have a grid line between them. With `root` heights
    are square roots, so that small shares are told apart beside large ones; numbers are then not negative.
    """
    needed(means, [places, panels, by, value])
    order = list(dict.fromkeys(means[places]))
    levels = list(dict.fromkeys(means.loc[means[knob].isna(), by]))
    steps = sorted(means[knob].dropna().unique())
    palette = style.colours(levels)
    shades = dict(zip(steps, mpl.colormaps["viridis"](np.linspace(0.0, 0.9, len(steps))), strict=True))
    split = groups(means, panels)
    with style.in_style():
        figure = style.canvas(1.0 + 0.48 * len(order), 1.1 + 2.5 * len(split))
        axes = figure.subplots(len(split), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for ax, (name, rows) in zip(axes, split.items(), strict=True):
            for at, place in enumerate(order):
                here = rows[rows[places] == place]
                _levels(ax, here[here[knob].isna()], at=at, by=by, palette=palette, ends=(value, low, high))
                _rungs(ax, here[here[knob].notna()], at=at, knob=knob, shades=shades, ends=(value, low, high))
            ax.set(title=style.label(name), ylabel=y_label, xlim=(-0.5, len(order) - 0.5))
            if root:
                _rooted(ax, float(np.nanmax(means[[value, high]].to_numpy(dtype=float))))
            ax.set_xticks(np.arange(len(order)), order, rotation=60, ha="right", rotation_mode="anchor")
            ax.set_xticks(np.arange(len(order) - 1) + 0.5, minor=True)
            ax.grid(visible=False, axis="x", which="major")
            ax.grid(visible=True, axis="x", which="minor")
            ax.tick_params(axis="x", which="minor", length=0)
        legend_below(figure, _handles(levels, palette, shades, knob_label=knob_label))
    return figure


def _levels(
    ax: Axes, rows: pd.DataFrame, *, at: int, by: str, palette: Mapping[str, str], ends: tuple[str, str, str]
) -> None:
    value, low, high = ends
    span = np.array([at - WIDTH / 2, at + WIDTH / 2])
    for row in rows.to_dict("records"):
        colour = palette[str(row[by])]
        ax.plot(span, [row[value]] * 2, color=colour, linewidth=1.4, solid_capstyle="butt")
        if not (pd.isna(row[low]) or pd.isna(row[high])):
            ax.fill_between(span, row[low], row[high], color=colour, alpha=0.13, linewidth=0)


def _rungs(
    ax: Axes, rows: pd.DataFrame, *, at: int, knob: str, shades: Mapping[Any, Any], ends: tuple[str, str, str]
) -> None:
    value, low, high = ends
    rows = rows.sort_values(knob)
    if rows.empty:
        return
    spread = np.linspace(-WIDTH / 2 + 0.08, WIDTH / 2 - 0.08, len(shades)) if len(shades) > 1 else np.zeros(1)
    where = dict(zip(shades, at + spread, strict=True))
    x, y = np.array([where[one] for one in rows[knob]]), rows[value].to_numpy(dtype=float)
    ax.plot(x, y, color=style.NEUTRAL, linewidth=0.7, zorder=2)
    reach = np.nan_to_num(np.abs(rows[[low, high]].to_numpy(dtype=float) - y[:, None])).T
    for one, middle, ends_of, step in zip(x, y, reach.T, rows[knob], strict=True):
        ax.errorbar(one, middle, ends_of[:, None], fmt="o", markersize=3.4, linewidth=0.9, color=shades[step], zorder=3)


def _rooted(ax: Axes, highest: float) -> None:
    ax.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0.0)), np.square))
    ax.set_ylim(0, 1.03 * highest)
    ax.set_yticks([tick for tick in (0, 1, 2, 5, 10, 20, 40, 60, 80, 100, 125, 150, 200) if tick <= highest])


def _handles(
    levels: list[str], palette: Mapping[str, str], shades: Mapping[Any, Any], *, knob_label: str
) -> list[Line2D]:
    lines = [Line2D([], [], color=palette[name], linewidth=1.4, label=style.label(name)) for name in levels]
    dots = [
        Line2D([], [], color=shade, marker="o", markersize=3.4, linestyle="", label=f"{knob_label} = {step:g}")
        for step, shade in shades.items()
    ]
    return lines + dots
