"""Accuracy under PGD as its steps grow: a curve that is still falling at its end says that the attack was too short.

One row for each network, seed and number of steps:

    network, seed | n_steps, n_images, robust_accuracy
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from helpers import judged, records, robustness, style
from helpers.attack_losses import LossValue
from helpers.data import ImageSet

ATTACK = "pgd_ce"


def measured(
    network: nn.Module,
    images: ImageSet,
    *,
    epsilon: float,
    step_size: float,
    step_counts: Sequence[int],
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """PGD on cross-entropy (L∞, one uniform start) after each number of steps: `n_steps` (S,), rising, and `correct`
    (S, N) bool. One run of the most steps is watched on its way: its first k steps are a run of k steps."""
    counts = sorted(set(step_counts))
    if not counts or counts[0] < 1 or len(counts) != len(step_counts):
        raise ValueError(f"expected step_counts to be different numbers of at least 1, got {list(step_counts)}")
    right: dict[int, list[np.ndarray]] = {steps: [] for steps in counts}  # batch after batch

    def watch(step: int, x: Tensor, said: LossValue) -> None:
        if step in right:
            right[step].append((~said.fooled).cpu().numpy())

    judged.pgd(
        network, images, attack=ATTACK, norm="linf", epsilon=epsilon, step_size=step_size, n_steps=counts[-1],
        seed=seed, batch_size=batch_size, callback=watch,
    )  # fmt: skip
    return {"n_steps": np.array(counts), "correct": np.stack([np.concatenate(right[steps]) for steps in counts])}


Pieces = Mapping[tuple[str, int], Mapping[str, np.ndarray]]  # (network, seed) → what `measured` returned


def frame(pieces: Pieces) -> pd.DataFrame:
    """One row for each network, seed and number of steps."""
    return pd.DataFrame(
        {"network": network, "seed": seed, "n_steps": int(steps), "n_images": len(right),
         "robust_accuracy": 100 * float(right.mean())}
        for (network, seed), piece in pieces.items()
        for steps, right in zip(piece["n_steps"], piece["correct"], strict=True)
    )  # fmt: skip


def summary(pieces: Pieces) -> list[records.Scalar]:
    """Scalars for a record: robust_accuracy of each network and number of steps, over its seeds."""
    rows = []
    for network in dict.fromkeys(name for name, _ in pieces):
        mine = {seed: piece for (name, seed), piece in pieces.items() if name == network}
        for place, steps in enumerate(next(iter(mine.values()))["n_steps"]):
            several = [piece["correct"][place] for piece in mine.values()]
            where: dict[str, Any] = {"network": network, "attack": ATTACK, "norm": "linf", "n_steps": int(steps)}
            found = robustness.estimate(several)
            rows.append(records.scalar("robust_accuracy", found, n=len(several[0]), seeds=list(mine), **where))
    return rows


def reading(scalars: pd.DataFrame) -> str:
    """For each network what the last doubling or more of the steps still costs it; a line each."""
    lines = []
    for network, rows in scalars.groupby("network", sort=False):
        before, after = (one for _, one in rows.sort_values("n_steps").iloc[-2:].iterrows())
        lost = before["value"] - after["value"]
        lines.append(
            f"{style.label(network)}: from {before['n_steps']:g} to {after['n_steps']:g} steps "
            f"{lost:+.1f} points lost, {robustness.interval(after.to_dict())} % left"
        )
    return "\n".join(lines)
