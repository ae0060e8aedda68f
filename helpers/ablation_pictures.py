"""Images of an ablation, laid out for a picture: the grid of two knobs (ebm, figure 2.7), and a row for each case.

A record holds for each ablation an array (n_cases, P, C, H, W) uint8, of each case the first images of the shown
classes, class after class, and a frame with one row for each case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers import pictures, style
from helpers.ablations import Case, named


@dataclass(frozen=True, eq=False)
class Layout:
    """Images (N, C, H, W) row by row, `n_columns` in a row, with the texts beside and above them."""

    images: np.ndarray
    n_columns: int
    row_labels: list[str]
    column_labels: list[str]

    def drawn(self, *, size: float) -> Figure:
        """The figure, each image `size` inches wide."""
        return pictures.image_grid(
            self.images, n_columns=self.n_columns, row_labels=self.row_labels, column_labels=self.column_labels,
            size=size,
        )  # fmt: skip


def collect(
    cases: Sequence[Case], measured: Mapping[tuple[str, int], Mapping[str, np.ndarray]], *, seed: int
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Arrays and frame for a record: of each ablation its cases' pictures, of the set of network seed `seed`."""
    arrays: dict[str, list[np.ndarray]] = {}
    rows: list[dict[str, Any]] = []
    for case in cases:
        several = arrays.setdefault(case.ablation, [])
        knobs = {name: case.setting.knobs.get(name, float("nan")) for name in ("retained_variance", "pca_spread")}
        rows.append({"ablation": case.ablation, "row": len(several), "case": named(case), **knobs})
        several.append(measured[case.setting.key, seed]["pictures"])
    return {name: np.stack(several) for name, several in arrays.items()}, pd.DataFrame(rows)


def grid(images: np.ndarray, frame: pd.DataFrame, *, classes: Sequence[str]) -> Layout:
    """The pictures of the ablation `pca`: a block of columns for each spread, for each class a row for each share of
    variance, both rising. `images` (n_cases, P, C, H, W), `frame` its cases, `classes` the names of those shown."""
    own = frame[frame["ablation"] == "pca"]
    spreads, shares = sorted(set(own["pca_spread"])), sorted(set(own["retained_variance"]))
    place = {(row.retained_variance, row.pca_spread): row.row for row in own.itertuples()}
    n_each = images.shape[1] // len(classes)
    rows, labels = [], []
    for k, name in enumerate(classes):
        for share in shares:
            labels.append(f"{name}, r = {share:g}")
            for spread in spreads:
                rows.append(images[place[share, spread], k * n_each : (k + 1) * n_each])
    above = [f"spread {spread:g}" if i == n_each // 2 else "" for spread in spreads for i in range(n_each)]
    return Layout(np.concatenate(rows), n_each * len(spreads), labels, above)


def gallery(images: Mapping[str, np.ndarray], frame: pd.DataFrame, *, ablations: Sequence[str]) -> Layout:
    """The pictures of some ablations, a row for each case."""
    rows = [images[name] for name in ablations]
    labels = [style.label(case) for name in ablations for case in frame[frame["ablation"] == name]["case"]]
    return Layout(np.concatenate([one for several in rows for one in several]), rows[0].shape[1], labels, [])
