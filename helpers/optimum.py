"""Where along ρ clean accuracy is best (ceb, T2 of its trends): inside the range tried, or at an end of it.

Of the ρ of a family and kind four have a role:

    lowest ρ, highest ρ   the ends
    best inside          of the ρ between them the one most accurate on validation images, mean over seeds
    middle ρ             the upper median, with which the highest is compared: is the curve flat there?

The choice is made on validation images alone, and test images say what it is worth. Among several ρ the best on test
images would lie above the ends by chance. Without validation images, or between neighbours, nothing is chosen.

    network, family, case, kind, rho, role, seed | image, correct
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from helpers import contrasts, judged, records, rho_sweep, robustness, style
from helpers.arms import Arm
from helpers.data import ImageSet
from helpers.rho_sweep import HIGHEST, IMAGE, LOWEST

INSIDE, MIDDLE = "best inside", "middle ρ"
COMPARED = ((INSIDE, LOWEST), (INSIDE, HIGHEST), (MIDDLE, HIGHEST))
TEST, VALIDATION = "test", "validation"

Pieces = Mapping[tuple[str, int], Mapping[str, np.ndarray]]  # (network, seed) → what `measured` returned


def measured(network: nn.Module, sets: Mapping[str, ImageSet], *, batch_size: int) -> dict[str, np.ndarray]:
    """Verdicts on each of `sets` ("test", and "validation" where there is one) and the places of the test images.

    Arrays (N,): "<set>", bool, and `image`.
    """
    found = {
        name: judged.right(network, images.images(), images.labels, batch_size=batch_size)
        for name, images in sets.items()
    }
    return found | {IMAGE: sets[TEST].index.cpu().numpy()}


def roles(pieces: Pieces, arms: Mapping[str, Arm]) -> dict[tuple[str, str], dict[str, str]]:
    """By (family, kind) of at least two ρ: role → network. Of equally good ones the higher ρ is chosen."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    there = {name for name, _ in pieces}
    named = [one for one in arms.values() if one.network in there and one.rho == one.rho]
    for place in dict.fromkeys((one.family, one.kind) for one in named):
        ladder = sorted((one for one in named if (one.family, one.kind) == place), key=lambda one: one.rho)
        if len(ladder) < 2:
            continue
        found[place] = {LOWEST: ladder[0].network, HIGHEST: ladder[-1].network}
        inside = [one.network for one in ladder[1:-1]]
        if inside:
            found[place][MIDDLE] = ladder[len(ladder) // 2].network
        scores = [_validation(pieces, name) for name in inside]
        if scores and not np.isnan(scores).any():
            found[place][INSIDE] = max(zip(scores, range(len(inside)), inside, strict=True))[2]
    return found


def _seeds(pieces: Pieces, network: str) -> dict[int, Mapping[str, np.ndarray]]:
    return {seed: piece for (name, seed), piece in pieces.items() if name == network}


def _validation(pieces: Pieces, network: str) -> float:
    """Accuracy on validation images (%), mean over seeds; NaN without such images."""
    shares = [piece[VALIDATION].mean() for piece in _seeds(pieces, network).values() if VALIDATION in piece]
    return 100 * float(np.mean(shares)) if shares else float("nan")


def verdicts(pieces: Pieces, arms: Mapping[str, Arm]) -> pd.DataFrame:
    """One row for each family, kind, role, seed and test image."""
    blocks = []
    for chosen in roles(pieces, arms).values():
        for role, network in chosen.items():
            for seed, piece in _seeds(pieces, network).items():
                block = pd.DataFrame({"image": piece[IMAGE], "correct": piece[TEST]})
                blocks.append(block.assign(**vars(arms[network]), role=role, seed=seed))
    return pd.concat(blocks, ignore_index=True)


def plain(pieces: Pieces) -> pd.DataFrame:
    """One row for each network, seed and test image, whatever their ρ."""
    blocks = [
        pd.DataFrame({"image": piece[IMAGE], "correct": piece[TEST]}).assign(network=network, seed=seed)
        for (network, seed), piece in pieces.items()
    ]
    return pd.concat(blocks, ignore_index=True)


def summary(pieces: Pieces, arms: Mapping[str, Arm], *, seed: int) -> list[records.Scalar]:
    """Scalars for a record: accuracy of each network in `arms` by split, and the differences of COMPARED by family.

    In percentage points, those of test images, paired by seed and image as in the ledger (`contrasts.difference`).
    """
    rows = []
    for name in dict.fromkeys(name for name, _ in pieces if name in arms):
        mine = _seeds(pieces, name)
        for split in (VALIDATION, TEST):
            several = [piece[split] for piece in mine.values() if split in piece]
            if several:
                about: dict[str, Any] = {"n": len(several[0]), "seeds": list(mine), **arms[name].where}
                rows.append(records.scalar("accuracy", robustness.estimate(several), split=split, **about))
    for (family, kind), chosen in roles(pieces, arms).items():
        for role, against in COMPARED:
            if role in chosen:
                samples = [rho_sweep.sample(_seeds(pieces, chosen[one]), TEST) for one in (role, against)]
                found, _ = contrasts.difference(*samples, seed=seed)
                about = {"n": samples[0].n_images, "seeds": list(samples[0].seeds), "family": family, "kind": kind}
                about |= {"role": role, "against": against, "rho": arms[chosen[role]].rho}
                about["against_rho"] = arms[chosen[against]].rho
                rows.append(records.scalar("accuracy_difference", found, **about))
    return rows


def curves(scalars: pd.DataFrame) -> pd.DataFrame:
    """The accuracies on test images of a record of `summary` for `plots.interval_curves`, with ρ as `x`."""
    chosen = scalars[(scalars["metric"] == "accuracy") & (scalars["split"] == TEST) & scalars["rho"].notna()]
    return chosen.sort_values(["family", "rho"]).reset_index(drop=True)


def reading(scalars: pd.DataFrame) -> str:
    """For each family the differences on test images, a line each."""
    lines = []
    chosen = scalars[scalars["metric"] == "accuracy_difference"]
    for (family, kind), rows in chosen.groupby(["family", "kind"], sort=False):
        told = []
        for row in rows.to_dict("records"):
            pair = f"{row['role']} ({row['rho']:g}) less {row['against']} ({row['against_rho']:g})"
            told.append(f"{pair} {robustness.interval(row)}")
        lines.append(f"{style.label(family)}, {style.label(kind)}: {', '.join(told)} points")
    return "\n".join(lines)
