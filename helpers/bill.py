"""What a profile costs on paper: operations of every notebook, counted from its recipes and parameters, and GPU-hours.

Counted are the passes through the networks: a forward pass of an image is F operations, one with the gradient in the
image 2 F, one with the gradients in the weights 3 F. A network that several notebooks name is trained for the first of
them. The ensemble is counted as if every image stood to its end, so that part is an upper bound. Not counted: networks
of others whose architecture is not here, scores in features, the ablations' many settings, data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd
import torch

from helpers import counting, data, objectives, parameters, readers, records, train
from helpers.parameters import Recipe
from helpers.records import Scalar

__all__ = ["GPUS", "frame", "hours", "summary"]

GPUS = (1, 8, 64)
FORWARD, ATTACKED, TRAINED = 1, 2, 3  # passes, in F


@dataclass(frozen=True)
class Cost:
    """Operations of a notebook, and of the longest single training among them, which no second GPU shortens."""

    training: float
    evaluation: float
    longest: float


@lru_cache(maxsize=256)
def _forward(architecture: str, items: tuple[tuple[str, Any], ...], shape: tuple[int, int, int], classes: int) -> float:
    entry = {"architecture": architecture, **dict(items)}
    with torch.device("meta"), torch.no_grad():
        network = train.build(entry, shape, classes).eval()
        with counting.counting() as counts:
            network(torch.empty(1, *shape))
    return counts.operations


def forward(recipe: Recipe) -> float | None:
    """F of a recipe's network for one image; None for a network whose architecture is not here."""
    entry = recipe.entry
    if entry["source"] not in (None, "train", "checkpoint", "url") or entry["dataset"] is None:
        return None
    source: readers.Source = data.source(entry["dataset"])
    side = entry.get("image_size") or source.shape[1]
    items = tuple((name, entry.get(name)) for name in ("width", "depth", "norm", "latent", "latent_dim", "consistent"))
    return _forward(entry["architecture"], items, (source.shape[0], side, side), source.num_classes)


def passes(entry: Mapping[str, Any]) -> float:
    """Passes through the network for one image in one epoch of training, in F.

    >>> passes({"objective": "madry", "n_steps": 10}), passes({"objective": "standard"})
    (23.0, 3.0)
    """
    objective = entry["objective"]
    steps = 1 if objective == "fgsm_rs" else entry.get("n_steps") or 0
    if objective == "jem":
        chain = (entry.get("chain_n_steps") or 0) * ATTACKED
        return float(3 * TRAINED + chain + steps * ATTACKED)
    if objective in objectives.BOTTLENECKS:
        return float(TRAINED)
    known = objectives.OBJECTIVES[objective]
    found = TRAINED * (known.natural + (known.search is not None))
    found += ATTACKED * steps if known.search is not None else 0
    return float(found + (FORWARD if known.search is objectives.kl_pgd else 0))


def training(recipe: Recipe) -> float:
    """Operations of one training of a recipe (one seed); 0 for a network that is not trained here."""
    each = forward(recipe)
    if each is None or recipe.entry["objective"] is None or recipe.entry["source"] not in (None, "train"):
        return 0.0
    return each * passes(recipe.entry) * recipe.entry["epochs"] * SIZES.get(recipe.entry["dataset"], 50000)


SIZES = {"cifar10": 50000, "cifar100": 50000, "svhn": 73257, "tiny-imagenet": 100000, "digits": 1437}


def _evaluations(v: Mapping[str, Any]) -> Iterator[tuple[list[str], float]]:
    """(networks, passes in F) of what a notebook's parameters ask of its networks after their training."""
    networks = v.get("networks") or [v[name] for name in ("network",) if name in v]
    if "ensemble_n_images" in v and "ensemble_n_steps" in v:
        each = ATTACKED * v["ensemble_n_steps"] * (1 + 2 * v["n_targets"]) + FORWARD * v["n_queries"]
        yield v.get("attacked_networks") or networks, float(each * v["ensemble_n_images"])
    if "epsilon_255" in v and "n_steps" in v and "n_images" in v:
        yield networks, float(ATTACKED * v["n_steps"] * (v.get("attack_n_images") or v["n_images"]))
    if "n_generated" in v and ("n_steps" in v or "sample_n_steps" in v):
        steps = v.get("sample_n_steps") or v["n_steps"]
        yield networks, float(ATTACKED * steps * v["n_generated"] * (v.get("n_sets") or 1))
    if "corruption_profile" in v:
        yield networks, float(FORWARD * 75 * v["n_images"])


def costs(profile: str) -> dict[str, Cost]:
    """The cost of each notebook of a profile."""
    seen: set[str] = set()
    found = {}
    for notebook in parameters.notebooks(profile):
        values = parameters.read(notebook, profile)
        if "speed_rows" in values:  # the benchmark itself
            continue
        named = [parameters.recipe(profile, name) for name in parameters.network_names(values) if name not in seen]
        seen |= {recipe.name for recipe in named}
        each = {recipe.name: training(recipe) for recipe in named}
        total = sum(each[recipe.name] * len(recipe.seeds) for recipe in named)
        looks = 0.0
        for names, passed in _evaluations(values):
            for recipe in (parameters.recipe(profile, name) for name in names):
                looks += (forward(recipe) or 0.0) * passed * max(1, len(recipe.seeds))
        found[notebook] = Cost(total, looks, max([0.0, *each.values()]))
    return found


def hours(operations: float, longest: float, *, rate: float, gpus: int) -> float:
    """Hours on `gpus` GPUs of `rate` operations a second each, jobs shared out evenly; a training is one job.

    >>> hours(3.6e15, 1.8e15, rate=1e12, gpus=1), hours(3.6e15, 1.8e15, rate=1e12, gpus=8)
    (1.0, 0.5)
    """
    return max(operations / gpus, longest) / rate / 3600


def summary(profile: str, *, rate: float | None) -> list[Scalar]:
    """Scalars: operations of each notebook, and hours where a rate (operations a second of one GPU) was measured."""
    rows = []
    for notebook, cost in costs(profile).items():
        place: dict[str, Any] = {"of": notebook, "profile": profile}
        for kind in ("training", "evaluation"):
            rows.append(records.scalar("operations", getattr(cost, kind), part=kind, **place))
        for gpus in GPUS:
            whole = cost.training + cost.evaluation
            value = None if rate is None else hours(whole, cost.longest, rate=rate, gpus=gpus)
            reason: dict[str, Any] = {} if rate is not None else {"reason": "not run: no GPU's rate was measured"}
            rows.append(records.scalar("gpu_hours", value, gpus=gpus, **place, **reason))
    return rows


def frame(scalars: pd.DataFrame) -> pd.DataFrame:
    """A line for each notebook: operations of training and evaluation, hours on 1, 8 and 64 GPUs, and of all."""
    bill = scalars[scalars["metric"].isin(["operations", "gpu_hours"]) & scalars["of"].notna()]
    lines = []
    for notebook, several in bill.groupby("of", sort=False):
        parts = several[several["metric"] == "operations"].set_index("part")["value"]
        line: dict[str, Any] = {"notebook": notebook, **{f"{one} (operations)": parts[one] for one in parts.index}}
        for one in several[several["metric"] == "gpu_hours"].to_dict("records"):
            line[f"hours on {one['gpus']:g}"] = None if pd.isna(one["value"]) else one["value"]
        lines.append(line)
    total: dict[str, Any] = {"notebook": "all"}
    for name in list(lines[0])[1:]:
        given = [line[name] for line in lines]
        total[name] = None if None in given else sum(given)
    shown = pd.DataFrame([*lines, total], dtype=object)
    return shown.map(lambda value: float(f"{value:.3g}") if isinstance(value, float) else value)


def reading(scalars: pd.DataFrame) -> str:
    """All operations, and whether hours can be said."""
    counted = scalars[scalars["metric"] == "operations"].groupby("part", sort=False)["value"].sum()
    whole = ", ".join(f"{value:.3g} in {part}" for part, value in counted.items())
    rated = scalars[(scalars["metric"] == "gpu_hours") & scalars["value"].notna()]
    if rated.empty:
        return f"Operations: {whole}. Rate not measured: no hours are printed."
    hours = rated.groupby("gpus", sort=False)["value"].sum()
    return (
        f"Operations: {whole}. Hours: " + ", ".join(f"{value:.3g} on {gpus:g}" for gpus, value in hours.items()) + "."
    )
