"""Batch normalisation where batches are of different kinds: real images, chains, adversarial examples.

In training each batch is normalised by its own mean and variance, and the layers average these up for evaluation. An
average over chains and attacked images is of no use for real ones, so attacks leave none behind (`own_statistics`),
and before a network is evaluated its averages are made anew from training images (`settled`). JEM++'s public code does
neither: with its `momentum` of 0.9 it is evaluated with what is all but the last batch's statistics.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from helpers import checks
from helpers.data import ImageSet
from helpers.models import Network


def layers(network: nn.Module) -> list[_BatchNorm]:
    """The network's layers of batch normalisation.

    >>> len(layers(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))))
    1
    """
    return [module for module in checks.module(network).modules() if isinstance(module, _BatchNorm)]


@contextmanager
def own_statistics(network: nn.Module) -> Iterator[None]:
    """Normalise each batch by its own statistics and leave the averages alone; modes are put back.

    >>> norm = nn.BatchNorm1d(1)
    >>> with own_statistics(norm):
    ...     norm(torch.tensor([[1.0], [3.0]])).detach().round().flatten().tolist()
    [-1.0, 1.0]
    >>> norm.running_mean.item()
    0.0
    """
    found = [(layer, layer.training, layer.track_running_stats) for layer in layers(network)]
    try:
        for layer, _, _ in found:
            layer.training, layer.track_running_stats = True, False
        yield
    finally:
        for layer, training, tracking in found:
            layer.training, layer.track_running_stats = training, tracking


def settled(network: Network, images: ImageSet, *, batch_size: int) -> Network:
    """A copy of the network in eval mode whose averages are the mean over batches of `images`, as they are.

    The network itself is left as it was, generators too; without batch normalisation the copy is equal to it.
    """
    checks.count(batch_size, "batch_size", minimum=1)
    copied = copy.deepcopy(network)
    if layers(copied):
        rows = torch.arange(len(images), device=images.labels.device).split(batch_size)
        torch.optim.swa_utils.update_bn((images.images(some) for some in rows), copied)
    return copied.eval()
