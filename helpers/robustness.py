"""How robust trained methods are: natural accuracy, PGD and the attack ensemble over seeds (ebm, 3.1).

One row for each network, seed, attack and test image, as `landscape` and the claims have it:

    network, seed, attack | image, correct, correct_adv      attack: pgd_ce, autoattack (the ensemble, reduced or not)

`correct`: right on x, `correct_adv`: right on what the attack made of it. A method's number is the mean over its seeds
with Student's interval; a difference of two methods is taken seed by seed and image by image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from helpers import attack_health, autoattack, judged, metrics, records, style, tables
from helpers.data import ImageSet
from helpers.metrics import Estimate

PGD, ENSEMBLE = "pgd_ce", "autoattack"
VERDICTS, FINDINGS = ("image", "correct", "correct_adv"), ("check", "ok", "message")
# Our recipe → its name, and our data set → its name, in params/published/ebm_robust_accuracy.csv.
METHODS = {
    "madry": "SAT",
    "trades": "TRADES",
    "mail_trades": "MAIL-TRADES",
    "mart": "MART",
    "weat_nat": "WEAT_nat",
    "weat_adv": "WEAT_adv",
}
DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN", "tiny-imagenet": "Tiny-ImageNet"}
SUFFIXES = ("_cifar100", "_svhn", "_tiny")  # of recipes for other data than CIFAR-10


# One network


def pgd(
    network: nn.Module,
    images: ImageSet,
    *,
    epsilon: float,
    step_size: float,
    n_steps: int,
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """PGD on cross-entropy (L∞, one uniform start, last iterate) on each image: image, correct, correct_adv, (N,)."""
    ball: dict[str, Any] = {"norm": "linf", "epsilon": epsilon, "step_size": step_size, "n_steps": n_steps}
    x_adv = judged.pgd(network, images, attack=PGD, seed=seed, batch_size=batch_size, **ball)
    right = [judged.right(network, x, images.labels, batch_size=batch_size) for x in (images.images(), x_adv)]
    return {"image": images.index.cpu().numpy(), "correct": right[0], "correct_adv": right[1]}


def ensemble(
    network: nn.Module,
    images: ImageSet,
    *,
    n_steps: int,
    n_targets: int,
    n_queries: int,
    epsilon: float,
    seed: int,
    batch_size: int,
    folder: Path | str,
) -> dict[str, np.ndarray]:
    """AutoAttack's four attacks (L∞), their state in `folder`: image, correct, correct_adv, (N,); `name`, what it was.

    With 100 steps, 9 targets and 5,000 queries it is AutoAttack standard, with less it is called reduced.

    `check`, `ok` and `message` are the findings of `attack_health.of_evaluation` on it.
    """
    found = autoattack.evaluate(
        network, images.images(), images.labels, attacks=autoattack.STANDARD, norm="linf", epsilon=epsilon,
        budget=autoattack.Budget(n_steps, n_targets, n_queries), seed=seed, index=images.index,
        batch_size=batch_size, folder=folder,
    )  # fmt: skip
    return {
        "image": images.index.cpu().numpy(),
        "correct": found.correct.numpy(),
        "correct_adv": found.robust.numpy(),
        "name": np.array("; ".join([found.name, *found.notes])),
        **attack_health.columns(attack_health.of_evaluation(found)),
    }


def verdicts(found: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """image, correct and correct_adv of what `pgd` or `ensemble` found, as a frame."""
    return pd.DataFrame({key: found[key] for key in VERDICTS})


def findings(found: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """check, ok and message of what `attack_health.of_named` or `ensemble` found, as a frame."""
    return pd.DataFrame({key: found[key] for key in FINDINGS})


def kind(called: str) -> str:
    """What an ensemble is, without its budget.

    >>> kind("reduced ensemble (APGD-CE 20 steps)"), kind("AutoAttack standard")
    ('reduced ensemble', 'AutoAttack standard')
    """
    return called.partition(";")[0].partition(" (")[0]


# Methods, over seeds


def estimate(by_seed: Sequence[np.ndarray]) -> Estimate:
    """The share of true verdicts in per cent, `by_seed` (n_images,) bool each: Wilson's interval for one seed, else
    the mean over seeds with Student's, cut at 0 and 100. Where all seeds have one share, which
    Student's interval would take for certainty, it is Wilson's too.

    >>> print(estimate([np.array([True, False]), np.array([True, True])]))
    75 [0, 100]
    """
    return metrics.over_seeds([metrics.accuracy(verdicts) for verdicts in by_seed], low=0.0, high=100.0)


def summary(verdicts: pd.DataFrame, *, by: str = "network", ensemble: str | None = None) -> list[records.Scalar]:
    """Scalars for a record: accuracy and, for each attack, robust_accuracy; with several seeds their standard errors.

    `by` is the column that tells methods apart, `ensemble` what the ensemble calls itself: the scalars say its `kind`.
    Natural accuracy is that on the images of the first attack.
    """
    rows = []
    for name, method in verdicts.groupby(by, sort=False):
        for metric, column, where in _measures(method):
            part = method[method["attack"] == where.get("attack", method["attack"].iloc[0])]
            seeds = sorted(int(seed) for seed in part["seed"].unique())
            shares = [part.loc[part["seed"] == seed, column].to_numpy() for seed in seeds]
            n = len(shares[0])
            place: dict[str, Any] = {by: str(name), **where}
            if ensemble is not None and where.get("attack") == ENSEMBLE:
                place["ensemble"] = kind(ensemble)
            rows.append(records.scalar(metric, estimate(shares), n=n, seeds=seeds, **place))
            if len(seeds) > 1:
                error = 100 * np.std([one.mean() for one in shares], ddof=1) / np.sqrt(len(seeds))
                rows.append(records.scalar("standard_error", float(error), n=n, seeds=seeds, of=metric, **place))
    return rows


def _measures(method: pd.DataFrame) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(metric, column, where) of what a method's verdicts say."""
    yield "accuracy", "correct", {}
    for attack in dict.fromkeys(method["attack"]):
        yield "robust_accuracy", "correct_adv", {"attack": str(attack)}


def means(scalars: pd.DataFrame) -> pd.DataFrame:
    """The accuracies in a record of `summary` with a column `measure`: "natural", else the attack."""
    found = scalars[scalars["metric"].isin(["accuracy", "robust_accuracy"])]
    measure = found["attack"].fillna("natural") if "attack" in found else "natural"
    return found.assign(measure=measure)


def by_seed(verdicts: pd.DataFrame, *, by: str = "network") -> pd.DataFrame:
    """One row for each method, measure ("natural", then each attack) and seed: its share of right verdicts (%)."""
    first = verdicts[verdicts["attack"] == verdicts["attack"].iloc[0]]
    parts = [first.assign(attack="natural", right=first["correct"]), verdicts.assign(right=verdicts["correct_adv"])]
    found = pd.concat(parts).groupby([by, "attack", "seed"], sort=False)["right"].mean().mul(100)
    return found.rename("value").reset_index().rename(columns={"attack": "measure"})


def differences(verdicts: pd.DataFrame, *, against: str, seed: int, by: str = "network") -> list[records.Scalar]:
    """Scalars for a record: each method less the method `against`, in points, by a paired bootstrap drawn from `seed`.

    A pair is one seed and one image under both methods (`metrics.paired_bootstrap`): the interval carries the spread of
    training and that of the test images. Nothing where `against` was not measured or no seed is shared; methods that
    were measured on other images raise ValueError.
    """
    methods = {str(name): rows for name, rows in verdicts.groupby(by, sort=False)}
    if against not in methods:
        return []
    rows = []
    for name in methods:
        for metric, column, where in _measures(methods[name]) if name != against else ():
            both = [_by_image(methods[one], column, where.get("attack")) for one in (name, against)]
            shared = both[0].index.intersection(both[1].index)
            if both[0].columns.tolist() != both[1].columns.tolist():
                raise ValueError(
                    f"expected {name} and {against} on the same images, got others under {where or 'none'}"
                )
            if len(shared):
                a, b = (one.loc[shared].to_numpy(dtype=float) for one in both)
                found, seeds = metrics.paired_bootstrap(a, b, seed=seed), [int(one) for one in shared]
                place: dict[str, Any] = {by: name, "against": against, **where}
                rows.append(records.scalar(f"{metric}_difference", found, n=a.shape[1], seeds=seeds, **place))
    return rows


def _by_image(method: pd.DataFrame, column: str, attack: str | None) -> pd.DataFrame:
    """One method's verdicts in per cent, a row for each seed and a column for each image."""
    part = method[method["attack"] == (attack or method["attack"].iloc[0])]
    return part.assign(value=100.0 * part[column]).pivot_table(index="seed", columns="image", values="value")


# For a reader


def table(scalars: pd.DataFrame, *, by: str = "network") -> pd.DataFrame:
    """A record of `summary` as a table: for each method and measure the mean with its interval, and ± the s.e."""
    lines: dict[str, dict[str, Any]] = {}
    for row in scalars.to_dict("records"):
        measure = _measure(row)
        cells = lines.setdefault(str(row[by]), {})
        if row["metric"] == "standard_error":
            cells[f"± s.e. ({measure})"] = round(row["value"], 2)
        elif row["metric"] in ("accuracy", "robust_accuracy"):
            cells[f"{measure} (%)"] = interval(row)
    return pd.DataFrame([{by: style.label(name), **cells} for name, cells in lines.items()], dtype=object)


def _measure(row: Mapping[Any, Any]) -> str:
    """How a scalar's measure is printed."""
    attack, ensemble = row.get("attack"), row.get("ensemble")
    if attack == ENSEMBLE and isinstance(ensemble, str):
        return ensemble
    return MEASURES[attack] if isinstance(attack, str) else "natural"


MEASURES = {PGD: "PGD", ENSEMBLE: "ensemble"}


def interval(row: Mapping[Any, Any]) -> tables.Interval:
    """A scalar of a record with its interval, as tables print it."""
    low, high = (None if row[end] is None or pd.isna(row[end]) else float(row[end]) for end in ("low", "high"))
    return tables.Interval(float(row["value"]), low, high)


def method(network: str) -> str:
    """The method that a recipe trains, whatever its data and grid.

    >>> method("weat_adv_cifar100"), method("weat_adv_beta@beta=2"), method("madry")
    ('weat_adv', 'weat_adv_beta', 'madry')
    """
    name = network.partition("@")[0]
    return next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)


def beside_published(scalars: pd.DataFrame, *, data: Mapping[str, str]) -> pd.DataFrame:
    """Published accuracies (%, ResNet-18, L∞ 8/255) beside a record of `summary`; `data`: network → its data set.

    A network on data that the paper does not have stands beside the value for CIFAR-10, without a difference: then the
    order of methods is to be compared and not the numbers. "ours by" says which ensemble stands beside AutoAttack.
    """
    names = {PGD: "PGD", ENSEMBLE: "AutoAttack"}
    rows: list[dict[str, Any]] = []
    for row in scalars[scalars["metric"].isin(["accuracy", "robust_accuracy"])].to_dict("records"):
        own = data[row["network"]]
        if method(row["network"]) in METHODS:
            there: dict[str, Any] = {"dataset": DATA.get(own, "CIFAR-10"), "method": METHODS[method(row["network"])]}
            by = _measure(row) if row["attack"] == ENSEMBLE else None
            metric = names.get(row["attack"], "natural")
            rows.append(there | {"metric": metric, "ours on": own, "ours by": by, "ours": interval(row)})
    ours = pd.DataFrame(rows, columns=["dataset", "method", "metric", "ours on", "ours by", "ours"], dtype=object)
    key = ["dataset", "method", "metric"]
    both = tables.published(ours, "ebm_robust_accuracy.csv", on=key, value="value", ours="ours", how="right")
    both = both.merge(ours[[*key, "ours on", "ours by"]], on=key).sort_values(key, key=_in_order, kind="stable")
    same = both["ours on"].map(DATA) == both["dataset"]
    both["difference"] = both["difference"].where(same, None)
    return both[["method", "metric", "published", "dataset", "trust", "ours", "ours on", "ours by", "difference"]]


def _in_order(column: pd.Series) -> pd.Series:
    """Places by which rows are sorted: methods and measures as they are printed elsewhere."""
    known = [*DATA.values(), *METHODS.values(), "natural", "PGD", "AutoAttack"]
    return column.map(known.index)


def basis(scalars: pd.DataFrame) -> str:
    """What the intervals in a record of `summary` are over, for a caption: seeds, or the images of one network each.

    >>> basis(pd.DataFrame({"metric": ["accuracy", "robust_accuracy"], "seeds": [[0], [0]], "n": [100, 50]}))
    "One network each, with Wilson's interval over its images (50 or 100)"
    """
    own = means(scalars)
    images = " or ".join(f"{n:,}" for n in sorted(set(own["n"].astype(int))))
    if own["seeds"].map(len).max() == 1:
        return f"One network each, with Wilson's interval over its images ({images})"
    return f"Mean over seeds with Student's t interval, and its standard error; {images} images each"


def reading(scalars: pd.DataFrame, *, by: str = "network") -> str:
    """What the differences in a record say, a line for each."""
    lines = []
    chosen = scalars[scalars["metric"].isin(["accuracy_difference", "robust_accuracy_difference"])]
    for row in chosen.to_dict("records"):
        found = interval(row)
        way = metrics.told_apart(found, "more accurate", "less accurate")
        n = len(row["seeds"])
        lines.append(
            f"{style.label(row[by])} − {style.label(row['against'])}, {_measure(row)}: {found} points over "
            f"{n} seed{'s' * (n != 1)} × {row['n']:g} images: {way}"
        )
    return "\n".join(lines)


def sickness(findings: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Checks as a table (one row for each check, one column for each network), and what the bad ones say."""
    said = np.where(findings["ok"], "ok", "BAD")
    wide = findings.assign(said=said, network=findings["network"].map(style.label))
    wide = wide.pivot_table(index="check", columns="network", values="said", aggfunc="first")
    order = list(dict.fromkeys(findings["check"])), list(dict.fromkeys(findings["network"].map(style.label)))
    wide = wide.reindex(index=order[0], columns=order[1])
    bad = [f"{style.label(row.network)}, {row.check}: {row.message}" for row in findings[~findings["ok"]].itertuples()]
    wide = wide.reset_index().rename_axis(columns=None).astype(object)
    return wide, "\n".join(bad) or "Every check is passed."
