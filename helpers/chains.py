"""A few chains watched from their start: energies at every step, pictures at some, and what real images have.

way, step, chain | joint, marginal, cross_entropy        energies of a chain, nat
split            | joint, marginal, cross_entropy        of real images with their own labels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers import checks, generation, metrics, sample_sets, samplers, starts
from helpers.data import ImageSet

ENERGIES = tuple(samplers.ENERGIES)
N_PICTURES = 25  # of a chain, evenly spaced over its steps


def follow(
    network: nn.Module,
    begin: Mapping[str, starts.Start],
    ways: Sequence[tuple[str, str]],
    *,
    n_chains: int,
    num_classes: int,
    energy: str,
    step_size: float,
    momentum: float,
    noise_std: float,
    n_steps: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """The first `n_chains` of sample set 0 for each of `ways`, pairs of a start in `begin` and a sampler.

    Arrays: `step` (T,), `y` (n,), `picture_step` (P,); of way i "i joint", "i marginal", "i cross_entropy" (T, n)
    float32 and "i pictures" (P, K, C, H, W) uint8, of one chain a class. step_size, momentum and n_steps are those of
    the sampler with momentum (`sample_sets.steps`).
    """
    checks.count(n_chains, "n_chains", minimum=num_classes)
    asked: dict[str, Any] = sample_sets.drawn(0, n=n_chains, num_classes=num_classes)
    wanted = sorted({round(n_steps * t / (N_PICTURES - 1)) for t in range(N_PICTURES)})
    arrays: dict[str, np.ndarray] = {}
    for i, (start, sampler) in enumerate(ways):
        rule: dict[str, Any] = sample_sets.steps(sampler, step_size=step_size, momentum=momentum, n_steps=n_steps)
        found = generation.trajectory(
            network, begin[start], **asked, **rule, seed=seed, energy=energy, noise_std=noise_std, gradient="plain",
            stop="steps", targets=None, picture_steps=wanted,
        )  # fmt: skip
        arrays |= {f"{i} {name}": found[name] for name in ENERGIES}
        arrays[f"{i} pictures"] = found["pictures"][:, :num_classes]
        arrays |= {name: found[name] for name in ("step", "y", "picture_step")}
    return arrays


def frame(found: Mapping[str, np.ndarray], names: Sequence[str]) -> pd.DataFrame:
    """What `follow` found, one row for each way (by its name in `names`), step and chain."""
    n_steps, n_chains = len(found["step"]), len(found["y"])
    columns = {"step": np.repeat(found["step"], n_chains), "chain": np.tile(np.arange(n_chains), n_steps)}
    blocks = [
        pd.DataFrame(columns | {name: found[f"{i} {name}"].reshape(-1) for name in ENERGIES}).assign(way=way)
        for i, way in enumerate(names)
    ]
    return pd.concat(blocks, ignore_index=True)


def films(found: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The pictures that `follow` took, by the ways' names: (P, K, C, H, W) uint8 each."""
    return {way: found[f"{i} pictures"] for i, way in enumerate(names)}


def stages(watched: Mapping[str, Mapping[str, np.ndarray]], *, n: int = 5) -> dict[str, np.ndarray]:
    """Of several `follow`s of one rule, by name, the first way's pictures at `n` steps from the first to the last.

    By name (n · K, C, H, W) uint8, step after step, and `step` (n,).

    >>> found = {"picture_step": np.arange(0, 50, 2), "0 pictures": np.zeros((25, 10, 1, 8, 8), np.uint8)}
    >>> {name: one.shape for name, one in stages({"madry": found}, n=3).items()}, stages({"madry": found}, n=3)["step"]
    ({'madry': (30, 1, 8, 8), 'step': (3,)}, array([ 0, 24, 48]))
    """
    steps = next(iter(watched.values()))["picture_step"]
    rows = np.unique(np.linspace(0, len(steps) - 1, n).round().astype(int))
    return {name: np.concatenate(list(one["0 pictures"][rows])) for name, one in watched.items()} | {
        "step": steps[rows]
    }


def of_real(network: nn.Module, splits: Mapping[str, ImageSet], *, batch_size: int) -> pd.DataFrame:
    """Energies of the real images of some splits, each with its own label."""
    blocks = []
    for name, images in splits.items():
        found: dict[str, list[np.ndarray]] = {one: [] for one in ENERGIES}
        for rows in torch.arange(len(images)).split(batch_size):
            part = images.subset(rows.to(images.labels.device))
            x = part.images().contiguous(memory_format=torch.channels_last)  # convolutions on a CPU are faster in it
            logits, y = metrics.predictions(network, x, batch_size=batch_size), part.labels.cpu()
            for one in ENERGIES:
                found[one].append(samplers.ENERGIES[one](logits, y).numpy())
        blocks.append(pd.DataFrame({one: np.concatenate(several) for one, several in found.items()}).assign(split=name))
    return pd.concat(blocks, ignore_index=True)


def reading(chains: pd.DataFrame, real: pd.DataFrame) -> str:
    """How many of the chains end below the mean E(x, y) of real test images, a line for each way."""
    level = float(real.loc[real["split"] == "test", "joint"].mean())
    lines = [f"Real test images: mean E(x, y) = {level:.1f} nat."]
    for way, rows in chains.groupby("way", sort=False):
        ends = rows.loc[rows["step"] == rows["step"].max(), "joint"]
        below = metrics.accuracy((ends < level).to_numpy())
        lines.append(f"{way}: ends at a mean of {ends.mean():.1f} nat; below that of real images: {below} % of chains")
    return "\n".join(lines)
