"""One setting of an ablation with one network: a sample set is generated and scored, and a few images kept to look at.

Sample set k comes from the network of seed k, with images of its own (`plan`), so that sets are independent. Settings
share starts' draws and noise image by image, so that they are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from helpers import checks, generation, image_quality, initialisers, likeness
from helpers.ablations import Setting
from helpers.data import ImageSet
from helpers.extractors import Extractor

FAMILIES = ("frechet", "kid", "precision_recall")
FRECHET = "frechet_distance"  # of whatever extractor, which stands beside it


@dataclass(frozen=True, eq=False)
class Plan:
    """Which images a sample set has: classes y (N,) int64, each as often, and index (N,) int64, the images' names."""

    y: Tensor
    index: Tensor
    seed: int


@dataclass(frozen=True, eq=False)
class Jury:
    """What scores a sample set: real images, the extractor and its feature for distances, and a judge of classes."""

    reference: ImageSet
    extractor: Extractor
    feature: str
    judge: Extractor
    seed: int


def plan(*, n: int, num_classes: int, number: int, seed: int, device: torch.device | str = "cpu") -> Plan:
    """Sample set `number` of `n` images, class after class in turn; no two sets share an index.

    >>> plan(n=4, num_classes=2, number=3, seed=0).y.tolist(), plan(n=4, num_classes=2, number=3, seed=0).index.tolist()
    ([0, 1, 0, 1], [12, 13, 14, 15])
    """
    checks.count(number, "number")
    if n % num_classes:
        raise ValueError(f"n_generated: expected a multiple of the {num_classes} classes, got {n}")
    rows = torch.arange(n, device=device)
    return Plan(rows % num_classes, rows + number * n, seed)


def shown_rows(y: Tensor, classes: Sequence[int], *, n_each: int) -> Tensor:
    """Rows of the first `n_each` images of each of `classes`, class after class, (len(classes) · n_each,)."""
    return torch.cat([(y == k).nonzero().flatten()[:n_each] for k in classes]).cpu()


def targets(network: nn.Module, images: ImageSet, setting: Setting, *, batch_size: int) -> Tensor | None:
    """The energies (K,) at which the setting's chains stop: the mean of each class's real images; None for "steps"."""
    if setting.stop == "steps":
        return None
    return generation.class_targets(network, images, energy=setting.energy, batch_size=batch_size)


def measure(
    *,
    network: nn.Module,
    training: ImageSet,
    setting: Setting,
    plan: Plan,
    jury: Jury,
    shown: Tensor,
    batch_size: int,
    folder: Path,
) -> dict[str, np.ndarray]:
    """One sample set of a setting and its scores: numbers by metric (params/schema.yaml), and `pictures` (P, C, H, W)
    uint8, the images at the rows `shown`. Starts are fitted to `training`, whose class means are the stop's targets.

    `folder` keeps finished batches, for parts.compute_in_folder.
    """
    start = initialisers.fit(setting.initialiser, training, folder=None, **setting.start)
    made = generation.generate(
        network, start, y=plan.y, index=plan.index, seed=plan.seed, energy=setting.energy,
        step_size=setting.step_size, momentum=setting.momentum, noise_std=setting.noise_std, n_steps=setting.n_steps,
        gradient=setting.gradient, stop=setting.stop, tolerance=setting.energy_tolerance,  # type: ignore[arg-type]
        targets=targets(network, training, setting, batch_size=batch_size), batch_size=batch_size, folder=folder,
    )  # fmt: skip
    found = score(made.images, plan.y, jury=jury, made_by=network, batch_size=batch_size)
    found |= {"joint_energy": float(made.joint.mean()), "steps_taken": float(made.n_steps_taken.mean())}
    return {name: np.array(value) for name, value in found.items()} | {"pictures": made.images[shown.numpy()]}


def score(
    images: np.ndarray | Tensor, y: Tensor, *, jury: Jury, made_by: nn.Module | None, batch_size: int
) -> dict[str, float]:
    """The scores of uint8 images (N, C, H, W) of classes y (N,), by metric; `made_by` is None for real images."""
    whole = image_quality.scores(
        images, jury.reference, extractor=jury.extractor, feature=jury.feature, seed=jury.seed, batch_size=batch_size,
        selection=image_quality.FRESH, families=FAMILIES,
    )  # fmt: skip
    found = {FRECHET if name == image_quality.frechet_name(whole.protocol) else name: one.value
             for name, one in whole.estimates.items()}  # fmt: skip
    agreed = likeness.agreement(jury.judge, images, y, made_by=made_by, batch_size=batch_size)
    apart = likeness.diversity(images, y, jury.reference, extractor=jury.extractor, feature=jury.feature,
                               batch_size=batch_size)  # fmt: skip
    found |= {"agreement": agreed.overall.value, "diversity": apart.overall.value}
    return found | {"saturation": saturation(images), "contrast": contrast(images)}


def saturation(images: np.ndarray | Tensor) -> float:
    """The share of pixel values that are at either end of the range, 0 or 255, in per cent.

    >>> saturation(np.array([0, 255, 7, 9], np.uint8).reshape(1, 1, 2, 2))
    50.0
    """
    pixels = np.asarray(images)
    return float(100 * np.mean((pixels == 0) | (pixels == 255)))


def contrast(images: np.ndarray | Tensor) -> float:
    """Mean over images of the standard deviation of an image's pixel values, in the pixel range.

    >>> contrast(np.array([0, 255, 0, 255], np.uint8).reshape(1, 1, 2, 2))
    0.5
    """
    pixels = np.asarray(images)
    return float(np.mean(pixels.reshape(len(pixels), -1).std(axis=1)) / 255)
