"""A bottleneck whose every number is known: f(x) is the first two pixels, and c(y|z) and b(z|y) are set by hand."""

import torch
from torch import nn

from helpers import arms, bottleneck, data, models

MEANS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # of b(z|y)


class Pixels(nn.Module):
    """A body of `models` with embed(x): the first two pixels; its classifier is taken off by the bottleneck."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def embed(self, x):
        return x.flatten(1)[:, :2]

    def forward(self, x):
        return self.linear(self.embed(x))


def network(gain=4.0):
    """Two classes: logits of c are gain · z, so that the larger of the first two pixels decides."""
    body = bottleneck.Bottleneck(Pixels(), num_classes=2, latent_dim=None, density="classes", consistent=False)
    with torch.no_grad():
        body.linear.weight.copy_(gain * torch.eye(2))
        body.density.means.copy_(MEANS)
    return models.Network(body, num_classes=2, mean=[0.0], std=[1.0]).eval()


def images(n=40):
    """Even images are of class 0: pixels (0.5 + m, 0.5 − m, …), odd ones of class 1 with the sign turned; m rises."""
    margin = torch.linspace(0.02, 0.4, n)
    y = torch.arange(n) % 2
    x = torch.full((n, 1, 4, 4), 0.5)
    sign = 1.0 - 2.0 * y
    x[:, 0, 0, 0] += sign * margin
    x[:, 0, 0, 1] -= sign * margin
    return data.from_tensors(x, y, classes="ab"), (x[:, 0, 0, 0] - 0.5).abs()


def arm(name, *, family="batch_norm", rho=float("nan")):
    """An arm of this name, whose kind is the name before the @."""
    return arms.Arm(name, family, name, name.partition("@")[0], rho)
