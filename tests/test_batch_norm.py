"""Batch norm: a batch's own statistics without a trace, and averages made anew."""

import copy

import pytest
import tiny
import torch
from torch import nn

from helpers import batch_norm, models


def network(norm: str = "batch") -> models.Network:
    torch.manual_seed(0)
    return models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=2, norm=norm)


@pytest.mark.parametrize("training", [True, False])
def test_own_statistics_are_those_of_training_and_leave_nothing_behind(training):
    x = tiny.sets().train.images(slice(0, 20))
    f = network()
    expected = copy.deepcopy(f).train()(x)
    f.train(training)
    f.body.norm2.eval()  # frozen by hand
    before = copy.deepcopy(f)
    with batch_norm.own_statistics(f):
        assert torch.equal(f(x), expected)
    assert tiny.same(f, before)
    assert [m.training for m in f.modules()] == [m.training for m in before.modules()]
    assert all(layer.track_running_stats for layer in batch_norm.layers(f))


def test_own_statistics_are_put_back_after_an_error():
    f = network().eval()
    with pytest.raises(KeyError), batch_norm.own_statistics(f):
        raise KeyError
    assert not any(layer.training for layer in batch_norm.layers(f))


def test_settled_averages_are_the_mean_over_the_images():
    f, images = network(), tiny.sets().train
    f.train()(torch.rand(8, 1, 16, 16))  # averages of something else
    before = copy.deepcopy(f)
    found = batch_norm.settled(f, images, batch_size=32)
    maps = torch.stack([f.body.conv1(images.images(slice(k, k + 32))).mean((0, 2, 3)) for k in (0, 32, 64)])
    assert torch.allclose(found.body.norm1.running_mean, maps.mean(0), atol=1e-6)
    assert not found.training
    assert f.training
    assert tiny.same(f, before)
    assert all(p.equal(q) for p, q in zip(found.parameters(), f.parameters(), strict=True))


def test_settling_moves_no_momentum_and_no_generator():
    f = network()
    for layer in batch_norm.layers(f):
        layer.momentum = 0.9
    state = torch.get_rng_state()
    found = batch_norm.settled(f, tiny.sets().train, batch_size=50)
    assert [layer.momentum for layer in batch_norm.layers(found)] == [0.9] * 3
    assert torch.get_rng_state().equal(state)


def test_without_batch_norm_the_copy_is_equal():
    f = network("none")
    assert batch_norm.layers(f) == []
    assert tiny.same(batch_norm.settled(f, tiny.sets().train, batch_size=50), f)
    with pytest.raises(ValueError, match="batch_size"):
        batch_norm.settled(f, tiny.sets().train, batch_size=0)
    with pytest.raises((TypeError, ValueError), match="network"):
        batch_norm.layers(nn.functional.relu)
