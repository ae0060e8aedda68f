"""Figures over ρ, in the plane of information, and boxes: where marks stand, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from helpers import plots


def means():
    rows = [
        {"family": family, "row": row, "kind": kind, "rho": rho, "value": value, "low": value - 5, "high": value + 5}
        for family in ("batch_norm", "no_norm")
        for row in ("clean", "linf")
        for kind, rho, value in (("ceb", 2.0, 60.0), ("ceb", 0.0, 80.0), ("xent", np.nan, 50.0))
    ]
    return pd.DataFrame(rows)


def ladder(frame, rows=None):
    rows = rows or {"clean": "clean (%)", "linf": "L∞ (%)"}
    return plots.ladder(frame, x="rho", x_label="ρ", columns="family", rows=rows, by="kind")


def test_curves_in_rising_order_and_levels_across():
    figure = ladder(means())
    assert len(figure.axes) == 4
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    curve = next(line for line in lines if list(line.get_xdata()) == [0.0, 2.0])
    assert list(curve.get_ydata()) == [80.0, 60.0]
    assert any(list(line.get_ydata()) == [50.0, 50.0] for line in lines), "a level"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["CEB", "XEnt"]


def test_seeds_are_thin_curves_of_their_own():
    frame = means()
    seeds = pd.concat([frame.assign(seed=k, value=frame["value"] + k) for k in (0, 1)])
    plain, figure = (
        ladder(frame),
        plots.ladder(
            frame, x="rho", x_label="ρ", columns="family", rows={"clean": "clean (%)"}, by="kind", seeds=seeds
        ),
    )
    added = {tuple(line.get_ydata()) for line in figure.axes[0].lines} - {
        tuple(line.get_ydata()) for line in plain.axes[0].lines
    }
    assert added == {(81.0, 61.0)}, "seed 0 lies on the mean, and what has no ρ has no curve"


def test_a_panel_without_numbers_is_refused():
    frame = means()
    with pytest.raises(ValueError, match="expected numbers of linf for no_norm, got none"):
        ladder(frame[~((frame["family"] == "no_norm") & (frame["row"] == "linf"))])


def test_the_plane_has_the_point_that_keeps_only_what_is_needed():
    rows = [
        {"family": "batch_norm", "rho": rho, "x": x, "y": y, "x_low": x, "x_high": x, "y_low": y, "y_high": y}
        for rho, x, y in ((2.0, 3.0, 2.0), (0.0, 0.5, 1.5), (np.nan, 90.0, 2.1))
    ]
    figure = plots.information_plane(pd.DataFrame(rows), by="family", most=2.3)
    ax = figure.axes[0]
    star = next(line for line in ax.lines if line.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0, 2.3)
    path = next(line for line in ax.lines if list(line.get_xdata()) == [3.0, 0.5] and line.get_marker() == "None")
    assert list(path.get_ydata()) == [2.0, 1.5], "from large ρ to small, without γ = 0"
    assert {text.get_text() for text in ax.texts} == {"2", "0"}


def test_boxes_from_the_least_to_the_largest_about_the_mean():
    rows = [
        {"family": "batch_norm", "line": line, "severity": severity, "row": "ece", "value": value + shift}
        for line, shift in (("XEnt", 0.0), ("CEB", 10.0))
        for severity in (1, 5)
        for value in (1.0, 2.0, 3.0, 10.0)
    ]
    figure = plots.boxes(
        pd.DataFrame(rows), x="severity", x_label="severity", columns="family", rows={"ece": "ECE"}, by="line"
    )
    heights = {float(y) for line in figure.axes[0].lines for y in line.get_ydata()}
    assert {1.0, 4.0, 10.0, 11.0, 14.0, 20.0} <= heights, "least, mean, largest of both"
    assert 2.5 not in heights, "the median is not drawn"
    assert len(figure.axes[0].patches) == 4
