"""How the trainings of some networks went: divergences, what they cost, and what the networks came to.

    network, seed | divergences, gave_up, epochs, seconds, accuracy, robust_accuracy, reasons

The paper claims that adversarial training makes the training of an energy-based model more stable. Counts over few
seeds cannot tell: below ten the ledger leaves the claim undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from helpers import metrics, records, style, tables, zoo

# Curves of a training that an energy-based model has, and what they are called; the others are of any network.
CURVES = {
    "energy_gap": "E(data) − E(chains) (nat)",
    "classification_loss": "CE (nat)",
    "chain_saturation": "saturated pixels of the chains (%)",
}
MIN_SEEDS = 10  # below which counts of divergence are not compared


def runs(names: Sequence[str], *, profile: str) -> pd.DataFrame:
    """One row for each seed of each network. Shares are in %, `seconds` those of the training on its own machine.

    `robust_accuracy` is under the card's PGD and NaN where the recipe names no ball, `reasons` the events in words.
    """
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(names):
        for seed in zoo.seeds(name, profile=profile):
            card = zoo.card(name, profile=profile, seed=seed)
            course = card.get("training") or {"events": [], "gave_up": False}
            accuracy = {kind: found["value"] for kind, found in card["accuracy"].items()}
            rows.append(
                {
                    "network": name, "seed": seed, "divergences": len(course["events"]), "gave_up": course["gave_up"],
                    "epochs": int(card["entry"].get("epochs") or 0), "seconds": float(card["provenance"]["seconds"]),
                    "accuracy": accuracy["clean"], "robust_accuracy": accuracy.get("pgd", float("nan")),
                    "reasons": "; ".join(f"{one['reason']} in epoch {one['epoch']}" for one in course["events"]),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def curves(names: Sequence[str], *, profile: str) -> pd.DataFrame:
    """The curves of CURVES by epoch, of the networks that have them all: network, seed, epoch and a column each."""
    blocks = []
    for (name, seed), history in zoo.histories_of(dict.fromkeys(names), profile=profile).items():
        found = history.scalars
        if set(CURVES) <= set(found):
            rows = {"epoch": found["epoch"], **{curve: found[curve] for curve in CURVES}}
            blocks.append(pd.DataFrame(rows).assign(network=name, seed=seed))
    return (
        pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame(columns=["network", "seed", "epoch", *CURVES])
    )


def summary(found: pd.DataFrame) -> list[records.Scalar]:
    """Scalars for a record, of each network over its seeds: divergences in all, mean seconds and accuracies."""
    rows = []
    for name, own in found.groupby("network", sort=False):
        seeds, network = [int(seed) for seed in own["seed"]], str(name)
        rows.append(
            records.scalar("divergences", int(own["divergences"].sum()), n=len(own), seeds=seeds, network=network)
        )
        rows.append(records.scalar("seconds", float(own["seconds"].mean()), n=len(own), seeds=seeds, network=network))
        for metric in ("accuracy", "robust_accuracy"):
            if own[metric].notna().all():
                rows.append(
                    records.scalar(metric, metrics.over_sets(own[metric].to_numpy()), seeds=seeds, network=network)
                )
    return rows


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary`: one row for each network."""
    shown = [
        name for name in ("divergences", "accuracy", "robust_accuracy", "seconds") if name in set(scalars["metric"])
    ]
    found = tables.wide(scalars, rows=["network"], metrics=shown)
    seeds = {row["network"]: len(row["seeds"]) for row in scalars.to_dict("records")}
    found.insert(1, "seeds", [seeds[name] for name in found["network"]])
    found["network"] = found["network"].map(style.label)
    return found


def reading(found: pd.DataFrame, *, plain: str, robust: str) -> str:
    """Divergences of two networks by seed, and whether there are seeds enough to compare them; then the cost."""
    lines = []
    for name in (plain, robust):
        own = found[found["network"] == name]
        counts = ", ".join(f"seed {row['seed']}: {row['divergences']}" for row in own.to_dict("records"))
        lines.append(f"{style.label(name)}: divergences {counts}; {own['seconds'].mean():.0f} s a training")
    n = int(found.groupby("network")["seed"].nunique().loc[[plain, robust]].min())
    enough = "enough to compare" if n >= MIN_SEEDS else f"too few to compare: {MIN_SEEDS} are needed"
    ratio = [found.loc[found["network"] == name, "seconds"].mean() for name in (plain, robust)]
    return "\n".join(
        [*lines, f"{n} seeds are {enough}. Training with attacks took {ratio[1] / ratio[0]:.2f} times as long."]
    )
