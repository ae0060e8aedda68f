"""Which images networks classify wrongly under corruption, attack and natural adversarial photographs (ceb, its table).

A piece holds the verdicts of one network, True for wrong:

    clean                                (N,)
    each corruption by its name          (5, N), a row a severity
    pgd_l2, pgd_linf                     (M,)
    imagenet_a_sliced, imagenet_a_whole  (A,), where there are the photographs and a network of their classes

The corrupted images are made here; the official ones stand beside them in official_sets.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from helpers import corruption_errors, corruptions, data, imagenet_a, judged, metrics, photographs, rho_sweep
from helpers.balls import Norm
from helpers.corruption_settings import SEVERITIES, Profile, names
from helpers.data import ImageSet

__all__ = [
    "ATTACK",
    "CLEAN",
    "attacked",
    "by_corruption",
    "natural",
    "natural_missing",
    "pieces",
    "shown",
    "with_natural",
]

CLEAN = "clean"
ATTACK = rho_sweep.TARGETED  # towards a random class, as in the table
IMAGENET_CLASSES = 1000


def by_corruption(
    networks: Mapping[str, nn.Module],
    images: ImageSet,
    *,
    name: str,
    profile: Profile,
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """One corruption, made once for all networks: which of the N images each gets wrong, bool (5, N), by network.

    `name` "clean" leaves the images as they are, (N,).
    """
    y = images.labels.cpu()
    if name == CLEAN:
        x = images.images()
        return {key: ~judged.right(one, x, y, batch_size=batch_size) for key, one in networks.items()}
    rows: dict[str, list[np.ndarray]] = {key: [] for key in networks}
    for severity in SEVERITIES:
        logits = corruption_errors.predictions(
            networks, images, name=name, severity=severity, profile=profile, seed=seed, batch_size=batch_size
        )
        for key, one in logits.items():
            rows[key].append((one.argmax(1) != y).numpy())
    return {key: np.stack(verdicts) for key, verdicts in rows.items()}


def attacked(
    network: nn.Module,
    images: ImageSet,
    *,
    epsilons: Mapping[Norm, float],
    step_radii: float,
    n_steps: int,
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Targeted PGD (random class, uniform start, last iterate) in each ball: "pgd_<norm>", True for wrong, bool (M,).

    Radii are in the scale of [0, 1] images, a step is `step_radii` radii long. An image counts as wrong whether or not
    it was given the class that the attack aimed at, as in the paper's table of errors.
    """
    right = rho_sweep.measured(
        network, images, attack_names=[ATTACK], epsilons=epsilons, step_radii=step_radii, n_steps=n_steps, seed=seed,
        batch_size=batch_size,
    )  # fmt: skip
    return {f"pgd_{norm}": ~right[f"{ATTACK} {norm}"] for norm in epsilons}


def natural_missing(num_classes: int, *, root: Path | str | None = None) -> str:
    """Why ImageNet-A cannot be run on a network of so many classes, with what to do about it; "" where it can."""
    reasons = []
    if num_classes != IMAGENET_CLASSES:
        reasons.append(f"a network of ImageNet's {IMAGENET_CLASSES} classes is needed, got {num_classes}")
    for find in (photographs.imagenet_a, photographs.imagenet_validation):
        try:
            find(root)
        except FileNotFoundError as error:
            reasons.append(data.placeless(error, root=root))
    return "; ".join(reasons)


def natural(
    networks: Mapping[str, nn.Module], *, n_images: int, batch_size: int, root: Path | str | None = None
) -> dict[str, np.ndarray]:
    """Networks of 1000 classes on ImageNet-A (imagenet_a.py): "<network> <convention>" (n_images,), True for wrong.

    The class folders of ImageNet's validation images name the outputs. Raises FileNotFoundError with what to do where
    either set of photographs is absent.
    """
    photos = photographs.by_class(photographs.imagenet_a(root), n_images=n_images)
    outputs = sorted(one.name for one in photographs.imagenet_validation(root).iterdir() if one.is_dir())
    columns, found = imagenet_a.columns(photos.classes, outputs), {}
    for key, network in networks.items():
        logits = metrics.predictions(network, photos.images(), batch_size=batch_size)
        for convention in imagenet_a.CONVENTIONS:
            right = imagenet_a.correct(logits, photos.labels, columns=columns, convention=convention)
            found[f"{key} {convention}"] = ~right.numpy()
    return found


def with_natural(
    found: Mapping[tuple[str, int], Mapping[str, np.ndarray]], verdicts: Mapping[str, np.ndarray]
) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """The pieces `found` with what `natural` returned, as "imagenet_a_<convention>"."""
    merged = {key: dict(piece) for key, piece in found.items()}
    for name, wrong in verdicts.items():
        network, seed, convention = name.rsplit(" ", 2)
        merged[network, int(seed)][f"imagenet_a_{convention}"] = wrong
    return merged


def shown(images: ImageSet, *, profile: Profile, seed: int) -> dict[str, np.ndarray]:
    """The images of `images` as they are and at severities 1 … 5, by corruption, (6 N, C, H, W), row by row."""
    x, found = images.images(), {}
    for name in names():
        rows = [x]
        for severity in SEVERITIES:
            words: dict[str, Any] = {"severity": severity, "profile": profile, "seed": seed, "index": images.index}
            rows.append(corruptions.corrupt(name, x, **words))
        found[name] = torch.cat(rows).cpu().numpy()
    return found


def pieces(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """What `by_corruption` returned, by corruption, turned to one piece for each (network, seed).

    Networks are named "<network> <seed>" there.

    >>> pieces({"clean": {"ceb@rho=2 0": np.array([True])}})
    {('ceb@rho=2', 0): {'clean': array([ True])}}
    """
    turned: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for name, by_network in found.items():
        for key, verdicts in by_network.items():
            network, _, seed = key.rpartition(" ")
            turned.setdefault((network, int(seed)), {})[name] = verdicts
    return turned
