"""Our corruptions beside the official files, CIFAR-10-C and ImageNet-C, where these are present: distances and errors.

One row for each corruption and severity: `Nearness`, and of each network the error (%) on our images
and on the official ones of the same test images ("ours <network>", "theirs <network>").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from helpers import corruption_sets, corruptions, data, metrics, photographs, records
from helpers.corruption_settings import SEVERITIES, Profile, names
from helpers.corruption_tables import named
from helpers.data import ImageSet

__all__ = ["Nearness", "clean", "compared", "missing", "nearness", "summary", "table"]


@dataclass(frozen=True)
class Nearness:
    """How two corruptions of the same images compare: root mean square distances to the clean images, and more.

    `ratio` ours / theirs of the mean distances; `psnr_difference` −20 log₁₀ ratio, in dB; `spread_ratio` of the
    standard deviations of the distances over images; `mean_shift` ours − theirs of the mean brightness.
    """

    distance_ours: float
    distance_theirs: float
    ratio: float
    psnr_difference: float
    spread_ratio: float
    mean_shift: float


def nearness(clean: Tensor, ours: Tensor, theirs: Tensor) -> Nearness:
    """Compare two corruptions of the clean images, all (B, C, H, W) in [0, 1], at least two images.

    >>> import torch
    >>> x, theirs = torch.zeros(2, 1, 4, 4), torch.tensor([0.1, 0.2]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    >>> found = nearness(x, 2 * theirs, theirs)
    >>> round(found.ratio, 3), round(found.psnr_difference, 2), round(found.mean_shift, 2)
    (2.0, -6.02, 0.15)
    """
    a, b = corruptions.distance(clean, ours).double(), corruptions.distance(clean, theirs).double()
    if len(a) < 2:
        raise ValueError(f"expected at least two images, got {len(a)}")
    if not bool(b.mean() > 0) or not bool(a.mean() > 0):
        raise ValueError("expected corruptions that change the images, got one that does not")
    ratio = a.mean() / b.mean()
    return Nearness(
        distance_ours=float(a.mean()),
        distance_theirs=float(b.mean()),
        ratio=float(ratio),
        psnr_difference=float(-20 * ratio.log10()),
        spread_ratio=float(a.std() / b.std()),
        mean_shift=float(ours.double().mean() - theirs.double().mean()),
    )


def missing(profile: Profile, *, root: Path | str | None = None) -> str:
    """Why there is nothing to compare with, with the command that fetches it; "" where the official files are there."""
    if profile == "digits":
        return "the constants for the digits are ours, there are no official files"
    try:
        for name in names():
            if profile == "cifar":
                corruption_sets.cifar10_c(name, severity=SEVERITIES[0], root=root)
            else:
                corruption_sets.imagenet_c(name, severity=SEVERITIES[0], n_images=1, root=root)
        if profile == "imagenet":
            photographs.imagenet_validation(root)
    except FileNotFoundError as error:
        return data.placeless(error, root=root)
    return ""


def clean(test: ImageSet, *, profile: Profile, n_images: int, root: Path | str | None = None) -> ImageSet:
    """The images that the official files of `profile` are corruptions of: CIFAR-10's test images, or ImageNet's."""
    if profile == "cifar":
        return test.first(n_images)
    return photographs.by_class(photographs.imagenet_validation(root), n_images=n_images)


def compared(
    networks: Mapping[str, nn.Module],
    images: ImageSet,
    *,
    corruption_names: Iterable[str],
    profile: Profile,
    seed: int,
    batch_size: int,
    root: Path | str | None = None,
) -> pd.DataFrame:
    """The frame above, for images as `clean` gives them; errors as in `corruption_sets.same_images`."""
    x, rows = images.images(), []
    for name in corruption_names:
        for severity in SEVERITIES:
            theirs = corruption_sets.same_images(images, name, severity, profile=profile, root=root).images()
            ours = corruptions.corrupt(name, x, severity=severity, profile=profile, seed=seed, index=images.index)
            row: dict[str, Any] = {"corruption": name, "severity": severity}
            row |= asdict(nearness(x.cpu(), ours.cpu(), theirs))
            for key, network in networks.items():
                for side, one in (("ours", ours), ("theirs", theirs)):
                    answers = metrics.predictions(network, one, batch_size=batch_size).argmax(1)
                    row[f"{side} {key}"] = 100 * float((answers != images.labels.cpu()).double().mean())
            rows.append(row)
    return pd.DataFrame(rows)


def summary(found: pd.DataFrame | None, *, reason: str) -> list[records.Scalar]:
    """Scalars for a record: of each corruption the ratio of distances, ours over theirs, mean over severities; one that
    gives `reason` where nothing was compared.
    """
    if found is None:
        return [records.scalar("distance_ratio", None, reason=f"not run: {reason}")]
    return [
        records.scalar("distance_ratio", float(part["ratio"].mean()), corruption=str(name), n_severities=len(part))
        for name, part in found.groupby("corruption", sort=False)
    ]


def table(found: pd.DataFrame | None, *, reason: str) -> pd.DataFrame:
    """Means over severities, one row for each corruption; one row that says "not run" and why."""
    if found is None:
        return pd.DataFrame([{"corruption": "all", "official files": f"not run: {reason}"}], dtype=object)
    errors = [str(column) for column in found if str(column).startswith(("ours ", "theirs "))]
    means = found.groupby("corruption", sort=False)[["ratio", "psnr_difference", "mean_shift", *errors]].mean()
    heads = {"ratio": "distance, ours / theirs", "psnr_difference": "PSNR, ours − theirs (dB)"}
    heads |= {"mean_shift": "brightness, ours − theirs"} | {column: f"error (%), {column}" for column in errors}
    means = means.rename(columns=heads).round(3).reset_index()
    return means.assign(corruption=means["corruption"].map(named)).astype(object)
