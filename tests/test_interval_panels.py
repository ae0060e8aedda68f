import pandas as pd
import pytest

from helpers import plots


def means(**changes):
    rows = [
        {
            "ablation": "noise",
            "sigma": s,
            "alpha": 0.1,
            "metric": m,
            "value": 10 * s + k,
            "low": 10 * s,
            "high": 10 * s + 3,
        }
        for k, m in ((1, "kid"), (2, "diversity"))
        for s in (0.5, 0.0, 2.0)
    ]
    rows += [{"ablation": "step", "sigma": 0.5, "alpha": a, "metric": m, "value": a, "low": None, "high": None}
             for m in ("kid", "diversity") for a in (0.1, 0.2)]  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def drawn(frame, **options):
    columns = {"noise": ("sigma", "noise σ"), "step": ("alpha", "step size")}
    given = {"columns": columns, "rows": {"kid": "KID", "diversity": "diversity"}, "by": "ablation"}
    return plots.interval_panels(frame, **(given | options))


def test_a_row_for_each_measure_and_a_column_for_each_knob_in_rising_order():
    axes = drawn(means()).axes
    assert len(axes) == 4
    assert [ax.get_ylabel() for ax in axes] == ["KID", "", "diversity", ""]
    assert [ax.get_xlabel() for ax in axes] == ["", "", "noise σ", "step size"]
    assert [tick.get_text() for tick in axes[2].get_xticklabels()] == ["0", "0.5", "2"]
    bars = [bar for one in axes[0].containers for bar in one[2][0].get_segments()]
    assert [[round(float(y), 6) for _, y in bar] for bar in bars] == [[0, 3], [5, 8], [20, 23]]


def test_a_number_without_interval_has_a_bar_of_no_length():
    bars = [bar for one in drawn(means()).axes[1].containers for bar in one[2][0].get_segments()]
    assert [bar[0][1] == bar[1][1] for bar in bars] == [True, True]


def test_the_base_setting_is_a_full_dot():
    ax = drawn(means(), marked={"noise": 0.5}).axes[0]
    full = [
        line for line in ax.lines if line.get_markerfacecolor() not in ("white", "none") and line.get_marker() == "o"
    ]
    assert [line.get_xydata().tolist() for line in full] == [[[1.0, 6.0]]]


def test_a_level_is_a_line_across_its_row():
    figure = drawn(means(), level={"kid": 7.0}, level_label="real images")
    levels = [[line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"] for ax in figure.axes]
    assert levels == [[7.0], [7.0], [], []]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean, 95 % interval", "real images"]


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="means: expected kid of noise, got none"):
        drawn(means()[lambda frame: frame["ablation"] == "step"])
    with pytest.raises(ValueError, match=r"frame: expected columns \['ablation'\]"):
        drawn(means().drop(columns="ablation"))


def test_the_legend_of_few_columns_lies_inside_the_figure():
    figure = drawn(means(), marked={"noise": 0.5}, level={"kid": 7.0}, level_label="real images of another split")
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_long_labels_of_rows_stay_beside_their_panels():
    rows = {"kid": "KID (ceb_pooled c0382d77)", "diversity": "diversity (real: 1) of images"}
    figure = drawn(means(), rows=rows)
    figure.draw_without_rendering()
    upper, lower = (ax.yaxis.label.get_window_extent() for ax in figure.axes[::2])
    assert lower.y1 < upper.y0
    assert upper.y1 <= figure.bbox.y1
