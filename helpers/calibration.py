"""How far a classifier's probabilities can be trusted: ECE with its bins, NLL, Brier score, temperature scaling.

    confidence    max_k p(k|x), p = softmax f(x)
    ECE           Σ_b (n_b/n) |accuracy of bin b − mean confidence of bin b|, in percentage points
    NLL           mean of −log p(y|x), in nats
    Brier score   mean of Σ_k (p(k|x) − 1[k = y])², from 0 to 2

All take logits (N, K) and labels (N,), and compute in float64. Logarithms of probabilities are logits too (those of
predictions averaged over samples, say). Temperature scaling divides logits by one number T (Guo et al. 2017), which
`fit_temperature` takes from clean validation images; logits / T then go into the same functions.

The ECE of few images is too high: a bin of n_b images misses its own mean by about √(a(1 − a)/n_b) even where the
network is calibrated, and ECE adds up absolute values. `Calibration.floor` says how much that is; compare ECEs of equal
n and equal bins only. JEM's ECE also depends on the mode of its batch norm: say in which mode the logits
were computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri  # type: ignore[import-untyped]
from torch import Tensor

from helpers import checks, metrics
from helpers.metrics import Estimate

__all__ = [
    "Bins",
    "Calibration",
    "Temperature",
    "bins_of",
    "brier",
    "ece",
    "ece_of",
    "fit_temperature",
    "nll",
    "sums",
]

Floats = NDArray[np.float64]
Binning = Literal["equal_width", "equal_mass"]
LOWEST, HIGHEST = 0.05, 20.0  # where T is looked for: beyond, logits of size 10 are one-hot or uniform
_STEPS = 100  # of Newton's method, which takes about ten
_CLOSE = 1e-10  # relative step at which it stops


@dataclass(frozen=True)
class Bins:
    """The bins of a reliability diagram, each array (n_bins,) float64.

    `low`, `high`: the confidences at the ends of a bin; `count`: its images (fractions in equal-mass bins);
    `confidence`, `accuracy`: their means, with Wilson's interval `accuracy_low`, `accuracy_high` (equal-mass bins:
    rounded to whole images), NaN in an empty bin. All but `count` in percent.
    """

    low: Floats
    high: Floats
    count: Floats
    confidence: Floats
    accuracy: Floats
    accuracy_low: Floats
    accuracy_high: Floats

    def arrays(self) -> dict[str, Floats]:
        """The arrays by name, for a record."""
        return dict(vars(self))


@dataclass(frozen=True)
class Calibration:
    """An ECE in percentage points with its interval, its bins, and the ECE that noise alone shows.

    `floor`: the mean of Σ_b |g*_b − g_b| over resamples, in percentage points: about the ECE that n images of a
    calibrated network with these confidences show. An ECE near it is no evidence against calibration.
    """

    ece: Estimate
    floor: float
    binning: Binning
    bins: Bins


# ---- proper scores ----


def nll(logits: Tensor, y: Tensor, *, level: float = 0.95) -> Estimate:
    """Negative log-likelihood, the mean of −log p(y|x) over images in nats, with the normal interval.

    logits: (N, K); y: (N,) int64. Raises ValueError for bad shapes, labels and logits that are not finite.

    >>> print(nll(torch.zeros(2, 2), torch.tensor([0, 1])).value == math.log(2))
    True
    """
    f = _checked(logits, y)
    return metrics.mean_over_images(-f.log_softmax(1).gather(1, y.cpu()[:, None]).squeeze(1), level=level)


def brier(logits: Tensor, y: Tensor, *, level: float = 0.95) -> Estimate:
    """Brier score (Brier 1950, the sum over classes), mean over images with the normal interval; 0 to 2, 0 is best.

    logits: (N, K); y: (N,) int64. With two classes it is twice the form that looks at one of them only.

    >>> brier(torch.zeros(2, 2), torch.tensor([0, 1])).value
    0.5
    """
    p = _checked(logits, y).softmax(1)
    right = torch.nn.functional.one_hot(y.cpu(), p.shape[1])
    return metrics.mean_over_images((p - right).square().sum(1), level=level)


# ---- expected calibration error ----


def ece(
    logits: Tensor, y: Tensor, *, n_bins: int, binning: Binning, seed: int, n_resamples: int = 1000, level: float = 0.95
) -> Calibration:
    """Expected calibration error (Naeini et al. 2015) in percentage points, with a bootstrap over images.

        ECE = Σ_b |g_b|,   g_b = (n_b/n) (accuracy_b − confidence_b)

    logits: (N, K); y: (N,) int64. `binning` "equal_width": bin b holds confidences in (b/n_bins, (b+1)/n_bins], the
    last one included. "equal_mass" (adaptive ECE, Nguyen & O'Connor 2015): images in order of confidence, N/n_bins to
    each bin; an image on an edge is divided between its bins, and images of one confidence share their accuracy, so
    that the order of images does not matter. Needs n_bins ≤ N.

    Of `n_resamples` draws g* from `seed` the upper end is the percentile of Σ_b |g*_b|. The percentiles would never
    reach the ECE of a calibrated network, whose ECE is all noise, so the lower end is ECE − q (or the percentile where
    that is lower; at least 0) with q that of Σ_b |g*_b − g_b|: by the triangle inequality ECE is off by no more than
    the errors of its bins. The interval is for these bins and errs on the wide side. For the difference of two
    networks see `contrasts.independent`: a bootstrap of the difference would keep the bias, which they need not share.

    >>> logits, y = torch.tensor([[3.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
    >>> round(ece(logits, y, n_bins=9, binning="equal_width", seed=0).ece.value, 2)  # confidence 95.26 %, accuracy 75 %
    20.26
    """
    checks.number(level, "level", above=0.0, maximum=1 - 1e-9)
    one = _Binned(logits, y, n_bins=n_bins, binning=binning)
    gaps = one.gaps(np.ones(one.n))
    drawn = _resampled(one, seed=seed, n_resamples=n_resamples)
    moved = np.abs(drawn - gaps).sum(axis=1)
    estimate = _interval(float(np.abs(gaps).sum()), np.abs(drawn).sum(axis=1), moved, one.n, level)
    return Calibration(estimate, float(moved.mean()), binning, one.bins())


# Of many sets of images (corruptions, severities) only the sums in the bins need be kept: they add up.


def sums(logits: Tensor, y: Tensor, *, n_bins: int) -> Floats:
    """What ECE in bins of equal width is made of: images, Σ confidence and Σ right of each bin, (n_bins, 3).

    logits: (N, K); y: (N,) int64. Sums of two sets of images added are those of both.

    >>> sums(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]), n_bins=2)[:, [0, 2]].tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    return _Binned(logits, y, n_bins=n_bins, binning="equal_width").sums()


def ece_of(found: Floats) -> Floats:
    """ECE in percentage points of sums (…, n_bins, 3): (…), without an interval.

    >>> float(ece_of(np.array([[10, 9.5, 7], [0, 0, 0]])))
    25.0
    """
    return 100 * np.abs(found[..., 2] - found[..., 1]).sum(-1) / found[..., 0].sum(-1)


def bins_of(found: Floats) -> Bins:
    """The bins of a reliability diagram of sums (n_bins, 3)."""
    return _bins(found, np.linspace(0, 1, len(found) + 1))


class _Binned:
    """Confidences (n,) and verdicts (n,) of a network, and in which bin each image is."""

    def __init__(self, logits: Tensor, y: Tensor, *, n_bins: int, binning: Binning) -> None:
        f = _checked(logits, y)
        p, predicted = f.softmax(1).max(1)
        self.n, self.binning = len(f), checks.choice(binning, ("equal_width", "equal_mass"), "binning")
        self.n_bins = checks.count(n_bins, "n_bins", minimum=1)
        self.confidence: Floats = p.numpy()
        self.correct: Floats = (predicted == y.cpu()).double().numpy()
        if binning == "equal_width":
            self.place = np.clip(np.ceil(self.confidence * n_bins) - 1, 0, n_bins - 1).astype(np.int64)
            return
        if n_bins > self.n:
            raise ValueError(f"expected n_bins of at most the number of images, {self.n}, got {n_bins}")
        self.known, self.place = np.unique(self.confidence, return_inverse=True)

    def sums(self) -> Floats:
        """Images, Σ confidence and Σ right of each bin: (n_bins, 3)."""
        once = np.ones(self.n)
        return np.stack([self.weighted(one, once) for one in (once, self.confidence, self.correct)], axis=1)

    def weighted(self, values: Floats, weights: Floats) -> Floats:
        """Σ of `values` (n,) in each bin, (n_bins,), image i counted `weights[i]` times."""
        if self.binning == "equal_width":
            return np.bincount(self.place, weights * values, minlength=self.n_bins).astype(np.float64, copy=False)
        # The running sum as a function of the running count, read off where the count is a multiple of n/n_bins.
        count = np.append(0.0, np.bincount(self.place, weights).cumsum())
        total = np.append(0.0, np.bincount(self.place, weights * values).cumsum())
        return np.diff(np.interp(np.linspace(0, count[-1], self.n_bins + 1), count, total))

    def gaps(self, weights: Floats) -> Floats:
        """g_b of each bin in percentage points, (n_bins,), image i counted `weights[i]` times."""
        return 100 * self.weighted(self.correct - self.confidence, weights) / weights.sum()

    def bins(self) -> Bins:
        return _bins(self.sums(), self._edges())

    def _edges(self) -> Floats:
        if self.binning == "equal_width":
            return np.linspace(0, 1, self.n_bins + 1)
        return np.quantile(self.confidence, np.linspace(0, 1, self.n_bins + 1))


_EMPTY = Estimate(math.nan, math.nan, math.nan, 0, "none")


def _bins(found: Floats, edges: Floats) -> Bins:
    """Bins of sums (n_bins, 3) between `edges` (n_bins + 1,) of confidence, in [0, 1]."""
    count, confidence, right = found.T
    with np.errstate(invalid="ignore"):  # 0/0 of an empty bin
        means = 100 * confidence / count, 100 * right / count
    whole = [(min(round(k), round(n)), round(n)) for k, n in zip(right, count, strict=True)]
    ends = [(w.low, w.high) for w in (metrics.wilson(k, n) if n else _EMPTY for k, n in whole)]
    low, high = np.array(ends).T
    return Bins(100 * edges[:-1], 100 * edges[1:], count, *means, low, high)


def _resampled(one: _Binned, *, seed: int, n_resamples: int) -> Floats:
    """The gaps of n images drawn with replacement: (n_resamples, n_bins)."""
    checks.count(seed, "seed")
    checks.count(n_resamples, "n_resamples", minimum=100)
    generator = np.random.default_rng(seed)
    draws = (generator.integers(one.n, size=one.n) for _ in range(n_resamples))
    return np.stack([one.gaps(np.bincount(draw, minlength=one.n).astype(np.float64)) for draw in draws])


def _interval(value: float, drawn: Floats, moved: Floats, n: int, level: float) -> Estimate:
    """As `ece` says, of resampled ECEs `drawn` and the sums `moved` by which their gaps differ."""
    if n < 2:
        return Estimate(value, math.nan, math.nan, n, "none", level)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    low = max(0.0, min(low, value - np.quantile(moved, (1 + level) / 2)))
    return Estimate(value, float(low), max(float(high), value), n, "bootstrap", level)


# ---- temperature ----


@dataclass(frozen=True)
class Temperature:
    """T by which logits are divided: `estimate` with its interval, and the way there.

    `temperatures` and `nll` (nats) are those of each step of the search, from T = 1 on; NLL never rises. `at_bound`: it
    was still falling at an end of the range, so that T is that end and has no interval (every image is right, or the
    network is no better than chance).
    """

    estimate: Estimate
    temperatures: tuple[float, ...]
    nll: tuple[float, ...]
    at_bound: bool

    @property
    def value(self) -> float:
        """T."""
        return self.estimate.value


def fit_temperature(logits: Tensor, y: Tensor, *, level: float = 0.95) -> Temperature:
    """The temperature of least NLL (Guo et al. 2017, section 4.2) on these logits, which must be of validation images.

        β_{k+1} = β_k − g/h,   g = mean(Σ_k p_k f_k − f_y),   h = mean(Var_p f),   p = softmax(β f),   β = 1/T

    Newton's method on β from 1, where NLL is convex, in T from `LOWEST` to `HIGHEST`; a step that would raise NLL is
    halved. logits: (N, K) of clean images that neither trained nor test the network; y: (N,) int64. The interval is
    the normal one of log T, with the sandwich variance s²(g)/(n h² β²).

    >>> y = torch.tensor([0, 0, 0, 1])
    >>> fitted = fit_temperature(torch.tensor([[3.0, 0.0]] * 4), y)  # 3/T = log 3 gives the accuracy, 3/4
    >>> round(fitted.value, 6) == round(3 / math.log(3), 6)
    True
    """
    checks.number(level, "level", above=0.0, maximum=1 - 1e-9)
    f = _checked(logits, y)
    right = f.gather(1, y.cpu()[:, None]).squeeze(1)
    path = [(1.0, _nll_at(f, right, 1.0))]
    for _ in range(_STEPS):
        beta, before = path[-1]
        step = _newton(f, right, beta)
        while (after := _nll_at(f, right, beta + step)) > before:
            step /= 2
        path.append((beta + step, after))
        if abs(step) <= _CLOSE * beta:
            break
    beta = path[-1][0]
    # β + (bound − β) is the bound but for rounding
    at_bound = not (1 + _CLOSE) / HIGHEST < beta < (1 - _CLOSE) / LOWEST
    temperatures, values = (tuple(column) for column in zip(*((1 / b, v) for b, v in path), strict=True))
    return Temperature(_of_beta(f, right, beta, at_bound, level), temperatures, values, at_bound)


def _nll_at(f: Tensor, right: Tensor, beta: float) -> float:
    return float(((beta * f).logsumexp(1) - beta * right).mean())


def _slopes(f: Tensor, right: Tensor, beta: float) -> tuple[Tensor, float]:
    """Derivatives of NLL in β: the first of each image (n,), the mean of the second."""
    p = (beta * f).softmax(1)
    mean = (p * f).sum(1)
    return mean - right, float((p * (f - mean[:, None]).square()).sum(1).mean())


def _newton(f: Tensor, right: Tensor, beta: float) -> float:
    """Newton's step from β, cut off at the range; where NLL has no curvature, all the way along its slope."""
    first, h = _slopes(f, right, beta)
    g = float(first.mean())
    step = -g / h if h > 0 else -math.copysign(math.inf, g) if g else 0.0
    return min(max(beta + step, 1 / HIGHEST), 1 / LOWEST) - beta


def _of_beta(f: Tensor, right: Tensor, beta: float, at_bound: bool, level: float) -> Estimate:
    first, h = _slopes(f, right, beta)
    if at_bound or len(f) < 2 or h <= 0:
        return Estimate(1 / beta, math.nan, math.nan, len(f), "none", level)
    reach = float(ndtri((1 + level) / 2)) * float(first.std()) / (math.sqrt(len(f)) * h * beta)
    return Estimate(1 / beta, math.exp(-reach) / beta, math.exp(reach) / beta, len(f), "normal", level)


def _checked(logits: Tensor, y: Tensor) -> Tensor:
    """Logits (N, K) as float64 on the CPU, finite, N > 0, with a label for each row."""
    checks.labels(y, checks.logits(logits), num_classes=logits.shape[1])
    if not len(logits):
        raise ValueError(f"expected logits of at least one image, got shape {tuple(logits.shape)}")
    f = logits.detach().cpu().double()
    if not bool(f.isfinite().all()):
        raise ValueError(f"expected logits to be finite, got {f[~f.isfinite()][0].item()} among {f.numel()}")
    return f
