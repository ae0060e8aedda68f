"""Whether generated images are copies: the nearest training image of each, beside what unseen real images have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from helpers import extractors, likeness, records
from helpers.data import ImageSet
from helpers.extractors import Extractor
from helpers.generated import interval
from helpers.metrics import Estimate

SPACES = ("pixels", "features")
QUANTILE = 0.05  # of the held-out images' distances: an image that lies nearer is too near
MADE, HELD_OUT = "made", "held out"


def search(
    images: np.ndarray, held_out: ImageSet, training: ImageSet, *, judge: Extractor, batch_size: int
) -> dict[str, np.ndarray]:
    """The nearest training image of each of `images` (N, C, H, W) uint8 and of each held-out one (M), in two spaces.

    Arrays by name, `made pixels row` and so on: `row` int64 in the training set, `distance` float64, Euclidean, in
    pixels of the range [0, 1] and in the judge's penultimate layer.
    """
    found: dict[str, np.ndarray] = {}
    for space in SPACES:
        by: dict[str, Any] = (
            {"extractor": judge, "feature": extractors.PENULTIMATE}
            if space == "features"
            else {"extractor": None, "feature": None}
        )
        for whose, those in ((MADE, images), (HELD_OUT, held_out.pixels)):
            near = likeness.nearest(those, training, **by, batch_size=batch_size)
            found[f"{whose} {space} row"], found[f"{whose} {space} distance"] = near.row.numpy(), near.distance.numpy()
    return found


def summary(found: Mapping[str, np.ndarray]) -> list[records.Scalar]:
    """Scalars for a record, of what `search` returned: nearest_distance of made and of held-out images in each space,
    and share_too_near, the made ones nearer than the QUANTILE of the held-out ones' distances."""
    rows = []
    for space in SPACES:
        made, held_out = (
            likeness.Nearest(torch.from_numpy(found[f"{whose} {space} row"]),
                             torch.from_numpy(found[f"{whose} {space} distance"]), space)
            for whose in (MADE, HELD_OUT)
        )  # fmt: skip
        said = likeness.copies(made, held_out, quantile=QUANTILE)
        by_whose: dict[str, Estimate] = {MADE: said.made, HELD_OUT: said.held_out}
        for whose, estimate in by_whose.items():
            rows.append(records.scalar("nearest_distance", estimate, space=space, images=whose))
        rows.append(records.scalar("share_too_near", said.share_too_near, space=space, images=MADE, quantile=QUANTILE))
    return rows


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary`: one row for each space."""
    lines = []
    for space, rows in scalars.groupby("space", sort=False):
        line: dict[str, object] = {"space": space}
        for row in rows.to_dict("records"):
            what = f"distance, {row['images']}" if row["metric"] == "nearest_distance" else "made, too near (%)"
            line[what] = interval(row)
        lines.append(line)
    return pd.DataFrame(lines, dtype=object)


def reading(scalars: pd.DataFrame) -> str:
    """What `summary` says of copies, a line for each space."""
    lines = []
    for row in scalars[scalars["metric"] == "share_too_near"].to_dict("records"):
        found, share = interval(row), 100 * row["quantile"]
        said = (
            "more than"
            if (found.low or 0) > share
            else "fewer than"
            if (found.high or 0) < share
            else "about as many as"
        )
        lines.append(
            f"In {row['space']} {found} % of the made images lie nearer to a training image than {share:g} % of unseen "
            f"real ones do: {said} real images would"
        )
    return "\n".join(lines)


def pictures(
    found: Mapping[str, np.ndarray], images: np.ndarray, y: np.ndarray, held_out: ImageSet, training: ImageSet
) -> dict[str, np.ndarray]:
    """For `plots.image_blocks`, of made and of held-out images: the first of each class, under it the nearest training
    image in pixels, then in features; (3·K, C, H, W) uint8 each."""
    blocks = {}
    for whose, those, labels in (
        (MADE, images, y),
        (HELD_OUT, held_out.pixels.cpu().numpy(), held_out.labels.cpu().numpy()),
    ):
        firsts = [int(np.flatnonzero(labels == k)[0]) for k in range(training.num_classes)]
        rows = [those[firsts]]
        rows += [training.pixels.cpu().numpy()[found[f"{whose} {space} row"][firsts]] for space in SPACES]
        blocks[whose] = np.concatenate(rows)
    return blocks
