"""One setting of an ablation with one network: a sample set is generated and scored, and a few images kept to look at.

Sample sets are those of `sample_sets`: set k comes from the network of seed k, with images of its own, so that sets are
independent. Settings share the draws of starts and noise image by image, so that they are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from helpers import extractors, generation, image_quality, initialisers, likeness, sample_sets, zoo
from helpers.data import ImageSet
from helpers.extractors import Extractor
from helpers.settings import Setting

FAMILIES = ("frechet", "kid", "precision_recall")
KID_SUBSETS = 4  # as large as the smaller set: a set's KID needs no interval of its own, so few of them will do
END = 5  # of 255: a pixel value this near to an end counts as saturated
DIMENSION = "dimension"  # of the feature, beside the scores
FRECHET = "frechet_distance"  # of whatever extractor, which stands beside it


@dataclass(frozen=True, eq=False)
class Jury:
    """What scores a sample set: real images, the extractor and its feature for distances, and a judge of classes."""

    reference: ImageSet
    extractor: Extractor
    feature: str
    judge: Extractor
    seed: int


def networks(name: str, *, profile: str, n_sets: int, device: torch.device | str) -> list[nn.Module]:
    """The network of each sample set: the recipe's seeds in turn (`sample_sets.seed_of`)."""
    seeds = zoo.seeds(name, profile=profile)
    members = [sample_sets.seed_of(number, seeds) for number in range(n_sets)]
    return [zoo.get(name, profile=profile, seed=seed, device=device) for seed in members]


def juries(
    data: Mapping[str, ImageSet],
    reference: str,
    *,
    judge: nn.Module,
    name: str,
    kind: str,
    feature: str | None,
    seed: int,
    device: torch.device | str,
) -> dict[str, Jury]:
    """The jury that compares settings, on the split `reference` of `data`, and that of the fresh report, on "test".

    `judge` and its `name` judge classes; `kind` and `feature` name the extractor, as sample_sets.extractor_of takes
    them. ValueError where both splits are one: a setting chosen on the test images cannot be reported on them.
    """
    if reference == "test":
        raise ValueError("reference: expected another split than that of the fresh report, got 'test'")
    sees = extractors.of_network(judge, name=name)
    looks, layer = sample_sets.extractor_of(sees, kind=kind, feature=feature, device=device)
    return {split: Jury(data[split], looks, layer, sees, seed) for split in (reference, "test")}


def drawn(number: int, *, n: int, images: ImageSet) -> dict[str, Tensor]:
    """Classes `y`, in turn, and `index` of sample set `number` (sample_sets.drawn), on the device of `images`."""
    if n % images.num_classes:
        raise ValueError(f"n_generated: expected a multiple of the {images.num_classes} classes, got {n}")
    found = sample_sets.drawn(number, n=n, num_classes=images.num_classes)
    return {name: one.to(images.labels.device) for name, one in found.items()}


def shown_rows(n: int, num_classes: int, classes: Sequence[int], *, n_each: int) -> Tensor:
    """Rows of the first `n_each` images of each of `classes` in a sample set, class after class.

    >>> shown_rows(6, 2, [1, 0], n_each=2).tolist()
    [1, 3, 0, 2]
    """
    if n_each * num_classes > n or max(classes) >= num_classes:
        raise ValueError(f"expected {n_each} of each of the classes {list(classes)} among {n} images, got too few")
    return torch.tensor([k + num_classes * i for k in classes for i in range(n_each)])


def fitted(setting: Setting, training: ImageSet, *, folder: Path | None) -> initialisers.Start:
    """The setting's start, fitted to training images once: `folder` keeps the fit."""
    return initialisers.fit(setting.initialiser, training, folder=folder, **setting.start)


def targets(network: nn.Module, images: ImageSet, setting: Setting, *, batch_size: int) -> Tensor | None:
    """The energies (K,) at which the setting's chains stop: the mean of each class's real images; None for "steps"."""
    if setting.stop == "steps":
        return None
    return generation.class_targets(network, images, energy=setting.energy, batch_size=batch_size)


def measure(
    *,
    network: nn.Module,
    start: initialisers.Start,
    setting: Setting,
    training: ImageSet,
    y: Tensor,
    index: Tensor,
    seed: int,
    jury: Jury,
    shown: Tensor,
    batch_size: int,
    folder: Path,
) -> dict[str, np.ndarray]:
    """One sample set of a setting and its scores: numbers by metric (params/schema.yaml), and `pictures` (P, C, H, W)
    uint8, the images at the rows `shown`. `start` is the setting's, `training` the images whose class means are the
    energies at which its chains stop; `seed` that of start and noise. `folder` keeps finished
    batches, for parts.compute_in_folder.
    """
    made = generation.generate(
        network, start, y=y, index=index, seed=seed, energy=setting.energy,
        step_size=setting.step_size, momentum=setting.momentum, noise_std=setting.noise_std, n_steps=setting.n_steps,
        gradient=setting.gradient, stop=setting.stop, tolerance=setting.energy_tolerance,  # type: ignore[arg-type]
        targets=targets(network, training, setting, batch_size=batch_size), batch_size=batch_size, folder=folder,
    )  # fmt: skip
    found = score(made.images, y, jury=jury, made_by=network, batch_size=batch_size)
    found |= {"joint_energy": float(made.joint.mean()), "steps_taken": float(made.n_steps_taken.mean())}
    return {name: np.array(value) for name, value in found.items()} | {"pictures": made.images[shown.numpy()]}


def score(
    images: np.ndarray | Tensor, y: Tensor, *, jury: Jury, made_by: nn.Module | None, batch_size: int
) -> dict[str, float]:
    """The scores of uint8 images (N, C, H, W) of classes y (N,), by metric; `made_by` is None for real images."""
    whole = image_quality.scores(
        images, jury.reference, extractor=jury.extractor, feature=jury.feature, seed=jury.seed, batch_size=batch_size,
        selection=image_quality.FRESH, families=FAMILIES, kid_subsets=KID_SUBSETS,
        kid_subset_size=min(len(images), len(jury.reference)),
    )  # fmt: skip
    found = {FRECHET if name == image_quality.frechet_name(whole.protocol) else name: one.value
             for name, one in whole.estimates.items()}  # fmt: skip
    # torch-fidelity's shares are float32: rounded, so that equal shares of images are equal.
    found |= {name: round(found[name], 4) for name in ("precision", "recall")}
    agreed = likeness.agreement(jury.judge, images, y, made_by=made_by, batch_size=batch_size)
    apart = likeness.diversity(images, y, jury.reference, extractor=None, feature=None, batch_size=batch_size)
    found |= {"class_agreement": agreed.overall.value, "diversity": apart.overall.value}
    found |= {"saturation": saturation(images), "contrast": contrast(images)}
    return found | {DIMENSION: whole.protocol.dimension}


def real_sets(images: ImageSet, *, n: int, n_sets: int) -> list[ImageSet]:
    """Disjoint sets of `n` real images, each class as often, to be scored as made ones are; fewer where images end."""
    each = n // images.num_classes
    n_sets = min(n_sets, int(images.labels.bincount(minlength=images.num_classes).min()) // each)
    if not n_sets:
        raise ValueError(f"expected {each} images of each class in {images.name}/{images.split}, got fewer")
    chosen = images.per_class(each * n_sets)
    rows = torch.arange(len(chosen)).reshape(images.num_classes, n_sets, each)
    return [chosen.subset(rows[:, number].flatten()) for number in range(n_sets)]


def score_real(images: ImageSet, *, jury: Jury, n: int, n_sets: int, batch_size: int) -> list[dict[str, float]]:
    """The scores of each of `real_sets`."""
    several = real_sets(images, n=n, n_sets=n_sets)
    return [score(one.pixels, one.labels, jury=jury, made_by=None, batch_size=batch_size) for one in several]


def saturation(images: np.ndarray | Tensor) -> float:
    """The share of pixel values within 5/255 of either end of the range, in per cent; a chain's noise stirs the ends.

    >>> saturation(np.array([0, 251, 7, 9], np.uint8).reshape(1, 1, 2, 2))
    50.0
    """
    pixels = images.cpu().numpy() if isinstance(images, Tensor) else images
    return float(100 * np.mean((pixels <= END) | (pixels >= 255 - END)))


def contrast(images: np.ndarray | Tensor) -> float:
    """Mean over images of the standard deviation of an image's pixel values, in the pixel range.

    >>> contrast(np.array([0, 255, 0, 255], np.uint8).reshape(1, 1, 2, 2))
    0.5
    """
    pixels = images.cpu().numpy() if isinstance(images, Tensor) else images
    return float(np.mean(pixels.reshape(len(pixels), -1).std(axis=1)) / 255)
