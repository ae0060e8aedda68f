"""Images of an ablation, laid out for a picture: the grid of two knobs (ebm, figure 2.7), and a row for each case.

A record holds for each ablation an array (n_cases, P, C, H, W) uint8, of each case the first images of the shown
classes, class after class, and a frame with one row for each case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers import style
from helpers.settings import Case, named


def collect(
    cases: Sequence[Case], measured: Mapping[tuple[str, int], Mapping[str, np.ndarray]], *, number: int
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Arrays and frame for a record: of each ablation its cases' pictures, of sample set `number`."""
    arrays: dict[str, list[np.ndarray]] = {}
    rows: list[dict[str, Any]] = []
    for case in cases:
        several = arrays.setdefault(case.ablation, [])
        knobs = {name: case.setting.knobs.get(name, float("nan")) for name in ("retained_variance", "pca_spread")}
        rows.append({"ablation": case.ablation, "row": len(several), "case": named(case), **knobs})
        several.append(measured[case.setting.key, number]["pictures"])
    return {name: np.stack(several) for name, several in arrays.items()}, pd.DataFrame(rows)


def grid(images: np.ndarray, frame: pd.DataFrame, *, classes: Sequence[str]) -> dict[str, Any]:
    """The pictures of the ablation `pca` for `plots.image_blocks`: a block for each spread, in it for each class a row
    for each share of variance, both rising. `images` (n_cases, P, C, H, W), `classes` the names of those shown."""
    own = frame[frame["ablation"] == "pca"]
    spreads, shares = sorted(set(own["pca_spread"])), sorted(set(own["retained_variance"]))
    place = {(one["retained_variance"], one["pca_spread"]): int(one["row"]) for one in own.to_dict("records")}
    n_each = images.shape[1] // len(classes)
    parts = [slice(k * n_each, (k + 1) * n_each) for k in range(len(classes))]
    blocks = {
        f"spread {spread:g}": np.concatenate([images[place[share, spread], part] for part in parts for share in shares])
        for spread in spreads
    }
    labels = [f"{name}, r = {share:g}" for name in classes for share in shares]
    return {"blocks": blocks, "n_columns": n_each, "row_labels": labels}


def gallery(
    images: Mapping[str, np.ndarray], frame: pd.DataFrame, *, ablations: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """The pictures of some ablations for `plots.image_blocks`: a block for each class, in it a row for each case."""
    cases = [one for name in ablations for one in images[name]]
    n_each = len(cases[0]) // len(classes)
    blocks = {
        name: np.concatenate([one[k * n_each : (k + 1) * n_each] for one in cases]) for k, name in enumerate(classes)
    }
    labels = [style.label(case) for name in ablations for case in frame[frame["ablation"] == name]["case"]]
    return {"blocks": blocks, "n_columns": n_each, "row_labels": labels}
