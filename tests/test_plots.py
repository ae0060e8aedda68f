import matplotlib as mpl
import numpy as np
import pages
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from helpers import frames, ledger, plots, style


def curves(n_seeds=3, epochs=6):
    rng = np.random.default_rng(0)
    rows = [
        {"network": name, "seed": seed, "epoch": epoch, "delta": rng.normal(-epoch / 10), "error": 50 + rng.normal()}
        for name in ("madry", "trades")
        for seed in range(n_seeds)
        for epoch in range(epochs)
    ]
    return pd.DataFrame(rows)


def test_epochs_are_counted_on_the_axis():
    short = curves(1, epochs=4)
    ax = plots.curve_with_band(short, x="epoch", y="delta", y_label="ΔE (nat)", by="network").axes[0]
    ax.figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    assert {line.get_marker() for line in ax.lines} == {"."}  # so few epochs are points


def deltas(n=200):
    rng = np.random.default_rng(0)
    blocks = [
        pd.DataFrame({"network": name, "delta_E": rng.normal(mean, 1, n), "delta_E_y": rng.normal(-mean, 1, n)})
        for name, mean in {"standard": 14.0, "trades": 0.1}.items()
    ]
    return pd.concat(blocks, ignore_index=True)


DRAWN = {
    "paired_histogram": lambda: plots.paired_histogram(pages.pairs(), columns="attack"),
    "energy_plane": lambda: plots.energy_plane(pages.pairs(), panels="attack"),
    "curve_with_band": lambda: plots.curve_with_band(curves(), x="epoch", y="delta", y_label="ΔE (nat)", by="network"),
    "curve_panels": lambda: plots.curve_panels(
        curves(), x="epoch", panels={"delta": "ΔE (nat)", "error": "error (%)"}, by="network", zero=["delta"]
    ),
    "violin": lambda: plots.violin(deltas(), by="network"),
    "interval_curves": lambda: plots.interval_curves(
        pd.DataFrame({"x": ["a", "b"], "by": "trades", "value": 1.0, "low": [0.5, np.nan], "high": [2.0, np.nan]}),
        x="x", by="by", x_label="x", y_label="ΔE (nat)",
    ),
    "reliability": lambda: plots.reliability(
        pd.DataFrame({"low": [0, 50], "high": [50, 100], "count": [2, 3], "confidence": [40.0, 80.0],
                      "accuracy": [50.0, 100.0], "accuracy_low": [9.0, 44.0], "accuracy_high": [91.0, 100.0],
                      "network": "trades"}),
        by="network",
    ),
    "ridges": lambda: plots.ridges(
        pd.DataFrame({"E": np.arange(9.0), "set": ["test", "noise", "train"] * 3, "network": "trades"}),
        value="E", rows="set", panels="network", x_label="E(x) (nat)",
    ),
    "status_strip": lambda: plots.status_strip(
        pd.DataFrame({"paper": "ebm", "claim": list("ABCDEFGHI"), "status": ["holds", "fails", "not run"] * 3}),
    ),
    "image_grid": lambda: plots.image_grid(np.zeros((3, 1, 4, 4)), n_columns=2),
    "attack_strip": lambda: plots.attack_strip(
        np.full((2, 3, 4, 4), 0.5), np.full((2, 3, 4, 4), 0.6), probabilities=np.eye(3)[:2],
        probabilities_adv=np.eye(3)[1:], y=[0, 1], classes=["a", "b", "c"], energies=[-1, -2], energies_adv=[-3, -4],
    ),
}  # fmt: skip


def words(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]


@pytest.mark.parametrize("name", DRAWN)
def test_contract_of_every_plot(name):
    opened, settings = plt.get_fignums(), dict(mpl.rcParams)
    figure = DRAWN[name]()
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == opened, "pyplot must not keep the figure"
    assert dict(mpl.rcParams) == settings
    figure.canvas.draw()
    assert any("nat" in text or "images" in text or name in ("image_grid", "status_strip") for text in words(figure))


@pytest.mark.parametrize("name", ["paired_histogram", "energy_plane", "violin"])
def test_n_is_stated(name):
    assert any("n = " in text for text in words(DRAWN[name]()))


def test_frames_are_left_alone():
    frame = pages.pairs()
    before = frame.copy()
    plots.paired_histogram(frame, columns="attack")
    plots.energy_plane(frame)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pages.pairs().drop(columns="E_adv"), r"expected columns \['E_adv'\]"),
        (pages.pairs().iloc[:0], "at least one row"),
        (pages.pairs().assign(E=np.nan), "column 'E': expected finite"),
    ],
)
@pytest.mark.parametrize("plot", [lambda f: plots.paired_histogram(f, columns="attack"), plots.energy_plane])
def test_frames_that_cannot_be_drawn_are_refused(plot, frame, message):
    with pytest.raises(ValueError, match=message):
        plot(frame)


def test_order_is_kept_and_unknown_groups_are_refused():
    figure = plots.paired_histogram(pages.pairs(), columns="attack", order=["pgd_ce", "fgsm"])
    assert [ax.get_title() for ax in figure.axes[:2]] == ["PGD-CE", "FGSM"]
    with pytest.raises(ValueError, match=r"attack: expected one of \['fgsm', 'pgd_ce'\], got \['pgd'\]"):
        plots.paired_histogram(pages.pairs(), columns="attack", order=["pgd"])


def test_histogram_counts_every_image_in_shared_bins():
    frame = pages.pairs(50)
    frame.loc[0, "E_adv"] = -1e4  # far out: counted in the outermost bin, and the axis is not squeezed by it
    figure = plots.paired_histogram(frame, columns="attack")
    low, high = figure.axes[0].get_xlim()
    assert high - low < 200
    for ax in figure.axes:
        assert ax.get_xlim() == (low, high)
        filled = [patch for patch in ax.patches if patch.get_linewidth() == 0]
        assert len(filled) == 2
        for patch in filled:
            area = _step_area(patch.get_path().vertices)
            width = np.diff(np.unique(patch.get_path().vertices[:, 0])).mean()
            assert area / width == pytest.approx(50)


def _step_area(vertices):
    x, y = vertices.T
    return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def test_wrapped_histograms_keep_their_order_and_each_quantity_its_height():
    frame = pages.pairs()
    frame = pd.concat([frame, frame[frame["attack"] == "fgsm"].assign(attack="cw", E_adv=-8.0)])
    figure = plots.paired_histogram(frame, columns="attack", wrap=2)
    seen = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in seen if ax.get_title()] == ["FGSM", "PGD-CE", "CW (L2)"]
    assert len(figure.axes) == 8, "two bands of two quantities and two attacks"
    assert len(seen) == 6
    by_quantity = {}
    for ax in seen:
        by_quantity.setdefault(ax.get_xlabel(), set()).add(ax.get_ylim())
    assert all(len(heights) == 1 for heights in by_quantity.values())
    assert len(by_quantity) == 2
    spike = max(patch.get_path().vertices[:, 1].max() for ax in seen for patch in ax.patches)
    assert spike == 60
    assert max(top for heights in by_quantity.values() for _, top in heights) > spike


def test_histogram_says_how_many_were_lowered():
    frame = pd.DataFrame(
        {"attack": "pgd_ce", "E": [0.0, 0, 0, 0], "E_adv": [-1.0, -1, -1, 1], "E_y": 0.0, "E_y_adv": 1.0}
    )
    texts = words(plots.paired_histogram(frame, columns="attack"))
    assert "lowered: 75.0 %" in texts
    assert "lowered: 0 %" in texts


def test_histogram_colours_are_those_of_the_concepts():
    ax = plots.paired_histogram(pages.pairs(), columns="attack").axes[1]
    left, right = (patch for patch in ax.patches if patch.get_linewidth() == 0)
    assert left.get_facecolor()[:3] == to_rgba(style.NATURAL)[:3]
    assert right.get_facecolor()[:3] == to_rgba(style.ADVERSARIAL)[:3]
    # PGD-CE lowers the energy, so orange lies left of blue
    mode = [one.get_path().vertices[one.get_path().vertices[:, 1].argmax(), 0] for one in (left, right)]
    assert mode[1] < mode[0] - 5


def test_equal_values_still_make_a_histogram():
    frame = pd.DataFrame({"attack": ["a"] * 3, "E": 1.0, "E_adv": 1.0, "E_y": 1.0, "E_y_adv": 1.0})
    plots.paired_histogram(frame, columns="attack").canvas.draw()


def test_seeds_are_not_counted_as_images():
    frame = pd.concat([pages.pairs(10).assign(seed=k) for k in range(3)], ignore_index=True)
    assert any("n = 10 images × 3 seeds" in text for text in words(plots.paired_histogram(frame, columns="attack")))
    assert frames.size(frame[frame["seed"] == 0]) == "n = 20 images"


def test_band_is_the_student_interval_over_seeds():
    frame = curves()
    figure = plots.curve_with_band(frame, x="epoch", y="delta", y_label="ΔE (nat)", by="network")
    values = frame[(frame["network"] == "madry") & (frame["epoch"] == 2)]["delta"]
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    outline = figure.axes[0].collections[0].get_paths()[0].vertices
    at_two = outline[outline[:, 0] == 2, 1]
    assert (at_two.min(), at_two.max()) == pytest.approx((low, high))
    assert "95 % t interval of the mean, 3 seeds" in words(figure)


def test_panels_show_the_same_methods_each_with_its_quantity():
    figure = plots.curve_panels(curves(), x="epoch", panels={"delta": "ΔE (nat)", "error": "error (%)"}, by="network")
    assert [ax.get_ylabel() for ax in figure.axes] == ["ΔE (nat)", "error (%)"]
    for ax, column in zip(figure.axes, ("delta", "error"), strict=True):
        means = curves().groupby(["network", "epoch"])[column].mean()
        drawn = [line.get_ydata() for line in ax.lines if line.get_linewidth() > 1]
        assert [list(line) for line in drawn] == [pytest.approx(means[name].tolist()) for name in ("madry", "trades")]
    assert "95 % t interval of the mean, 3 seeds" in words(figure)
    with pytest.raises(ValueError, match="expected columns"):
        plots.curve_panels(curves(), x="epoch", panels={"nothing": ""}, by="network")


def test_one_seed_has_no_band_and_says_so():
    figure = plots.curve_with_band(curves(1), x="epoch", y="delta", y_label="ΔE (nat)", by="network")
    assert "1 seed, no interval" in words(figure)
    outline = figure.axes[0].collections[0].get_paths()[0].vertices
    assert np.ptp(outline[outline[:, 0] == 2, 1]) == 0


def test_a_seed_that_stopped_early_does_not_spoil_the_mean():
    frame = curves()
    short = frame[~((frame["seed"] == 2) & (frame["epoch"] > 2))]
    mean, half = plots.t_interval(np.array([[1.0, 3.0, np.nan]]))
    assert mean.item() == 2.0
    assert half.item() == pytest.approx(stats.t.ppf(0.975, 1) * np.sqrt(2) / np.sqrt(2))
    plots.curve_with_band(short, x="epoch", y="delta", y_label="ΔE (nat)", by="network").canvas.draw()


def test_second_axis_phases_and_zero_line():
    figure = plots.curve_with_band(
        curves(), x="epoch", y="delta", y_label="ΔE (nat)", by="network", right="error", right_label="PGD error (%)",
        phases=[(0, "phase 1"), (3, "phase 2")], zero=True,
    )  # fmt: skip
    left, right = figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("ΔE (nat)", "PGD error (%)")
    assert {"phase 1", "phase 2", "ΔE", "PGD error"} <= set(words(figure))
    assert left.get_ylim()[0] < 0 < left.get_ylim()[1]
    assert {line.get_linestyle() for line in right.lines} == {"--"}


def test_axes_follow_the_seeds_not_a_wide_band():
    frame = curves(2)  # with two seeds t is 12.7
    ax = plots.curve_with_band(frame, x="epoch", y="delta", y_label="ΔE (nat)", by="network").axes[0]
    spread = np.ptp(frame["delta"])
    assert np.ptp(ax.get_ylim()) == pytest.approx(1.24 * spread)


def test_violin_halves_lie_on_their_sides_around_their_medians():
    figure = plots.violin(deltas(), by="network", above={"trades": "53.1 [50.0, 56.2]"})
    ax = figure.axes[0]
    left, right = ax.collections[0].get_paths()[0].vertices, ax.collections[1].get_paths()[0].vertices
    assert left[:, 0].max() <= 0 <= right[:, 0].min()
    assert np.median(left[:, 1]) > 0 > np.median(right[:, 1])
    assert "53.1 [50.0, 56.2]" in words(figure)
    dots = [line.get_ydata()[0] for line in ax.lines if line.get_marker() == "o"]
    frame = deltas()
    assert dots[0] == pytest.approx(frame[frame["network"] == "standard"]["delta_E"].median())


def test_a_long_line_above_few_violins_stays_on_the_canvas():
    label = "robust accuracy (%): ours under PGD-CE, or with * the published one under AutoAttack (RobustBench)"
    figure = plots.violin(deltas(), by="network", above={"trades": "53.1"}, above_label=label)
    figure.canvas.draw()
    said = next(text for text in figure.findobj(Text) if text.get_text().startswith("robust"))
    assert " ".join(said.get_text().split()) == label
    assert said.get_window_extent().x1 <= figure.bbox.x1


def test_violin_on_an_axis_that_is_logarithmic_beyond_one():
    figure = plots.violin(deltas(), by="network", scale="symlog")
    figure.canvas.draw()
    assert figure.axes[0].get_yscale() == "symlog"
    with pytest.raises(ValueError, match="scale: expected 'linear' or 'symlog', got 'log'"):
        plots.violin(deltas(), by="network", scale="log")


@pytest.mark.parametrize("values", [[0.0] * 5, [1.0], [1.0, 2.0]])
def test_violin_without_spread_is_a_bar(values):
    frame = pd.DataFrame({"network": "standard", "delta_E": values, "delta_E_y": values})
    plots.violin(frame, by="network").canvas.draw()


def test_a_status_is_told_by_a_sign_as_well_as_by_its_colour():
    claims = pd.DataFrame({"paper": ["ebm", "ceb"], "claim": ["C1", "C2"], "status": ["holds", "undecided"]})
    said = words(plots.status_strip(claims))
    assert {"+  C1", "?  C2", "ebm: 1 claim", "ceb: 1 claim", "+  holds", "–  not run"} <= set(said)
    with pytest.raises(ValueError, match="status: expected some of"):
        plots.status_strip(claims.assign(status="maybe"))


def test_the_longest_ids_of_the_ledger_stay_in_their_cells():
    longest = sorted((claim.id for claim in ledger.read()), key=len)[-6:]
    figure = plots.status_strip(pd.DataFrame({"paper": "ceb", "claim": longest, "status": "undecided"}))
    figure.canvas.draw()
    for cell, text in zip(figure.axes[0].patches, figure.axes[0].texts, strict=True):
        inside, said = cell.get_window_extent(), text.get_window_extent()
        assert inside.x0 <= said.x0 < said.x1 <= inside.x1, text.get_text()
        assert inside.y0 <= said.y0 < said.y1 <= inside.y1, text.get_text()
