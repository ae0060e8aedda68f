"""Differences of samples with their intervals: paired where the terms share seeds or images, else independent."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from helpers import metrics
from helpers.evidence import N_RESAMPLES, Sample, resampled, with_width
from helpers.metrics import Estimate


def absolute(sample: Sample) -> Sample:
    """|…| of a sample: of each seed's number, or of the estimate with its interval where that is all there is.

    >>> one = Sample(Estimate(-0.5, -2.0, 1.0, n=3, kind="student_t"))
    >>> print(absolute(one).estimate)
    0.5 [0.0, 2.0]
    """
    if sample.by_seed is None:
        e = sample.estimate
        low = 0.0 if e.low <= 0 <= e.high else min(abs(e.low), abs(e.high))
        return replace(sample, estimate=replace(e, value=abs(e.value), low=low, high=max(abs(e.low), abs(e.high))))
    signs = np.where(sample.by_seed < 0, -1.0, 1.0)
    by_image = None if sample.by_image is None or sample.spread else sample.by_image * signs[:, None]
    by_seed = sample.by_seed * signs
    estimate = with_width(metrics.student_t(by_seed), sample.n_images, share=sample.share)
    if len(by_seed) == 1:
        estimate = absolute(Sample(sample.estimate)).estimate
    return replace(sample, estimate=estimate, by_seed=by_seed, by_image=by_image)


def difference(a: Sample, b: Sample, *, factor: float = 1.0, seed: int = 0) -> tuple[Estimate, str]:
    """a − factor · b with its interval, and how it was had: a key of WAYS.

    >>> two = [Sample(Estimate(v, v - 1, v + 1, n=9, kind="normal")) for v in (3.0, 1.0)]
    >>> estimate, way = difference(*two)
    >>> print(estimate, way)
    2.0 [0.6, 3.4] independent
    """
    if a.by_seed is None or b.by_seed is None or a.seeds != b.seeds:
        return independent(a.estimate, b.estimate, factor=factor), "independent"
    by_image = a.by_image is not None and b.by_image is not None and a.images == b.images
    if len(a.seeds) == 1 and not by_image:
        return independent(a.estimate, b.estimate, factor=factor), "independent"
    over_seeds = metrics.student_t(a.by_seed - factor * b.by_seed)
    if not by_image or (a.spread and len(a.seeds) > 1):
        return with_width(over_seeds, None, share=a.share), "student_t"
    assert a.by_image is not None
    assert b.by_image is not None
    if a.spread:
        return resampled([a.by_image[0], b.by_image[0]], [1.0, -factor], seed=seed), "paired_bootstrap"
    both = metrics.paired_bootstrap(a.by_image, factor * b.by_image, seed=seed, n_resamples=N_RESAMPLES)
    if a.share and both.low == both.high:  # the same verdicts throughout, which is no certainty
        return independent(a.estimate, b.estimate, factor=factor), "independent"
    if len(a.seeds) == 1:
        return both, "paired_bootstrap"
    wider = "student_t" if over_seeds.high - over_seeds.low > both.high - both.low else "paired_bootstrap"
    return replace(both, low=min(both.low, over_seeds.low), high=max(both.high, over_seeds.high)), wider


def independent(a: Estimate, b: Estimate, *, factor: float = 1.0) -> Estimate:
    """a − factor · b of independent estimates from their own intervals, whatever kind these are (Zou & Donner 2008).

    low = d − √((a − a_low)² + f² (b_high − b)²),    high = d + √((a_high − a)² + f² (b − b_low)²)
    """
    value = a.value - factor * b.value
    low = value - math.hypot(a.value - a.low, factor * (b.high - b.value))
    high = value + math.hypot(a.high - a.value, factor * (b.value - b.low))
    n = min(a.n, b.n)
    return Estimate(value, low, high, n, "none" if math.isnan(low + high) else "normal", min(a.level, b.level))
