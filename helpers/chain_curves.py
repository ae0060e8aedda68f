"""Energies along chains that descend them, step by step, against those of real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from helpers import style
from helpers.frames import groups, needed
from helpers.panel_marks import legend_below, mark_phases

SHARES = (0.1, 0.9)  # of chains or images: the middle 80 %
REAL = {"train": style.DASHES[1], "test": style.DASHES[2]}


def energy_by_step(
    chains: pd.DataFrame,
    real: pd.DataFrame,
    *,
    by: str,
    panels: Mapping[str, str],
    step: str = "step",
    split: str = "split",
    phases: Sequence[tuple[float, str]] = (),
    wrap: int | None = None,
    step_label: str = "step of the chain",
) -> Figure:
    """Mean and middle 80 % of chains at each step, one line for each value of `by`, one panel for each quantity.

    `chains` has one row for each chain, `step` and `by`; `real` one for each real image, of the same classes in the
    same shares, with its `split`. `panels` maps a column of both to the label of its axis. Behind the curves lie the
    means of each split of real images (dashed: train, dotted: test) and the middle 80 % of the test images, grey.
    `phases` are (step, text): a dashed upright line where one begins. With `wrap` so many panels stand in a line.
    """
    needed(chains, [by, step, *panels])
    needed(real, [split, *panels])
    kinds = groups(chains, by)
    palette, dashes = style.colours(kinds), style.lines(kinds)
    with style.in_style():
        across = min(wrap or len(panels), len(panels))
        n_lines = -(-len(panels) // across)
        figure = style.canvas(3.1 * across + 0.4, 2.6 * n_lines + 0.9)
        axes = figure.subplots(n_lines, across, squeeze=False)
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        for ax, (column, label) in zip(axes.flat, panels.items(), strict=False):
            _real(ax, real, column=column, split=split)
            for name, rows in kinds.items():
                _chains(ax, rows, column=column, step=step, colour=palette[name], line=dashes[name])
            ax.set(xlabel=step_label, ylabel=label)
            ax.margins(x=0.01)
            mark_phases(ax, phases)
        handles: list[Line2D | Patch] = [
            Line2D([], [], color=palette[name], linestyle=dashes[name], label=style.label(name)) for name in kinds
        ]
        handles += [
            Line2D([], [], color=style.NEUTRAL, linestyle=REAL.get(name, "-"), label=f"real images, {name}: mean")
            for name in dict.fromkeys(real[split])
        ]
        handles.append(Patch(color=style.NEUTRAL, alpha=0.25, label="middle 80 % of chains, of real test images"))
        legend_below(figure, handles)
    return figure


def _real(ax: Axes, real: pd.DataFrame, *, column: str, split: str) -> None:
    for name, rows in groups(real, split).items():
        values = rows[column].to_numpy(dtype=float)
        if name == "test":
            ax.axhspan(*np.quantile(values, SHARES), color=style.NEUTRAL, alpha=0.15, linewidth=0)
        ax.axhline(float(values.mean()), color=style.NEUTRAL, linewidth=1.0, linestyle=REAL.get(name, "-"))


def _chains(ax: Axes, rows: pd.DataFrame, *, column: str, step: str, colour: str, line: object) -> None:
    by_step = rows.groupby(step)[column]
    mean, low, high = by_step.mean(), by_step.quantile(SHARES[0]), by_step.quantile(SHARES[1])
    ax.fill_between(mean.index, low, high, color=colour, alpha=0.18, linewidth=0)
    ax.plot(mean.index, mean, color=colour, linestyle=line)
