"""The strip of a ledger: one cell for each claim, coloured and signed by its status."""

from __future__ import annotations

import math
import textwrap

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from helpers import style
from helpers.frames import groups, needed

# Status → colour, sign: told apart in grey too.
STATUSES = {
    "holds": ("#117733", "+"),
    "fails": ("#CC3311", "×"),
    "undecided": ("#DDAA33", "?"),
    "not run": ("#BBBBBB", "–"),
}
COLUMNS = 6
CELL_WIDTH = 18  # characters; a longer id goes on, after a hyphen, in a second line


def status_strip(frame: pd.DataFrame, *, by: str = "paper", name: str = "claim", status: str = "status") -> Figure:
    """One cell for each claim of a ledger, a block for each paper: its id, its status as colour and as sign.

    `frame` has one row for each claim, in the order in which they are shown; the statuses are those of STATUSES.
    """
    needed(frame, [by, name, status])
    if unknown := sorted(set(frame[status]) - set(STATUSES)):
        raise ValueError(f"{status}: expected some of {list(STATUSES)}, got {unknown}")
    papers = groups(frame, by)
    n_rows = [math.ceil(len(rows) / COLUMNS) for rows in papers.values()]
    with style.in_style():
        figure = style.canvas(7.2, 0.42 * sum(n_rows) + 0.3 * len(papers) + 0.6)
        axes = figure.subplots(len(papers), 1, height_ratios=n_rows, squeeze=False)[:, 0]
        for ax, (paper, rows) in zip(axes, papers.items(), strict=True):
            ax.set(xlim=(0, COLUMNS), ylim=(math.ceil(len(rows) / COLUMNS), 0), xticks=[], yticks=[])
            ax.set_title(f"{paper}: {len(rows)} claim{'s' * (len(rows) != 1)}", loc="left")
            ax.spines[:].set_visible(False)
            for place, (claim, said) in enumerate(zip(rows[name], rows[status], strict=True)):
                x, y = place % COLUMNS, place // COLUMNS
                colour, sign = STATUSES[said]
                box = FancyBboxPatch((x + 0.04, y + 0.1), 0.92, 0.8, "round,pad=0,rounding_size=0.06")
                box.set(facecolor=colour, alpha=0.3, linewidth=0)
                ax.add_patch(box)
                said_here = textwrap.fill(f"{sign}  {claim}", CELL_WIDTH)
                ax.text(x + 0.5, y + 0.5, said_here, ha="center", va="center", size=7)
        handles = [Patch(color=c, alpha=0.45, label=f"{sign}  {said}") for said, (c, sign) in STATUSES.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(STATUSES))
    return figure
