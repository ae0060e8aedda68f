"""Curves of numbers that carry their own interval, such as the scalars of a sweep."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers import style
from helpers.frames import groups, needed


def interval_curves(
    frame: pd.DataFrame,
    *,
    x: str,
    by: str,
    x_label: str,
    y_label: str,
    value: str = "value",
    low: str = "low",
    high: str = "high",
) -> Figure:
    """A line for each value of `by` through the mean at each `x`, and every row's own interval as an error bar.

    `frame` has one row for each number; `low` and `high` may be missing in a row, which then has no bar. An `x` that
    is not numbers stands in the order in which it first appears.
    """
    needed(frame, [x, by, value, low, high][:3])
    lines = groups(frame, by)
    palette, dashes = style.colours(lines), style.lines(lines)
    names = None if pd.api.types.is_numeric_dtype(frame[x]) else list(dict.fromkeys(frame[x]))
    with style.in_style():
        figure = style.canvas(6.2, 3.6)
        ax = figure.subplots()
        for name, rows in lines.items():
            place = rows[x].to_numpy(dtype=float) if names is None else np.array([names.index(one) for one in rows[x]])
            middle = rows[value].to_numpy(dtype=float)
            ends = rows[[low, high]].to_numpy(dtype=float)
            reach = np.nan_to_num(np.abs(ends - middle[:, None])).T
            ax.errorbar(place, middle, reach, fmt="o", markersize=3, capsize=2, linewidth=1, color=palette[name])
            at = np.unique(place)
            mean = [middle[place == one].mean() for one in at]
            ax.plot(at, mean, color=palette[name], linestyle=dashes[name], label=style.label(name))
        if names is not None:
            ax.set_xticks(range(len(names)), [style.label(one) for one in names])
        ax.set(xlabel=x_label, ylabel=y_label)
        figure.legend(loc="outside lower center", ncols=2)
    return figure
