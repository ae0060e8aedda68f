"""Reliability diagrams show the bins that they are given, where they are, and nothing of an empty one."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from helpers import calibration, plots, style


def bins_of(name, *, sharpness, n=300, binning="equal_width"):
    generator = torch.Generator().manual_seed(0)
    f = 2 * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    y = torch.multinomial(f.softmax(1), 1, generator=generator).squeeze(1)
    found = calibration.ece(sharpness * f, y, n_bins=10, binning=binning, seed=0, n_resamples=100)
    return pd.DataFrame(found.bins.arrays()).assign(network=name)


@pytest.fixture(scope="module")
def frame():
    return pd.concat([bins_of("standard", sharpness=3.0), bins_of("madry", sharpness=0.3)], ignore_index=True)


def shown(ax):
    return [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in ax.patches]


def test_bars_are_the_bins_and_empty_ones_are_not_drawn(frame):
    figure = plots.reliability(frame, by="network")
    upper = figure.axes[:2]
    for ax, (_, rows) in zip(upper, frame.groupby("network", sort=False), strict=True):
        full = rows[rows["count"] > 0]
        assert 0 < len(full) < 10, "the test wants an empty bin"
        expected = np.column_stack([full["low"], full["high"] - full["low"], full["accuracy"]])
        assert np.allclose(shown(ax), expected)
        dots = next(line for line in ax.lines if line.get_marker() == "o")
        assert np.allclose(np.column_stack(dots.get_data()), full[["confidence", "accuracy"]])
        ends = np.array([segment[:, 1] for segment in ax.collections[0].get_segments()])
        assert np.allclose(ends, full[["accuracy_low", "accuracy_high"]])


def test_the_histogram_below_holds_every_image_and_the_two_means(frame):
    figure = plots.reliability(frame, by="network")
    for ax, (_, rows) in zip(figure.axes[2:], frame.groupby("network", sort=False), strict=True):
        assert sum(height for *_, height in shown(ax)) == pytest.approx(100)
        confidence, accuracy = (line.get_xdata()[0] for line in ax.lines)
        weight = rows["count"] / rows["count"].sum()
        assert confidence == pytest.approx(float((weight * rows["confidence"]).sum()))
        assert accuracy == pytest.approx(float((weight * rows["accuracy"]).sum()))
    sure, unsure = (ax.lines[0].get_xdata()[0] - ax.lines[1].get_xdata()[0] for ax in figure.axes[2:])
    assert unsure < 0 < sure, "three times as sharp is too sure, a third as sharp not sure enough"


def test_networks_keep_their_colours_and_names_and_notes(frame):
    figure = plots.reliability(frame, by="network", notes={"madry": "ECE 3"}, wrap=1)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["Standard", "Madry AT\nECE 3"]
    assert to_hex(figure.axes[0].patches[0].get_edgecolor()).upper() == style.METHODS["standard"]


def test_equal_mass_bins_are_drawn_too():
    rows = bins_of("standard", sharpness=1.0, binning="equal_mass")
    figure = plots.reliability(rows, by="network")
    assert len(figure.axes[0].patches) == 10


def test_a_frame_without_intervals_is_refused(frame):
    with pytest.raises(ValueError, match="accuracy_low"):
        plots.reliability(frame.drop(columns="accuracy_low"), by="network")
