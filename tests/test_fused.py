"""The fused network says what the network says, whatever the batch, and steps aside where it cannot."""

import pytest
import torch
from torch import nn
from victims import convolutional, images

from helpers import fused, models


def folded():
    """A network with batch norm that is not the identity."""
    torch.manual_seed(0)
    net = models.build("smallcnn", num_classes=10, in_channels=3, image_size=16, width=4, depth=3).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2.0)
    return net.requires_grad_(False)


@pytest.mark.parametrize("n", [1, 2, 7, 33])
def test_the_same_logits_for_any_batch(n):
    net, x = folded(), images(40, dtype=torch.float32, shape=(3, 16, 16))
    graph = fused.fused(net, x)
    assert graph is not net
    for _ in range(3):  # a graph is compiled anew in its first calls
        torch.testing.assert_close(graph(x[:n]), net(x[:n]), rtol=1e-5, atol=1e-5)


def test_it_is_of_the_weights_as_they_were():
    net, x = folded(), images(8, dtype=torch.float32, shape=(3, 16, 16))
    graph, before = fused.fused(net, x), net(x)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    torch.testing.assert_close(graph(x), before, rtol=1e-5, atol=1e-5)


class OfTheBatch(nn.Module):
    """What a trace of one batch cannot say of another."""

    def forward(self, x):
        return x.flatten(1)[:, :4] * (1.0 if float(x[0, 0, 0, 0]) > 0.5 else -1.0)


class Untraceable(nn.Module):
    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("not me")
        return x.flatten(1)[:, :4]


@pytest.mark.parametrize("net", [OfTheBatch(), Untraceable()])
def test_what_cannot_be_fused_is_asked_itself(net):
    x = images(4, dtype=torch.float32)
    x[0, 0, 0, 0], x[2, 0, 0, 0] = 0.7, 0.3
    assert fused.fused(net, x) is net


def test_the_network_is_left_alone():
    net = convolutional(dtype=torch.float32)
    state = {name: t.clone() for name, t in net.state_dict().items()}
    fused.fused(net, images(4, dtype=torch.float32))
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())
