"""What networks were trained without, from their cards: which images, how many, and how high their energies were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from helpers import metrics, records, style
from helpers.robustness import interval


def arm(card: Mapping[str, Any]) -> str:
    """Which images a network was trained without, from its card (`zoo.card`); "none" where it saw all.

    >>> arm({"entry": {"removed": "random"}}), arm({"entry": {}})
    ('random', 'none')
    """
    return str(card["entry"].get("removed") or "none")


def summary(cards: Iterable[Mapping[str, Any]]) -> list[records.Scalar]:
    """Scalars for a record, for each arm, from the cards of its seeds: what was left out, mean with Student's t.

    n_images, how many images; energy_gap (nat), how much higher their mean E(x) is than that of the images kept;
    share_removed_misclassified, how many of them the reference misclassifies.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for card in cards:
        if arm(card) != "none":
            found.setdefault(arm(card), []).append(card)
    rows = []
    for name, several in found.items():
        said, seeds = [card["data"]["removed"] for card in several], [card["seed"] for card in several]
        values = {
            "energy_gap": [one["energy_removed"] - one["energy_kept"] for one in said],
            "share_removed_misclassified": [100 * one["misclassified_removed"] / one["n"] for one in said],
        }
        where = {"removed": name, "judged": said[0]["judged"]}
        rows.append(records.scalar("n_images", said[0]["n"], seeds=seeds, of=said[0]["of"], **where))
        for metric, each in values.items():
            rows.append(records.scalar(metric, metrics.student_t(each), n=said[0]["n"], seeds=seeds, **where))
    return rows


def reading(scalars: pd.DataFrame) -> str:
    """What was left out, a line for each arm in a record that holds `summary`."""
    lines = []
    for name, rows in scalars[scalars["metric"].isin(["n_images", "energy_gap"])].groupby("removed", sort=False):
        by = {str(row["metric"]): row for row in rows.to_dict("records")}
        how = "under attack" if by["n_images"]["judged"] == "attacked" else "on natural images"
        lines.append(
            f"{style.label(name)}: {by['n_images']['value']:g} of {by['n_images']['of']:g} images left out, right and "
            f"wrong judged {how}; their mean E(x) is {interval(by['energy_gap'])} nat above that of the others"
        )
    return "\n".join(lines)
