"""Textures: plasma as its definition says, and panes that are textures and not flat."""

import numpy as np
import pytest
import torch

from helpers import noise, textures


def test_plasma_is_the_diamond_square_algorithm():
    key, n, decay = noise.Key(0, "test", torch.arange(2)), 8, 1.7
    u = 2 * key.uniform((n, n)).double().numpy() - 1
    found = textures.plasma(key, n, decay=decay).double().numpy()
    for b in range(2):
        height, step, amplitude = np.zeros((n, n)), n, 1.0
        while step >= 2:
            half = step // 2
            for i in range(0, n, step):
                for j in range(0, n, step):
                    four = [height[a % n, c % n] for a in (i, i + step) for c in (j, j + step)]
                    height[i + half, j + half] = np.mean(four) + amplitude * u[b, i + half, j + half]
            middle = height.copy()
            for i in range(0, n, step):
                for j in range(0, n, step):
                    for a, c in ((i, j + half), (i + half, j)):
                        near = [(a - half, c), (a + half, c), (a, c - half), (a, c + half)]
                        four = [middle[p % n, q % n] for p, q in near]
                        height[a, c] = np.mean(four) + amplitude * u[b, a, c]
            step, amplitude = half, amplitude / decay**2
        expected = (height - height.min()) / (height.max() - height.min())
        assert np.abs(found[b] - expected).max() < 1e-5


def test_plasma_fills_the_unit_interval_and_smooths_with_decay():
    key = noise.Key(0, "test", torch.arange(5))
    rough, smooth = (textures.plasma(key, 32, decay=d) for d in (1.3, 3.0))
    for found in (rough, smooth):
        assert found.amin((1, 2)).tolist() == [0.0] * 5
        assert found.amax((1, 2)).tolist() == [1.0] * 5
    assert smooth.diff(dim=1).abs().mean() < 0.4 * rough.diff(dim=1).abs().mean()


@pytest.mark.parametrize("size", [1, 24])
def test_plasma_wants_a_power_of_two(size):
    with pytest.raises(ValueError, match="power of two"):
        textures.plasma(noise.Key(0, "test", torch.arange(1)), size, decay=2.0)


def test_panes_have_their_tones_and_are_five_different_ones():
    panes = textures.panes(0.1)
    assert panes.shape == (5, 3, 102, 102)
    assert 0 <= panes.min() <= panes.max() <= 1
    for pane, (mean, std) in zip(panes, textures._TONES, strict=True):
        assert float(pane.mean()) == pytest.approx(mean, abs=0.01)
        assert float(pane.mean(0).std()) == pytest.approx(std, rel=0.15)
        assert pane[2].mean() > pane[0].mean()  # bluish
    assert len({float(pane[0, 0, 0]) for pane in panes}) == 5
