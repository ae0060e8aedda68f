"""Where a phase begins in a picture over steps or epochs."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from helpers import style


def mark_phases(ax: Axes, phases: Sequence[tuple[float, str]]) -> None:
    """A dashed upright line at each (place, text) where a phase begins, with its text above the axes."""
    for place, text in phases:
        ax.axvline(place, color=style.NEUTRAL, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
        ax.annotate(text, (place, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 2), size=7.5,
                    textcoords="offset points", ha="left", va="bottom", color=style.NEUTRAL)  # fmt: skip
