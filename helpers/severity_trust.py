"""Calibration under corruption: accuracy and ECE by corruption and severity, before and after temperature scaling.

Of each network and set of images only the sums in its bins of confidence are kept, from which all else follows:

    (severity, logits as they are | divided by T, bin, [images, Σ confidence, Σ right])

T is fitted on clean validation images and held for every severity. Every severity has the same images, since few images
raise an ECE. One row for each network, seed, corruption and severity (0 is clean, where the corruption is "none"):

    network, family, case, kind, rho, seed, role, corruption, severity | n_images, accuracy, ece, scaled_ece

`role` is what the network is in its family: xent, matched (CEB at the ρ whose accuracy is nearest to that of xent),
best (CEB at the ρ of the highest accuracy), both chosen on the validation images, or other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from helpers import calibration, corruption_errors, looks, metrics, records, style, tables
from helpers.arms import XENT, Arm
from helpers.corruption_settings import Profile
from helpers.data import ImageSet

Looks = Mapping[tuple[str, int], Mapping[str, np.ndarray]]  # (network, seed) → what `looks.look` returned
CLEAN = "none"
TEST, VALIDATION = "test", "validation"
MATCHED, BEST, OTHER = "matched", "best", "other"
ROLES = (XENT, MATCHED, BEST)
_DIGITS = 6  # of accuracies in percent that are compared: equal shares of images may differ in their last bits
NUMBERS = ("accuracy", "ece", "scaled_ece")
SAID = {XENT: "XEnt", MATCHED: "CEB, accuracy nearest to XEnt", BEST: "CEB, highest accuracy"}


def measured(
    networks: Mapping[str, nn.Module],
    images: ImageSet,
    *,
    temperatures: Mapping[str, float],
    name: str,
    severities: Sequence[int],
    profile: Profile,
    n_bins: int,
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Sums of each network on the images corrupted by `name`, by the networks' keys: (severity, 2, n_bins, 3)."""
    y, blocks = images.labels.cpu(), {one: list[np.ndarray]() for one in networks}
    for severity in severities:
        found = corruption_errors.predictions(
            networks, images, name=name, severity=severity, profile=profile, seed=seed, batch_size=batch_size
        )
        for one, logits in found.items():
            blocks[one].append(_sums(logits, y, temperature=temperatures[one], n_bins=n_bins))
    return {one: np.stack(rows) for one, rows in blocks.items()}


def clean(looked: Looks, images: ImageSet, *, temperatures: Mapping[str, float], n_bins: int) -> dict[str, np.ndarray]:
    """The same of the clean test images from what `looks.look` returned of each network: (1, 2, n_bins, 3)."""
    found = {}
    for one, piece in looked.items():
        given: dict[str, Any] = {"temperature": temperatures[key(*one)], "n_bins": n_bins}
        found[key(*one)] = _sums(looks.logits(piece, TEST), images.labels, **given)[None]
    return found


def _sums(logits: Tensor, y: Tensor, *, temperature: float, n_bins: int) -> np.ndarray:
    """Sums of the logits as they are, and divided by T: (2, n_bins, 3)."""
    return np.stack([calibration.sums(one, y, n_bins=n_bins) for one in (logits, logits / temperature)])


def key(network: str, seed: int) -> str:
    """The name of a network and seed among `networks`."""
    return f"{network} {seed}"


def frame(
    pieces: Mapping[str, Mapping[str, np.ndarray]],
    every: Sequence[tuple[str, int]],
    arms: Mapping[str, Arm],
    roles: Mapping[str, str],
    *,
    severities: Sequence[int],
) -> pd.DataFrame:
    """One row for each network, seed, corruption and severity of what `measured` returned, by corruption."""
    rows = []
    for corruption, piece in pieces.items():
        for network, seed in every:
            where = vars(arms[network]) | {"seed": seed, "role": roles[network], "corruption": corruption}
            for severity, (plain, scaled) in zip(
                [0] if corruption == CLEAN else severities, piece[key(network, seed)], strict=True
            ):
                n = plain[:, 0].sum()
                numbers = {"accuracy": 100 * plain[:, 2].sum() / n}
                numbers |= {"ece": calibration.ece_of(plain), "scaled_ece": calibration.ece_of(scaled)}
                rows.append({**where, "severity": severity, "n_images": int(n), **numbers})
    return pd.DataFrame(rows)


def over_corruptions(found: pd.DataFrame) -> pd.DataFrame:
    """Means over the corruptions: one row for each network, seed and severity, as claims read them."""
    keys = ["network", "family", "case", "kind", "role", "seed", "severity"]
    means = found.groupby(keys, sort=False, dropna=False)
    return means.agg(n_images=("n_images", "min"), **{one: (one, "mean") for one in NUMBERS}).reset_index()


def accuracies(looked: Looks, sets: Mapping[str, ImageSet]) -> dict[tuple[str, int], float]:
    """Accuracy (%) of each network and seed on the validation images, by which ρ is chosen.

    ValueError where `sets` has none: a ρ is never chosen on the images that judge it.
    """
    if VALIDATION not in sets:
        raise ValueError(
            f"expected networks whose recipes keep the same validation images (validation_fraction, split_seed), by "
            f"which ρ and temperatures are chosen, got only {', '.join(sets)}"
        )
    y = sets[VALIDATION].labels.cpu()
    right = {one: looks.logits(piece, VALIDATION).argmax(1) == y for one, piece in looked.items()}
    return {one: 100 * float(found.double().mean()) for one, found in right.items()}


def roles(accuracy: Mapping[tuple[str, int], float], arms: Mapping[str, Arm]) -> dict[str, str]:
    """What each network is in its family by the `accuracies` (%) of (network, seed), mean over seeds.

    Of several ρ that are equally near or equally accurate the smallest counts, the strongest compression. Where one ρ
    is both nearest and best it is `matched`.
    """
    seeds = {name: [v for (one, _), v in accuracy.items() if one == name] for name in arms}
    mean = {name: round(math.fsum(values) / len(values), _DIGITS) for name, values in seeds.items()}
    found = {name: XENT if one.case == XENT else OTHER for name, one in arms.items()}
    for family in dict.fromkeys(one.family for one in arms.values()):
        ladder = sorted((one for one in arms.values() if one.family == family and one.kind == "ceb"), key=_rho)
        plain = [name for name, one in arms.items() if one.family == family and one.case == XENT]
        if ladder and plain:
            found[max(ladder, key=lambda one: (mean[one.network], -one.rho)).network] = BEST
            near = min(ladder, key=lambda one: (round(abs(mean[one.network] - mean[plain[0]]), _DIGITS), one.rho))
            found[near.network] = MATCHED
    return found


def _rho(one: Arm) -> float:
    return one.rho


def summary(means: pd.DataFrame) -> list[records.Scalar]:
    """Scalars for a record of `over_corruptions`: its numbers over seeds with Student's interval, cut at 0 and 100."""
    rows = []
    for place, part in means.groupby(["network", "family", "case", "role", "severity"], sort=False):
        where: dict[str, Any] = dict(zip(["network", "family", "case", "role"], map(str, place), strict=False))
        where |= {"severity": int(str(place[-1]))}
        about: dict[str, Any] = {"seeds": [int(k) for k in part["seed"]], "n": int(part["n_images"].iloc[0])}
        for metric in NUMBERS:
            values = part[metric].to_numpy()
            estimate: Any = float(values[0])
            if np.ptp(values) > 0:
                t = metrics.student_t(values)
                estimate = metrics.Estimate(t.value, max(t.low, 0.0), min(t.high, 100.0), t.n, t.kind)
            rows.append(records.scalar(metric, estimate, **about, **where))
    return rows


def over_rho(scalars: pd.DataFrame, arms: Mapping[str, Arm], *, at: int) -> pd.DataFrame:
    """The mean ECEs of a record of `summary` at severity `at` for `plots.ladder`, with `kind` and `rho`."""
    chosen = scalars[scalars["metric"].isin(["ece", "scaled_ece"]) & (scalars["severity"] == at)]
    return chosen.assign(
        kind=[arms[name].kind for name in chosen["network"]], rho=[arms[name].rho for name in chosen["network"]]
    )


def boxes(found: pd.DataFrame, *, rows: Mapping[str, str]) -> pd.DataFrame:
    """What `plots.boxes` draws: means over seeds of each corruption and severity, for the three roles of a family."""
    chosen = found[found["role"].isin(ROLES)].assign(line=lambda f: f["role"].map(SAID))
    keys = ["family", "line", "corruption", "severity"]
    means = chosen.groupby(keys, sort=False)[list(rows)].mean().reset_index()
    return means.melt(keys, var_name="row")


def bins(
    pieces: Mapping[str, Mapping[str, np.ndarray]], every: Sequence[tuple[str, int]], *, place: int
) -> pd.DataFrame:
    """Bins of a reliability diagram of each network, pooled over corruptions and seeds, at the `place`-th severity.

    Wilson's intervals take the pooled images as independent, which copies of one image under 15 corruptions are not:
    they are too narrow.
    """
    blocks = []
    for network in dict.fromkeys(name for name, _ in every):
        mine = [
            piece[key(network, seed)][place, 0] for piece in pieces.values() for one, seed in every if one == network
        ]
        blocks.append(pd.DataFrame(calibration.bins_of(np.sum(mine, axis=0)).arrays()).assign(network=network))
    return pd.concat(blocks, ignore_index=True)


# For a reader


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary`: a row for each family, severity and role; accuracy, ECE and ECE at T."""
    chosen = scalars[scalars["role"].isin(ROLES)]
    found = tables.wide(chosen, rows=["family", "severity", "case", "role"], metrics=list(NUMBERS))
    found = found.sort_values(["family", "severity"], kind="stable")
    found = found.assign(family=found["family"].map(style.label), case=found["case"].map(style.label)).drop(
        columns="role"
    )
    titles = {"accuracy": "accuracy (%)", "ece": "ECE (points)", "scaled_ece": "ECE at T (points)"}
    return found.rename(columns=titles)


def reading(means: pd.DataFrame, *, at: str) -> str:
    """For each family and role of CEB at how many severities its mean `at` (ece or scaled_ece) lies below xent's."""
    lines: list[str] = []
    over = means.groupby(["family", "role", "severity"])[at].mean()
    for family, role in dict.fromkeys(zip(means["family"], means["role"], strict=True)):
        if role not in (MATCHED, BEST):
            continue
        ours, plain = (over.xs((family, one), level=("family", "role")) for one in (role, XENT))
        lower = [str(severity) for severity in ours.index if ours[severity] < plain[severity]]
        case = means.loc[(means["family"] == family) & (means["role"] == role), "case"].iloc[0]
        lines.append(
            f"{style.label(family)}, {style.label(case)} ({SAID[role].partition(', ')[2]}): mean {_named(at)} "
            f"below XEnt's at severities {', '.join(lower) or 'none'} of {', '.join(map(str, ours.index))}"
        )
    return "\n".join(lines)


def lower_rho(found: pd.DataFrame) -> str:
    """For each family and ECE of `over_rho` the ρ whose mean lies below cross-entropy's, of those tried."""
    lines = []
    for (family, metric), part in found.groupby(["family", "metric"], sort=False):
        plain, ladder = part[part["kind"] == XENT], part[part["kind"] == "ceb"].sort_values("rho")
        if len(plain) and len(ladder):
            lower = ladder[ladder["value"] < plain["value"].iloc[0]]["rho"]
            said = ", ".join(f"{rho:g}" for rho in lower) or "none"
            tried = ", ".join(f"{rho:g}" for rho in ladder["rho"])
            lines.append(f"{style.label(family)}: mean {_named(str(metric))} below XEnt's at ρ = {said} of {tried}")
    return "\n".join(lines)


def sureness(found: pd.DataFrame) -> str:
    """For each network of `bins` its mean confidence less its accuracy, in points; a line each."""
    lines = []
    for network, part in found[found["count"] > 0].groupby("network", sort=False):
        gap = float(((part["confidence"] - part["accuracy"]) * part["count"]).sum() / part["count"].sum())
        lines.append(f"{style.label(network)}: {abs(gap):.1f} points too {'sure' if gap > 0 else 'little sure'}")
    return "\n".join(lines)


def _named(metric: str) -> str:
    return {"ece": "ECE", "scaled_ece": "ECE at T"}[metric]
