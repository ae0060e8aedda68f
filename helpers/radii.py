"""Accuracy under PGD as the ball grows: L∞ and L2, each radius in the units in which papers print it.

One row for each network, seed, norm and radius, 0 included (the natural images):

    network, seed, norm | epsilon, epsilon_255, epsilon_symmetric | n_images, robust_accuracy

`epsilon` is that of images in [0, 1], `epsilon_255` the same in 1/255 of that range, and `epsilon_symmetric` that of
images in [−1, 1], the range of JEM and its kin: twice `epsilon` in either norm. A paper that prints 8/255 may mean any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from helpers import checks, judged, records, robustness, style
from helpers.balls import Norm
from helpers.data import ImageSet

ATTACK = "pgd_ce"
UNITS = {"epsilon": "ε, [0, 1]", "epsilon_255": "ε · 255", "epsilon_symmetric": "ε, [−1, 1]"}


def units(epsilon: float) -> dict[str, float]:
    """A radius of images in [0, 1], L∞ or L2, in the three units.

    >>> units(8 / 255)["epsilon_255"], round(units(0.5)["epsilon_symmetric"], 4)
    (8.0, 1.0)
    """
    return {"epsilon": epsilon, "epsilon_255": round(255 * epsilon, 9), "epsilon_symmetric": 2 * epsilon}


def measured(
    network: nn.Module,
    images: ImageSet,
    *,
    norm: Norm,
    epsilons: Sequence[float],
    step_radii: float,
    n_steps: int,
    seed: int,
    batch_size: int,
    known: Mapping[float, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """PGD on cross-entropy (one uniform start, last iterate) at each radius, in the scale of [0, 1] images.

    A step is `step_radii` radii long. Arrays: `epsilon` (E + 1,), rising from 0; `correct` (E + 1, N) bool, where
    the network is right, and `image` (N,). `known` are verdicts (N,) that this very attack has already had, by radius
    (0: natural): they are taken as they are.
    """
    radii = [0.0, *sorted(checks.radius(one) for one in epsilons)]
    if len(set(radii)) != len(radii):
        raise ValueError(f"expected epsilons to be different radii above 0, got {list(epsilons)}")
    known = known or {}
    if any(len(one) != len(images) for one in known.values()):
        raise ValueError(f"expected verdicts on {len(images)} images, got {[len(one) for one in known.values()]}")
    rows = []
    for epsilon in radii:
        if epsilon in known:
            rows.append(known[epsilon])
            continue
        points = images.images()
        if epsilon:
            points = judged.pgd(
                network, images, attack=ATTACK, norm=norm, epsilon=epsilon, step_size=step_radii * epsilon,
                n_steps=n_steps, seed=seed, batch_size=batch_size,
            )  # fmt: skip
        rows.append(judged.right(network, points, images.labels, batch_size=batch_size))
    return {"epsilon": np.array(radii), "correct": np.stack(rows), "image": images.index.cpu().numpy()}


Pieces = Mapping[tuple[str, int, str], Mapping[str, np.ndarray]]  # (network, seed, norm) → what `measured` returned


def frame(pieces: Pieces) -> pd.DataFrame:
    """One row for each network, seed, norm and radius."""
    rows: list[dict[str, Any]] = []
    for (network, seed, norm), piece in pieces.items():
        where = {"network": network, "seed": seed, "norm": norm, "n_images": piece["correct"].shape[1]}
        for epsilon, correct in zip(piece["epsilon"], piece["correct"], strict=True):
            rows.append({**where, **units(float(epsilon)), "robust_accuracy": 100 * float(correct.mean())})
    return pd.DataFrame(rows)


def summary(pieces: Pieces) -> list[records.Scalar]:
    """Scalars for a record: robust_accuracy of each network, norm and radius, over its seeds."""
    rows = []
    for network, norm in dict.fromkeys((network, norm) for network, _, norm in pieces):
        mine = {k: piece for (name, k, kind), piece in pieces.items() if (name, kind) == (network, norm)}
        for place, epsilon in enumerate(next(iter(mine.values()))["epsilon"]):
            several = [piece["correct"][place] for piece in mine.values()]
            where: dict[str, Any] = {"network": network, "attack": ATTACK, "norm": norm, **units(float(epsilon))}
            found = robustness.estimate(several)
            rows.append(records.scalar("robust_accuracy", found, n=len(several[0]), seeds=list(mine), **where))
    return rows


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary`: a row for each norm and radius in its units, a column for each network (%)."""
    names = list(dict.fromkeys(scalars["network"]))
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in scalars.to_dict("records"):
        key = tuple(row[unit] for unit in UNITS)
        line = lines.setdefault((row["norm"], *key), {"norm": style.label(row["norm"])})
        line |= {title: round(row[unit], 6) for unit, title in UNITS.items()}
        line[style.label(row["network"])] = robustness.interval(row)
    return pd.DataFrame(list(lines.values()), columns=["norm", *UNITS.values(), *map(style.label, names)], dtype=object)


def reading(scalars: pd.DataFrame, *, chance: float) -> str:
    """For each norm the radius at which each network is first no better than `chance` (%), a line for each."""
    lines = []
    for (norm, network), rows in scalars.groupby(["norm", "network"], sort=False):
        blind = rows[rows["value"] <= chance].sort_values("epsilon")
        last = rows.sort_values("epsilon").iloc[-1]
        if len(blind):
            first = blind.iloc[0]
            said = f"at chance from ε = {first['epsilon']:.3g} on ({first['epsilon_symmetric']:.3g} on [−1, 1])"
        else:
            shown = robustness.interval(last.to_dict())
            said = f"still {shown} % at ε = {last['epsilon']:.3g}, the largest: not down to chance"
        lines.append(f"{style.label(norm)}, {style.label(network)}: {said}")
    return "\n".join(lines)
