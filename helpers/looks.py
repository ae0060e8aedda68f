"""What a network says of several sets of images: logits of each, and for some of them the approximate mass.

A piece of this kind is all that calibration, detection and the energies of natural images need of a network; they are
computed from it. Arrays by name, so that `parts` and records can keep them:

    <set> logits  (n, K) float32      <set> mass  (n,) float32, only where it was asked for
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from helpers import energies, metrics, ood, parameters, zoo
from helpers.data import ImageSet

LOGITS, MASS = "logits", "mass"
# Scores by which data and foreign images are told apart (helpers.ood), and how they are printed.
SCORES = {"log_density": "log p(x)", "max_probability": "max p(y|x)", "approximate_mass": "approximate mass"}


def look(
    network: nn.Module, sets: Mapping[str, ImageSet], *, mass_of: Collection[str], batch_size: int
) -> dict[str, np.ndarray]:
    """Logits of each of `sets` in eval mode, and the approximate mass of those named in `mass_of` (one gradient each).

    Images may lie anywhere: batches are moved to the network's device.
    """
    if absent := [name for name in mass_of if name not in sets]:
        raise ValueError(f"mass_of: expected some of {list(sets)}, got {absent}")
    found: dict[str, np.ndarray] = {}
    for name, images in sets.items():
        found[f"{name} {LOGITS}"] = metrics.predictions(network, images.images(), batch_size=batch_size).numpy()
        if name in mass_of:
            found[f"{name} {MASS}"] = ood.approximate_mass(network, images.images(), batch_size=batch_size).numpy()
    return found


def splits(name: str, *, profile: str, n_images: int) -> dict[str, ImageSet]:
    """The data of a network: the first `n_images` of "train" and of "test", and all of "validation" where its recipe
    keeps some."""
    kept = parameters.recipe(profile, name).entry.get("validation_fraction")
    found = {split: zoo.dataset(name, profile=profile, split=split).first(n_images) for split in ("train", "test")}
    return found | ({"validation": zoo.dataset(name, profile=profile, split="validation")} if kept else {})


def logits(found: Mapping[str, np.ndarray], name: str) -> Tensor:
    """Logits of the set `name`, (n, K)."""
    return torch.from_numpy(found[f"{name} {LOGITS}"])


def energy(found: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """E(x) of the set `name`, (n,)."""
    return energies.marginal(logits(found, name)).numpy()


def score(found: Mapping[str, np.ndarray], name: str, kind: str) -> Tensor:
    """A score of SCORES of the set `name`, (n,); higher is more like the network's data."""
    if kind == "approximate_mass":
        return torch.from_numpy(found[f"{name} {MASS}"])
    return {"log_density": ood.log_density, "max_probability": ood.max_probability}[kind](logits(found, name))
