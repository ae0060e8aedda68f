"""What one image, or one class of images, is like: is it of its class, do its class's images differ, was it copied.

    agreement   the share of images in which an independent network sees the class they were made for
    diversity   how far apart a class's images are, relative to how far apart its real images are
    nearest     of each image the nearest training image, in pixels or in features
    copies      the share of images nearer to a training image than unseen real images are

None of these is a score of quality: a single good picture made a thousand times has full agreement and no diversity,
and a blur is near to everything. They are read together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri  # type: ignore[import-untyped]
from torch import Tensor, nn

from helpers import checks, extractors, metrics
from helpers.data import ImageSet
from helpers.extractors import Extractor, Pixels
from helpers.metrics import Estimate

PIXELS = "pixels"  # the space of the images themselves, in the range [0, 1]
ROWS = 2000  # rows of a block of distances: memory is this times the batch, whatever the number of images


def _labels(y: Tensor, images: Pixels, num_classes: int) -> Tensor:
    checks.labels(y, num_classes=num_classes)
    if len(y) != len(extractors.pixels(images)):
        raise ValueError(f"expected y with one class for each of {len(images)} images, got {len(y)}")
    return y.cpu()


# ---- agreement ----


@dataclass(frozen=True)
class Agreement:
    """The share of images seen as their class, in percent with Wilson's interval: of all, and of each class with
    images (by its number); `predicted` (N,) int64 is what the judge saw."""

    overall: Estimate
    by_class: dict[int, Estimate]
    predicted: Tensor
    judge: str


def agreement(judge: Extractor, images: Pixels, y: Tensor, *, made_by: nn.Module | None, batch_size: int) -> Agreement:
    """How often a network that had no part in making the images sees in them the class `y` they were made for.

    `judge`: `extractors.of_network`, of the same classes. images: (N, C, H, W) uint8; y: (N,) int64. `made_by` is the
    network that made them (None for real ones); where it has the judge's very weights the question is no question,
    and ValueError is raised. Wilson's interval treats images as independent draws.
    """
    if judge.num_classes is None:
        raise ValueError(f"expected a judge with the images' own classes (extractors.of_network), got {judge.name}")
    if made_by is not None and extractors.weights_sha256(made_by) == judge.sha256:
        raise ValueError(f"expected a judge other than the network that made the images, got {judge.name}, the same")
    y = _labels(y, images, judge.num_classes)
    predicted = judge.extract(images, [judge.logits], batch_size=batch_size)[judge.logits].argmax(1)
    right = predicted == y
    by_class = {int(k): metrics.accuracy(right[y == k]) for k in y.unique()}
    return Agreement(metrics.accuracy(right), by_class, predicted, judge.name)


# ---- the space in which distances are taken ----


def _points(
    images: Pixels | ImageSet, extractor: Extractor | None, feature: str | None, batch_size: int
) -> Pixels | Tensor:
    """The images themselves, or their features (N, d) where an extractor is given."""
    if (extractor is None) != (feature is None):
        raise ValueError(f"expected extractor and feature together or neither, got {extractor} and {feature!r}")
    known = images.pixels if isinstance(images, ImageSet) else extractors.pixels(images)
    if extractor is None or feature is None:
        return known
    if isinstance(images, ImageSet):
        return extractor.kept(known, [feature], batch_size=batch_size, folder=None, in_memory=True)[feature]
    return extractor.extract(known, [feature], batch_size=batch_size)[feature]


def _block(points: Pixels | Tensor, start: int, stop: int) -> Tensor:
    """Rows as float64; pixels stay whole numbers, so that sums of their products, and equal images, are exact."""
    return extractors.batch(points, start, stop).flatten(1).double()


def _unit(points: Pixels | Tensor) -> float:
    """What a distance between rows is multiplied by: pixels are counted in the range [0, 1]."""
    return 1 / 255 if points.ndim == 4 else 1.0


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (A, B) of float64 rows."""
    squared = a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)
    return squared.clamp(min=0).sqrt()


def _space(extractor: Extractor | None, feature: str | None) -> str:
    return PIXELS if extractor is None else f"{extractor.name}, {feature}"


# ---- diversity ----


@dataclass(frozen=True)
class Diversity:
    """Mean pairwise distance within a class over that of the class's real images: 1 is as diverse as real images.

    `by_class` by the class's number, `overall` their mean; `made` and `real` are the mean distances themselves, in
    the unit of `space` ("pixels": the L2 norm of a difference of images in [0, 1]).
    """

    overall: Estimate
    by_class: dict[int, Estimate]
    made: dict[int, Estimate]
    real: dict[int, Estimate]
    space: str


def diversity(
    images: Pixels,
    y: Tensor,
    reference: ImageSet,
    *,
    extractor: Extractor | None,
    feature: str | None,
    batch_size: int,
    level: float = 0.95,
) -> Diversity:
    """How much a class's images differ from each other, beside how much its real images do.

        D_k = mean over pairs i < j of class k of ‖φ(x_i) − φ(x_j)‖,      diversity_k = D_k(made) / D_k(real)

    φ is a feature of `extractor`, or the pixels where it is None. D_k is a U-statistic; its standard error is the
    delete-one jackknife's (a bootstrap would draw pairs of an image with itself), that of the ratio follows by the
    delta method, and the interval is normal. Every class of `y` needs 3 images and 3 real ones.

    images: (N, C, H, W) uint8; y: (N,) int64; `reference`: real images of the same classes.
    """
    y = _labels(y, images, reference.num_classes)
    points = _points(images, extractor, feature, batch_size)
    real_points = _points(reference, extractor, feature, batch_size)
    real_y = reference.labels.cpu()
    made, real, by_class = {}, {}, {}
    for k in y.unique().tolist():
        pair = [(points, y), (real_points, real_y)]
        (d, s), (d_real, s_real) = (_spread(where, labels, k) for where, labels in pair)
        n, n_real = int((y == k).sum()), int((real_y == k).sum())
        made[k], real[k] = _normal(d, s, n, level), _normal(d_real, s_real, n_real, level)
        if d_real == 0:
            raise ValueError(f"expected real images of class {k} that differ, got identical ones")
        ratio = d / d_real
        error = math.hypot(s / d_real, ratio * s_real / d_real)
        by_class[k] = _normal(ratio, error, n, level)
    z = _z(level)
    errors = [(one.high - one.value) / z for one in by_class.values()]
    mean = float(np.mean([one.value for one in by_class.values()]))
    overall = _normal(mean, math.hypot(*errors) / len(errors), len(y), level)
    return Diversity(overall, by_class, made, real, _space(extractor, feature))


def _spread(points: Pixels | Tensor, y: Tensor, k: int) -> tuple[float, float]:
    """Mean distance over pairs of rows of class k, and its jackknife standard error.

    With r_i = Σ_j d_ij and S = Σ_i r_i the mean without row i is (S − 2 r_i) / ((n − 1)(n − 2)).
    """
    rows = (y == k).nonzero().flatten()
    n = len(rows)
    if n < 3:
        raise ValueError(f"expected at least 3 images of class {k}, made and real, got {n}")
    chosen = points[rows] if isinstance(points, Tensor) else points[rows.numpy()]
    sums = torch.zeros(n, dtype=torch.float64)
    for i in range(0, n, ROWS):
        a = _block(chosen, i, i + ROWS)
        for j in range(0, n, ROWS):
            distances = _distances(a, _block(chosen, j, j + ROWS))
            if i == j:
                distances.fill_diagonal_(0)
            sums[i : i + ROWS] += distances.sum(1).cpu()
    sums *= _unit(points)
    total = float(sums.sum())
    without = (total - 2 * sums) / ((n - 1) * (n - 2))
    error = math.sqrt((n - 1) / n * float((without - without.mean()).square().sum()))
    return total / (n * (n - 1)), error


def _z(level: float) -> float:
    return float(ndtri((1 + checks.number(level, "level", above=0.0, maximum=1 - 1e-9)) / 2))


def _normal(value: float, error: float, n: int, level: float) -> Estimate:
    reach = _z(level) * error
    return Estimate(value, value - reach, value + reach, n, "normal", level)


# ---- neighbours ----


@dataclass(frozen=True)
class Nearest:
    """Of each image the nearest training image: its row in the training set (N,) int64, and the distance (N,) float64
    in the unit of `space` ("pixels": the L2 norm of a difference of images in [0, 1])."""

    row: Tensor
    distance: Tensor
    space: str


def nearest(
    images: Pixels,
    training: ImageSet,
    *,
    extractor: Extractor | None,
    feature: str | None,
    batch_size: int,
) -> Nearest:
    """The nearest training image of each image, in pixels (`extractor` None) or in a feature of an extractor.

    images: (N, C, H, W) uint8 of the training images' shape. Distances are Euclidean, computed in blocks in float64:
    `batch_size` images at a time against 2,000 training images, so that memory does not grow with either number (but
    for the features, 4·d bytes an image). Of equally near ones the first counts.
    """
    if tuple(extractors.pixels(images).shape[1:]) != training.shape:
        raise ValueError(f"expected images of shape {training.shape}, got {tuple(images.shape[1:])}")
    if not len(training):
        raise ValueError("expected at least one training image, got none")
    points = _points(images, extractor, feature, batch_size)
    known = _points(training, extractor, feature, batch_size)
    parts = [_nearest_of(a, known) for a in _blocks(points, batch_size)]
    row, distance = (torch.cat(part) for part in zip(*parts, strict=True))
    return Nearest(row, distance * _unit(points), _space(extractor, feature))


def _blocks(points: Pixels | Tensor, size: int) -> Iterator[Tensor]:
    for start in range(0, len(points), size):
        yield _block(points, start, start + size)


def _nearest_of(a: Tensor, known: Pixels | Tensor) -> tuple[Tensor, Tensor]:
    best = torch.full((len(a),), math.inf, dtype=torch.float64)
    row = torch.zeros(len(a), dtype=torch.int64)
    for k, b in enumerate(_blocks(known, ROWS)):
        distance, at = _distances(a.to(b.device), b).min(1)
        nearer = distance.cpu() < best
        row[nearer], best[nearer] = at.cpu()[nearer] + k * ROWS, distance.cpu()[nearer]
    return row, best


@dataclass(frozen=True)
class Copies:
    """Whether images are nearer to the training images than unseen real ones are (`copies`).

    `made`, `held_out`: the mean distance to the nearest training image with the normal interval; `threshold`, the
    `quantile` of the held-out distances; `share_too_near`, the percentage of made images below it, Wilson.
    """

    made: Estimate
    held_out: Estimate
    threshold: float
    quantile: float
    share_too_near: Estimate
    space: str


def copies(made: Nearest, held_out: Nearest, *, quantile: float) -> Copies:
    """Memorised or not: the share of made images nearer to a training image than a `quantile` of held-out images is.

    Images drawn as the real ones would have that share by themselves, `quantile`; clearly more means copies, or blurs,
    which in pixels are near to everything: look at the pairs. The threshold is taken as known; with few held-out
    images it is not, and the share's interval (Wilson) does not know it.
    """
    checks.number(quantile, "quantile", above=0.0, maximum=0.5)
    if made.space != held_out.space:
        raise ValueError(f"expected distances in one space, got {made.space!r} and {held_out.space!r}")
    threshold = float(held_out.distance.quantile(quantile))
    return Copies(
        made=metrics.mean_over_images(made.distance),
        held_out=metrics.mean_over_images(held_out.distance),
        threshold=threshold,
        quantile=quantile,
        share_too_near=metrics.accuracy(made.distance < threshold),
        space=made.space,
    )
