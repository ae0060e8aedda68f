"""Ladders beside each other: what stands where."""

import numpy as np
import pandas as pd
import pytest

from helpers import plots

WORDS = {"places": "place", "panels": "panel", "knob": "rho", "knob_label": "ρ", "by": "line", "y_label": "error (%)"}


def means():
    rows = [
        {"place": place, "panel": panel, "line": line, "rho": rho, "value": value, "low": value - 1, "high": value + 1}
        for panel in ("ceb", "cceb")
        for k, place in enumerate(("Clean", "Fog"))
        for line, rho, value in (("xent", np.nan, 10 + k), ("ceb", 4.0, 8 + k), ("ceb", 0.0, 6 + k))
    ]
    return pd.DataFrame(rows)


def test_levels_are_lines_and_rungs_are_dots_from_the_lowest_to_the_highest():
    figure = plots.rungs(means(), **WORDS)
    assert [ax.get_title() for ax in figure.axes] == ["CEB", "cCEB"]
    ax = figure.axes[0]
    flat = [line for line in ax.lines if len(line.get_xdata()) == 2 and len(set(line.get_ydata())) == 1]
    assert [line.get_ydata()[0] for line in flat] == [10, 11]
    climbs = [line for line in ax.lines if list(line.get_ydata()) == [6, 8]]
    assert len(climbs) == 1
    x = climbs[0].get_xdata()
    assert -0.5 < x[0] < x[1] < 0.5
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["Clean", "Fog"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["XEnt", "ρ = 0", "ρ = 4"]


def test_levels_alone_and_missing_intervals_are_drawn():
    only = means().query("rho.isna()", engine="python").assign(low=np.nan, high=np.nan)
    figure = plots.rungs(only, **WORDS)
    assert len(figure.axes[0].lines) == 2
    assert not figure.axes[0].collections


def test_roots_spread_small_numbers_and_keep_places_in_order():
    ax = plots.rungs(means(), **WORDS, root=True).axes[0]
    heights = ax.transData.transform([(0, y) for y in (0, 1, 4, 9)])[:, 1]
    assert np.diff(heights) == pytest.approx([heights[1] - heights[0]] * 3)
    assert ax.get_ylim()[0] == 0
    assert ax.get_yticks().tolist() == [0, 1, 2, 5, 10]


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="place"):
        plots.rungs(means().drop(columns="place"), **WORDS)
