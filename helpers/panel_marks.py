"""What several kinds of panels carry: a legend under them, and where a phase over steps or epochs begins."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from helpers import style


def mark_phases(ax: Axes, phases: Sequence[tuple[float, str]]) -> None:
    """A dashed upright line at each (place, text) where a phase begins, with its text above the axes."""
    for place, text in phases:
        ax.axvline(place, color=style.NEUTRAL, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
        ax.annotate(text, (place, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 2), size=7.5,
                    textcoords="offset points", ha="left", va="bottom", color=style.NEUTRAL)  # fmt: skip


def legend_below(figure: Figure, handles: Sequence[Patch | Line2D]) -> None:
    """A legend under the axes, in as many columns (at most 3) as its longest text leaves room for."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    ncols = int(figure.get_figwidth() / (0.06 * longest + 0.5))  # inches: a letter of 8 points, a handle with its gaps
    figure.legend(handles=handles, loc="outside lower center", ncols=min(max(ncols, 1), 3))
