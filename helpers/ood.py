"""Telling images of the training distribution from others: scores of hybrid models, and how well a score separates.

    log_density        log p(x) up to a constant, −E(x) = log Σ_k exp f(x)[k]     (Grathwohl et al. 2020, section 5.3)
    max_probability    max_k p(k|x)                                                (Hendrycks & Gimpel 2017)
    approximate_mass   −‖∇_x log p(x)‖₂                                            (Grathwohl et al. 2020, section 5.3)

A score is higher for images that look more in-distribution, always; energies, which are lower there, enter as −E. Only
the order of scores counts, so the constant of log p(x) does not matter.

    auroc      P(inside > outside) + P(inside = outside)/2; 0.5 is chance, 1 is best
    aupr_in    average precision with in-distribution as the positive class; chance is n_in / (n_in + n_out)
    aupr_out   average precision with out-of-distribution as the positive class, found by low scores; chance n_out / …
    fpr95      share of outside images still accepted where 95 % of the inside ones are, in percent; 0 is best

The two AUPR depend on how many images each set has, which the tables must say. Both sets go through the same network,
pixel range and preprocessing: a set normalised otherwise is told apart by that alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor, nn

from helpers import checks, context, energies, victim
from helpers.metrics import Estimate, Kind

__all__ = ["Detection", "Scores", "approximate_mass", "detection", "difference", "log_density", "max_probability"]

Floats = NDArray[np.float64]
ACCEPTED = 0.95  # share of inside images that are accepted where `fpr95` is read
NAMES = ("auroc", "aupr_in", "aupr_out", "fpr95")


# ---- scores: higher is more in-distribution ----


def log_density(logits: Tensor) -> Tensor:
    """log p(x) up to a constant that is the same for all x: −E(x), shape (B,), in the dtype of the logits (B, K).

    >>> log_density(torch.tensor([[9.0, 0.0], [1.0, 0.0]])).argmax()
    tensor(0)
    """
    return -energies.marginal(logits)


def max_probability(logits: Tensor) -> Tensor:
    """The confidence max_k p(k|x), shape (B,), float64: in float32 a gap of 17 nats rounds to 1, and images tie.

    >>> max_probability(torch.tensor([[0.0, 0.0]]))
    tensor([0.5000], dtype=torch.float64)
    """
    return checks.logits(logits).double().softmax(1).amax(1)


def approximate_mass(network: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """−‖∇_x log p(x)‖₂ of images (N, C, H, W) in [0, 1], shape (N,) float32 on the CPU.

    A likely point that no volume surrounds has a steep density; in-distribution images should lie where it is flat.
    The norm is that for pixels in [0, 1] (half as large for [−1, 1], in the same order). The network is in eval mode
    with frozen weights meanwhile, then as it was; no parameter gets a gradient. Each batch is moved to its device.
    Raises ValueError for images out of range and for logits that do not depend on them.
    """
    checks.count(batch_size, "batch_size", minimum=1)
    if not len(checks.images(images, "images")):
        raise ValueError(f"expected at least one image, got shape {tuple(images.shape)}")
    device = context.device_of(network)
    with victim.attacked(network) as seen:
        slopes = (seen.look(batch.to(device), energies.marginal).gradient for batch in images.split(batch_size))
        return torch.cat([-slope.flatten(1).norm(dim=1).to("cpu", torch.float32) for slope in slopes])


# ---- how well a score separates ----


@dataclass(frozen=True, eq=False)
class Scores:
    """One score of two sets of images: `inside` (n_in,) of the training distribution, `outside` (n_out,) of another.

    Floating tensors, finite. Higher is more in-distribution.
    """

    inside: Tensor
    outside: Tensor

    def __post_init__(self) -> None:
        for name in ("inside", "outside"):
            values = checks.tensor(getattr(self, name), name)
            if not values.is_floating_point() or values.ndim != 1 or not len(values):
                shape = f"{values.dtype} of {tuple(values.shape)}"
                raise ValueError(f"expected {name} to be floating scores of shape (n,) with n > 0, got {shape}")
            if not bool(values.isfinite().all()):
                bad = values[~values.isfinite()][0].item()
                raise ValueError(f"expected {name} to be finite, got {bad} among {len(values)}")

    def arrays(self) -> tuple[Floats, Floats]:
        """Both as float64 arrays."""
        return self.inside.detach().cpu().double().numpy(), self.outside.detach().cpu().double().numpy()


@dataclass(frozen=True)
class Detection:
    """AUROC, both AUPR (from 0 to 1) and FPR at 95 % TPR (in percent), each with its interval; or differences of them.

    `n` of an estimate counts the images of both sets.
    """

    auroc: Estimate
    aupr_in: Estimate
    aupr_out: Estimate
    fpr95: Estimate

    def estimates(self) -> dict[str, Estimate]:
        """The four by name, for a record."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def detection(scores: Scores, *, seed: int, n_resamples: int = 1000, level: float = 0.95) -> Detection:
    """How well a score tells the two sets apart, by scikit-learn, with the percentile interval of a bootstrap.

    Each of `n_resamples` draws from `seed` takes both sets anew, each with replacement and in its own size. A full
    separation has an interval of no width (1 [1, 1]): then n alone says how much it means. Equal scores count half in
    AUROC; the threshold of FPR95 is the highest that accepts at least 95 % of the inside images.

    >>> found = detection(Scores(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([2.5, 0.0])), seed=0)
    >>> round(found.auroc.value, 4), found.fpr95.value  # 4 of 6 pairs; 1 of 2 at the threshold 1
    (0.6667, 50.0)
    """
    one = _Ranked(scores)
    return _bootstrapped(_by_sklearn(scores), one.measures, one, "bootstrap", seed, n_resamples, level)


def difference(first: Scores, second: Scores, *, seed: int, n_resamples: int = 1000, level: float = 0.95) -> Detection:
    """The measures of `first` less those of `second`, two scores or two networks on the same images in the same order.

    Each resample draws images for both, so that each image stays a pair (paired bootstrap). ValueError where the
    numbers of images differ. FPR95 in percentage points.
    """
    one, two = _Ranked(first), _Ranked(second)
    if (one.n_in, one.n_out) != (two.n_in, two.n_out):
        raise ValueError(
            "expected scores of the same images, since they are pairs, "
            f"got {one.n_in} and {one.n_out} against {two.n_in} and {two.n_out}"
        )

    def less(inside: Floats, outside: Floats) -> Floats:
        return one.measures(inside, outside) - two.measures(inside, outside)

    values = _by_sklearn(first) - _by_sklearn(second)
    return _bootstrapped(values, less, one, "paired_bootstrap", seed, n_resamples, level)


def _by_sklearn(scores: Scores) -> Floats:
    """The four measures in the order of `NAMES`."""
    inside, outside = scores.arrays()
    value = np.concatenate([inside, outside])
    positive = np.arange(len(value)) < len(inside)
    fpr, tpr, _ = roc_curve(positive, value, drop_intermediate=False)
    return np.array([
        roc_auc_score(positive, value),
        average_precision_score(positive, value),
        average_precision_score(~positive, -value),
        100 * fpr[np.argmax(tpr >= ACCEPTED)],
    ])  # fmt: skip


class _Ranked:
    """Both sets sorted once, so that a resample is a matter of counts: scikit-learn would sort each anew."""

    def __init__(self, scores: Scores) -> None:
        inside, outside = scores.arrays()
        self.n_in, self.n_out = len(inside), len(outside)
        _, place = np.unique(-np.concatenate([inside, outside]), return_inverse=True)  # place 0 is the highest score
        self.inside, self.outside, self.n_places = place[: self.n_in], place[self.n_in :], int(place.max()) + 1

    def measures(self, inside: Floats, outside: Floats) -> Floats:
        """The four measures, image i counted `inside[i]`, `outside[i]` times; in the order of `NAMES`."""
        positive = np.bincount(self.inside, inside, minlength=self.n_places).astype(np.float64, copy=False)
        negative = np.bincount(self.outside, outside, minlength=self.n_places).astype(np.float64, copy=False)
        above = positive.cumsum()  # inside images at or above each score
        auroc = (negative * (above - positive / 2)).sum() / (self.n_in * self.n_out)
        at_threshold = int(np.argmax(above / self.n_in >= ACCEPTED))
        fpr95 = 100 * negative[: at_threshold + 1].sum() / self.n_out
        return np.array([auroc, _precision(positive, negative), _precision(negative[::-1], positive[::-1]), fpr95])


def _precision(positive: Floats, negative: Floats) -> float:
    """Average precision, Σ (rise of recall) · precision, of counts at each score from the best down."""
    found, taken = positive.cumsum(), (positive + negative).cumsum()
    return float((positive * found / np.maximum(taken, 1)).sum() / found[-1])


def _bootstrapped(
    values: Floats,
    measures: Callable[[Floats, Floats], Floats],
    sets: _Ranked,
    kind: Kind,
    seed: int,
    n_resamples: int,
    level: float,
) -> Detection:
    checks.count(seed, "seed")
    checks.count(n_resamples, "n_resamples", minimum=100)
    checks.number(level, "level", above=0.0, maximum=1 - 1e-9)
    n = sets.n_in + sets.n_out
    if min(sets.n_in, sets.n_out) < 2:
        return Detection(*(Estimate(float(v), math.nan, math.nan, n, "none", level) for v in values))
    generator = np.random.default_rng(seed)

    def drawn(size: int) -> Floats:
        return np.bincount(generator.integers(size, size=size), minlength=size).astype(np.float64)

    found = np.stack([measures(drawn(sets.n_in), drawn(sets.n_out)) for _ in range(n_resamples)])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    # A draw holds some images twice, which moves an average precision by a little: the value belongs inside.
    rows = zip(values, np.minimum(low, values), np.maximum(high, values), strict=True)
    return Detection(*(Estimate(float(v), float(a), float(b), n, kind, level) for v, a, b in rows))
