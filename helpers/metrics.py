"""Numbers with their interval: accuracy over images, means over images and over seeds, paired differences.

Shares are in percent, as the papers print them. Which interval belongs to which claim:

    one fixed network on n images, a share        Wilson             `accuracy`, `wilson`
    one fixed network on n images, a mean         normal             `mean_over_images`
    a method, over the seeds it was trained with  Student's t        `student_t`, of a number with bounds `over_seeds`
    a method, over independent sets of images     Student's t        `over_sets`
    the difference of two, on the same images     paired bootstrap   `paired_bootstrap`

What an interval says in words, which side of zero it lies on or none, is `told_apart`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]  # scipy.stats has them too, half a second later
from torch import Tensor, nn

from helpers import checks, context

__all__ = [
    "Estimate",
    "accuracy",
    "cut",
    "mean_over_images",
    "over_seeds",
    "over_sets",
    "paired_bootstrap",
    "predictions",
    "student_t",
    "told_apart",
    "wilson",
]

Kind = Literal["wilson", "student_t", "normal", "bootstrap", "paired_bootstrap", "subsets", "none"]
Floats = NDArray[np.float64]
MIN_SETS = 3  # of independent images, for an interval over them
NEITHER = "not told apart"  # what `told_apart` says of an interval that holds the value, or is none
_CELLS = 4_000_000  # numbers drawn at a time by the bootstrap: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A value with its interval [`low`, `high`] at confidence `level`, over `n` images, seeds or pairs.

    `kind` "none" means that one number has no interval; `low` and `high` are then NaN.

    >>> print(Estimate(52.31, 50.12, 54.49, n=2000, kind="wilson"))
    52.3 [50.1, 54.5]
    """

    value: float
    low: float
    high: float
    n: int
    kind: Kind
    level: float = 0.95

    def __str__(self) -> str:
        if self.kind == "none":
            return f"{self.value:.3g}"
        digits = _digits(self.high - self.low)
        # Adding 0.0 turns the minus zero of a rounded small negative into a plain one.
        value, low, high = (f"{round(v, digits) + 0.0:.{digits}f}" for v in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def wilson(k: int, n: int, *, level: float = 0.95) -> Estimate:
    """The share k/n in percent with Wilson's score interval (Wilson 1927), right also near 0 and 100 %.

        ( k + z²/2 ± z √( k(n − k)/n + z²/4 ) ) / ( n + z² ),   z the normal quantile

    >>> print(wilson(10, 100))
    10.0 [5.5, 17.4]
    """
    checks.count(n, "n", minimum=1)
    checks.count(k, "k", maximum=n)
    z = _normal_quantile(level)
    middle, reach = k + z**2 / 2, z * math.sqrt(k * (n - k) / n + z**2 / 4)
    low = 0.0 if k == 0 else 100 * (middle - reach) / (n + z**2)
    high = 100.0 if k == n else 100 * (middle + reach) / (n + z**2)
    return Estimate(100 * k / n, low, high, n, "wilson", level)


def accuracy(correct: Tensor | ArrayLike, *, level: float = 0.95) -> Estimate:
    """The share of true entries in percent, of one network on n images, with Wilson's interval.

    `correct` is bool (n,): right or wrong, image by image.
    """
    array = _numpy(correct)
    if array.dtype != np.bool_ or array.ndim != 1:
        raise ValueError(f"expected correct to be bool of shape (n,), got {array.dtype} of {array.shape}")
    return wilson(int(array.sum()), len(array), level=level)


def mean_over_images(values: Tensor | ArrayLike, *, level: float = 0.95) -> Estimate:
    """The mean of one network's numbers (n,) over images, with the normal interval ± z s/√n; summed in float64."""
    array = _floats(values, "values")
    if len(array) < 2:
        return _alone(array, level)
    reach = _normal_quantile(level) * float(array.std(ddof=1)) / math.sqrt(len(array))
    return _around(float(array.mean()), reach, len(array), kind="normal", level=level)


def student_t(values: Tensor | ArrayLike, *, level: float = 0.95) -> Estimate:
    """The mean of a method's numbers (n,), one for each seed, with Student's interval ± t_{n−1} s/√n.

    One seed has no interval: its kind is "none".

    >>> print(student_t([50.0, 52.0, 54.0]))
    52.0 [47.0, 57.0]
    """
    array = _floats(values, "values")
    if len(array) < 2:
        return _alone(array, level)
    quantile = float(stdtrit(len(array) - 1, (1 + _level(level)) / 2))
    reach = quantile * float(array.std(ddof=1)) / math.sqrt(len(array))
    return _around(float(array.mean()), reach, len(array), kind="student_t", level=level)


def cut(found: Estimate, *, low: float, high: float) -> Estimate:
    """The same with its interval cut at the ends of what the number can be.

    >>> print(cut(student_t([1.0, 3.0]), low=0.0, high=100.0))
    2.0 [0.0, 14.7]
    """
    return replace(found, low=max(found.low, low), high=min(found.high, high))


def over_seeds(several: Sequence[Estimate], *, low: float, high: float, level: float = 0.95) -> Estimate:
    """One network's estimate, or the mean of several with Student's interval, cut at the bounds of the number.

    Where they agree to the last digit, which Student's interval would take for certainty, the first one's own stands.

    >>> print(over_seeds([Estimate(v, 0.0, 1.0, 9, "normal") for v in (0.9, 1.0, 1.0)], low=0.0, high=1.0))
    0.967 [0.823, 1.000]
    """
    if len({one.value for one in several}) == 1:
        return several[0]
    return cut(student_t([one.value for one in several], level=level), low=low, high=high)


def over_sets(values: Tensor | ArrayLike, *, share_of: int | None = None, level: float = 0.95) -> Estimate:
    """The mean of a number over independent sets of images (k,), with Student's interval; none for fewer than three.

    `share_of` n says that it is a share (%) of a set's n images: the interval is cut at 0 and 100, and where all sets
    agree it is Wilson's of one set, since equal numbers are no certainty.

    >>> print(over_sets([99.0, 100.0, 100.0], share_of=100))
    99.67 [98.23, 100.00]
    """
    found = student_t(values, level=level)
    if found.n < MIN_SETS:
        return replace(found, low=math.nan, high=math.nan, kind="none")
    if share_of is None:
        return found
    each = [float(value) for value in _floats(values, "values")]
    sets = [replace(wilson(round(value * share_of / 100), share_of, level=level), value=value) for value in each]
    return over_seeds(sets, low=0.0, high=100.0, level=level)


class Interval(Protocol):
    """The ends of an interval; NaN or None where a number has none."""

    @property
    def low(self) -> float | None:
        """Its lower end."""

    @property
    def high(self) -> float | None:
        """Its upper end."""


def told_apart(found: Interval, above: str, below: str, *, at: float = 0.0) -> str:
    """`above` or `below` where the whole interval lies on that side of `at`, else that it is not told apart.

    An interval that does not exist, or has no width (that of equal numbers), tells nothing apart.

    >>> told_apart(Estimate(-2.0, -3.0, -1.0, n=3, kind="student_t"), "more", "less")
    'less'
    >>> told_apart(Estimate(1.0, -1.0, 3.0, n=3, kind="student_t"), "more", "less")
    'not told apart'
    """
    if found.low is None or found.high is None or not found.low < found.high:
        return NEITHER
    return above if found.low > at else below if found.high < at else NEITHER


def paired_bootstrap(
    a: Tensor | ArrayLike, b: Tensor | ArrayLike, *, seed: int, n_resamples: int = 2000, level: float = 0.95
) -> Estimate:
    """The mean difference a − b of paired numbers with the percentile interval of a bootstrap.

    `a` and `b` are (n_images,) for two fixed networks, or (n_seeds, n_images) for two methods
    trained with the same seeds and tried on the same images. Each resample draws images, and
    seeds where there are several, with replacement, each difference staying a pair. In the
    unit of `a`: multiply verdicts by 100 for percentage points.
    """
    first, second = _table(a, "a"), _table(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"expected a and b of one shape, since they are pairs, got {first.shape} and {second.shape}")
    checks.count(seed, "seed")
    checks.count(n_resamples, "n_resamples", minimum=100)
    difference = first - second
    if difference.shape[1] < 2:
        return _alone(difference.mean(axis=1), level)
    means = np.concatenate(list(_resampled(difference, np.random.default_rng(seed), n_resamples)))
    low, high = np.quantile(means, [(1 - _level(level)) / 2, (1 + level) / 2])
    return Estimate(float(difference.mean()), float(low), float(high), difference.size, "paired_bootstrap", level)


@torch.no_grad()
def predictions(network: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Logits (N, K) of images (N, C, H, W) in [0, 1], float32 on the CPU; the network in eval mode, then as it was.

    Each batch is moved to the network's device.
    """
    checks.count(batch_size, "batch_size", minimum=1)
    if not len(checks.images(images, "images")):
        raise ValueError(f"expected at least one image, got shape {tuple(images.shape)}")
    device, parts = context.device_of(network), []
    with context.eval_mode(network):
        for batch in images.split(batch_size):
            logits = checks.logits(network(batch.to(device)), "the network's output")
            if len(logits) != len(batch):
                raise ValueError(f"expected logits of shape ({len(batch)}, K), got {tuple(logits.shape)}")
            parts.append(logits.to("cpu", torch.float32))
    return torch.cat(parts)


def _digits(width: float) -> int:
    """Decimals that show half of an interval's width with two digits: 4.4 gets 1, 0.12 gets 3, 30 gets 0."""
    if not math.isfinite(width) or width <= 0:
        return 3
    return min(max(1 - math.floor(math.log10(width / 2)), 0), 9)


def _level(level: float) -> float:
    return checks.number(level, "level", above=0.0, maximum=1 - 1e-9)


def _normal_quantile(level: float) -> float:
    return float(ndtri((1 + _level(level)) / 2))


def _around(value: float, reach: float, n: int, *, kind: Kind, level: float) -> Estimate:
    return Estimate(value, value - reach, value + reach, n, kind, level)


def _alone(array: Floats, level: float) -> Estimate:
    return Estimate(float(array[0]), math.nan, math.nan, 1, "none", level)


def _numpy(values: Tensor | ArrayLike) -> NDArray[np.generic]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _floats(values: Tensor | ArrayLike, name: str, *, ndim: tuple[int, ...] = (1,)) -> Floats:
    array = _numpy(values).astype(np.float64)
    if array.ndim not in ndim or array.size == 0:
        raise ValueError(f"expected {name} of shape (n,) with n > 0, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"expected {name} to be finite, got {array[~np.isfinite(array)][0]} among {array.size}")
    return array


def _table(values: Tensor | ArrayLike, name: str) -> Floats:
    """(n_images,) or (n_seeds, n_images) as the latter."""
    return np.atleast_2d(_floats(values, name, ndim=(1, 2)))


def _resampled(difference: Floats, generator: np.random.Generator, n_resamples: int) -> Iterator[Floats]:
    """Means of `difference` (n_seeds, n_images) over drawn seeds × drawn images, some resamples at a time."""
    n_seeds, n_images = difference.shape
    at_once = max(1, _CELLS // difference.size)
    for done in range(0, n_resamples, at_once):
        n = min(at_once, n_resamples - done)
        images = generator.integers(n_images, size=(n, n_images))
        # How often each seed was drawn, (n, n_seeds); a lone seed is drawn once, always.
        seeds = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n)
        by_seed = np.stack([row[images].mean(axis=1) for row in difference], axis=1)
        yield (by_seed * seeds).sum(axis=1) / n_seeds
