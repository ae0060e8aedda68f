"""Projections, directions and distances: closed forms and properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from victims import rand, randn

from helpers import balls


def test_a_point_outside_goes_to_the_nearest_of_the_ball():
    x = torch.full((1, 1, 1, 2), 0.5)
    far = x + torch.tensor([0.3, 0.4])
    assert torch.allclose(balls.project(far, x, norm="linf", epsilon=0.35), torch.tensor([0.8, 0.85]))
    assert torch.allclose(balls.project(far, x, norm="l2", epsilon=0.25), torch.tensor([0.65, 0.7]))
    assert torch.equal(balls.project(x, x, norm="l2", epsilon=0.0), x)


@pytest.mark.parametrize("norm", balls.NORMS)
@given(seed=st.integers(0, 2**31), epsilon=st.floats(0, 3), spread=st.floats(1e-6, 5))
@settings(max_examples=40, deadline=None)
def test_projections_lie_inside_and_rest_there(norm, seed, epsilon, spread):
    x = rand(3, 2, 4, 4, seed=seed, dtype=torch.float32)
    z = x + spread * randn(3, 2, 4, 4, seed=seed + 1, dtype=torch.float32)
    before = z.clone()
    once = balls.project(z, x, norm=norm, epsilon=epsilon)
    assert balls.inside(once, x, norm=norm, epsilon=epsilon).all()
    assert torch.allclose(balls.project(once, x, norm=norm, epsilon=epsilon), once, atol=1e-6)
    assert torch.equal(z, before)


def test_inside_sees_each_way_out():
    x = torch.full((4, 1, 1, 2), 0.99)
    x_adv = x.clone()
    x_adv[1, 0, 0, 0] -= 0.12  # too far
    x_adv[2, 0, 0, 0] = 1.001  # near, but no pixel
    x_adv[3, 0, 0, 0] = torch.nan
    for norm in balls.NORMS:
        assert balls.inside(x_adv, x, norm=norm, epsilon=0.1).tolist() == [True, False, False, False]


def test_steepest_has_length_one_and_survives_tiny_gradients():
    g = randn(3, 2, 4, 4, dtype=torch.float32)
    g[1] *= 1e-38  # its squares underflow
    g[2] = 0
    d = balls.steepest(g, norm="l2")
    assert torch.allclose(d.flatten(1).norm(dim=1), torch.tensor([1.0, 1.0, 0.0]))
    assert torch.allclose(d[0], g[0] / g[0].norm())
    assert torch.equal(balls.steepest(g, norm="linf"), g.sign())


def test_choose_takes_whole_images_exactly():
    a, b = randn(3, 1, 2, 2, seed=1) * 1e6, randn(3, 1, 2, 2, seed=2)
    mixed = balls.choose(torch.tensor([True, False, True]), a, b)
    assert torch.equal(mixed, torch.stack([a[0], b[1], a[2]]))
