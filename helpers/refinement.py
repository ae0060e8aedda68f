"""A short chain from a noisy or an adversarial test image: does descending an energy of the network mend it?

    x′ = SGLD on E(x)       as JEM does before it classifies (Grathwohl et al. 2020, section 5.4): no label is used
    x′ = SGLD on E(x, y)    with the true y: the answer is given away, so that being right afterwards is no robustness

Both are judged by the network itself and by another one that has no part in it. A picture and numbers, no claim: an
attack that knows of the chain goes through it, and none here does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from helpers import attacks, checks, generation, metrics, noise, records, robustness, samplers
from helpers.data import ImageSet

NOISY, ADVERSARIAL = "noisy", "adversarial"
STARTS = (NOISY, ADVERSARIAL)
CHAINS = {"none": "as it is", "marginal": "after a chain on E(x)", "joint": "after a chain on E(x, y), y given"}
OWN, JUDGE = "itself", "another network"


def corrupted(
    network: nn.Module, images: ImageSet, *, std: float, epsilon: float, step_size: float, n_steps: int, seed: int,
    batch_size: int,
) -> dict[str, Tensor]:  # fmt: skip
    """The images with Gaussian noise of `std`, clipped to [0, 1], and under PGD-CE (L∞) of radius `epsilon`."""
    x, y = images.images(), images.labels
    xi = noise.Key(seed, "refinement/noise", images.index).tabled().normal(x.shape[1:])
    adversarial = attacks.run(
        "pgd_ce", network, x, y, norm="linf", epsilon=epsilon, step_size=step_size, n_steps=n_steps, n_restarts=1,
        returns="last", seed=seed, index=images.index, batch_size=batch_size,
    )  # fmt: skip
    return {NOISY: (x + checks.number(std, "std", minimum=0) * xi).clamp(0, 1), ADVERSARIAL: adversarial}


def refined(
    network: nn.Module,
    judge: nn.Module,
    images: ImageSet,
    *,
    attack: Mapping[str, Any],
    chain: Mapping[str, Any],
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Verdicts before and after chains from corrupted images: `<start> <chain> <who>` (N,) bool, right or wrong, and
    `<start> <chain> pictures` (K, C, H, W) uint8, the first image of each class that `images` have, beside `originals`
    (K, C, H, W).

    `attack` holds the keywords of `corrupted` besides seed and batch size, `chain` those of samplers.sgld: step_size,
    momentum, noise_std, n_steps.
    """
    y = images.labels.cpu()
    firsts = torch.tensor([int((y == k).nonzero()[0]) for k in y.unique()])
    found = {"originals": images.pixels[firsts.to(images.pixels.device)].cpu().numpy()}
    starts = corrupted(network, images, **attack, seed=seed, batch_size=batch_size)
    for start, x in starts.items():
        for name in CHAINS:
            given: dict[str, Any] = {"chain": chain, "seed": seed, "batch_size": batch_size}
            ends = x if name == "none" else _descended(network, name, x, images, **given)
            for who, one in ((OWN, network), (JUDGE, judge)):
                right = metrics.predictions(one, ends, batch_size=batch_size).argmax(1) == y
                found[f"{start} {name} {who}"] = right.numpy()
            found[f"{start} {name} pictures"] = generation.pixels(ends[firsts.to(ends.device)]).cpu().numpy()
    return found


def _descended(
    network: nn.Module, energy: str, x: Tensor, images: ImageSet, *, chain: Mapping[str, Any], seed: int,
    batch_size: int,
) -> Tensor:  # fmt: skip
    function, ends = samplers.energy_of(network, energy), []
    for rows in torch.arange(len(x), device=x.device).split(batch_size):
        key = noise.Key(seed, "refinement/chain", images.index[rows]).tabled()
        ends.append(samplers.sgld(function, x[rows], images.labels[rows], gradient="plain", key=key, **chain))
    return torch.cat(ends).detach()


def summary(pieces: Mapping[int, Mapping[str, np.ndarray]], *, network: str) -> list[records.Scalar]:
    """Scalars for a record: refined_accuracy by start, chain and who judges, over the seeds of one method."""
    rows = []
    for start in STARTS:
        for chain in CHAINS:
            for who in (OWN, JUDGE):
                verdicts = [piece[f"{start} {chain} {who}"] for piece in pieces.values()]
                where: dict[str, Any] = {"network": network, "start": start, "chain": chain, "judge": who}
                found = robustness.estimate(verdicts)
                rows.append(records.scalar("refined_accuracy", found, n=len(verdicts[0]), seeds=list(pieces), **where))
    return rows


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary`: one row for each start and chain, accuracy (%) by who judges."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in scalars.to_dict("records"):
        line = lines.setdefault((row["start"], row["chain"]), {"start": row["start"], "": CHAINS[row["chain"]]})
        line[f"right by {row['judge']} (%)"] = robustness.interval(row)
    return pd.DataFrame(list(lines.values()), dtype=object)


def pictures(piece: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For `plots.image_blocks`: for each start the first image of each class as it was, corrupted, after each chain."""
    return {
        start: np.concatenate([piece["originals"], *(piece[f"{start} {chain} pictures"] for chain in CHAINS)])
        for start in STARTS
    }


def row_labels() -> list[str]:
    """What the rows of `pictures` are."""
    return ["image", *CHAINS.values()]
