import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from helpers import style

# Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB.
BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
LAB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(linear):
    t = LAB @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def seen(colour, kind):
    v = np.array(to_rgb(colour))
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    return lab(np.clip(np.array(BLIND[kind]) @ linear, 0, 1) if kind else linear)


@pytest.mark.parametrize("kind", [None, *BLIND])
@pytest.mark.parametrize(
    "together",
    [
        (style.NATURAL, style.ADVERSARIAL),
        (style.MARGINAL, style.JOINT),
        tuple(style.METHODS[name] for name in ("standard", "madry", "trades")),
        tuple(style.METHODS[name] for name in ("trades", "mail", "weat_nat", "weat_adv")),
    ],
)
def test_colours_that_stand_together_are_told_apart(together, kind):
    # CIE76: a difference of 2.3 is just noticeable; 20 is told apart at a glance, also in thin lines.
    distances = [np.linalg.norm(seen(a, kind) - seen(b, kind)) for a, b in itertools.combinations(together, 2)]
    assert min(distances) > 20


def test_a_method_keeps_its_colour_whatever_else_is_shown():
    alone = style.colours(["trades"])["trades"]
    assert style.colours(["madry", "standard", "trades"])["trades"] == alone
    assert style.colours(["trades@beta=3"])["trades@beta=3"] == alone
    assert style.colours(["SAT"])["SAT"] == style.colours(["madry"])["madry"]
    assert style.colours(["resnet20_x"]) == style.colours(["resnet20_x"])


def test_variants_of_a_method_are_shades_of_its_colour_and_dashed():
    names = ["trades", "trades@beta=3", "madry"]
    shades = [to_rgb(colour) for colour in style.colours(names).values()]
    assert shades[1][1] > max(shades[1][0], shades[1][2]), "still green"
    assert all(light >= full for light, full in zip(shades[1], shades[0], strict=True))
    assert list(style.lines(names).values()) == ["-", style.DASHES[1], "-"]


def test_no_two_methods_of_a_figure_share_a_colour():
    names = ["trades", "trades@beta=3", "trades@beta=6", "madry", "standard", "a", "b", "c"]
    assert len(set(style.colours(names).values())) == len(names)


def test_the_style_ignores_and_restores_the_readers_settings():
    with mpl.rc_context({"font.size": 31.0, "axes.facecolor": "black"}):
        with style.in_style():
            assert mpl.rcParams["font.size"] == style.RC["font.size"]
            assert mpl.rcParams["axes.facecolor"] == "white"
        assert mpl.rcParams["font.size"] == 31.0


def test_the_style_is_left_also_on_error():
    before = mpl.rcParams["axes.grid"]
    with pytest.raises(KeyError), style.in_style():
        raise KeyError
    assert mpl.rcParams["axes.grid"] == before


def test_a_picture_shows_itself():
    with style.in_style():
        figure = style.canvas(2, 1)
    assert figure._repr_png_().startswith(b"\x89PNG")
