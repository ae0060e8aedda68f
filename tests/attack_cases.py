"""What the tests of the attacks share: networks with a known answer, images, settings."""

import math

import torch
from torch import nn

from helpers import attacks

B, SHAPE = 4, (3, 5, 5)
EPSILON = 0.05
INDEX = torch.tensor([3, 141, 59, 26])
ROUNDING = 2.0**-24  # half a unit in the last place of a float32 at 1, twice


def linear(dtype=torch.float64):
    """Two classes with logits 0 and w·x + b: CE's gradient in x is ∓ p w, so its direction is ∓ w everywhere."""
    w = torch.randn(math.prod(SHAPE), generator=torch.Generator().manual_seed(0), dtype=dtype)
    net = nn.Sequential(nn.Flatten(), nn.Linear(len(w), 2, dtype=dtype))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.zeros_like(w), w]))
        net[1].bias.copy_(torch.tensor([0.0, -w.sum() / 2]))
    return net, w.reshape(1, *SHAPE)


def middle(dtype=torch.float64, n=B):
    """Images whose pixels stay in [0, 1] within any radius used here."""
    return 0.3 + 0.4 * torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=dtype)


def convolutional():
    """A small float32 network with batch norm, drawn without the global generator."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 9, 5),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.5 if p.ndim > 1 else 0.1))
        net.eval()
        net[-1].bias -= net(middle(torch.float32, 64)).mean(0)  # so that every class has its images
    return net


def settings(**changes):
    return {
        "norm": "linf",
        "epsilon": EPSILON,
        "step_size": EPSILON / 4,
        "n_steps": 10,
        "start": "none",
        "n_restarts": 1,
        "returns": "last",
        "seed": 0,
        "index": INDEX,
    } | changes


def uphill(x, y):
    """A loss with gradient 1 in every pixel; nobody is ever fooled."""
    return attacks.LossValue(x.sum((1, 2, 3)), torch.zeros_like(y, dtype=torch.bool))


OPTIONS = {"n_targets": 2, "n_queries": 8, "gamma": 0.5, "kappa": 0.3}
OPTIONS |= {"cw_c": 1.0, "cw_kappa": 0.0, "cw_step_size": 0.01, "cw_n_steps": 6}


def run_settings(**changes):
    return (
        OPTIONS
        | {
            "norm": "linf",
            "epsilon": EPSILON,
            "step_size": EPSILON / 4,
            "n_steps": 6,
            "returns": "last",
            "n_restarts": 1,
            "seed": 0,
            "index": INDEX,
            "batch_size": 100,
        }
        | changes
    )
