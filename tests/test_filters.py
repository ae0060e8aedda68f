"""Filters: SciPy's and NumPy's answers, borders, and results that do not depend on the batch."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from helpers import filters

X = torch.rand(3, 2, 20, 20, generator=torch.Generator().manual_seed(0))
SCIPY = {"replicate": "nearest", "reflect": "mirror", "symmetric": "reflect"}
NUMPY = {"replicate": "edge", "reflect": "reflect", "symmetric": "symmetric"}


@pytest.mark.parametrize("border", list(SCIPY))
@pytest.mark.parametrize("beyond", [1, 7])
def test_borders_are_numpys(border, beyond):
    found = filters.padded(X, top=beyond, bottom=1, left=0, right=beyond, border=border)
    expected = np.pad(X.numpy(), ((0, 0), (0, 0), (beyond, 1), (0, beyond)), mode=NUMPY[border])
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("border", list(SCIPY))
def test_borders_beyond_the_image_go_on(border):
    line = torch.tensor([[1.0, 2.0, 3.0]])
    found = filters.padded(line, top=0, bottom=0, left=7, right=8, border=border)
    assert np.array_equal(found.numpy(), np.pad(line.numpy(), ((0, 0), (7, 8)), mode=NUMPY[border]))


@pytest.mark.parametrize("border", list(SCIPY))
@pytest.mark.parametrize(("sigma", "truncate"), [(0.4, 4.0), (1.7, 4.0), (3.0, 3.0), (30.0, 3.0)])
def test_a_gaussian_is_scipys(border, sigma, truncate):
    if border != "symmetric" and sigma > 10:
        pytest.skip("SciPy's other borders give up beyond one reflection in another way")
    found = filters.gaussian(X, sigma, truncate=truncate, border=border)
    expected = ndimage.gaussian_filter(X.double().numpy(), (0, 0, sigma, sigma), truncate=truncate, mode=SCIPY[border])
    assert np.abs(found.numpy() - expected).max() < 1e-5


def test_a_gaussian_below_half_a_pixels_reach_is_a_copy():
    found = filters.gaussian(X, 0.1)
    assert torch.equal(found, X)
    assert found is not X


def test_correlation_is_scipys_also_for_a_kernel_without_symmetry():
    kernel = ((0.1, 0.2, 0.0), (-0.3, 0.5, 0.1), (0.0, 0.0, 0.4))
    expected = ndimage.correlate(X.double().numpy(), np.array(kernel)[None, None], mode="mirror")
    assert np.abs(filters.correlate(X, kernel).numpy() - expected).max() < 1e-6


@pytest.mark.parametrize(("radius", "alias"), [(0.5, 0.6), (1.5, 0.1), (4, 0.5), (9, 0.5)])
def test_a_symmetric_kernel_gives_the_same_in_fewer_steps(radius, alias):
    kernel = filters.disk(radius, alias)
    assert math.fsum(map(math.fsum, kernel)) == pytest.approx(1)
    assert len(kernel) % 2 == 1
    found, expected = filters.correlate_symmetric(X, kernel), filters.correlate(X, kernel)
    assert (found - expected).abs().max() < 1e-6


def test_a_disk_is_flat_inside_and_empty_outside():
    kernel = torch.tensor(filters.disk(4, 0.1))
    assert kernel.shape == (9, 9)
    assert kernel[4, 0] == kernel[4, 4] == kernel.max()
    assert kernel[0, 0] == 0
    assert int((kernel > 0.5 * kernel.max()).sum()) == 49  # whole points with r² ≤ 16


def test_a_streak_follows_its_angle():
    dot = torch.zeros(3, 1, 21, 21)
    dot[..., 10, 10] = 1
    found = filters.streak(dot, [0.0, -90.0, 45.0], radius=3, sigma=2.0)
    assert found.sum((1, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    # x'(p) reads x(p + i·direction), so a dot is smeared against the direction.
    assert found[0, 0, 10, 4:11].gt(0).all()
    assert found[0, 0, 10, 11:].sum() == 0
    assert found[1, 0, 10:17, 10].gt(0).all()
    assert found[2, 0, 9, 9] > 0
    assert found[2, 0, 11, 11] == 0
    weights = [math.exp(-(i**2) / 8) for i in range(7)]
    assert found[0, 0, 10, 10].item() == pytest.approx(weights[0] / sum(weights), rel=1e-5)
    assert found[0, 0, 10, 7].item() == pytest.approx(weights[3] / sum(weights), rel=1e-5)


def test_a_streak_does_not_mix_images():
    angles = [30.0, -20.0, 30.0]
    together = filters.streak(X, angles, radius=4, sigma=3.0)
    for b in range(3):
        assert torch.equal(filters.streak(X[b : b + 1], angles[b : b + 1], radius=4, sigma=3.0)[0], together[b])


@pytest.mark.parametrize("factor", [1.0, 1.06, 1.31, 2.5, 4.5])
def test_zoom_is_scipys_zoom_of_the_middle(factor):
    n = 20
    kept = math.ceil(n / factor)
    top = (n - kept) // 2
    grown = ndimage.zoom(X.double().numpy()[..., top : top + kept, top : top + kept], (1, 1, factor, factor), order=1)
    cut = (grown.shape[-1] - n) // 2
    expected = grown[..., cut : cut + n, cut : cut + n]
    assert np.abs(filters.resample(X, filters.zoom(n, factor)).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("size", [3, 7, 10, 13, 19])
def test_boxes_are_pillows(size):
    from PIL import Image

    pixels = (X[0, 0] * 255).round().byte().numpy()
    small = Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX)
    expected = np.asarray(small.resize((20, 20), Image.Resampling.BOX)).astype(float)
    found = filters.resample(torch.from_numpy(pixels).float()[None, None], filters.boxes(20, size))[0, 0].numpy()
    assert np.abs(found - expected).max() <= 1.01  # Pillow rounds after each axis
    assert np.abs(found - expected).mean() <= 0.5
