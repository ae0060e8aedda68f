"""Our corruptions beside the official files, CIFAR-10-C and ImageNet-C, where these are present: distances and errors.

One row for each corruption and severity: `corruption_sets.Nearness`, and of each network the error (%) on our images
and on the official ones of the same test images ("ours <network>", "theirs <network>").
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from helpers import corrupted, corruption_sets, data, metrics, photographs, records
from helpers.corruption_settings import SEVERITIES, Profile, names
from helpers.corruption_tables import named
from helpers.data import ImageSet

__all__ = ["clean", "compared", "missing", "summary", "table"]


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
    except FileNotFoundError as error:
        return str(error).replace(str(data.data_root(root)), "DATA_ROOT")
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
    profile: Profile,
    seed: int,
    batch_size: int,
    root: Path | str | None = None,
) -> pd.DataFrame:
    """The frame above, for images as `clean` gives them; errors as in `corruption_sets.against_official`."""
    found = corruption_sets.against_official(images, corruptions_named=names(), profile=profile, seed=seed, root=root)
    rows = []
    for name in names():
        ours = corrupted.by_corruption(networks, images, name=name, profile=profile, seed=seed, batch_size=batch_size)
        for severity in SEVERITIES:
            theirs = corruption_sets.same_images(images, name, severity, profile=profile, root=root)
            row: dict[str, Any] = {"corruption": name, "severity": severity}
            for key, network in networks.items():
                wrong = metrics.predictions(network, theirs.images(), batch_size=batch_size).argmax(1) != theirs.labels
                row[f"ours {key}"] = 100 * float(ours[key][severity - 1].mean())
                row[f"theirs {key}"] = 100 * float(wrong.double().mean())
            rows.append(row)
    return found.merge(pd.DataFrame(rows), on=["corruption", "severity"])


def summary(found: pd.DataFrame | None, *, reason: str) -> list[records.Scalar]:
    """Scalars for a record: of each corruption the ratio of distances, ours over theirs, mean over severities; one that
    gives `reason` where nothing was compared.
    """
    if found is None:
        return [records.scalar("distance_ratio", None, reason=f"not run: {reason}")]
    return [
        records.scalar("distance_ratio", float(part["ratio"].mean()), n=len(part), corruption=str(name))
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
