"""Heat maps over two settings, with every cell's interval printed in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers import style, tables
from helpers.frames import needed

COLOURS = "cividis"  # read alike with the common kinds of colour blindness, and in grey
BALANCED = "PuOr_r"  # purple below 0, orange above
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: how light a colour looks


def heat_map(
    means: pd.DataFrame,
    *,
    rows: str,
    columns: str,
    panels: Mapping[str, str],
    row_label: str,
    column_label: str,
    wrap: int = 2,
    decimals: int | None = None,
    balanced: Collection[str] = (),
    measure: str = "metric",
    value: str = "value",
    low: str = "low",
    high: str = "high",
) -> Figure:
    """A cell for each pair of `rows` and `columns`, coloured by its value, the interval below; a panel a measure.

    `means` has one row for each pair and `measure`; where `low` and `high` are missing a cell has no interval. `panels`
    maps a measure to its title. Each panel has colours of its own, from its lowest to its highest value, or for the
    measures in `balanced`, which are differences, two colours that meet at 0. Numbers rise upwards and to the right,
    other values stand as they first appear. A pair that is missing is left white. At most `wrap` panels stand beside
    each other. Numbers have as many decimals as their interval deserves, or `decimals`.
    """
    needed(means, [rows, columns, measure, value])
    chosen = means[means[measure].isin(list(panels))]
    if absent := [name for name in panels if name not in set(chosen[measure])]:
        raise ValueError(f"panels: expected some of {sorted(set(means[measure]))}, got {absent}")
    if double := chosen.duplicated([rows, columns, measure]).sum():
        raise ValueError(f"means: expected one row for each {rows}, {columns} and {measure}, got {double} more")
    down, across = _places(chosen[rows]), _places(chosen[columns])
    wide, n_lines = min(wrap, len(panels)), -(-len(panels) // wrap)
    with style.in_style():
        figure = style.canvas(0.9 + (0.4 + 0.84 * len(across)) * wide, 0.3 + (0.65 + 0.46 * len(down)) * n_lines)
        axes = figure.subplots(n_lines, wide, sharex=True, sharey=True, squeeze=False)
        for ax, (name, title) in zip(axes.flat, panels.items(), strict=False):
            cells = chosen[chosen[measure] == name].set_index([rows, columns])
            _panel(
                ax, cells, down=down, across=across, ends=(value, low, high), decimals=decimals, level=name in balanced
            )
            ax.set_title(title)
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        figure.supxlabel(column_label, size=9)
        figure.supylabel(row_label, size=9)
    return figure


def _places(column: pd.Series) -> list[Any]:
    """The values of an axis in their order."""
    found = list(dict.fromkeys(column))
    return sorted(found) if pd.api.types.is_numeric_dtype(column) else found


def _panel(
    ax: Axes, cells: pd.DataFrame, *, down: list[Any], across: list[Any], ends: tuple[str, str, str],
    decimals: int | None, level: bool,
) -> None:  # fmt: skip
    value, low, high = ends
    grid = np.array([[cells[value].get((one, other), np.nan) for other in across] for one in down], dtype=float)
    image = ax.imshow(np.ma.masked_invalid(grid), cmap=BALANCED if level else COLOURS, aspect="auto", origin="lower")
    if level:
        reach = float(np.nanmax(np.abs(grid))) or 1.0
        image.set_clim(-reach, reach)
    for (row, column), number in np.ndenumerate(grid):
        if np.isfinite(number):
            found = cells.loc[(down[row], across[column])]
            said = _said(tables.Interval(number, *(_end(found, name) for name in (low, high))), decimals)
            dark = float(np.dot(_LUMA, image.cmap(image.norm(number))[:3])) < 0.5
            text = said.replace(" [", "\n[").replace("-", "\N{MINUS SIGN}")
            ax.text(column, row, text, ha="center", va="center", size=7, color="white" if dark else "#1A1A1A")
    ax.set_xticks(range(len(across)), [_named(one) for one in across])
    ax.set_yticks(range(len(down)), [_named(one) for one in down])
    ax.grid(visible=False)


def _said(found: tables.Interval, decimals: int | None) -> str:
    """A number with its interval, as it is printed.

    >>> _said(tables.Interval(0.98765, 0.98, 0.999), 2), _said(tables.Interval(0.5, None, None), 2)
    ('0.99 [0.98, 1.00]', '0.50')
    >>> _said(tables.Interval(-0.2, -1.4, 0.3), 0)
    '0 [-1, 0]'
    """
    if decimals is None:
        return str(found)
    several = [one for one in (found.value, found.low, found.high) if one is not None]
    value, *ends = (f"{round(one, decimals) + 0.0:.{decimals}f}" for one in several)  # + 0.0: no minus before a nought
    return f"{value} [{', '.join(ends)}]" if len(ends) == 2 else value


def _end(cell: pd.Series, name: str) -> float | None:
    """An end of a cell's interval, None where it has none."""
    return None if name not in cell or pd.isna(cell[name]) else float(cell[name])


def _named(one: object) -> str:
    return f"{one:g}" if isinstance(one, int | float) else style.label(one)
