"""How the trainings of some networks went: divergences, what they cost, and what the networks came to.

    network, seed | diverged, divergences, gave_up, reasons, accuracy, epochs, n_test

The paper claims that adversarial training makes the training of an energy-based model more stable. Counts over few
seeds cannot tell: below ten the ledger leaves the claim undecided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from helpers import contrasts, metrics, records, style, tables, zoo

# Curves of a training that an energy-based model has, and what they are called; the others are of any network.
CURVES = {
    "energy_gap": "E(data) − E(chains) (nat)",
    "classification_loss": "CE (nat)",
    "chain_saturation": "saturated pixels of the chains (%)",
}
HEADERS = {
    "network": "network",
    "seeds": "seeds",
    "diverged": "diverged (% of trainings)",
    "divergences": "divergences",
}
HEADERS |= {"accuracy": "accuracy (%)", "seconds": "s a training"}
MIN_SEEDS = 10  # below which counts of divergence are not compared


def runs(names: Sequence[str], *, profile: str) -> pd.DataFrame:
    """One row for each seed of each network; times are left out, since they differ from run to run.

    `diverged` is 100 where the training diverged at least once, else 0; `accuracy` in %; `reasons` in words.
    """
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(names):
        for seed in zoo.seeds(name, profile=profile):
            card = zoo.card(name, profile=profile, seed=seed)
            course = card.get("training") or {"events": [], "gave_up": False}
            events = "; ".join(f"{one['reason']} in epoch {one['epoch']}" for one in course["events"])
            counted: dict[str, Any] = {"diverged": 100.0 * bool(events), "divergences": len(course["events"])}
            counted |= {"gave_up": course["gave_up"], "reasons": events}
            accuracy = float(card["accuracy"]["clean"]["value"])
            known = {"epochs": int(card["entry"].get("epochs") or 0), "n_test": int(card["data"]["n_test"])}
            rows.append({"network": name, "seed": seed, **counted, "accuracy": accuracy, **known})
    return pd.DataFrame(rows)


def seconds(names: Sequence[str], *, profile: str) -> dict[str, float]:
    """Seconds that a training took, mean over seeds, by network: of the machine that trained it."""
    found = {}
    for name in dict.fromkeys(names):
        cards = [zoo.card(name, profile=profile, seed=seed) for seed in zoo.seeds(name, profile=profile)]
        found[name] = sum(float(card["provenance"]["seconds"]) for card in cards) / len(cards)
    return found


def curves(names: Sequence[str], *, profile: str) -> pd.DataFrame:
    """The curves of CURVES by epoch, of the networks that have them all: network, seed, epoch and a column each."""
    blocks = []
    for (name, seed), history in zoo.histories_of(dict.fromkeys(names), profile=profile).items():
        found = history.scalars
        if set(CURVES) <= set(found):
            rows = {"epoch": found["epoch"], **{curve: found[curve] for curve in CURVES}}
            blocks.append(pd.DataFrame(rows).assign(network=name, seed=seed))
    columns = ["epoch", *CURVES, "network", "seed"]
    return pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame(columns=columns)


def summary(found: pd.DataFrame, took: Mapping[str, float]) -> list[records.Scalar]:
    """Scalars for a record, of each network over its seeds: trainings that diverged (Wilson), divergences in all, mean
    accuracy, seconds `took`."""
    rows = []
    for name, own in found.groupby("network", sort=False):
        place: dict[str, Any] = {"n": len(own), "seeds": [int(seed) for seed in own["seed"]], "network": str(name)}
        rows.append(records.scalar("diverged", metrics.wilson(int(own["diverged"].sum() / 100), len(own)), **place))
        rows.append(records.scalar("divergences", int(own["divergences"].sum()), **place))
        rows.append(
            records.scalar(
                "accuracy", metrics.over_sets(own["accuracy"].to_numpy(), share_of=int(own["n_test"].min())), **place
            )
        )
        rows.append(records.scalar("seconds", took[str(name)], **place))
    return rows


def table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A record of `summary`: one row for each network."""
    found = tables.wide(scalars, rows=["network"], metrics=list(HEADERS)[2:])
    n_seeds = {row["network"]: len(row["seeds"]) for row in scalars.to_dict("records")}
    found.insert(1, "seeds", [n_seeds[name] for name in found["network"]])
    found["network"] = found["network"].map(style.label)
    return found


def reading(found: pd.DataFrame, took: Mapping[str, float], *, plain: str, robust: str) -> str:
    """Divergences of two networks by seed, and whether there are seeds enough to compare them; then the cost."""
    lines = []
    for name in (plain, robust):
        own = found[found["network"] == name]
        counts = ", ".join(f"seed {row['seed']}: {row['divergences']}" for row in own.to_dict("records"))
        lines.append(f"{style.label(name)}: divergences {counts}; {took[name]:.0f} s a training")
    n = int(found.groupby("network")["seed"].nunique().loc[[plain, robust]].min())
    enough = f"too few to compare: {MIN_SEEDS} are needed."
    if n >= MIN_SEEDS:
        counts_of = (found.loc[found["network"] == name, "divergences"].to_numpy() for name in (robust, plain))
        shares = [metrics.wilson(int((one > 0).sum()), len(one)) for one in counts_of]
        more = contrasts.independent(*shares)
        enough = f"enough to compare: the share that diverged with attacks less that without is {more} %."
    ratio = f"Training with attacks took {took[robust] / took[plain]:.2f} times as long."
    told = "1 seed is" if n == 1 else f"{n} seeds are"
    return "\n".join([*lines, f"{told} {enough} {ratio}"])
