"""Weights of images as a curve over their energy, and how the images lie along it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers import style
from helpers.frames import groups, needed


def weight_curve(
    frame: pd.DataFrame,
    *,
    curve: Callable[[np.ndarray], np.ndarray],
    energy: str = "E",
    weight: str = "weight",
    seed: str = "seed",
    weight_label: str = r"$w(x)$",
    reach: float = 2.0,
    n_bins: int = 50,
) -> Figure:
    """The curve w(E) with the images' own weights on it and their mean; below it the histogram of E(x), seed by seed.

    `frame` has one row for each seed and image, `curve` maps energies (n,) to weights. The axis goes on to `reach` nat
    past zero (or past the highest energy), so that the side on which the images lie is seen.
    """
    needed(frame, [energy, weight, seed])
    low, high = float(frame[energy].min()), max(float(frame[energy].max()), 0.0) + reach
    grid = np.linspace(low - 0.5, high, 400)
    with style.in_style():
        figure = style.canvas(5.6, 4.0)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        upper.plot(grid, curve(grid), color=style.NEUTRAL, linewidth=1.0)
        upper.scatter(frame[energy], frame[weight], s=7, color=style.NATURAL, alpha=0.25, linewidth=0, rasterized=True)
        upper.axhline(frame[weight].mean(), color=style.ADVERSARIAL, linewidth=1.0, linestyle=style.DASHES[1])
        upper.set(ylabel=weight_label, ylim=(0, None))
        bins = np.linspace(low, max(float(frame[energy].max()), low + 1e-6), n_bins + 1)
        for _, part in groups(frame, seed).items():
            lower.hist(part[energy], list(bins), histtype="stepfilled", color=style.NATURAL, alpha=0.18, linewidth=0)
            lower.hist(part[energy], list(bins), histtype="step", color=style.NATURAL, linewidth=0.8)
        for ax in (upper, lower):
            ax.axvline(0, color="#1A1A1A", linewidth=0.8, zorder=1)
        lower.set(xlabel=style.quantity("$E(x)$"), ylabel="images")
        handles = [
            Line2D([], [], color=style.NEUTRAL, label="$w(E)$"),
            Line2D([], [], color=style.NATURAL, marker="o", linestyle="", markersize=4, label="training images"),
            Line2D([], [], color=style.ADVERSARIAL, linestyle=style.DASHES[1], label="mean weight"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
