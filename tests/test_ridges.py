"""Hills of several sets: one bin grid a panel, heights and means by hand."""

import numpy as np
import pandas as pd
import pytest

from helpers import plots


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    far, near = rng.normal(-5, 1, 400), rng.normal(0, 1, 100)
    hills = {("one", "test"): far, ("one", "noise"): near, ("two", "test"): [1.0] * 50}
    return pd.concat([pd.DataFrame({"network": n, "set": s, "E": v}) for (n, s), v in hills.items()], ignore_index=True)


def draw(frame, **options):
    given = {"value": "E", "rows": "set", "panels": "network", "x_label": "E(x) (nat)"}
    return plots.ridges(frame, **given | options)


def test_a_line_for_each_set_and_a_panel_for_each_network(frame):
    figure = draw(frame)
    one, two = figure.axes
    assert [label.get_text() for label in one.get_yticklabels()] == ["test", "noise"]
    assert len(one.lines) == 2
    assert len(two.lines) == 1, "a network without a set leaves its line empty"
    for place, name in enumerate(("test", "noise")):
        values = frame[(frame["network"] == "one") & (frame["set"] == name)]["E"]
        assert one.lines[place].get_xdata()[0] == pytest.approx(values.mean())
        assert one.lines[place].get_ydata()[0] == place


def test_each_hill_fills_its_room_and_shares_the_bins_of_its_panel(frame):
    one = draw(frame, n_bins=20).axes[0]
    tops, edges, _ = zip(*(patch.get_data() for patch in one.patches), strict=True)
    assert all(np.array_equal(found, edges[0]) for found in edges)
    for found, place in zip(tops[::2], (0, 1), strict=True):
        assert place - found.min() == pytest.approx(0.85)
        assert found.max() <= place
    share = (frame["E"][:400] < -5).mean()
    counts = -tops[0]
    middle = 0.5 * (edges[0][1:] + edges[0][:-1])
    assert counts[middle < -5].sum() / counts.sum() == pytest.approx(share, abs=0.1)


def test_values_that_are_not_finite_are_refused(frame):
    frame.loc[0, "E"] = np.nan
    with pytest.raises(ValueError, match="finite"):
        draw(frame)
