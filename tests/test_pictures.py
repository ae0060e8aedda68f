import numpy as np
import pytest

from helpers import pictures, style


def shown(ax):
    return ax.images[0].get_array()


def test_grey_and_colour_images_are_shown_as_they_are():
    grey = np.linspace(0, 1, 16).reshape(1, 4, 4)
    assert np.array_equal(pictures.as_picture(grey), np.repeat(grey[0][..., None], 3, axis=2))
    colour = np.zeros((3, 4, 4))
    colour[1] = 1.0
    assert pictures.as_picture(colour)[0, 0].tolist() == [0, 1, 0]
    assert pictures.as_picture(np.full((1, 2, 2), 255, np.uint8)).max() == 1.0


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((2, 4, 4)), np.zeros((4, 4, 3))])
def test_other_shapes_are_refused(image):
    with pytest.raises(ValueError, match=r"expected shape \(N, C, H, W\)"):
        pictures.as_picture(image)


@pytest.mark.parametrize("value", [-0.1, 1.1, 2.0])
def test_other_ranges_are_refused(value):
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        pictures.as_picture(np.full((1, 2, 2), value))


def test_grid_has_rows_columns_and_labels():
    images = np.stack([np.full((1, 2, 2), k / 5) for k in range(5)])
    figure = pictures.image_grid(images, n_columns=3, row_labels=["one", "two"], column_labels=["a", "b", "c"])
    visible = [ax for ax in figure.axes if ax.get_visible()]
    assert [float(shown(ax).max()) for ax in visible] == pytest.approx([k / 5 for k in range(5)])
    assert [ax.get_title() for ax in visible[:3]] == ["a", "b", "c"]
    assert [visible[0].get_ylabel(), visible[3].get_ylabel()] == ["one", "two"]
    with pytest.raises(ValueError, match="at least one"):
        pictures.image_grid(images[:0], n_columns=3)
    with pytest.raises(ValueError, match="n_columns"):
        pictures.image_grid(images, n_columns=0)


def strip(x, x_adv, **further):
    p, p_adv = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.2, 0.7]])
    return pictures.attack_strip(
        x, x_adv, probabilities=p, probabilities_adv=p_adv, y=[0], classes=["a", "b", "c"], energies=[-1.5],
        energies_adv=[-9.25], **further,
    )  # fmt: skip


def test_the_perturbation_is_magnified_to_black_and_white_by_the_factor_that_is_told():
    x = np.full((1, 1, 2, 2), 0.5)
    x_adv = x + np.array([[0.02, -0.02], [0.01, 0.0]])
    axes = strip(x, x_adv).axes
    assert shown(axes[1])[..., 0].ravel().tolist() == pytest.approx([1.0, 0.0, 0.75, 0.5])
    assert axes[1].get_title() == "$x^* - x$, × 25"
    assert axes[0].get_title() == "$E(x)$ = −1.50 nat"
    assert axes[2].get_title() == "$E(x^*)$ = −9.25 nat"


def test_a_row_bears_the_name_of_its_network():
    x = np.full((1, 1, 2, 2), 0.5)
    assert strip(x, x, names=["madry"]).axes[0].get_ylabel() == "Madry AT\ny: a"
    assert strip(x, x).axes[0].get_ylabel() == "y: a"
    with pytest.raises(ValueError, match="one for each of 1 rows, got 2"):
        strip(x, x, names=["madry", "trades"])


def test_no_perturbation_is_grey():
    x = np.full((1, 1, 2, 2), 0.5)
    assert np.all(shown(strip(x, x).axes[1]) == 0.5)


def test_probabilities_stand_before_and_after_with_the_true_class_in_bold():
    ax = strip(np.full((1, 1, 2, 2), 0.5), np.full((1, 1, 2, 2), 0.5)).axes[3]
    bars = [(bar.get_width(), bar.get_facecolor()) for bar in ax.patches]
    assert [width for width, _ in bars] == pytest.approx([0.7, 0.1, 0.2, 0.1, 0.7, 0.2])
    assert bars[0][1] != bars[3][1]
    weights = {tick.get_text(): tick.get_fontweight() for tick in ax.get_yticklabels()}
    assert weights == {"a": "bold", "c": "normal", "b": "normal"}
    assert style.NATURAL.lower() == mpl_hex(bars[0][1])


def mpl_hex(colour):
    from matplotlib.colors import to_hex

    return to_hex(colour)


def test_images_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="of one shape"):
        strip(np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 3, 3)))
