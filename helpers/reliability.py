"""Reliability diagrams: how often a network is right where it is how sure, and how often it is so sure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from helpers import style
from helpers.frames import groups, needed

COLUMNS = ("low", "high", "count", "confidence", "accuracy", "accuracy_low", "accuracy_high")  # as calibration.Bins has


def reliability(bins: pd.DataFrame, *, by: str, notes: Mapping[str, str] | None = None, wrap: int = 3) -> Figure:
    """For each network (`by`) the accuracy of each bin with Wilson's interval, below the share of images in it.

    `bins` has one row for each network and bin with the columns of `calibration.Bins` (percent; an empty bin has NaN
    for its means). A bar is a bin's accuracy; its interval stands at the bin's mean confidence, and where it crosses
    the diagonal, confidence = accuracy, nothing is told against the network there. Above the diagonal a network is
    not sure enough, below it too sure. `notes` are printed under the names, as a rule the ECE. A line holds at most
    `wrap` panels.
    """
    needed(bins, [by, "low", "high", "count"])
    if missing := [name for name in COLUMNS if name not in bins]:
        raise ValueError(f"bins: expected columns {missing}, got {list(bins.columns)}")
    networks = groups(bins, by)
    across = min(wrap, len(networks))
    n_bands = -(-len(networks) // across)
    palette = style.colours(networks)
    with style.in_style():
        figure = style.canvas(max(4.4, 0.7 + 2.1 * across), 0.5 + 2.85 * n_bands)
        axes = figure.subplots(2 * n_bands, across, sharex=True, height_ratios=[3, 1] * n_bands, squeeze=False)
        top = 1.08 * max(float((100 * rows["count"] / rows["count"].sum()).max()) for rows in networks.values())
        for place in range(n_bands * across):
            upper, lower = axes[2 * (place // across) : 2 * (place // across) + 2, place % across]
            if place >= len(networks):
                upper.set_visible(False)
                lower.set_visible(False)
                continue
            name = list(networks)[place]
            _accuracies(upper, networks[name], colour=palette[name])
            _shares(lower, networks[name], colour=palette[name], top=top)
            note = (notes or {}).get(name)
            upper.set_title(style.label(name) + (f"\n{note}" if note else ""), size=8.5)
            if place % across == 0:
                upper.set_ylabel("accuracy (%)")
                lower.set_ylabel("images (%)")
        figure.legend(handles=_handles(), loc="outside lower center", ncols=3)
    return figure


def _accuracies(ax: Axes, rows: pd.DataFrame, *, colour: str) -> None:
    rows = rows[rows["count"] > 0]
    ax.bar(rows["low"], rows["accuracy"], rows["high"] - rows["low"], align="edge", color=colour, alpha=0.35,
           edgecolor=colour, linewidth=0.6)  # fmt: skip
    # The ends themselves, since equal-mass bins round them to whole images and may miss the accuracy by a hair.
    ax.vlines(rows["confidence"], rows["accuracy_low"], rows["accuracy_high"], color="#1A1A1A", linewidth=1.1)
    ax.plot(rows["confidence"], rows["accuracy"], "o", color="#1A1A1A", markersize=3)
    ax.plot([0, 100], [0, 100], color=style.NEUTRAL, linewidth=0.9, linestyle=style.DASHES[1], zorder=1.5)
    ax.set(xlim=(0, 100), ylim=(0, 102))


def _shares(ax: Axes, rows: pd.DataFrame, *, colour: str, top: float) -> None:
    share = 100 * rows["count"] / rows["count"].sum()
    ax.bar(rows["low"], share, rows["high"] - rows["low"], align="edge", color=colour, alpha=0.6, linewidth=0)
    confidence = float(np.nansum(rows["count"] * rows["confidence"]) / rows["count"].sum())
    accuracy = float(np.nansum(rows["count"] * rows["accuracy"]) / rows["count"].sum())
    ax.axvline(confidence, color="#1A1A1A", linewidth=1.0)
    ax.axvline(accuracy, color=style.ADVERSARIAL, linewidth=1.0, linestyle=style.DASHES[1])
    ax.set(xlabel="confidence (%)", ylim=(0, top))
    ax.tick_params(labelbottom=True)


def _handles() -> list[Line2D | Patch]:
    return [
        Line2D([], [], marker="o", color="#1A1A1A", markersize=3, label="accuracy, 95 % Wilson interval"),
        Line2D([], [], color=style.NEUTRAL, linestyle=style.DASHES[1], label="confidence = accuracy"),
        Line2D([], [], color="#1A1A1A", label="mean confidence (below)"),
        Line2D([], [], color=style.ADVERSARIAL, linestyle=style.DASHES[1], label="accuracy (below)"),
    ]
