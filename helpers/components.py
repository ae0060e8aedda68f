"""How many principal components a class's start keeps, and the paper's name for its spread (ebm, 4.1).

Of a start by PCA with share r: m, the index of the first cumulative share ≥ r, one fewer than scikit-learn keeps for
the same r, and σ_PCA = spread/√(n − 1), where the paper multiplies singular values and we the class's own deviations.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

import pandas as pd

from helpers import records
from helpers.class_pca import ClassPCA
from helpers.parameters import ROOT
from helpers.starts import Start

PUBLISHED = ROOT / "params" / "published" / "ebm_pca_components.csv"  # of CIFAR-10's training images


def summary(start: Start, classes: Sequence[str]) -> list[records.Scalar]:
    """Scalars `n_components` and `sigma_pca` of each class, for a record; none of a start that is not by class PCA."""
    if not isinstance(start, ClassPCA):
        return []
    rows = []
    counts = zip(classes, start.n_components.tolist(), start.sigma_pca.tolist(), start.n_images.tolist(), strict=True)
    for name, m, sigma, n in counts:
        where: dict[str, Any] = {"class": name, "retained_variance": start.retained_variance}
        rows.append(records.scalar("n_components", m, n=n, **where))
        rows.append(records.scalar("sigma_pca", sigma, n=n, **where))
    return rows


def published(share: float, *, dataset: str) -> dict[str, int]:
    """The counts that the paper's notebooks print, by class; none for another data set than cifar10 or another share.

    >>> published(0.95, dataset="cifar10")["airplane"], published(0.5, dataset="cifar10")
    (163, {})
    """
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        rows = {float(row.pop("retained_variance")): row for row in csv.DictReader(file)}
    return {name: int(m) for name, m in rows.get(share, {}).items()} if dataset == "cifar10" else {}


def reading(scalars: pd.DataFrame, *, dataset: str) -> str:
    """Counts and σ_PCA in a sentence, with how many counts are the published ones; "" where there are none."""
    rows = scalars.to_dict("records")
    counts = {str(row["class"]): round(row["value"]) for row in rows if row["metric"] == "n_components"}
    if not counts:
        return ""
    sigma = [f"{row['value']:.4f}" for row in rows if row["metric"] == "sigma_pca"]
    share = float(rows[0]["retained_variance"])
    text = f"Components kept at r = {share:g}: " + ", ".join(f"{name} {m}" for name, m in counts.items())
    text += f"; σ_PCA = {' to '.join(dict.fromkeys((min(sigma), max(sigma))))}. "
    theirs = published(share, dataset=dataset)
    if not theirs:
        return f"{text}Published counts are of CIFAR-10 at r = 0.9 and 0.95 only."
    same = sum(m == theirs.get(name) for name, m in counts.items())
    return f"{text}As many as published: {same} of {len(counts)} classes."
