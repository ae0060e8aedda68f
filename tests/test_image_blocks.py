import numpy as np
import pytest

from helpers import plots
from helpers.image_blocks import GAP


def test_blocks_stand_beside_each_other_and_hold_their_images():
    images = np.arange(6, dtype=np.float64).reshape(6, 1, 1, 1) / 10 + np.zeros((6, 1, 4, 4))
    figure = plots.image_blocks({"one": images, "two, too": 1 - images}, n_columns=3, row_labels=["a", "b"])
    one, two = figure.axes
    assert [one.get_title(), two.get_title()] == ["one", "two,\ntoo"]
    assert [label.get_text() for label in one.get_yticklabels()] == ["a", "b"]
    sheet = one.images[0].get_array()
    gap = max(1, round(GAP * 4))
    corners = sheet[:: 4 + gap, :: 4 + gap, 0]
    assert np.allclose(corners, images[:, 0, 0, 0].reshape(2, 3))
    assert sheet[4, :, :].min() == 1.0, "white between rows"
    assert two.images[0].get_array()[0, 0, 0] == 1.0


def test_lines_of_blocks_wrap_and_uneven_ones_are_refused():
    images = np.zeros((4, 3, 2, 2), np.uint8)
    figure = plots.image_blocks({name: images for name in "abc"}, n_columns=2, wrap=2)
    assert sum(ax.get_visible() for ax in figure.axes) == 3
    below = [ax.get_position().y1 < figure.axes[0].get_position().y0 for ax in figure.axes[:3]]
    assert below == [False, False, True]
    with pytest.raises(ValueError, match="all of as many images"):
        plots.image_blocks({"a": images, "b": images[:2]}, n_columns=2)
    with pytest.raises(ValueError, match="whole rows"):
        plots.image_blocks({"a": images}, n_columns=3)
