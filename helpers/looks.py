"""What a network says of several sets of images: logits of each, and for some of them the approximate mass.

A piece of this kind is all that calibration, detection and the energies of natural images need of a network; they are
computed from it. Arrays by name, so that `parts` and records can keep them:

    <set> logits  (n, K) float32      <set> mass  (n,) float32, only where it was asked for
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from helpers import energies, metrics, ood, parameters, style, zoo
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


def splits(names: Sequence[str], *, main: str, profile: str, n_images: int) -> dict[str, ImageSet]:
    """The data that all of these networks have: the first `n_images` of "test" and of "train", and all of "validation".

    "train" is what the first of `names` trains on: with another share kept for validation, or another draw of it, some
    of these images trained the others and some did not.

    `main` is the one of them that the others are compared with; ValueError where it is not among them.

    "validation" is there only where every recipe keeps the same images for it, since those of one may have trained
    another. ValueError where the networks have different data.
    """
    if main not in names:
        raise ValueError(f"robust_network: expected one of the networks ({', '.join(names)}), got {main!r}")
    entries = [parameters.recipe(profile, name).entry for name in names]
    if len(kinds := {(entry["dataset"], entry.get("image_size")) for entry in entries}) != 1:
        raise ValueError(f"networks: expected all of one data set and size, got {sorted(map(str, kinds))}")
    found = {split: zoo.dataset(names[0], profile=profile, split=split).first(n_images) for split in ("train", "test")}
    kept = {(entry.get("validation_fraction") or 0, entry.get("split_seed") or 0) for entry in entries}
    if len(kept) == 1 and kept.pop()[0]:
        found["validation"] = zoo.dataset(names[0], profile=profile, split="validation")
    return found


def trainings(every: Iterable[tuple[str, int]], *, profile: str) -> str:
    """Which of these networks (name, seed) diverged while they were trained here, a line each: how often, and whether
    they were given up."""
    lines = []
    for name, seed in every:
        if parameters.recipe(profile, name).entry["source"] != "train":
            continue  # whose course nobody here knows
        course = zoo.card(name, profile=profile, seed=seed).get("training") or {"events": []}
        if n := len(course["events"]):
            end = (
                f", then given up after epoch {course['epochs']}: it is measured as it was then"
                if course["gave_up"]
                else ""
            )
            lines.append(f"{style.label(name)}, seed {seed}: diverged {n} time{'s' * (n != 1)}{end}")
    return "\n".join(lines) or "No training of these networks here diverged."


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
