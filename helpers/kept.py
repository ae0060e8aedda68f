"""What bottlenecks keep, over seeds: Rex, H(Y|Z) and I(Y;Z) of trained arms in nats, on training and test images.

    network, family, case, kind, rho, seed, split | n_images, rex, rex_class_means, h_y_z, i_y_z

`rex` is the mean of KL(e(z|x) ‖ b(z|y)) against the network's own b (NaN for the VIB, which has none, and where γ = 0
taught b nothing), `rex_class_means` against N(μ_y, I) with the class means μ_y of f(x) on training images. With any b
that mean is E[log e(z|x) − log e(z|y)] + E[KL(e(z|y) ‖ b(z|y))], e(z|y) the mean of e(z|x) over the x of y: never less
than I(X;Z|Y) of those images, and more by the distance of b from e(z|y). Of the b with identity covariance the class
means come closest, but only on the training images, to which they were fitted: there the mean is too small to bound
I(X;Z|Y) of new images, on test images it estimates such a bound. `i_y_z` is H(Y) − E[−log c(y|z)] ≤ I(Y;Z), H(Y) that
of the labels counted. The minimum necessary information (MNI) keeps I(Y;Z) = H(Y) and I(X;Z|Y) = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from helpers import bottleneck, information, metrics, records, robustness, style
from helpers.arms import NOISE, Arm
from helpers.bottleneck import BackwardEncoder
from helpers.data import ImageSet

NUMBERS = ("rex", "rex_class_means", "h_y_z", "i_y_z")
HEADERS = {
    "rex": "Rex, own b (nat)",
    "rex_class_means": "Rex, class means (nat)",
    "h_y_z": "H(Y|Z) ≤ (nat)",
    "i_y_z": "I(Y;Z) ≥ (nat)",
}


def measured(
    network: nn.Module, sets: Mapping[str, ImageSet], *, n_samples: int, seed: int, batch_size: int
) -> dict[str, np.ndarray]:
    """Means over the images of each of `sets`, of which "train" gives the class means: "<set> <number>", () float64.

    z is drawn `n_samples` times for each image. TypeError for a network without a bottleneck.
    """
    means = information.class_means(network, sets["train"], batch_size=batch_size)
    own = isinstance(bottleneck.of(network).density, BackwardEncoder)
    found: dict[str, np.ndarray] = {}
    for name, images in sets.items():
        rows = information.measure(network, images, means=means, n_samples=n_samples, seed=seed, batch_size=batch_size)
        h = float(rows["h_y_z"].mean(dtype=np.float64))
        numbers = {
            "rex": rows["rex"].mean(dtype=np.float64) if own else np.nan,
            "rex_class_means": rows["rex_class_means"].mean(dtype=np.float64),
            "h_y_z": h,
            "i_y_z": label_entropy(rows["y"]) - h,
            "n_images": len(images),
        }
        found |= {f"{name} {key}": np.asarray(value) for key, value in numbers.items()}
    return found


def label_entropy(y: np.ndarray) -> float:
    """H(Y) of the labels counted, in nats.

    >>> bool(label_entropy(np.array([0, 0, 1, 1])) == np.log(2))
    True
    """
    share = np.unique(y, return_counts=True)[1] / len(y)
    return float(-(share * np.log(share)).sum())


def frame(pieces: Mapping[tuple[str, int], Mapping[str, np.ndarray]], arms: Mapping[str, Arm]) -> pd.DataFrame:
    """One row for each network, seed and set of what `measured` returned."""
    rows = []
    for (network, seed), piece in pieces.items():
        for split in dict.fromkeys(key.split()[0] for key in piece):
            numbers = {key: float(piece[f"{split} {key}"]) for key in NUMBERS}
            if arms[network].kind == NOISE:
                numbers["rex"] = np.nan  # an untrained b
            where = vars(arms[network]) | {"seed": seed, "split": split}
            rows.append({**where, "n_images": int(piece[f"{split} n_images"]), **numbers})
    return pd.DataFrame(rows)


def summary(found: pd.DataFrame) -> list[records.Scalar]:
    """Scalars for a record of a `frame`: rex (by `center`), h_y_z and i_y_z of each network and set, over seeds."""
    rows = []
    for place, part in found.groupby(["network", "family", "case", "kind", "split"], sort=False):
        where: dict[str, Any] = dict(zip(["network", "family", "case", "kind", "split"], map(str, place), strict=True))
        if not np.isnan(part["rho"].iloc[0]):
            where["rho"] = float(part["rho"].iloc[0])
        about: dict[str, Any] = {"seeds": [int(k) for k in part["seed"]], "n": int(part["n_images"].iloc[0])}
        for key in NUMBERS:
            values = part[key].to_numpy()
            if np.isnan(values).any():
                continue
            metric = "rex" if key.startswith("rex") else key
            center: dict[str, Any] = (
                {"center": "class means" if key == "rex_class_means" else "own"} if metric == "rex" else {}
            )
            estimate: Any = metrics.student_t(values) if len(values) > 1 else float(values[0])
            rows.append(records.scalar(metric, estimate, **about, **where, **center))
    return rows


def table(scalars: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """A record of `summary` on one set: one row for each network."""
    lines: dict[str, dict[str, Any]] = {}
    for row in scalars[scalars["split"] == split].to_dict("records"):
        start = {"family": style.label(row["family"]), "case": style.label(row["case"])}
        line = lines.setdefault(str(row["network"]), start | dict.fromkeys(HEADERS.values()))
        key = row["metric"] if row["metric"] != "rex" or row["center"] == "own" else "rex_class_means"
        line[HEADERS[key]] = robustness.interval(row)
    return pd.DataFrame(list(lines.values()), dtype=object)


def plane(found: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Each network's place in the plane of information, over seeds, on one set: columns x and y with _low and _high."""
    rows = []
    for place, part in found[found["split"] == split].groupby(["network", "family", "case", "kind"], sort=False):
        row: dict[str, Any] = dict(zip(["network", "family", "case", "kind"], place, strict=True))
        for axis, key in (("x", "rex_class_means"), ("y", "i_y_z")):
            values = part[key].to_numpy()
            several = metrics.student_t(values) if len(values) > 1 else None
            ends = (several.low, several.high) if several else (np.nan, np.nan)
            row |= {axis: float(values.mean()), f"{axis}_low": ends[0], f"{axis}_high": ends[1]}
        rows.append(row | {"rho": float(part["rho"].iloc[0])})
    return pd.DataFrame(rows)


def reading(places: pd.DataFrame, *, most: float) -> str:
    """For each family of a `plane` what its least and its largest ρ keep beyond Y and lack of H(Y), `most`."""
    lines = []
    for family, rows in places[places["rho"].notna()].groupby("family", sort=False):
        ends = rows.sort_values("rho").iloc[[0, -1]].to_dict("records")
        said = [f"ρ = {one['rho']:g} keeps {one['x']:.3g} nat beyond Y and lacks {most - one['y']:.2g}" for one in ends]
        lines.append(f"{style.label(family)}: {said[0]} nat of H(Y); {said[1]} nat")
    return "\n".join(lines)
