"""Starts of generation by their names in YAML: `fit(name, images, …)`, then `start.draw(y, key)`.

| name              | x_0 of class y                                    | options                                     |
| ----------------- | ------------------------------------------------- | ------------------------------------------- |
| `uniform`         | uniform noise                                     |                                             |
| `class_mean`      | noise around the class's mean                     | start_noise_std                             |
| `class_gaussian`  | a Gaussian with the class's mean and covariance ¹ |                                             |
| `class_pca`       | the same along the first components of the class  | retained_variance, pca_spread               |
| `local_class_pca` | that of a neighbourhood of a random image         | n_neighbours, retained_variance, pca_spread |
| `images`          | a real image of the set that is given, with noise | start_noise_std                             |

¹ with the jitter of Santurkar et al.; that of JEM++: `dataclasses.replace(start, jitter_std=starts.JEMPP_JITTER_STD)`
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from helpers import checks
from helpers.class_pca import fit_class_pca, fit_local_class_pca
from helpers.data import ImageSet
from helpers.starts import (
    SANTURKAR_JITTER_STD,
    ClassGaussian,
    ClassMean,
    Images,
    Start,
    Uniform,
    class_means,
    pixels_by_class,
)

OPTIONS: dict[str, tuple[str, ...]] = {
    "uniform": (),
    "class_mean": ("start_noise_std",),
    "class_gaussian": (),
    "class_pca": ("retained_variance", "pca_spread"),
    "local_class_pca": ("n_neighbours", "retained_variance", "pca_spread"),
    "images": ("start_noise_std",),
}


def fit(name: str, images: ImageSet, *, folder: Path | None, **options: Any) -> Start:
    """The start `name` of the classes of `images`, which are training images (for `images` those of another set).

    `options` are those of the table above, each by its name, none more and none fewer: ValueError otherwise. What
    takes time to fit is kept in `folder` and used again for the same images and options; None keeps nothing.
    Tensors lie on the device of `images`, draws on that of y.

    >>> from helpers import data, noise
    >>> import torch
    >>> start = fit("class_pca", data.load("digits", "train"), folder=None, retained_variance=0.9, pca_spread=1.0)
    >>> start.n_components.tolist()
    [12, 6, 10, 12, 10, 11, 10, 11, 13, 12]
    >>> start.draw(torch.tensor([3, 8]), noise.Key(seed=0, purpose="chains", index=torch.arange(2))).shape
    torch.Size([2, 1, 16, 16])
    """
    checks.choice(name, OPTIONS, "start")
    _check_options(name, options)
    return _FITS[name](images, folder, options)


def options(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of start `name` among a notebook's `values`, for `fit(name, images, folder=…, **options(…))`.

    >>> options("class_mean", {"n_images": 100, "start_noise_std": 0.1})
    {'start_noise_std': 0.1}
    """
    wanted = OPTIONS[checks.choice(name, OPTIONS, "start")]
    return {option: values[option] for option in wanted if option in values}


def _check_options(name: str, given: Mapping[str, Any]) -> None:
    wanted = OPTIONS[name]
    takes = f"start {name!r} takes {', '.join(wanted) or 'no options'}"
    for option in given:
        if option not in wanted:
            near = difflib.get_close_matches(option, wanted, n=1)
            hint = f" (nearest: {near[0]})" if near else ""
            raise ValueError(f"{takes}: expected no other, got {option!r}{hint}")
    missing = [option for option in wanted if given.get(option) is None]
    if missing:
        raise ValueError(f"{takes}: expected each of them, got no {', '.join(missing)}")


def _uniform(images: ImageSet, folder: Path | None, options: Mapping[str, Any]) -> Start:
    return Uniform(shape=images.shape, num_classes=images.num_classes)


def _class_mean(images: ImageSet, folder: Path | None, options: Mapping[str, Any]) -> Start:
    return ClassMean(mean=class_means(pixels_by_class(images)), shape=images.shape, start_noise_std=_noise_std(options))


def _class_gaussian(images: ImageSet, folder: Path | None, options: Mapping[str, Any]) -> Start:
    pixels = pixels_by_class(images, at_least=2)
    return ClassGaussian(pixels=pixels, mean=class_means(pixels), jitter_std=SANTURKAR_JITTER_STD)


def _class_pca(images: ImageSet, folder: Path | None, options: Mapping[str, Any]) -> Start:
    return fit_class_pca(images, folder=folder, **options)


def _local_class_pca(images: ImageSet, folder: Path | None, options: Mapping[str, Any]) -> Start:
    return fit_local_class_pca(images, folder=folder, **options)


def _images(images: ImageSet, folder: Path | None, options: Mapping[str, Any]) -> Start:
    if not len(images):
        raise ValueError("expected at least one image to start from, got none")
    return Images(pixels=images.pixels, start_noise_std=_noise_std(options))


def _noise_std(options: Mapping[str, Any]) -> float:
    return checks.number(options["start_noise_std"], "start_noise_std", minimum=0)


_FITS: dict[str, Callable[[ImageSet, Path | None, Mapping[str, Any]], Start]] = {
    "uniform": _uniform,
    "class_mean": _class_mean,
    "class_gaussian": _class_gaussian,
    "class_pca": _class_pca,
    "local_class_pca": _local_class_pca,
    "images": _images,
}
