"""Boxes over the members of a group, side by side for several methods: ECE over corruptions by severity, say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from helpers import style
from helpers.frames import groups, needed
from helpers.panel_marks import legend_below


def boxes(
    values: pd.DataFrame,
    *,
    x: str,
    x_label: str,
    columns: str,
    rows: Mapping[str, str],
    by: str,
    row: str = "row",
    value: str = "value",
) -> Figure:
    """For each `x` a box of each method (`by`) over its rows: least and largest, middle half, and mean (a line).

    A panel for each value of `columns` and each of `rows` (name → label of its axis); panels of a row share it. A group
    of one number is a line. As in ceb's Fig. 5 the line is the mean and not the median.
    """
    needed(values, [x, columns, by, row, value])
    across, methods = groups(values, columns), list(dict.fromkeys(values[by]))
    colours = dict(zip(methods, [style.METHODS["xent"], style.METHODS["ceb"], *style.OTHERS], strict=False))
    width = 0.8 / len(methods)
    with style.in_style():
        figure = style.canvas(0.9 + 2.6 * len(across), 0.7 + 1.9 * len(rows))
        axes = figure.subplots(len(rows), len(across), sharex="col", sharey="row", squeeze=False)
        for i, (name, label) in enumerate(rows.items()):
            axes[i, 0].set_ylabel(label)
            for j, (column, part) in enumerate(across.items()):
                ax, mine = axes[i, j], part[part[row] == name]
                for k, method in enumerate(methods):
                    stats = [_box(one[value].to_numpy()) for _, one in mine[mine[by] == method].groupby(x)]
                    places = np.sort(mine.loc[mine[by] == method, x].unique()) + (k - (len(methods) - 1) / 2) * width
                    if stats:
                        ax.bxp(stats, positions=places, widths=0.85 * width, showfliers=False, patch_artist=True,
                               manage_ticks=False, medianprops={"color": "#1A1A1A", "linewidth": 1.1},
                               boxprops={"facecolor": colours[method], "alpha": 0.55, "linewidth": 0.5},
                               whiskerprops={"linewidth": 0.7}, capprops={"linewidth": 0.7})  # fmt: skip
                ax.set_xticks(np.sort(mine[x].unique()))
                if i == 0:
                    ax.set_title(style.label(column))
        for ax in axes[-1]:
            ax.set_xlabel(x_label)
        legend_below(figure, [Patch(facecolor=colours[name], alpha=0.55, label=style.label(name)) for name in methods])
    return figure


def _box(numbers: np.ndarray) -> dict[str, float]:
    """What Matplotlib draws a box from, its line being the mean.

    >>> _box(np.array([0.0, 1.0, 2.0, 9.0]))["med"]
    3.0
    """
    low, q1, q3, high = np.quantile(numbers, [0, 0.25, 0.75, 1])
    return {"whislo": float(low), "q1": float(q1), "med": float(numbers.mean()), "q3": float(q3), "whishi": float(high)}
