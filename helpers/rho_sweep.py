"""Accuracy of CEB's arms over ρ: natural, and under targeted and untargeted PGD in L∞ and L2 (ceb, Fig. 1).

One row for each network, seed, attack, norm and image, with the network's arm (`helpers.arms`):

    network, family, case, kind, rho, seed, attack, norm | image, correct, correct_adv

and of each seed Spearman's correlation of ρ with a number, over the ρ of a family and kind (`trends`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from helpers import attacks, metrics, records, robustness, style, tables
from helpers.arms import NOISE, XENT, Arm
from helpers.balls import Norm
from helpers.data import ImageSet

NATURAL = "natural"
UNTARGETED, TARGETED = "pgd_ce", "pgd_ce_targeted"
FEWEST = 3  # values of ρ that a correlation needs


def measured(
    network: nn.Module,
    images: ImageSet,
    *,
    attack_names: Sequence[str],
    epsilons: Mapping[Norm, float],
    step_radii: float,
    n_steps: int,
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Each attack (one uniform start, last iterate) in each ball: `image` (N,), `natural` and "<attack> <norm>", bool.

    Radii are in the scale of [0, 1] images, a step is `step_radii` radii long. True is right, also for a targeted
    attack, which misses its aim more often than it misses an error.
    """
    x, y = images.images(), images.labels
    sets = {NATURAL: x}
    for norm, epsilon in epsilons.items():
        for name in attack_names:
            sets[f"{name} {norm}"] = attacks.run(
                name, network, x, y, norm=norm, epsilon=epsilon, step_size=step_radii * epsilon, n_steps=n_steps,
                n_restarts=1, returns="last", seed=seed, index=images.index, batch_size=batch_size,
            )  # fmt: skip
    right = {
        key: (metrics.predictions(network, points, batch_size=batch_size).argmax(1) == y.cpu()).numpy()
        for key, points in sets.items()
    }
    return {"image": images.index.cpu().numpy(), **right}


Pieces = Mapping[tuple[str, int], Mapping[str, np.ndarray]]  # (network, seed) → what `measured` returned


def verdicts(pieces: Pieces, arms: Mapping[str, Arm]) -> pd.DataFrame:
    """One row for each network, seed, attack, norm and image."""
    blocks = []
    for (network, seed), piece in pieces.items():
        for key in piece:
            if key not in ("image", NATURAL):
                attack, norm = key.split()
                block = {"image": piece["image"], "correct": piece[NATURAL], "correct_adv": piece[key]}
                where = vars(arms[network]) | {"seed": seed, "attack": attack, "norm": norm}
                blocks.append(pd.DataFrame(block).assign(**where))
    return pd.concat(blocks, ignore_index=True)


def accuracies(pieces: Pieces, arms: Mapping[str, Arm]) -> pd.DataFrame:
    """One row for each network, seed and measure ("natural", else "<attack> <norm>"): `share`, right verdicts in %."""
    rows = [
        vars(arms[network]) | {"seed": seed, "measure": key, "share": 100 * float(piece[key].mean())}
        for (network, seed), piece in pieces.items()
        for key in piece
        if key != "image"
    ]
    return pd.DataFrame(rows)


def summary(pieces: Pieces, arms: Mapping[str, Arm]) -> list[records.Scalar]:
    """Scalars for a record: accuracy and, by attack and norm, robust_accuracy of each network, over its seeds."""
    rows = []
    for network in dict.fromkeys(name for name, _ in pieces):
        mine = {seed: piece for (name, seed), piece in pieces.items() if name == network}
        for key in next(iter(mine.values())):
            if key == "image":
                continue
            several = [piece[key] for piece in mine.values()]
            where: dict[str, Any] = dict(arms[network].where)
            if key != NATURAL:
                where |= dict(zip(("attack", "norm"), key.split(), strict=True))
            metric = "accuracy" if key == NATURAL else "robust_accuracy"
            found = robustness.estimate(several)
            rows.append(records.scalar(metric, found, n=len(several[0]), seeds=list(mine), measure=key, **where))
    return rows


def trends(frame: pd.DataFrame, *, value: str, over: Sequence[str]) -> pd.DataFrame:
    """Spearman's correlation of `rho` with `value`: a row for each family, kind, seed and combination of `over`.

    Ties share their mean rank. Families with fewer than 3 values of ρ, and values that are all alike, have no row.
    """
    rows = []
    keys = ["family", "kind", *over, "seed"]
    for place, part in frame[frame["rho"].notna()].groupby(keys, sort=False):
        ranks = part["rho"].rank(), part[value].rank()
        if part["rho"].nunique() >= FEWEST and part[value].min() < part[value].max():
            found = float(np.corrcoef(*ranks)[0, 1])
            rows.append(dict(zip(keys, place, strict=True)) | {"rank_correlation": found})
    return pd.DataFrame(rows, columns=[*keys, "rank_correlation"])


def trend_scalars(found: pd.DataFrame, *, over: Sequence[str]) -> list[records.Scalar]:
    """Scalars for a record: rank_correlation over seeds with Student's interval, cut at −1 and 1."""
    rows = []
    for place, part in found.groupby(["family", "kind", *over], sort=False):
        where: dict[str, Any] = dict(zip(["family", "kind", *over], map(str, place), strict=True))
        values = part["rank_correlation"].to_numpy()
        estimate: Any = float(values[0])
        if np.ptp(values) > 0:
            spread = metrics.student_t(values)
            estimate = metrics.Estimate(
                spread.value, max(spread.low, -1.0), min(spread.high, 1.0), spread.n, spread.kind
            )
        rows.append(records.scalar("rank_correlation", estimate, seeds=[int(k) for k in part["seed"]], **where))
    return rows


# For a reader


def ladder(scalars: pd.DataFrame, *, rows: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The accuracies of a record of `summary` for `plots.ladder`: `row` is the key of `rows` that holds a measure.

    Networks with a ρ are the curves, one for each kind and measure (the first measure of a row bears the kind's own
    name); those without are levels, of the first measure only: cross-entropy and γ = 0
    in their own family, what else there is (adversarial training) in all.
    """
    chosen = scalars[scalars["metric"].isin(["accuracy", "robust_accuracy"])]
    guest = chosen["rho"].isna() & ~chosen["kind"].isin([XENT, NOISE])
    families = list(dict.fromkeys(chosen.loc[~guest, "family"]))
    return _in_rows(pd.concat([chosen[~guest], *(chosen[guest].assign(family=one) for one in families)]), rows)


def by_seed(shares: pd.DataFrame, *, rows: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The seeds behind the curves of `ladder`, from `accuracies`."""
    return _in_rows(shares[shares["rho"].notna()].rename(columns={"share": "value"}), rows)


def _in_rows(chosen: pd.DataFrame, rows: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    blocks = []
    for row, measures in rows.items():
        for measure in measures:
            part = chosen[chosen["measure"] == measure]
            first = measure == measures[0]
            line = part["kind"] if first else part["kind"] + f"@{said(measure).partition(' ')[0]}"
            level = part["rho"].isna() & (not first)  # one set of levels is enough for the eye
            blocks.append(part.assign(row=row, line=line)[~level])
    return pd.concat(blocks, ignore_index=True)


def said(measure: str) -> str:
    """How a measure is printed.

    >>> said("natural"), said("pgd_ce linf"), said("pgd_ce_targeted l2")
    ('natural', 'untargeted L∞', 'targeted L2')
    """
    attack, _, norm = measure.partition(" ")
    return {UNTARGETED: "untargeted", TARGETED: "targeted"}.get(attack, style.label(attack)) + (
        f" {style.label(norm)}" if norm else ""
    )


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary`: one row for each network, its accuracies in per cent."""
    chosen = scalars[scalars["metric"].isin(["accuracy", "robust_accuracy"])]
    lines: dict[str, dict[str, Any]] = {}
    for row in chosen.to_dict("records"):
        line = lines.setdefault(
            str(row["network"]), {"family": style.label(row["family"]), "case": style.label(row["case"])}
        )
        line[f"{said(str(row['measure']))} (%)"] = robustness.interval(row)
    return pd.DataFrame(list(lines.values()), dtype=object)


def reading(scalars: pd.DataFrame) -> str:
    """For each family and measure how accuracy goes with ρ, and CEB's best beside cross-entropy; a line each."""
    lines = []
    shares = scalars[scalars["metric"].isin(["accuracy", "robust_accuracy"])]
    for row in scalars[(scalars["metric"] == "rank_correlation") & (scalars["kind"] == "ceb")].to_dict("records"):
        part = shares[(shares["family"] == row["family"]) & (shares["measure"] == row["measure"])]
        ladder_of, plain = part[part["kind"] == "ceb"], part[part["case"] == XENT]
        best = ladder_of.loc[ladder_of["value"].astype(float).idxmax()].to_dict()
        beside = f", XEnt {robustness.interval(plain.iloc[0].to_dict())} %" if len(plain) else ""
        lines.append(
            f"{style.label(row['family'])}, {said(row['measure'])}: rank correlation with ρ {_correlation(row)}; "
            f"highest of the ρ tried at {best['rho']:g}, {robustness.interval(best)} %{beside}"
        )
    return "\n".join(lines)


def _correlation(row: Mapping[Any, Any]) -> str:
    return str(tables.Interval(float(row["value"]), *(None if pd.isna(row[e]) else row[e] for e in ("low", "high"))))


def span(scalars: pd.DataFrame) -> str:
    """For each measure the least and the most accurate network of a record of `summary`; a line each."""
    lines = []
    shares = scalars[scalars["metric"].isin(["accuracy", "robust_accuracy"])]
    for measure, part in shares.groupby("measure", sort=False):
        ends = part.sort_values("value").iloc[[0, -1]].to_dict("records")
        least, most = (f"{robustness.interval(one)} % ({style.label(one['network'])})" for one in ends)
        lines.append(f"{said(str(measure))}: from {least} to {most}")
    return "\n".join(lines)
