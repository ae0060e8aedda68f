"""Distributions of one quantity over several sets of images: a line of hills for each set, a panel for each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers import style
from helpers.frames import groups, needed

TALL = 0.85  # of the room between two lines that a hill may fill
REACH = (0.002, 0.998)  # quantiles of a panel's values that its axis shows; the few beyond are in the outermost bins


def ridges(
    frame: pd.DataFrame,
    *,
    value: str,
    rows: str,
    panels: str,
    x_label: str,
    colours: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    wrap: int = 3,
    n_bins: int = 60,
) -> Figure:
    """Histograms of `value`, one line for each set (`rows`), one panel for each network (`panels`), axes of their own.

    All lines of a panel share their bins; each histogram is scaled to its own height, so that sets of different size
    compare in shape and place. A tick under each marks its mean. `colours` maps a set to its colour
    (grey where it has none).
    """
    needed(frame, [value, rows, panels])
    shown = groups(frame, panels, order)
    names = list(dict.fromkeys(frame[rows]))
    across = min(wrap, len(shown))
    n_bands = -(-len(shown) // across)
    with style.in_style():
        figure = style.canvas(1.5 + 2.1 * across, n_bands * (0.75 + 0.3 * len(names)))
        axes = figure.subplots(n_bands, across, sharey=True, squeeze=False)
        for ax in axes.flat[len(shown) :]:
            ax.set_visible(False)
        for ax, (network, part) in zip(axes.flat, shown.items(), strict=False):
            values = part[value].to_numpy(dtype=float)
            low, high = np.quantile(values, REACH)
            bins = np.linspace(low, high if high > low else low + 1, n_bins + 1)
            for place, name in enumerate(names):
                own = part.loc[part[rows] == name, value].to_numpy(dtype=float)
                _hill(ax, own, place=place, bins=bins, colour=(colours or {}).get(name, style.NEUTRAL))
            ax.set(title=style.label(network), ylim=(len(names) - 0.9, -1.0))
            ax.grid(axis="y", visible=False)
        axes[0, 0].set_yticks(range(len(names)), [style.label(name) for name in names])
        for ax in axes.flat[max(0, len(shown) - across) : len(shown)]:  # those with no panel below
            ax.set_xlabel(x_label)
    return figure


def _hill(ax: Axes, values: np.ndarray, *, place: int, bins: np.ndarray, colour: str) -> None:
    """One histogram on the line y = `place`, upwards; nothing where a network has no such set."""
    if not len(values):
        return
    counts, _ = np.histogram(np.clip(values, bins[0], bins[-1]), bins)
    height = place - TALL * counts / counts.max()
    ax.stairs(height, bins, baseline=place, fill=True, color=colour, alpha=0.45, linewidth=0)
    ax.stairs(height, bins, baseline=place, color=colour, linewidth=0.9)
    mean = float(np.clip(values.mean(), bins[0], bins[-1]))
    ax.plot([mean, mean], [place, place + 0.12], color="#1A1A1A", linewidth=1.4)
