"""How good a set of images is as a whole: IS, FID, KID, precision and recall, each with its protocol.

    found = image_quality.scores(images, reference, extractor=judge, feature="penultimate", seed=0,
                                 batch_size=500, selection="fresh")
    print(found.estimates["frechet_distance"], image_quality.title("frechet_distance", found.protocol))

The mathematics is torch-fidelity's; here features are extracted once for all scores. What a number means depends on
everything in its `Protocol`, so a column of a table (`column`) takes scores of one protocol only.

The Fréchet distance of n images is biased upward, the more the smaller n and the larger the feature's dimension: only
scores of equal n are compared, and an interval needs n of at least twice that dimension. KID has no such bias for
independent draws; of two sets with their classes in equal shares it comes out a little below zero. A judge of ours has
seen real images only, and may hold a thing that is none of its classes to be near one of them (pure noise can come out
as "precise"): its scores rank sets that look like the data, and are read beside the pictures.

LPIPS, a metric of the paper, is not run: it compares an image with a partner, and a generated image has none (the
public code pairs them by their order in the class, which means nothing).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch_fidelity
from scipy.special import ndtri  # type: ignore[import-untyped]
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from helpers import checks, extractors, metrics, scalars
from helpers.data import ImageSet
from helpers.extractors import Extractor, Pixels
from helpers.metrics import Estimate

FRESH = "fresh"  # every image that was made, none chosen
FAMILIES = ("frechet", "kid", "precision_recall", "inception_score")
KID_SUBSET_SIZE = 1000  # torch-fidelity's, where the sets are at least twice as large
PRC_ROWS = 1000  # rows of a block of distances, so that memory grows with n and not with n²
SHARES = ("precision", "recall")  # in %
SHORT = {"kid": "KID", "inception_score": "IS", "precision": "precision", "recall": "recall"}


@dataclass(frozen=True)
class Protocol:
    """All that a score depends on besides the images: two scores may stand in one column only where it is the same.

    n: images in a set. reference: data set and split, with its number of images and SHA-256. extractor: its name,
    SHA-256 of its weights and what was compared with it. feature and its dimension; logits, the feature of IS.
    selection: "fresh", or how images were chosen. seed: of KID's subsets and of IS's order (images are made with a
    seed of their own). Then KID's subsets and their size, the splits of IS, k of precision and recall, the images'
    (C, H, W) and torch-fidelity's version.
    """

    n: int
    reference: str
    reference_n: int
    reference_sha256: str
    extractor: str
    extractor_sha256: str
    extractor_checked: str
    official: bool
    feature: str
    dimension: int
    logits: str
    selection: str
    seed: int
    kid_subsets: int
    kid_subset_size: int
    isc_splits: int
    prc_neighbours: int
    shape: tuple[int, int, int]
    torch_fidelity: str

    def differences(self, other: Protocol) -> list[str]:
        """Where two protocols differ, one text each: "n: 500 and 1000"."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{name}: {mine[name]} and {theirs[name]}" for name in mine if mine[name] != theirs[name]]


@dataclass(frozen=True)
class Scores:
    """Scores by their names in the glossary, for one set of images or for several (`over_sets`).

    `reasons` says of each score that has no interval why. `isc_split_std` is the spread of IS over the splits of one
    set, which torch-fidelity prints behind ±: not an interval, since each split has n/splits images and a lower IS.
    `images_sha256` names the sets.
    """

    estimates: Mapping[str, Estimate]
    reasons: Mapping[str, str]
    protocol: Protocol
    images_sha256: tuple[str, ...]
    isc_split_std: float | None

    def scalars(self, *, seeds: Sequence[int] | None = None, **where: Any) -> list[scalars.Scalar]:
        """The scores as rows of a record, with extractor, feature, reference, selection and sets among where they hold;
        n is the number of images in a set."""
        p = self.protocol
        place: dict[str, Any] = {"extractor": p.extractor, "feature": p.feature, "reference": p.reference}
        place |= {"selection": p.selection, "sets": len(self.images_sha256), **where}
        return [
            scalars.scalar(name, estimate, n=p.n, seeds=seeds, **place) for name, estimate in self.estimates.items()
        ]


# ---- names ----


def frechet_name(protocol: Protocol) -> str:
    """The Fréchet distance's name in the glossary: `fid` for Inception's 2048 features, `fid_768` … for its earlier
    ones, `frechet_distance` for any other extractor."""
    if not protocol.official:
        return "frechet_distance"
    return "fid" if protocol.feature == "2048" else f"fid_{protocol.feature}"


def title(metric: str, protocol: Protocol) -> str:
    """What a score is called in a table: "FID", "FID-768", "FD (judge 3f2a9c1e)", "KID (judge 3f2a9c1e)".

    Only Inception's 2048 features give "FID" and "KID"; precision and recall name their extractor always, since the
    paper that introduced them used another one (VGG-16).
    """
    standard = protocol.official and (protocol.feature == "2048" or metric == "inception_score")
    early = protocol.official and not standard
    if metric == frechet_name(protocol):
        return "FID" if standard else f"FID-{protocol.feature}" if early else f"FD ({protocol.extractor})"
    if metric not in SHORT:
        raise ValueError(f"expected a score among {frechet_name(protocol)}, {', '.join(SHORT)}, got {metric!r}")
    if standard and metric in ("kid", "inception_score"):
        return SHORT[metric]
    if early and metric == "kid":
        return f"KID-{protocol.feature}"
    inside = f"{protocol.extractor}, {protocol.feature}" if protocol.official else protocol.extractor
    return f"{SHORT[metric]} ({inside})"


# ---- scores of one set ----


def scores(
    images: Pixels,
    reference: ImageSet,
    *,
    extractor: Extractor,
    feature: str,
    seed: int,
    batch_size: int,
    selection: str,
    families: Sequence[str] = FAMILIES,
    kid_subsets: int = 100,
    kid_subset_size: int | None = None,
    isc_splits: int = 10,
    prc_neighbours: int = 3,
    folder: Path | None = None,
) -> Scores:
    """Scores of uint8 images (N, C, H, W), an array, memory map or tensor, against a data set of the same shape.

    `families`: "frechet" (FID, or FD where the extractor is not Inception), "kid", "precision_recall" (at `feature`)
    and "inception_score" (at the extractor's logits). `selection`: "fresh", or how the images were chosen from more.
    `folder` keeps the features for another run. Memory: 4·d bytes an image for the features of both sets (and twice
    that for the covariance); the images themselves are read in batches.

    Defaults are torch-fidelity's: 100 subsets for KID of 1,000 images each, or half of the smaller set where that is
    less; IS over 10 splits; precision and recall with the third neighbour's radius.

    Intervals: KID ± z times the spread of its subsets, which is at least its error while a subset is at most half of
    either set (a delete-half jackknife), and none otherwise; all other scores of a single set have none (`over_sets`).
    Prints nothing, draws from no global generator. ValueError says what was expected and what came.
    """
    checks.count(seed, "seed")
    names = [checks.choice(family, FAMILIES, "families") for family in families]
    needed = [extractor.asked(feature)]
    needed += [extractor.asked(extractor.logits)] if "inception_score" in names else []
    if tuple(extractors.pixels(images).shape[1:]) != reference.shape:
        raise ValueError(f"expected images of shape {reference.shape}, as the reference, got {tuple(images.shape[1:])}")
    n, smaller = len(images), min(len(images), len(reference))
    settings = {
        "kid_subsets": checks.count(kid_subsets, "kid_subsets", minimum=2),
        "kid_subset_size": _subset_size(kid_subset_size, n, len(reference), "kid" in names),
        "isc_splits": _at_most(isc_splits, "isc_splits", n, "inception_score" in names),
        "prc_neighbours": _at_most(prc_neighbours, "prc_neighbours", smaller - 1, "precision_recall" in names),
    }
    of_reference = extractor.kept(reference.pixels, needed, batch_size=batch_size, folder=folder, in_memory=True)
    found = extractor.kept(images, needed, batch_size=batch_size, folder=folder, in_memory=False)
    settings |= {"n": n, "dimension": found[feature].shape[1], "seed": seed}
    protocol = _protocol(reference, extractor, feature=feature, selection=selection, **settings)
    got = from_features(found, of_reference, protocol=protocol, families=names)
    return replace(got, images_sha256=(extractors.sha256_of(images),))


def _protocol(reference: ImageSet, extractor: Extractor, *, feature: str, selection: str, **settings: int) -> Protocol:
    return Protocol(
        reference=f"{reference.name}/{reference.split}",
        reference_n=len(reference),
        reference_sha256=reference.checksum,
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        extractor_checked=extractor.checked,
        official=extractor.official,
        feature=feature,
        logits=extractor.logits,
        selection=selection,
        shape=reference.shape,
        torch_fidelity=torch_fidelity.__version__,
        **settings,
    )


def _at_most(value: int, name: str, maximum: int, needed: bool) -> int:
    return checks.count(value, name, minimum=1, maximum=maximum if needed else None)


def _subset_size(wanted: int | None, n: int, n_reference: int, needed: bool) -> int:
    """KID's subset size: what was asked for, if the sets hold so many, else the default of `scores`."""
    smaller = min(n, n_reference)
    if wanted is None:
        return min(KID_SUBSET_SIZE, max(smaller // 2, 2))
    if needed and wanted > smaller:
        raise ValueError(
            f"expected kid_subset_size of at most the number of images (made {n}, reference {n_reference}), "
            f"got {wanted}"
        )
    return checks.count(wanted, "kid_subset_size", minimum=2)


def from_features(
    found: Mapping[str, Tensor], of_reference: Mapping[str, Tensor], *, protocol: Protocol, families: Sequence[str]
) -> Scores:
    """The scores of features by name, (n, d) of the images and (m, d) of the reference: torch-fidelity's functions."""
    p = protocol
    estimates: dict[str, Estimate] = {}
    reasons: dict[str, str] = {}
    for family in families:
        if family == "inception_score":
            continue
        one, two = found[p.feature], of_reference[p.feature]
        if family == "frechet":
            estimates[frechet_name(p)] = _alone(_frechet(one, two), p)
        elif family == "kid":
            estimates["kid"] = _kid(one, two, p)
        else:
            estimates |= {name: _alone(100 * value, p) for name, value in _precision_recall(one, two, p).items()}
    spread = None
    if "inception_score" in families:
        score = isc_features_to_metric(found[p.logits], splits=p.isc_splits, shuffle=True, rng_seed=p.seed)
        estimates["inception_score"], spread = _alone(score[KEY_METRIC_ISC_MEAN], p), score[KEY_METRIC_ISC_STD]
    for name, estimate in estimates.items():
        if estimate.kind == "none":
            half = f"a subset of {p.kid_subset_size} is more than half of {min(p.n, p.reference_n)} images"
            reasons[name] = half if name == "kid" else "one set of images"
    return Scores(estimates, reasons, p, (), spread)


def _alone(value: float, p: Protocol) -> Estimate:
    return Estimate(float(value), math.nan, math.nan, p.n, "none")


def _frechet(one: Tensor, two: Tensor) -> float:
    statistics = [fid_features_to_statistics(features) for features in (one, two)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def _kid(one: Tensor, two: Tensor, p: Protocol, level: float = 0.95) -> Estimate:
    """KID, ± z times the standard deviation over its subsets of m images.

    Subsets share images, so the spread over them is σ²(1/m − 1/n) and not the error σ²/n of the whole; the first is
    at least the second for m ≤ n/2. With m = n all subsets are one and the spread is zero, an interval of nothing.
    """
    got = kid_features_to_metric(
        one, two, kid_subsets=p.kid_subsets, kid_subset_size=p.kid_subset_size, rng_seed=p.seed, verbose=False
    )
    value, reach = got[KEY_METRIC_KID_MEAN], float(ndtri((1 + level) / 2)) * got[KEY_METRIC_KID_STD]
    if 2 * p.kid_subset_size > min(len(one), len(two)):
        return _alone(value, p)
    return Estimate(value, value - reach, value + reach, p.n, "subsets", level)


def _precision_recall(one: Tensor, two: Tensor, p: Protocol) -> dict[str, float]:
    got = prc_features_to_metric(
        one, two, prc_neighborhood=p.prc_neighbours, prc_batch_size=PRC_ROWS, save_cpu_ram=True, verbose=False
    )
    return {"precision": got[KEY_METRIC_PRECISION], "recall": got[KEY_METRIC_RECALL]}


# ---- scores of several sets ----


def over_sets(several: Sequence[Scores], *, level: float = 0.95) -> Scores:
    """The mean of each score over independent sets of equal n, with Student's t interval over at least 3 sets.

    The interval is that of drawing other images against the same reference. A Fréchet distance has it only where n
    is at least twice the feature's dimension, since with fewer images its bias is larger than what the interval could
    say; never a bootstrap, which draws an image twice and so adds to that bias. Where a score has no interval,
    `reasons` says why. ValueError for sets of different protocols, or for one set given twice.
    """
    if not several:
        raise ValueError("expected scores of at least one set, got none")
    same_protocol({f"set {k + 1}": one for k, one in enumerate(several)})
    if any(set(one.estimates) != set(several[0].estimates) for one in several):
        raise ValueError(f"expected the same scores of each set, got {[sorted(one.estimates) for one in several]}")
    digests = tuple(digest for one in several for digest in one.images_sha256)
    if len(set(digests)) != len(digests):
        raise ValueError("expected independent sets of images, got one of them twice")
    p = several[0].protocol
    estimates: dict[str, Estimate] = {}
    reasons: dict[str, str] = {}
    for name in several[0].estimates:
        values, share_of = [one.estimates[name].value for one in several], p.n if name in SHARES else None
        mean = metrics.over_sets(values, share_of=share_of, level=level)
        few = (
            f"{len(several)} sets of images; an interval needs {metrics.MIN_SETS}" if mean.n < metrics.MIN_SETS else ""
        )
        if name == frechet_name(p) and p.n < 2 * p.dimension:
            few = f"n = {p.n} is less than twice the feature's dimension {p.dimension}"
        estimates[name] = Estimate(mean.value, math.nan, math.nan, mean.n, "none", level) if few else mean
        reasons |= {name: few} if few else {}
    return Scores(estimates, reasons, p, digests, None)


# ---- columns ----


def same_protocol(rows: Mapping[str, Scores]) -> Protocol:
    """The one protocol of all rows; ValueError names the first rows that differ, and in what."""
    first, *others = rows.items()
    for name, one in others:
        if different := first[1].protocol.differences(one.protocol):
            raise ValueError(
                f"expected scores of one protocol in a column, got {first[0]} and {name}, which differ in "
                f"{'; '.join(different)}"
            )
    return first[1].protocol


def column(rows: Mapping[str, Scores], metric: str) -> tuple[str, dict[str, Estimate]]:
    """A table's column: its head ("FD (judge 3f2a9c1e)") and the estimate of each row, all of one protocol.

    ValueError names the rows whose protocols differ, and in what.
    """
    protocol = same_protocol(rows)
    head = title(metric, protocol)
    missing = [name for name, one in rows.items() if metric not in one.estimates]
    if missing:
        raise ValueError(f"expected {metric} in every row, got none for {', '.join(missing)}")
    return head, {name: one.estimates[metric] for name, one in rows.items()}


def described(protocol: Protocol) -> str:
    """The protocol in a sentence, for a caption."""
    p = protocol
    return (
        f"{p.selection} images, n = {p.n:,} against {p.reference_n:,} of {p.reference} "
        f"(SHA-256 {p.reference_sha256[:8]}); {p.extractor}, {p.feature} ({p.dimension} numbers); KID over "
        f"{p.kid_subsets} subsets of {p.kid_subset_size}; IS over {p.isc_splits} splits; precision and recall with "
        f"k = {p.prc_neighbours}; seed {p.seed}; torch-fidelity {p.torch_fidelity}."
    )


def entries(protocol: Protocol) -> dict[str, Any]:
    """The protocol as plain names and values, for a record's frame."""
    return {name: str(value) for name, value in asdict(protocol).items()}
