"""Networks small enough to attack in a test: a linear one with closed forms, and a convolutional one."""

import math

import torch
from torch import nn

SHAPE = (3, 8, 8)


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def images(n, *, seed=1, dtype=torch.float64, shape=SHAPE):
    """Pixels in [0.3, 0.7]: the box is never met within small radii."""
    return 0.3 + 0.4 * rand(n, *shape, seed=seed, dtype=dtype)


def linear(num_classes=2, *, dtype=torch.float64, shape=SHAPE, seed=0):
    """Logits W x + b, such that each class has its images."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), num_classes, dtype=dtype))
    with torch.no_grad():
        net[1].weight.copy_(randn(num_classes, math.prod(shape), seed=seed, dtype=dtype))
        net[1].bias.copy_(-net[1].weight.sum(1) / 2)
    return net.eval()


def convolutional(num_classes=5, *, dtype=torch.float64, shape=SHAPE):
    """Two convolutions and a linear layer, its weights drawn, its bias such that each class has its images."""
    channels, height, width = shape
    net = nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1, dtype=dtype), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2, dtype=dtype),
        nn.Softplus(), nn.Flatten(), nn.Linear(6 * ((height - 1) // 2) * ((width - 1) // 2), num_classes, dtype=dtype),
    )  # fmt: skip
    with torch.no_grad():
        for seed, p in enumerate(net.parameters()):
            p.copy_(randn(*p.shape, seed=seed, dtype=dtype) * (0.4 if p.ndim > 1 else 0.1))
        net[-1].bias -= net(images(64, dtype=dtype, shape=shape)).mean(0)
    return net.eval()


def distances(net, x, y, *, norm):
    """How far each image of a linear network is from its nearest boundary, in closed form, the box not met; (B,).

    To class k that is (z_y − z_k) / ‖w_y − w_k‖ in the dual norm; below 0 the image is wrong already.
    """
    w = net[1].weight.detach()
    gaps = net(x).detach()
    gaps = gaps.gather(1, y[:, None]) - gaps
    lengths = torch.linalg.vector_norm(w[y][:, None] - w[None], ord=1 if norm == "linf" else 2, dim=2)
    return (gaps / lengths.clamp_min(1e-300)).scatter(1, y[:, None], torch.inf).amin(1)


class Liar(nn.Module):
    """In place of the network in bfloat16: it sees another class everywhere."""

    asked = 0

    def __init__(self, network, device):
        super().__init__()
        self.network = network

    def forward(self, x):
        Liar.asked += 1
        return -self.network(x)
