"""Calibration under corruption: accuracy and ECE by corruption and severity, before and after temperature scaling.

Of each network and set of images only the sums in its bins of confidence are kept, from which all else follows:

    (severity, logits as they are | divided by T, bin, [images, Σ confidence, Σ right])

T is fitted on clean validation images and held for every severity. One row for each network, seed, corruption and
severity (0 is clean, where the corruption is "none"):

    network, family, case, kind, rho, seed, role, corruption, severity | n_images, accuracy, ece, scaled_ece

`role` is what the network is in its family: xent, matched (CEB at the ρ whose accuracy is nearest to that of xent),
best (CEB at the ρ of the highest accuracy), both chosen on `choice` images, or other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from helpers import corruption_errors, metrics, records, style, tables
from helpers.arms import XENT, Arm
from helpers.calibration import Bins
from helpers.corruption_settings import Profile
from helpers.data import ImageSet

CLEAN = "none"
MATCHED, BEST, OTHER = "matched", "best", "other"
ROLES = (XENT, MATCHED, BEST)
NUMBERS = ("accuracy", "ece", "scaled_ece")
SAID = {XENT: "XEnt", MATCHED: "CEB, accuracy nearest to XEnt", BEST: "CEB, highest accuracy"}


def sums(logits: Tensor, y: Tensor, *, n_bins: int) -> np.ndarray:
    """What ECE in bins of equal width needs: images, Σ confidence and Σ right of each bin, float64 (n_bins, 3).

    Bin b holds confidences in (b/n_bins, (b+1)/n_bins], as in `calibration.ece`.

    >>> sums(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]), n_bins=2)[:, [0, 2]].tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    place = (confidence * n_bins).ceil().long().sub(1).clamp(0, n_bins - 1)
    each = torch.stack([torch.ones_like(confidence), confidence, (predicted == y.cpu()).double()], 1)
    return torch.zeros(n_bins, 3, dtype=torch.float64).index_add_(0, place, each).numpy()


def ece(found: np.ndarray) -> np.ndarray:
    """ECE in percentage points of sums (…, n_bins, 3): (…)."""
    return 100 * np.abs(found[..., 2] - found[..., 1]).sum(-1) / found[..., 0].sum(-1)


def measured(
    networks: Mapping[str, nn.Module],
    images: ImageSet,
    *,
    temperatures: Mapping[str, float],
    name: str,
    severities: Sequence[int],
    profile: str,
    n_bins: int,
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Sums of each network on the images corrupted by `name`, by the networks' keys: (severity, 2, n_bins, 3).

    "none" is the images as they are, whatever the one severity. A network without a temperature has NaN after scaling.
    """
    blocks: dict[str, list[np.ndarray]] = {key: [] for key in networks}
    for severity in severities:
        if name == CLEAN:
            found = {
                key: metrics.predictions(one, images.images(), batch_size=batch_size) for key, one in networks.items()
            }
        else:
            found = corruption_errors.predictions(
                networks, images, name=name, severity=severity, profile=cast(Profile, profile), seed=seed,
                batch_size=batch_size,
            )  # fmt: skip
        for key, logits in found.items():
            plain = sums(logits, images.labels, n_bins=n_bins)
            t = temperatures.get(key)
            scaled = np.full_like(plain, np.nan) if t is None else sums(logits / t, images.labels, n_bins=n_bins)
            blocks[key].append(np.stack([plain, scaled]))
    return {key: np.stack(rows) for key, rows in blocks.items()}


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
                numbers = {"accuracy": 100 * plain[:, 2].sum() / n, "ece": ece(plain), "scaled_ece": ece(scaled)}
                rows.append({**where, "severity": severity, "n_images": int(n), **numbers})
    return pd.DataFrame(rows)


def over_corruptions(found: pd.DataFrame) -> pd.DataFrame:
    """Means over the corruptions: one row for each network, seed and severity, as claims read them."""
    keys = ["network", "family", "case", "kind", "role", "seed", "severity"]
    means = found.groupby(keys, sort=False, dropna=False)
    return means.agg(n_images=("n_images", "min"), **{one: (one, "mean") for one in NUMBERS}).reset_index()


def roles(accuracy: Mapping[tuple[str, int], float], arms: Mapping[str, Arm]) -> dict[str, str]:
    """What each network is in its family by the accuracies (%) of (network, seed) on the images of choice, over seeds.

    Of several ρ that are equally near or equally accurate the smallest counts, the strongest compression. Where one ρ
    is both nearest and best it is `matched`.
    """
    mean = {name: float(np.mean([v for (one, _), v in accuracy.items() if one == name])) for name in arms}
    found = {name: XENT if one.case == XENT else OTHER for name, one in arms.items()}
    for family in dict.fromkeys(one.family for one in arms.values()):
        ladder = sorted((one for one in arms.values() if one.family == family and one.kind == "ceb"), key=_rho)
        plain = [name for name, one in arms.items() if one.family == family and one.case == XENT]
        if ladder and plain:
            found[max(ladder, key=lambda one: (mean[one.network], -one.rho)).network] = BEST
            near = min(ladder, key=lambda one: (abs(mean[one.network] - mean[plain[0]]), one.rho))
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
            if np.isnan(values).any():
                rows.append(records.scalar(metric, None, **about, **where, reason="not run: no temperature was fitted"))
                continue
            estimate: Any = float(values[0])
            if np.ptp(values) > 0:
                t = metrics.student_t(values)
                estimate = metrics.Estimate(t.value, max(t.low, 0.0), min(t.high, 100.0), t.n, t.kind)
            rows.append(records.scalar(metric, estimate, **about, **where))
    return rows


def over_rho(scalars: pd.DataFrame, arms: Mapping[str, Arm], *, at: int) -> pd.DataFrame:
    """The mean ECEs of a record of `summary` at severity `at` for `plots.ladder`, with `kind` and `rho`."""
    chosen = scalars[scalars["metric"].isin(["ece", "scaled_ece"]) & (scalars["severity"] == at)]
    chosen = chosen[chosen["value"].notna()]
    return chosen.assign(
        kind=[arms[name].kind for name in chosen["network"]], rho=[arms[name].rho for name in chosen["network"]]
    )


def boxes(found: pd.DataFrame, *, rows: Mapping[str, str]) -> pd.DataFrame:
    """What `plots.boxes` draws: means over seeds of each corruption and severity, for the three roles of a family."""
    chosen = found[found["role"].isin(ROLES)].assign(line=lambda f: f["role"].map(SAID))
    keys = ["family", "line", "corruption", "severity"]
    means = chosen.groupby(keys, sort=False)[list(rows)].mean().reset_index()
    return means.melt(keys, var_name="row").dropna(subset="value")


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
        blocks.append(pd.DataFrame(_bins(np.sum(mine, axis=0)).arrays()).assign(network=network))
    return pd.concat(blocks, ignore_index=True)


def _bins(found: np.ndarray) -> Bins:
    n, confidence, right = found.T
    edges = np.linspace(0, 100, len(n) + 1)
    with np.errstate(invalid="ignore"):  # 0/0 of an empty bin
        means = 100 * confidence / n, 100 * right / n
    ends = [metrics.wilson(round(k), round(m)) if m else None for k, m in zip(right, n, strict=True)]
    low, high = (np.array([np.nan if one is None else getattr(one, end) for one in ends]) for end in ("low", "high"))
    return Bins(edges[:-1], edges[1:], n, *means, low, high)


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
