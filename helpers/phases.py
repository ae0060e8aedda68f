"""Chains watched through all phases of their making: attack, decrease of contrast, SGLD (rjem, trajectories).

way, seed, phase, step, chain | joint, marginal    E(x, y) and E(x), nat
                              | gradient_norm      ‖∇ₓE(x)‖₂, for pixels in [0, 1]
                              | saturation         share of pixel values within 5/255 of an end of the range, %
                              | beyond             share that its last step left beyond the range, before clipping, %

Steps count on from x_0 through the phases: an attack of n steps ends at n, contrast is n + 1. `beyond` is NaN where no
step of a chain led.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from helpers import (
    checks,
    context,
    energies,
    generation,
    hybrid_methods,
    metrics,
    records,
    robustness,
    sample_sets,
    samplers,
    setting_runs,
    victim,
)
from helpers.attacked_start import Attacked
from helpers.data import ImageSet
from helpers.hybrid_methods import Method
from helpers.starts import Start

PHASES = ("attack", "contrast", "chain")
SHOWN = ("joint", "marginal", "gradient_norm", "saturation")
MEASURED = (*SHOWN, "beyond")
LABELS = {
    "joint": "$E(x, y)$ (nat)",
    "marginal": "$E(x)$ (nat)",
    "gradient_norm": r"$\Vert\nabla_x E(x)\Vert_2$ (nat, pixels in [0, 1])",
    "saturation": "saturated pixels (%)",
}
HEADERS = {
    "way": "images by",
    "joint": "E(x, y)",
    "marginal": "E(x)",
    "gradient_norm": "‖∇E(x)‖",
    "beyond": "beyond (%)",
}
HEADERS |= {"saturation": "saturated (%)"}
LIMIT = 1.0  # per cent of pixels beyond the range that a decrease of contrast should keep a chain below


def look(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, np.ndarray]:
    """SHOWN of images x (B, C, H, W) in [0, 1] with classes y (B,): (B,) float32 each."""
    with victim.attacked(network) as seen:
        found = seen.look(x, energies.marginal)
    ends = ((x <= setting_runs.END / 255) | (x >= 1 - setting_runs.END / 255)).flatten(1)
    values = {
        "joint": energies.joint(found.logits, y), "marginal": found.value,
        "gradient_norm": found.gradient.flatten(1).norm(dim=1), "saturation": 100 * ends.float().mean(1),
    }  # fmt: skip
    return {name: one.float().cpu().numpy() for name, one in values.items()}


@dataclass(eq=False)
class _Watch:
    """What was seen of some chains of classes `y` so far; `beyond` (n,) is that of the last clipping, in %."""

    network: nn.Module
    y: Tensor
    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    beyond: np.ndarray | None = None

    def see(self, phase: str, step: int, x: Tensor) -> None:
        beyond = np.full(len(x), np.nan, np.float32) if self.beyond is None else self.beyond
        at = {"phase": PHASES.index(phase), "step": step, "beyond": beyond}
        self.rows.append(at | look(self.network, x.to(self.y.device), self.y))
        self.pictures.append(generation.pixels(x).cpu().numpy())

    def clipped(self, x: Tensor, y: Tensor) -> Tensor:
        """x in the range, as a chain projects it; how much was beyond is kept for the state that is seen next."""
        out = ((x < 0) | (x > 1)).flatten(1).float().mean(1)
        self.beyond = (100 * out).cpu().numpy()
        return x.clamp(0.0, 1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        rows = self.rows
        last = [k for k in range(1, len(rows)) if k + 1 == len(rows) or rows[k]["phase"] != rows[k + 1]["phase"]]
        found = {name: np.stack([row[name] for row in rows]) for name in MEASURED}
        found |= {name: np.array([row[name] for row in rows]) for name in ("phase", "step")}
        return found | {"pictures": np.stack([self.pictures[k] for k in [0, *last]]), "picture": np.array([0, *last])}


def follow(
    network: nn.Module, begin: Start, method: Method, *, y: Tensor, index: Tensor, seed: int
) -> dict[str, np.ndarray]:
    """The images that `hybrid_sets.measure` makes for the same arguments, in one batch, watched from x_0 to the end.

    Arrays: `phase` (T,), places in PHASES, and `step` (T,); MEASURED, (T, n) float32 each; `pictures` (P, n, C, H, W)
    uint8 at `picture` (P,), rows of the above: x_0 and the last point of each phase; `y` (n,).
    """
    classes = y.to(context.device_of(network))
    watch = _Watch(network, classes)
    key = generation.start_key(seed, index)
    start = hybrid_methods.start_of(method, begin, network)
    if isinstance(start, Attacked):
        x = start.watched(y, key, watch.see)
    else:
        watch.see("attack", 0, x := start.draw(y, key))
    before = int(watch.rows[-1]["step"])

    def tell(k: int, x_k: Tensor, energy: Tensor) -> None:
        if k:  # the first state is the last of the phase before
            watch.see("chain", before + k, x_k)

    given = {name: value for name, value in method.chain.items() if name != "energy"}
    samplers.sgld(
        samplers.energy_of(network, method.energy), x.to(classes.device), classes, gradient="plain", clip=None,
        project=watch.clipped, key=generation.chain_key(seed, index.to(classes.device)),
        callback=tell, **given,
    )  # fmt: skip
    return watch.arrays() | {"y": y.cpu().numpy()}


def of_set(
    *, network: nn.Module, begin: Start, method: Method, seed: int, number: int, n: int, n_chains: int, num_classes: int
) -> dict[str, np.ndarray]:
    """`follow` of the first `n_chains` of the `n` images of sample set `number`."""
    asked = sample_sets.drawn(number, n=n, num_classes=num_classes)
    some = {name: rows[: checks.count(n_chains, "n_chains", minimum=1, maximum=n)] for name, rows in asked.items()}
    return follow(network, begin, method, **some, seed=seed)


# For the records ----------------------------------------------------------------------------------------------------


def frame(found: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> pd.DataFrame:
    """What `follow` found of several ways, by their names, one row for each way, seed (set), step and chain."""
    blocks = []
    for way, several in found.items():
        for number, one in enumerate(several):
            n_steps, n_chains = one["joint"].shape
            columns = {"step": np.repeat(one["step"], n_chains), "chain": np.tile(np.arange(n_chains), n_steps)}
            columns["phase"] = np.repeat([PHASES[k] for k in one["phase"]], n_chains)
            columns |= {name: one[name].reshape(-1) for name in MEASURED}
            blocks.append(pd.DataFrame(columns).assign(way=way, seed=number))
    return pd.concat(blocks, ignore_index=True)


def of_real(network: nn.Module, splits: Mapping[str, ImageSet], *, n: int, batch_size: int) -> pd.DataFrame:
    """SHOWN of the first `n` real images of some splits, each with its own label."""
    checks.count(n, "n", minimum=1)
    device, blocks = context.device_of(network), []
    for name, images in splits.items():
        for rows in torch.arange(min(n, len(images))).split(batch_size):
            part = images.subset(rows.to(images.labels.device))
            found = look(network, part.images().to(device), part.labels.to(device))
            blocks.append(pd.DataFrame(found).assign(split=name))
    return pd.concat(blocks, ignore_index=True)


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the chains at x_0 and at the last step of each phase: way, phase, step and MEASURED, one row each."""
    means = frame.groupby(["way", "phase", "step"], sort=False)[list(MEASURED)].mean().reset_index()
    means.loc[means["step"] == 0, "phase"] = "start"
    last = means.groupby(["way", "phase"], sort=False)["step"].transform("max")
    return means[means["step"] == last].reset_index(drop=True)


def chosen_contrast(beyond: Mapping[float, float]) -> float | None:
    """The smallest decrease whose chains leave less than LIMIT per cent of pixels beyond the range, None for none.

    `beyond` has the share (%) before the last clipping by contrast c.

    >>> chosen_contrast({1.0: 4.0, 0.9: 0.7, 0.8: 0.1}), chosen_contrast({1.0: 4.0})
    (0.9, None)
    """
    good = [c for c, share in beyond.items() if share < LIMIT]
    return max(good) if good else None


def summary(frame: pd.DataFrame, factors: Mapping[str, float]) -> list[records.Scalar]:
    """Scalars for a record: pixels (%) beyond the range before the last clipping by contrast factor, mean over the sets
    with Student's t interval, cut at 0 and 100; `factors` has the factor of each way of `frame` that counts."""
    rows = []
    for way, c in factors.items():
        own = frame[frame["way"] == way]
        by_set = own[own["step"] == own["step"].max()].groupby("seed")["beyond"].mean()
        seeds, n = [int(str(seed)) for seed in by_set.index], int(own["chain"].nunique())
        found = metrics.cut(metrics.over_sets(by_set.to_numpy()), low=0.0, high=100.0)
        rows.append(records.scalar("share_beyond_range", found, n=n, seeds=seeds, contrast_factor=c))
    return rows


def reading(scalars: pd.DataFrame, *, base: float) -> str:
    """What a record of `summary` says of the rule for the contrast, and whether the base setting follows it.

    The rule goes by means; each share stands with its interval, and one that does not part it from LIMIT is named.
    """
    rows = sorted(scalars.to_dict("records"), key=lambda row: -float(row["contrast_factor"]))
    of = {float(row["contrast_factor"]): robustness.interval(row) for row in rows}
    found = chosen_contrast({c: share.value for c, share in of.items()})
    if found is None:
        said = f"no decrease that was tried keeps it below {LIMIT:g} %"
    else:
        said = f"the smallest decrease below {LIMIT:g} % is c = {found:g}"
    near = [f"c = {c:g}" for c, one in of.items() if metrics.told_apart(one, "", "", at=LIMIT) == metrics.NEITHER]
    said = f"by the means {said}" + (f" (not told apart from {LIMIT:g} %: {', '.join(near)})" if near else "")
    said += f". The base setting, c = {base:g}, "
    said += "follows the rule." if found == base else "does not follow from the rule."
    listed = ", ".join(f"c = {c:g}: {share} %" for c, share in of.items())
    return f"Pixels beyond the range before the last clipping: {listed}; {said}"


def boundaries(frame: pd.DataFrame, way: str) -> Sequence[tuple[float, str]]:
    """The step that each phase of a way sets out from, with its name; contrast and chain are one mark."""
    own = frame[(frame["way"] == way) & (frame["step"] > 0)]
    marks: list[tuple[float, str]] = []
    for phase, steps in own.groupby("phase", sort=False)["step"]:
        place = float(steps.min()) - 1
        if marks and place - marks[-1][0] <= 1:
            marks[-1] = (marks[-1][0], f"{marks[-1][1]}, {phase}")
        else:
            marks.append((place, str(phase)))
    return marks
