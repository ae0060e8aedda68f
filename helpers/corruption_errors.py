"""Errors under corruptions, and their summaries: Average CE, mCE and relative mCE (Hendrycks & Dietterich 2019).

With E_{c,s} the top-1 error (%) on corruption c at severity s, and R the same of a reference network:

    CE_c = mean_s E_{c,s}                       Average CE = mean_c CE_c
    mCE = 100 · mean_c  Σ_s E_{c,s} / Σ_s R_{c,s}
    relative mCE = 100 · mean_c  (Σ_s E_{c,s} − 5 E_clean) / (Σ_s R_{c,s} − 5 R_clean)

over the 15 corruptions. The papers' mCE on ImageNet-C has AlexNet as reference (`alexnet`); where no AlexNet exists,
as on CIFAR-10-C or digits, one's own cross-entropy network is the reference and its mCE is 100. A plain mean of
errors is the Average CE, and never called mCE here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from helpers import checks, corruptions, metrics
from helpers.corruption_settings import SEVERITIES, Profile, names
from helpers.data import ImageSet
from helpers.parameters import ROOT

__all__ = ["alexnet", "average_ce", "mce", "over_severities", "predictions", "relative_mce"]


@torch.no_grad()
def predictions(
    networks: Mapping[str, nn.Module],
    images: ImageSet,
    *,
    name: str,
    severity: int,
    profile: Profile,
    seed: int,
    batch_size: int,
) -> dict[str, Tensor]:
    """Logits (N, K) of several networks on the same corrupted images, by the networks' names; corrupted once.

    The images' `index` keys the corruption. Networks run in eval mode and are left as they were.
    """
    checks.count(batch_size, "batch_size", minimum=1)
    found: dict[str, list[Tensor]] = {network: [] for network in networks}
    for rows in torch.arange(len(images)).split(batch_size):
        x = corruptions.corrupt(
            name, images.images(rows), severity=severity, profile=profile, seed=seed, index=images.index[rows]
        )
        for network, module in networks.items():
            found[network].append(metrics.predictions(module, x, batch_size=batch_size))
    return {network: torch.cat(parts) for network, parts in found.items()}


def over_severities(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """CE_c, the mean of the errors (%) at severities 1 … 5, for each corruption.

    >>> over_severities({"fog": [10.0, 20.0, 30.0, 40.0, 50.0]})
    {'fog': 30.0}
    """
    for name, values in errors.items():
        if len(values) != len(SEVERITIES):
            raise ValueError(f"expected {len(SEVERITIES)} errors for {name}, one a severity, got {len(values)}")
    return {name: math.fsum(map(_error, values)) / len(values) for name, values in errors.items()}


def alexnet() -> dict[str, tuple[float, ...]]:
    """AlexNet's error (%) on ImageNet-C by corruption at severities 1 … 5: the published divisor of mCE.

    >>> round(over_severities(alexnet())["gaussian_noise"], 4)
    88.6428
    """
    with (ROOT / "params" / "published" / "alexnet_ce.csv").open(encoding="utf-8", newline="") as file:
        return {r["corruption"]: tuple(100 * float(r[f"sev{s}"]) for s in SEVERITIES) for r in csv.DictReader(file)}


def average_ce(ce: Mapping[str, float]) -> float:
    """The plain mean (%) of CE_c over the 15 corruptions; others in `ce` are left out."""
    return math.fsum(_the_fifteen(ce, "ce").values()) / len(names())


def mce(ce: Mapping[str, float], *, reference: Mapping[str, float]) -> float:
    """Mean corruption error (%): 100 · mean_c CE_c / CE_c of the reference, over the 15 corruptions.

    >>> half = {name: ce / 2 for name, ce in over_severities(alexnet()).items()}
    >>> round(mce(half, reference=over_severities(alexnet())), 9)
    50.0
    """
    return _mean_ratio(_the_fifteen(ce, "ce"), _the_fifteen(reference, "reference"))


def relative_mce(
    ce: Mapping[str, float], *, clean: float, reference: Mapping[str, float], reference_clean: float
) -> float:
    """Relative mCE (%): as `mce`, of what corruption adds to the clean error (%) of either network.

    Better clean accuracy alone lowers mCE; it does not lower this one. Raises ValueError where the reference does
    not lose on some corruption, since the ratio then means nothing.

    >>> ce = {name: 30.0 for name in names()}
    >>> relative_mce(ce, clean=10.0, reference={name: 50.0 for name in ce}, reference_clean=10.0)
    50.0
    """
    clean, reference_clean = _error(clean), _error(reference_clean)
    added = {name: value - clean for name, value in _the_fifteen(ce, "ce").items()}
    expected = {name: value - reference_clean for name, value in _the_fifteen(reference, "reference").items()}
    return _mean_ratio(added, expected)


def _mean_ratio(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    for name, value in reference.items():
        if value <= 0:
            raise ValueError(f"expected the reference to err more on {name} than nothing (or clean), got {value:g} %")
    return 100 * math.fsum(values[name] / reference[name] for name in values) / len(values)


def _the_fifteen(ce: Mapping[str, float], what: str) -> dict[str, float]:
    missing = [name for name in names() if name not in ce]
    if missing:
        raise ValueError(f"expected {what} to hold the {len(names())} corruptions of mCE, got none for {missing}")
    return {name: _error(ce[name]) for name in names()}


def _error(value: float) -> float:
    return checks.number(value, "an error in percent", minimum=0.0, maximum=100.0)
