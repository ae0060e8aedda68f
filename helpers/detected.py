"""How well trained methods tell foreign images from their data, over seeds (helpers.ood), by score and foreign set.

    network, seed, score, outside | n_images, auroc, aupr_in, aupr_out, fpr95

Scores are those of `looks.SCORES`. Each network is measured on the same images; `n_images` counts both sets, the
network's own and the foreign one. A method's number is the mean over its seeds with Student's interval, that of one
network has the interval of a bootstrap over images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers import looks, metrics, ood, records, robustness, style, tables
from helpers.ood import Detection

KEYS = ("network", "score", "outside")
TEST = "test"
BOUNDS = {"auroc": 1.0, "aupr_in": 1.0, "aupr_out": 1.0, "fpr95": 100.0}
HEADERS = {"auroc": "AUROC", "aupr_in": "AUPR, own", "aupr_out": "AUPR, foreign", "fpr95": "FPR95 (%)"}
Found = Mapping[tuple[str, str], Detection]  # (score, foreign set) → what it came to


def measured(
    found: Mapping[str, np.ndarray], outside: Sequence[str], *, seed: int, n_seeds: int
) -> dict[tuple[str, str], Detection]:
    """One network's detections by score and foreign set, from what `looks.look` returned, "test" being its own data.

    `seed` is that of the bootstrap, which is short where there are several networks (`n_seeds`) of a method: then
    their spread makes the interval.
    """
    n_resamples = 1000 if n_seeds == 1 else 100
    rows = {}
    for score in looks.SCORES:
        own = looks.score(found, TEST, score).double()
        for name in outside:
            both = ood.Scores(own, looks.score(found, name, score).double())
            rows[score, name] = ood.detection(both, seed=seed, n_resamples=n_resamples)
    return rows


Pieces = Mapping[tuple[str, int], Found]  # (network, seed) → what `measured` returned


def frame(pieces: Pieces) -> pd.DataFrame:
    """One row for each network, seed, score and foreign set."""
    rows = []
    for (network, seed), found in pieces.items():
        for (score, name), one in found.items():
            where = {"network": network, "seed": seed, "score": score, "outside": name, "n_images": one.auroc.n}
            rows.append(where | {metric: estimate.value for metric, estimate in one.estimates().items()})
    return pd.DataFrame(rows)


def summary(pieces: Pieces, *, missing: Mapping[str, str]) -> list[records.Scalar]:
    """Scalars for a record, over seeds; a foreign set that is `missing` has an AUROC without a value that says so."""
    rows = []
    for network in dict.fromkeys(name for name, _ in pieces):
        mine = {seed: found for (name, seed), found in pieces.items() if name == network}
        first = next(iter(mine.values()))
        for score, name in first:
            several = [found[score, name].estimates() for found in mine.values()]
            where: dict[str, Any] = {"network": network, "score": score, "outside": name}
            about: dict[str, Any] = {"seeds": list(mine), "n": first[score, name].auroc.n}
            for metric, high in BOUNDS.items():
                estimate = metrics.over_seeds([one[metric] for one in several], low=0.0, high=high)
                rows.append(records.scalar(metric, estimate, **about, **where))
        for name, reason in missing.items():
            rows.append(records.scalar("auroc", None, network=network, outside=name, reason=f"not run: {reason}"))
    return rows


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary`: one row for each network, score and foreign set; one that is missing says so under n."""
    present = scalars[scalars["value"].notna()]
    found = tables.wide(present, rows=[*KEYS, "n"], metrics=list(HEADERS))
    found["score"] = found["score"].map(looks.SCORES)
    absent = dict.fromkeys(scalars.loc[scalars["value"].isna(), "outside"])
    lines = [{"network": "all", "score": "all", "outside": name, "n": "not run"} for name in absent]
    found = pd.concat([found, pd.DataFrame(lines, columns=found.columns, dtype=object)], ignore_index=True)
    found["network"] = found["network"].map(style.label)
    return found.rename(columns=HEADERS)


def cells(scalars: pd.DataFrame) -> pd.DataFrame:
    """The AUROCs that were measured, for `plots.heat_map`: `metric` is the score, `network` how it is printed, the
    last network first, since such a map begins below."""
    chosen = scalars[(scalars["metric"] == "auroc") & scalars["value"].notna()]
    order = list(dict.fromkeys(chosen["network"]))
    upwards = [chosen[chosen["network"] == name] for name in reversed(order)]
    return pd.concat(upwards).assign(metric=lambda rows: rows["score"], network=lambda r: r["network"].map(style.label))


def reading(scalars: pd.DataFrame) -> str:
    """For each foreign set and score the method with the highest AUROC, from which of the others its interval does not
    part it (they overlap), and who is worse than chance; a line each."""
    chosen = scalars[(scalars["metric"] == "auroc") & scalars["value"].notna()]
    lines = []
    for name, score in dict.fromkeys(zip(chosen["outside"], chosen["score"], strict=True)):
        several = chosen[(chosen["outside"] == name) & (chosen["score"] == score)].to_dict("records")
        best = max(several, key=_value)
        near = [style.label(row["network"]) for row in several if row is not best and not row["high"] < best["low"]]
        blind = [style.label(row["network"]) for row in several if row["high"] < 0.5]
        said = f"{style.label(best['network'])}, {robustness.interval(best)}"
        said += f"; not told apart from it: {', '.join(near)}" if near else ""
        said += f"; worse than chance: {', '.join(blind)}" if blind else ""
        lines.append(f"{name} by {looks.SCORES[score]}: highest AUROC {said}")
    return "\n".join(lines)


def _value(row: Mapping[Any, Any]) -> float:
    return float(row["value"])
