"""Whether a network is right, image by image: on images as they are, and on what PGD makes of them.

The papers' tables report one PGD: a single uniform start, its last iterate. `pgd` makes those points by the attack's
name, `right` judges points, whoever made them; accuracies over radii, steps, ρ and networks all count these verdicts.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from helpers import attacks, metrics
from helpers.balls import Norm
from helpers.data import ImageSet


def right(network: nn.Module, points: Tensor, labels: Tensor, *, batch_size: int) -> np.ndarray:
    """Whether the largest logit of each of `points` (N, C, H, W) is that of its class in `labels` (N,): bool (N,).

    >>> import torch
    >>> class First(nn.Module):
    ...     def forward(self, x):
    ...         return x.flatten(1)[:, :2]
    >>> points = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).view(2, 1, 1, 2)
    >>> right(First(), points, torch.tensor([0, 0]), batch_size=2)
    array([ True, False])
    """
    found = metrics.predictions(network, points, batch_size=batch_size).argmax(1)
    return (found == labels.cpu()).numpy()


def pgd(
    network: nn.Module,
    images: ImageSet,
    *,
    attack: str,
    norm: Norm,
    epsilon: float,
    step_size: float,
    n_steps: int,
    seed: int,
    batch_size: int,
    callback: attacks.Callback | None = None,
) -> Tensor:
    """PGD by its name in `attacks.NAMED`: the last iterate from one start, x_adv (N, C, H, W).

    ε and the step are in the scale of [0, 1] images. The start is keyed by image and `seed`, so that the first k steps
    of a longer run are the run of k steps. `callback` sees every iterate, batch after batch.
    """
    return attacks.run(
        attack, network, images.images(), images.labels, norm=norm, epsilon=epsilon, step_size=step_size,
        n_steps=n_steps, n_restarts=1, returns="last", seed=seed, index=images.index, batch_size=batch_size,
        callback=callback,
    )  # fmt: skip
