"""The plane of information: what of X a latent keeps beyond Y against what it keeps of Y, with the MNI point."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers import style
from helpers.frames import groups, needed
from helpers.panel_marks import legend_below

NEAR = 1.0  # nat, up to which the axis of I(X;Z|Y) is linear


def information_plane(places: pd.DataFrame, *, by: str, most: float) -> Figure:
    """I(X;Z|Y) against I(Y;Z) in nats: the networks with a `rho` as a path from large to small, others as crosses.

    `places` has one row for each network: x, y, their intervals x_low … y_high (NaN: none), `rho` (NaN: none) and `by`.
    `most` is H(Y): a star at (0, H(Y)) is the minimum necessary information, a line no classifier gets above.
    """
    needed(places, [by, "x", "y"])
    families = groups(places, by)
    palette = dict(zip(families, style.OTHERS, strict=False))
    with style.in_style():
        figure = style.canvas(6.2, 4.2)
        ax = figure.subplots()
        ax.set_xscale("symlog", linthresh=NEAR)
        for name, rows in families.items():
            for kind, face in ((rows["rho"].notna(), "o"), (rows["rho"].isna(), "X")):
                part = rows[kind].sort_values("rho", ascending=False)
                if len(part):
                    middle = part[["x", "y"]].to_numpy(dtype=float)
                    ends = part[["x_low", "x_high", "y_low", "y_high"]].to_numpy(dtype=float)
                    reach = np.nan_to_num(np.abs(ends - np.repeat(middle, 2, axis=1))).T
                    ax.errorbar(middle[:, 0], middle[:, 1], reach[2:], reach[:2], fmt=face, capsize=0,
                                markersize=5 if face == "o" else 8,
                                linewidth=0.8, color=palette[name])  # fmt: skip
                    ax.plot(middle[:, 0], middle[:, 1], color=palette[name], linewidth=0.9)
            for row in rows[rows["rho"].notna()].to_dict("records"):
                ax.annotate(f"{row['rho']:g}", (row["x"], row["y"]), xytext=(3, 4), textcoords="offset points",
                            size=7.5, color=palette[name])  # fmt: skip
        ax.axhline(most, color=style.NEUTRAL, linewidth=0.9, linestyle=style.DASHES[1])
        ax.plot(0, most, "*", color="#1A1A1A", markersize=12, clip_on=False, zorder=4)
        ax.set(xlabel="Rex on class means: I(X;Z|Y) or more (nat)", ylabel="H(Y) − H(Y|Z): I(Y;Z) or less (nat)")
        ax.set_xlim(left=0)
        legend_below(figure, [*_handles(palette)])
    return figure


def _handles(palette: dict[str, str]) -> list[Line2D]:
    dark = "#1A1A1A"
    return [
        *(Line2D([], [], color=colour, marker="o", label=style.label(name)) for name, colour in palette.items()),
        Line2D([], [], color=style.NEUTRAL, marker="o", linestyle="", label="a ρ, its number beside it"),
        Line2D([], [], color=style.NEUTRAL, marker="X", linestyle="", label="γ = 0"),
        Line2D([], [], color=dark, marker="*", linestyle="", markersize=10, label="MNI; dashed: H(Y)"),
    ]
