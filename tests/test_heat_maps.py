import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from helpers import plots


def means(**changes):
    """Four cells of one measure; the value is 10 · row + column."""
    pairs = [(r, c) for r in (0.95, 0.5) for c in (2.0, 1.0)]
    rows = [{"r": r, "s": c, "metric": "fd", "value": 10 * r + c, "low": 10 * r + c - 1, "high": 10 * r + c + 1}
            for r, c in pairs]  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def drawn(frame, **options):
    given = {"rows": "r", "columns": "s", "panels": {"fd": "distance"}, "row_label": "share", "column_label": "spread"}
    return plots.heat_map(frame, **(given | options))


def test_numbers_rise_upwards_and_to_the_right_whatever_their_order():
    ax = drawn(means()).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0.5", "0.95"]
    assert np.asarray(ax.images[0].get_array()).tolist() == [[6.0, 7.0], [10.5, 11.5]]
    assert ax.images[0].origin == "lower"
    assert ax.get_title() == "distance"
    assert (ax.figure.get_supxlabel(), ax.figure.get_supylabel()) == ("spread", "share")


def test_each_cell_says_its_own_value_and_interval():
    ax = drawn(means()).axes[0]
    said = {text.get_position(): text.get_text() for text in ax.texts}
    assert said[(0, 0)] == "6.0\n[5.0, 7.0]"
    assert said[(1, 1)] == "11.5\n[10.5, 12.5]"


def test_a_cell_without_an_interval_says_the_value_only_and_a_missing_one_nothing():
    frame = means(low=np.nan, high=np.nan).iloc[1:]  # without (0.95, 2)
    ax = drawn(frame).axes[0]
    assert sorted(text.get_text() for text in ax.texts) == ["10.5", "6", "7"]
    assert np.ma.is_masked(ax.images[0].get_array()[1, 1])


def test_letters_are_readable_on_their_cell():
    ax = drawn(means()).axes[0]
    image = ax.images[0]
    for text in ax.texts:
        column, row = text.get_position()
        behind = image.cmap(image.norm(image.get_array()[row, column]))
        assert abs(sum(to_rgb(text.get_color())) - sum(behind[:3])) > 1.0


def test_differences_have_colours_that_meet_at_nought():
    ax = drawn(means(value=[-1.0, 3.0, 0.0, -3.0]), balanced=["fd"]).axes[0]
    image = ax.images[0]
    assert (image.norm.vmin, image.norm.vmax) == (-3.0, 3.0)
    assert min(image.cmap(image.norm(0.0))[:3]) > 0.9, "no difference is nearly white"
    middling = drawn(means(value=[-10.0, 10.0, -6.2, 6.2]), balanced=["fd"]).axes[0]
    assert {t.get_text()[:2]: t.get_color() for t in middling.texts}["-6".replace("-", "\N{MINUS SIGN}")] == "white"
    nothing = drawn(means(value=0.0), balanced=["fd"]).axes[0].images[0]
    assert min(nothing.cmap(nothing.norm(0.0))[:3]) > 0.9


def test_a_panel_for_each_measure_with_colours_of_its_own():
    both = pd.concat([means(), means(metric="diversity", value=1.0, low=0.5, high=1.5)])
    figure = drawn(both, panels={"fd": "distance", "diversity": "diversity"})
    first, second = (ax.images[0].norm for ax in figure.axes)
    assert (first.vmin, first.vmax) == (6.0, 11.5)
    assert (second.vmin, second.vmax) == (1.0, 1.0)
    three = drawn(pd.concat([both, means(metric="kid")]), panels={"fd": "a", "diversity": "b", "kid": "c"})
    assert [ax.get_visible() for ax in three.axes] == [True, True, True, False]


def test_texts_stand_in_the_order_in_which_they_appear():
    ax = drawn(means(s=["energy", "steps", "energy", "steps"])).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["energy", "steps"]


@pytest.mark.parametrize(
    ("frame", "options", "said"),
    [
        (means(), {"panels": {"fid": "FID"}}, r"panels: expected some of \['fd'\], got \['fid'\]"),
        (means(r=0.5), {}, "expected one row for each r, s and metric, got 2 more"),
        (means(), {"rows": "q"}, r"frame: expected columns \['q'\]"),
        (means(value=np.nan), {}, "expected finite numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused(frame, options, said):
    with pytest.raises(ValueError, match=said):
        drawn(frame, **options)


def test_one_cell_is_a_heat_map_too():
    assert len(drawn(means().iloc[:1]).axes[0].texts) == 1


def test_minus_signs_are_minus_signs():
    text = drawn(means(value=-3.0, low=-4.0, high=-2.0)).axes[0].texts[0].get_text()
    assert text == "−3.0\n[−4.0, −2.0]"
