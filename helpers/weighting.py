"""Whom WEAT weighs: the weights w(x) = 1/log(1 + exp |E(x)|) of training images against their energies (ebm, 12).

One row for each seed and image: seed | image, E, weight.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers import energies, losses, metrics, records
from helpers.data import ImageSet
from helpers.robustness import interval


def weigh(network: nn.Module, images: ImageSet, *, batch_size: int) -> dict[str, np.ndarray]:
    """E(x) (nat) and w(x) of natural images under a trained network, (N,) each, and `image`, their places."""
    logits = metrics.predictions(network, images.images(), batch_size=batch_size)
    energy = energies.marginal(logits)
    weight = losses.weat_weight(energy)
    return {"image": images.index.cpu().numpy(), "E": energy.numpy(), "weight": weight.numpy()}


def curve(energy: np.ndarray) -> np.ndarray:
    """w at these energies (n,), for a figure."""
    weights: np.ndarray = losses.weat_weight(torch.from_numpy(energy)).numpy()
    return weights


def summary(weights: pd.DataFrame, *, network: str) -> list[records.Scalar]:
    """Scalars for a record, over seeds with Student's t: mean_weight, effective_share, share_negative_energy, energy.

    >>> weights = pd.DataFrame({"seed": [0, 0], "E": [-1.0, 1.0], "weight": [0.5, 1.5]})
    >>> [(row["metric"], row["value"]) for row in summary(weights, network="weat_adv")][:3]
    [('mean_weight', 1.0), ('effective_share', 80.0), ('share_negative_energy', 50.0)]
    """
    groups = {int(str(seed)): rows for seed, rows in weights.groupby("seed")}
    w = [rows["weight"].to_numpy(dtype=np.float64) for rows in groups.values()]
    values = {
        "mean_weight": [one.mean() for one in w],
        "effective_share": [100 * one.sum() ** 2 / (one.size * (one**2).sum()) for one in w],
        "share_negative_energy": [100 * float((rows["E"] < 0).mean()) for rows in groups.values()],
        "energy": [float(rows["E"].mean()) for rows in groups.values()],
    }
    n = len(next(iter(groups.values())))
    return [
        records.scalar(metric, metrics.student_t(found), n=n, seeds=list(groups), network=network)
        for metric, found in values.items()
    ]


def reading(scalars: pd.DataFrame) -> str:
    """What a record of `summary` says: how much the loss shrinks, how uneven the weights are, and which way."""
    rows = {str(row["metric"]): row for row in scalars.to_dict("records")}
    mean, share, negative, energy = (
        interval(rows[name]) for name in ("mean_weight", "effective_share", "share_negative_energy", "energy")
    )
    if negative.value == 100:
        way = "every E(x) is below 0, so the higher the energy, the higher the weight"
    else:
        way = f"E(x) is below 0 on {negative} % of the images; above 0 a higher energy means a lower weight"
    n = len(rows["energy"]["seeds"])
    return (
        f"Mean E(x) {energy} nat, mean weight {mean} over {n} seed{'s' * (n != 1)}: WEAT's loss is "
        f"{1 / mean.value:.1f} times smaller than without weights. The weights count like {share} % of the images "
        f"weighed evenly. Direction: {way}."
    )
