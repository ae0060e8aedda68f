"""Accuracy of CEB's arms over ρ: natural, and under targeted and untargeted PGD in L∞ and L2 (ceb, Fig. 1).

One row for each network, seed, attack, norm and image, with the network's arm (`helpers.arms`):

    network, family, case, kind, rho, end, seed, attack, norm | image, correct, correct_adv

`end` says which network has the lowest and which the highest ρ of its family and kind. Whether a number rises or falls
along ρ is told by these two, seed by seed and image by image (`end_differences`); Spearman's correlation of ρ with the
number, seed by seed (`trends`), is printed beside: of three equal seeds it has no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from helpers import contrasts, judged, metrics, records, robustness, style, tables
from helpers.arms import NOISE, XENT, Arm
from helpers.balls import Norm
from helpers.data import ImageSet
from helpers.evidence import Sample

NATURAL = "natural"
UNTARGETED, TARGETED = "pgd_ce", "pgd_ce_targeted"
FEWEST = 3  # values of ρ that a correlation needs
LOWEST, HIGHEST = "lowest ρ", "highest ρ"
IMAGE, POINTS = "image", "points"  # what a piece holds beside its verdicts


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
    n_points: int = 0,
) -> dict[str, np.ndarray]:
    """Each attack (one uniform start, last iterate) in each ball: `image` (N,), `natural` and "<attack> <norm>", bool.

    Radii are in the scale of [0, 1] images, a step is `step_radii` radii long. True is right, also for a targeted
    attack, which misses its aim more often than it misses an error. Of the first `n_points` images `points`
    (n_points, C, H, W) is what the untargeted attack made in the L∞ ball, for whom else needs them (`known`).
    """
    found = {IMAGE: images.index.cpu().numpy()}
    found[NATURAL] = judged.right(network, images.images(), images.labels, batch_size=batch_size)
    for norm, epsilon in epsilons.items():
        for name in attack_names:
            points = judged.pgd(
                network, images, attack=name, norm=norm, epsilon=epsilon, step_size=step_radii * epsilon,
                n_steps=n_steps, seed=seed, batch_size=batch_size,
            )  # fmt: skip
            found[f"{name} {norm}"] = judged.right(network, points, images.labels, batch_size=batch_size)
            if n_points and (name, norm) == (UNTARGETED, "linf"):
                found[POINTS] = points[:n_points].cpu().numpy()
    return found


def known(piece: Mapping[str, np.ndarray], images: ImageSet, key: str) -> np.ndarray:
    """What `measured` returned under `key` (a measure, or "points") of `images`, the first of those that it was given.

    Raises ValueError where they are others, or more than it has.
    """
    n, index = len(images), images.index.cpu().numpy()
    if len(piece[key]) < n or not np.array_equal(piece[IMAGE][:n], index):
        raise ValueError(f"expected some of the first {len(piece[key])} images of the sweep, got {n} (n_images?)")
    return piece[key][:n]


def known_radii(
    piece: Mapping[str, np.ndarray], images: ImageSet, *, norm: Norm, epsilon: float
) -> dict[float, np.ndarray]:
    """`known` verdicts by radius: natural ones at 0, and under the untargeted attack at the sweep's `epsilon`."""
    return {0.0: known(piece, images, NATURAL), epsilon: known(piece, images, f"{UNTARGETED} {norm}")}


Pieces = Mapping[tuple[str, int], Mapping[str, np.ndarray]]  # (network, seed) → what `measured` returned


def measures(piece: Mapping[str, np.ndarray]) -> list[str]:
    """The verdicts in a piece: "natural" and each "<attack> <norm>"."""
    return [key for key in piece if key not in (IMAGE, POINTS)]


def ends(arms: Mapping[str, Arm]) -> dict[str, str]:
    """By network LOWEST or HIGHEST where it has that ρ of its family and kind, else ""; a lone ρ is no end.

    >>> from helpers.arms import Arm
    >>> row = {name: Arm(name, "no_norm", name, "ceb", rho) for name, rho in (("a", 8.0), ("b", 2.0), ("c", 0.0))}
    >>> ends(row)
    {'a': 'highest ρ', 'b': '', 'c': 'lowest ρ'}
    """
    found = dict.fromkeys(arms, "")
    for place in {(one.family, one.kind) for one in arms.values() if one.rho == one.rho}:
        ladder = sorted((one for one in arms.values() if (one.family, one.kind) == place), key=lambda one: one.rho)
        if len(ladder) > 1:
            found[ladder[0].network], found[ladder[-1].network] = LOWEST, HIGHEST
    return found


def verdicts(pieces: Pieces, arms: Mapping[str, Arm]) -> pd.DataFrame:
    """One row for each network, seed, attack, norm and image."""
    blocks, end = [], ends(arms)
    for (network, seed), piece in pieces.items():
        for key in measures(piece):
            if key != NATURAL:
                attack, norm = key.split()
                block = {"image": piece[IMAGE], "correct": piece[NATURAL], "correct_adv": piece[key]}
                where = vars(arms[network]) | {"end": end[network], "seed": seed, "attack": attack, "norm": norm}
                blocks.append(pd.DataFrame(block).assign(**where))
    return pd.concat(blocks, ignore_index=True)


def accuracies(pieces: Pieces, arms: Mapping[str, Arm]) -> pd.DataFrame:
    """One row for each network, seed and measure ("natural", else "<attack> <norm>"): `share`, right verdicts in %."""
    rows = [
        vars(arms[network]) | {"seed": seed, "measure": key, "share": 100 * float(piece[key].mean())}
        for (network, seed), piece in pieces.items()
        for key in measures(piece)
    ]
    return pd.DataFrame(rows)


def summary(pieces: Pieces, arms: Mapping[str, Arm]) -> list[records.Scalar]:
    """Scalars for a record: accuracy and, by attack and norm, robust_accuracy of each network, over its seeds."""
    rows = []
    for network in dict.fromkeys(name for name, _ in pieces):
        mine = {seed: piece for (name, seed), piece in pieces.items() if name == network}
        for key in measures(next(iter(mine.values()))):
            several = [piece[key] for piece in mine.values()]
            metric, where = _named(key)
            found = robustness.estimate(several)
            where |= arms[network].where
            rows.append(records.scalar(metric, found, n=len(several[0]), seeds=list(mine), **where))
    return rows


def _named(key: str) -> tuple[str, dict[str, Any]]:
    """The metric that a measure is, and how a scalar names it."""
    if key == NATURAL:
        return "accuracy", {"measure": key}
    return "robust_accuracy", {"measure": key, **dict(zip(("attack", "norm"), key.split(), strict=True))}


def end_differences(pieces: Pieces, arms: Mapping[str, Arm], *, seed: int) -> list[records.Scalar]:
    """Scalars for a record: by family, kind and measure the accuracy at the lowest ρ less that at the highest (points).

    Paired as the ledger pairs (`contrasts.difference`): over (seed, image) by a bootstrap drawn from `seed`, over seeds
    by Student's t, the wider end counting on either side.
    """
    rows = []
    at = {(arms[name].family, arms[name].kind, end): name for name, end in ends(arms).items() if end}
    for family, kind in dict.fromkeys(place[:2] for place in at):
        both = [at[family, kind, end] for end in (LOWEST, HIGHEST)]
        mine = [{k: piece for (name, k), piece in pieces.items() if name == one} for one in both]
        for key in measures(next(iter(mine[0].values()))):
            found, _ = contrasts.difference(*(sample(one, key) for one in mine), seed=seed)
            metric, where = _named(key)
            where |= {"family": family, "kind": kind, "lowest": arms[both[0]].rho, "highest": arms[both[1]].rho}
            n = len(next(iter(mine[0].values()))[key])
            rows.append(records.scalar(f"{metric}_difference", found, n=n, seeds=list(mine[0]), **where))
    return rows


def sample(mine: Mapping[int, Mapping[str, np.ndarray]], key: str) -> Sample:
    """One network's verdicts `key` in per cent, by seed and image, from seed → piece, for a paired difference."""
    several = [piece[key] for piece in mine.values()]
    table = 100.0 * np.stack(several)
    images = tuple(int(one) for one in next(iter(mine.values()))[IMAGE])
    estimate = robustness.estimate(several)
    return Sample(estimate, tuple(mine), table.mean(1), table, images, share=True, n_images=len(images))


def trends(frame: pd.DataFrame, *, value: str, over: Sequence[str]) -> pd.DataFrame:
    """Spearman's correlation of `rho` with `value`: a row for each family, kind, seed and combination of `over`.

    Ties share their mean rank; of values that are all alike, which rise no more than they fall, it is 0. Families with
    fewer than 3 values of ρ have no row.
    """
    rows = []
    keys = ["family", "kind", *over, "seed"]
    for place, part in frame[frame["rho"].notna()].groupby(keys, sort=False):
        if part["rho"].nunique() >= FEWEST:
            ranks = part["rho"].rank(), part[value].rank()
            found = float(np.corrcoef(*ranks)[0, 1]) if part[value].min() < part[value].max() else 0.0
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
    apart = scalars[scalars["metric"].isin(["accuracy_difference", "robust_accuracy_difference"])]
    shares = scalars[scalars["metric"].isin(["accuracy", "robust_accuracy"])]
    for row in scalars[(scalars["metric"] == "rank_correlation") & (scalars["kind"] == "ceb")].to_dict("records"):
        part = shares[(shares["family"] == row["family"]) & (shares["measure"] == row["measure"])]
        ladder_of, plain = part[part["kind"] == "ceb"], part[part["case"] == XENT]
        same = (apart["family"] == row["family"]) & (apart["measure"] == row["measure"]) & (apart["kind"] == "ceb")
        gain = apart[same].iloc[0].to_dict()
        best = ladder_of.loc[ladder_of["value"].astype(float).idxmax()].to_dict()
        beside = f", XEnt {robustness.interval(plain.iloc[0].to_dict())} %" if len(plain) else ""
        rise = f"ρ = {gain['lowest']:g} less ρ = {gain['highest']:g} {robustness.interval(gain)} points"
        lines.append(
            f"{style.label(row['family'])}, {said(row['measure'])}: {rise}, rank correlation {_correlation(row)}; "
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
