"""The plane of marginal against joint energy, where an attack is an arrow (ebm, Fig. 1 b–d)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.quiver import Quiver
from matplotlib.transforms import ScaledTranslation

from helpers import style
from helpers.frames import groups, needed, size


@dataclass(frozen=True)
class Columns:
    """Names of the four columns: natural E(x), E(x, y) and adversarial E(x*), E(x*, y)."""

    x: str = "E"
    y: str = "E_y"
    x_adv: str = "E_adv"
    y_adv: str = "E_y_adv"

    @property
    def all(self) -> tuple[str, str, str, str]:
        """The four names."""
        return self.x, self.y, self.x_adv, self.y_adv


COLUMNS = Columns()
Limits = tuple[tuple[float, float], tuple[float, float]]


def energy_plane(
    frame: pd.DataFrame,
    *,
    panels: str | None = None,
    order: Sequence[str] | None = None,
    columns: Columns = COLUMNS,
    n_arrows: int = 150,
    share_limits: bool = True,
    titles: Mapping[str, str] | None = None,
) -> Figure:
    """E(x) across, E(x, y) up, an arrow from each natural image to its adversarial one (ebm, Fig. 1 b–d).

    On the diagonal CE(x, y) = E(x, y) − E(x) is 0, and CE is the vertical distance above it; nothing can lie below.
    All images are dots; `n_arrows` of them, evenly spaced in the frame's order, have arrows. One panel for each
    value of the column `panels`, all with the same limits or, without `share_limits`, each with its own.
    """
    needed(frame, columns.all)
    parts = groups(frame, panels, order)
    limits = plane_limits(frame, columns)
    with style.in_style():
        across = min(len(parts), 3)
        down = -(-len(parts) // across)
        figure = style.canvas(3.05 * across + 0.35, 3.0 * down + 0.45)
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for ax, (name, part) in zip(axes, parts.items(), strict=False):
            plane(ax, limits if share_limits else plane_limits(part, columns))
            title = (titles or {}).get(name, style.label(name))
            ax.set_title(f"{title}\n{shown(part, n_arrows)}" if name else shown(part, n_arrows), fontsize=8.5)
            draw_arrows(ax, part, columns=columns, n_arrows=n_arrows)
        for ax in axes[len(parts) :]:
            ax.set_visible(False)
        plane_legend(figure)
    return figure


def shown(part: pd.DataFrame, n_arrows: int) -> str:
    """How many images and arrows a panel shows."""
    n = size(part)
    return n if len(part) <= n_arrows else f"{n}, {n_arrows} arrows"


def plane_limits(frame: pd.DataFrame, columns: Columns = COLUMNS) -> Limits:
    """Limits that hold 99.8 % of the points in each direction, with a margin."""
    limits = []
    for pair in ((columns.x, columns.x_adv), (columns.y, columns.y_adv)):
        low, high = np.quantile(frame[list(pair)].to_numpy(), [0.001, 0.999])
        margin = 0.06 * (high - low) or 1.0
        limits.append((float(low - margin), float(high + margin)))
    (left, right), (bottom, top) = limits
    return (left, right), (min(bottom, left), top)  # so that the diagonal, from which CE is read, is in sight


def plane(ax: Axes, limits: Limits) -> None:
    """An empty plane: the diagonal CE = 0 and, grey, what cannot be (CE < 0)."""
    (left, right), (bottom, top) = limits
    ends = np.array([min(left, bottom), max(right, top)])
    ax.fill_between(ends, ends[0] - 1, ends, color="#EFEFEF", linewidth=0, zorder=0)
    ax.plot(ends, ends, color="#4D4D4D", linewidth=1.0, zorder=1)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.set(xlabel=style.quantity("$E(x)$"), ylabel=style.quantity("$E(x, y)$"))
    low, high = max(left, bottom), min(right, top)
    if high > low:
        place = low + 0.62 * (high - low)
        # An annotation's own transform is its offset, so only a plain text turns with the diagonal on the screen.
        below = ScaledTranslation(3 / 72, -3 / 72, ax.figure.dpi_scale_trans)
        ax.text(place, place, "CE = 0", rotation=45, rotation_mode="anchor", transform_rotates_text=True, ha="center",
                va="top", size=7.5, color="#4D4D4D", transform=ax.transData + below, zorder=5)  # fmt: skip


def draw_arrows(ax: Axes, part: pd.DataFrame, *, columns: Columns, n_arrows: int) -> tuple[Quiver, Line2D, Line2D]:
    """All images as dots, some with arrows; returns arrows, natural and adversarial dots, to be moved."""
    natural, adversarial = part[[columns.x, columns.y]].to_numpy(), part[[columns.x_adv, columns.y_adv]].to_numpy()
    rows = spaced(len(part), n_arrows)
    size, alpha = (2.4, 0.85) if len(part) <= 300 else (1.6, 0.4)
    dots: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "markersize": size,
        "markeredgewidth": 0,
        "alpha": alpha,
    }
    (before,) = ax.plot(*natural.T, color=style.NATURAL, zorder=3, **dots)
    (after,) = ax.plot(*adversarial.T, color=style.ADVERSARIAL, zorder=3, **dots)
    arrows = ax.quiver(*natural[rows].T, *(adversarial - natural)[rows].T, angles="xy", scale_units="xy", scale=1,
                       color="#595959", alpha=0.45, width=0.0028, headwidth=5, headlength=6, headaxislength=5.4,
                       zorder=2)  # fmt: skip
    return arrows, before, after


def spaced(n: int, wanted: int) -> np.ndarray:
    """At most `wanted` row numbers of `n`, evenly spaced and always the same.

    >>> spaced(10, 4).tolist(), spaced(2, 4).tolist()
    ([0, 3, 6, 9], [0, 1])
    """
    return np.unique(np.linspace(0, n - 1, min(n, wanted)).round().astype(int))


def plane_legend(figure: Figure) -> None:
    """Below the panels: which dots are which, and what the arrows and the grey mean."""
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4}
    handles = [
        Line2D([], [], color=style.NATURAL, label="natural $x$", **dot),
        Line2D([], [], color=style.ADVERSARIAL, label="adversarial $x^*$", **dot),
        Line2D([], [], color="#595959", marker=r"$\rightarrow$", markersize=9, linestyle="none", label="attack"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.2, handletextpad=0.3)
