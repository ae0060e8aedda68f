import numpy as np
import pages
import pandas as pd
import pytest
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from runs import Run

from helpers import animations, planes, plots, records, style


def arrows_of(ax):
    (quiver,) = [one for one in ax.collections if isinstance(one, planes.Quiver)]
    return quiver


def test_arrows_lead_from_natural_to_adversarial():
    frame = pages.pairs(40)
    part = frame[frame["attack"] == "pgd_ce"]
    ax = plots.energy_plane(part).axes[0]
    quiver = arrows_of(ax)
    assert np.allclose(quiver.get_offsets(), part[["E", "E_y"]])
    ends = quiver.get_offsets() + np.column_stack([quiver.U, quiver.V])
    assert np.allclose(ends, part[["E_adv", "E_y_adv"]])
    natural, adversarial = (line for line in ax.lines if line.get_marker() == "o")
    assert (natural.get_color(), adversarial.get_color()) == (style.NATURAL, style.ADVERSARIAL)
    assert np.allclose(adversarial.get_xydata(), part[["E_adv", "E_y_adv"]])


def test_the_arrows_on_the_paper_are_as_long_as_they_say():
    # angles="xy", scale=1: an arrow of (3, 4) data units spans 3 and 4 units of the axes.
    frame = pd.DataFrame({"E": [0.0, -5.0], "E_y": [0.5, 0.0], "E_adv": [3.0, -5.0], "E_y_adv": [4.5, 3.0]})
    ax = plots.energy_plane(frame).axes[0]
    quiver = arrows_of(ax)
    assert (quiver.angles, quiver.scale_units, quiver.scale) == ("xy", "xy", 1)


def test_diagonal_is_where_cross_entropy_is_zero():
    figure = plots.energy_plane(pages.pairs())
    ax = figure.axes[0]
    (diagonal,) = [line for line in ax.lines if line.get_marker() == "None"]
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    (label,) = [text for text in ax.texts if text.get_text() == "CE = 0"]
    figure.canvas.draw()
    (x0, y0), (x1, y1) = ax.transData.transform([(0, 0), (1, 1)])
    assert label.get_rotation() == pytest.approx(np.degrees(np.arctan2(y1 - y0, x1 - x0)), abs=0.5)


def test_at_most_so_many_arrows_but_every_image_is_a_dot():
    frame = pages.pairs(60)
    figure = plots.energy_plane(frame, n_arrows=7)
    assert len(arrows_of(figure.axes[0]).U) == 7
    assert len(figure.axes[0].lines[1].get_xdata()) == 120
    assert "n = 120 images, 7 arrows" in figure.axes[0].get_title()


def test_panels_share_limits_unless_told_otherwise():
    shared = plots.energy_plane(pages.pairs(), panels="attack").axes
    own = plots.energy_plane(pages.pairs(), panels="attack", share_limits=False).axes
    assert shared[0].get_xlim() == shared[1].get_xlim()
    assert own[0].get_xlim() != own[1].get_xlim()


def test_the_diagonal_is_in_sight_where_every_point_lies_far_above_it():
    frame = pd.DataFrame({"E": [-2.6, -2.3], "E_y": [-1.5, -1.0], "E_adv": [-2.4, -2.2], "E_y_adv": [0.0, 0.4]})
    ax = plots.energy_plane(frame).axes[0]
    assert ax.get_ylim()[0] <= ax.get_xlim()[0]


def test_other_names_of_columns():
    columns = planes.Columns(x="a", y="b", x_adv="c", y_adv="d")
    frame = pages.pairs().rename(columns={"E": "a", "E_y": "b", "E_adv": "c", "E_y_adv": "d"})
    plots.energy_plane(frame, columns=columns)
    with pytest.raises(ValueError, match="expected columns"):
        plots.energy_plane(frame)


def frames_of(path):
    with Image.open(path) as gif:
        pictures = []
        for k in range(gif.n_frames):
            gif.seek(k)
            pictures.append((np.asarray(gif.convert("RGB")).copy(), gif.info["duration"]))
    return pictures


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "02_training_dynamics")


def test_the_animation_has_one_frame_an_epoch_and_fixed_axes(run):
    record = records.save(run, "r", frames={"curves": pages.curves()})
    shown = plots.save_animation(plots.energy_plane_animation(record.frame("curves")), run, "a", record, caption="c")
    pictures = frames_of(run.folder / "a.gif")
    assert len(pictures) == 4
    assert pictures[-1][1] > pictures[0][1]
    first, last = pictures[0][0], pictures[-1][0]
    assert not np.array_equal(first, last)
    height, width = first.shape[:2]
    assert np.array_equal(first[: int(0.6 * height), : int(0.1 * width)], last[: int(0.6 * height), : int(0.1 * width)])
    assert tuple(first[1, 1]) == (255, 255, 255)
    assert shown._repr_html_().startswith('<img src="data:image/gif;base64,')
    assert (run.folder / "a.gif").stat().st_size < 300_000


def test_the_animation_moves_to_the_data_of_its_epoch():
    frame = pages.curves()
    animation = plots.energy_plane_animation(frame, n_arrows=5)
    arrows, _, after = animation._func(3)
    rows = frame[frame["epoch"] == 3].iloc[planes.spaced(20, 5)]
    assert np.allclose(arrows.get_offsets(), rows[["E", "E_y"]])
    assert np.allclose(after.get_xydata(), rows[["E_adv", "E_y_adv"]])
    assert not isinstance(animation._fig.get_layout_engine(), ConstrainedLayoutEngine)
    title = animation._fig.axes[0].get_title()
    mean = float((rows["E"] - rows["E_adv"]).mean())
    assert title.startswith("epoch 3\n")
    assert f"{mean:+.2f} nat" in title
    assert "n = 5 images" in title


def test_images_are_followed_whatever_the_order_of_rows():
    frame = pages.curves().sample(frac=1, random_state=0)
    animation = plots.energy_plane_animation(frame)
    arrows, _, _ = animation._func(2)
    rows = frame[frame["epoch"] == 2].sort_values("image")
    assert np.allclose(arrows.get_offsets(), rows[["E", "E_y"]])


def test_the_same_animation_gives_the_same_bytes(run):
    record = records.save(run, "r", frames={"curves": pages.curves()})
    for name in ("a", "b"):
        plots.save_animation(plots.energy_plane_animation(pages.curves()), run, name, record, caption="c")
    assert (run.folder / "a.gif").read_bytes() == (run.folder / "b.gif").read_bytes()


def test_a_large_animation_is_refused_and_not_left_behind(run, monkeypatch):
    record = records.save(run, "r")
    monkeypatch.setattr(animations, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match=r"a.gif: expected at most 0.0 MB"):
        plots.save_animation(plots.energy_plane_animation(pages.curves()), run, "a", record, caption="c")
    assert [path.name for path in run.folder.iterdir()] == ["r.json"]
