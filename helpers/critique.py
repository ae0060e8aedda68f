"""Bottlenecks under attacks beyond the paper's, on the same images: what Korshunova et al. (2021) ask for.

    paper      PGD on cross-entropy, one uniform start, the last iterate, as in the paper
    <attack>   each attack named, stopped at its first success, with restarts where it has any
    transfer   what `paper` made of the images on another network (`donor`): every network meets one such set
    autoattack APGD-CE, APGD-T, FAB-T and Square, reduced or standard
    worst      right on the natural image and under all of the above, image by image

One row for each network, seed, attack and image; True is right. Averages over z: `sampled`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers import attacks, bottleneck, judged, metrics, records, rho_sweep, robustness, style, tables
from helpers.bottleneck import Averaged
from helpers.data import ImageSet
from helpers.models import Network

PAPER, TRANSFER, WORST = "paper", "transfer", "worst"
DECISIVE = (PAPER, robustness.ENSEMBLE, WORST)  # of which differences between networks are told
MEAN = "mean of z"
NAMES = {PAPER: "paper's PGD", TRANSFER: "transfer", WORST: "worst case", "autoattack": "ensemble"}


def measured(
    network: nn.Module,
    images: ImageSet,
    *,
    attack_names: Sequence[str],
    paper: np.ndarray,
    transferred: np.ndarray,
    epsilon: float,
    step_size: float,
    n_steps: int,
    n_restarts: int,
    ensemble_n_steps: int,
    n_targets: int,
    n_queries: int,
    seed: int,
    batch_size: int,
    folder: Path | str,
) -> dict[str, np.ndarray]:
    """Verdicts (N,) bool under L∞ attacks by name, `natural`, `image`, and `name` of the ensemble.

    `paper` and `transferred` (N, C, H, W) are what the paper's PGD made of the images on this network and on another
    one, as `rho_sweep.known` has them. The margin is raised without end (κ of 1e4 nats).
    """
    x, y = images.images(), images.labels
    ball: dict[str, Any] = {"norm": "linf", "epsilon": epsilon, "step_size": step_size, "n_steps": n_steps}
    given: dict[str, Any] = {"seed": seed, "index": images.index, "batch_size": batch_size}
    sets = {"natural": x, PAPER: torch.from_numpy(paper).to(x), TRANSFER: torch.from_numpy(transferred).to(x)}
    options: dict[str, Any] = {"n_restarts": n_restarts, "n_targets": n_targets, "n_queries": n_queries, "kappa": 1e4}
    for name in attack_names:
        sets[name] = attacks.run(name, network, x, y, returns="first_success", **options, **ball, **given)
    found = {name: judged.right(network, points, y, batch_size=batch_size) for name, points in sets.items()}
    budget = {"n_steps": ensemble_n_steps, "n_targets": n_targets, "n_queries": n_queries}
    budget |= {"seed": seed, "batch_size": batch_size}
    both = robustness.ensemble(network, images, epsilon=epsilon, folder=folder, **budget)
    found[robustness.ENSEMBLE] = both["correct_adv"]
    found[WORST] = np.logical_and.reduce(list(found.values()))
    health = {key: both[key] for key in robustness.FINDINGS}
    return {**found, **health, "image": both["image"], "name": both["name"]}


def donor(name: str, seed: int, networks: Sequence[tuple[str, int]]) -> tuple[str, int]:
    """Whose images are transferred to a network: the first of another name, with the same seed where that one has it.

    ValueError where all `networks` (name, seed) have one name.

    >>> several = [("xent", 0), ("xent", 1), ("xent_noise", 0), ("xent_noise", 1), ("madry", 1)]
    >>> donor("madry", 1, several), donor("xent", 1, several)
    (('xent', 1), ('xent_noise', 1))
    """
    others = [one for one in networks if one[0] != name]
    if not others:
        raise ValueError(f"expected a network beside {name} to transfer images from, got none")
    first = [one for one in others if one[0] == others[0][0]]
    return next((one for one in first if one[1] == seed), first[0])


NOT_VERDICTS = ("image", "name", "natural", *robustness.FINDINGS)
Pieces = Mapping[tuple[str, int], Mapping[str, np.ndarray]]  # (network, seed) → what `measured` returned


def verdicts(pieces: Pieces) -> pd.DataFrame:
    """One row for each network, seed, attack and image, as `robustness.summary` and the claims have it."""
    blocks = []
    for (network, seed), piece in pieces.items():
        for name in piece:
            if name not in NOT_VERDICTS:
                block = {"image": piece["image"], "correct": piece["natural"], "correct_adv": piece[name]}
                blocks.append(pd.DataFrame(block).assign(network=network, seed=seed, attack=name))
    return pd.concat(blocks, ignore_index=True)


def gaps(found: pd.DataFrame) -> pd.DataFrame:
    """By how many points the paper's PGD overstates: `worst_case_gap`, `paper` less `worst`, by network and seed.

    A gap cannot grow any more where no image stands in the worst case (`at_floor`): what is left of it is the accuracy
    under the paper's PGD, which says nothing of that PGD's weakness.
    """
    right = found.assign(share=100.0 * found["correct_adv"])
    shares = right.pivot_table(index=["network", "seed"], columns="attack", values="share", sort=False)
    n_images = int(found["image"].nunique())
    gap = (shares[PAPER] - shares[WORST]).rename("worst_case_gap").reset_index()
    return gap.assign(n_images=n_images, at_floor=(shares[WORST] == 0).to_numpy())


def gap_scalars(found: pd.DataFrame) -> list[records.Scalar]:
    """Scalars for a record of `gaps`: worst_case_gap of each network, over seeds with Student's interval."""
    rows = []
    for network, part in found.groupby("network", sort=False):
        values, seeds = part["worst_case_gap"].to_numpy(), [int(k) for k in part["seed"]]
        estimate: Any = metrics.student_t(values) if np.ptp(values) > 0 else float(values[0])
        floored = int(part["at_floor"].sum())
        rows.append(
            records.scalar("worst_case_gap", estimate, seeds=seeds, network=str(network), n_seeds_at_floor=floored)
        )
    return rows


def cells(scalars: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of a record of `robustness.summary` for `plots.heat_map`: attacks across, last network first."""
    chosen = robustness.means(scalars).assign(metric="robust_accuracy")
    upwards = [chosen[chosen["network"] == name] for name in reversed(list(dict.fromkeys(chosen["network"])))]
    return pd.concat(upwards).assign(
        network=lambda rows: rows["network"].map(style.label), attack=lambda rows: rows["measure"].map(label)
    )


def label(attack: str) -> str:
    """How an attack is printed.

    >>> label("paper"), label("pgd_margin")
    ("paper's PGD", 'PGD-margin')
    """
    return NAMES.get(attack, style.label(attack))


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """The same record as a table: one row for each network, a column for each attack (%)."""
    lines: dict[str, dict[str, Any]] = {}
    for row in robustness.means(scalars).to_dict("records"):
        line = lines.setdefault(row["network"], {"network": style.label(row["network"])})
        line[f"{label(row['measure'])} (%)"] = robustness.interval(row)
    return pd.DataFrame(list(lines.values()), dtype=object)


def reading(scalars: pd.DataFrame, *, plain: str, robust: str) -> str:
    """Each network's gain on `plain` under the paper's PGD and in the worst case, what `robust` has more, and which
    gaps between the two attacks say nothing, since no image is left (`gaps`)."""
    values = robustness.means(scalars).set_index(["network", "measure"])["value"].astype(float)
    lines = []
    for name in dict.fromkeys(network for network, _ in values.index):
        if name not in (plain, robust):
            gain = [values[name, how] - values[plain, how] for how in (PAPER, WORST)]
            rest = values[robust, WORST] - values[name, WORST]
            lines.append(
                f"{style.label(name)} against {style.label(plain)}: {gain[0]:+.1f} points under PGD as in the paper, "
                f"{gain[1]:+.1f} in the worst case; {style.label(robust)} stands {rest:+.1f} points above it there"
            )
    for row in scalars[scalars["metric"] == "worst_case_gap"].to_dict("records"):
        said = (
            f"{style.label(row['network'])}: from the paper's PGD to the worst case {robustness.interval(row)} points"
        )
        floored = int(row["n_seeds_at_floor"])
        lines.append(said + f", at 0 % with {floored} of {len(row['seeds'])} seeds: no evidence" * (floored > 0))
    return "\n".join(lines)


# Averages over z


def sampled(
    network: Network,
    images: ImageSet,
    *,
    sample_counts: Sequence[int],
    paper: np.ndarray,
    epsilon: float,
    step_size: float,
    n_steps: int,
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """The paper's PGD on the mean of z and on averages over k draws, judged by the mean and by averages of other draws.

    "<attacked>|<judge>" (N,) bool, each of them "mean of z" or "k = 8"; attacked "natural" is no attack. The draws of
    judge and attack differ, or the attack would have seen the judge's noise. `paper` (N, C, H, W) is what that PGD made
    on the mean of z (`rho_sweep.known`).
    """
    x = images.images()
    seen: dict[str, nn.Module] = {}
    judges: dict[str, nn.Module] = {MEAN: network}
    for k in sample_counts:
        for some, purpose in ((seen, "attack"), (judges, "judge")):
            some[f"k = {k}"] = Averaged(network, n_samples=k, seed=seed, purpose=purpose).eval()
    points = {"natural": x, MEAN: torch.from_numpy(paper).to(x)}
    for name, victim in seen.items():
        points[name] = judged.pgd(
            victim, images, attack=rho_sweep.UNTARGETED, norm="linf", epsilon=epsilon, step_size=step_size,
            n_steps=n_steps, seed=seed, batch_size=batch_size,
        )  # fmt: skip
    return {
        f"{name}|{judge}": judged.right(model, made, images.labels, batch_size=batch_size)
        for name, made in points.items()
        for judge, model in judges.items()
    }


def has_latent(network: nn.Module) -> bool:
    """Whether a network has a bottleneck, over whose z one can average."""
    return isinstance(getattr(network, "body", None), bottleneck.Bottleneck)


def sampled_summary(pieces: Pieces) -> list[records.Scalar]:
    """Scalars for a record of what `sampled` returned: accuracy by network, what was attacked, and the judge."""
    rows = []
    for network in dict.fromkeys(name for name, _ in pieces):
        mine = {seed: piece for (name, seed), piece in pieces.items() if name == network}
        for key in next(iter(mine.values())):
            attacked, _, judge = key.partition("|")
            several = [piece[key] for piece in mine.values()]
            where: dict[str, Any] = {"network": network, "attacked": attacked, "judge": judge}
            found = robustness.estimate(several)
            rows.append(records.scalar("robust_accuracy", found, n=len(several[0]), seeds=list(mine), **where))
    return rows


def sampled_table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `sampled_summary`: one row for each network and what was attacked, a column for each judge (%)."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in scalars.to_dict("records"):
        start = {"network": style.label(row["network"]), "attacked": row["attacked"]}
        line = lines.setdefault((row["network"], row["attacked"]), start)
        line[f"judged by {row['judge']} (%)"] = tables.Interval(row["value"], row["low"], row["high"])
    return pd.DataFrame(list(lines.values()), dtype=object)
