"""All that changes while a network trains (weights, optimiser, average, memory, history) and its checkpoint.

A checkpoint is one safetensors file (`checkpoints`), made for one recipe and seed, which its `identity` names; from it
training goes on bit for bit. An older format, a damaged file or another's is set aside, said, and training begins anew.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helpers import checkpoints, jem, models
from helpers.checkpoints import below, with_prefix
from helpers.history import History
from helpers.parameters import Recipe

FORMAT = 2  # of the checkpoint
NOTHING: dict[str, float] = {"loss": 0.0, "wrong": 0, "images": 0, "gradient": 0.0, "steps": 0}


class UnusableCheckpoint(Exception):
    """A checkpoint that was set aside; training starts from the beginning."""


@dataclass
class Run:
    """A training under way. `memory` is JEM's, None for objectives that remember nothing from step to step."""

    network: models.Network
    optimizer: torch.optim.Optimizer
    average: models.Network | None  # exponential moving average of the weights
    memory: jem.Memory | None = None
    step: int = 0  # finished steps
    sums: dict[str, float] = field(default_factory=lambda: dict(NOTHING))  # of the running epoch
    history: History = field(default_factory=History)
    seconds: float = 0.0
    stopped: bool = False  # given up before the last step

    @property
    def result(self) -> models.Network:
        """The network that training is for."""
        return self.network if self.average is None else self.average


def identity(recipe: Recipe, seed: int) -> dict[str, Any]:
    """What a checkpoint is of."""
    return {"name": recipe.name, "seed": seed, "digest": recipe.digest(seed), "format": FORMAT}


def optimizer(entry: Mapping[str, Any], network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a recipe; the schedule sets its rate (and SGD's momentum) before every step.

    Raises ValueError for another name than sgd and adam.
    """
    decay = entry.get("weight_decay") or 0.0
    if entry["optimizer"] == "sgd":
        nesterov = bool(entry.get("nesterov"))
        return torch.optim.SGD(
            network.parameters(), lr=entry["learning_rate"], momentum=0.9, weight_decay=decay, nesterov=nesterov
        )  # the momentum is set anew too; SGD only needs to know that there is one
    if entry["optimizer"] == "adam":
        return torch.optim.Adam(network.parameters(), lr=entry["learning_rate"], weight_decay=decay)
    raise ValueError(f"expected optimizer sgd or adam, got {entry['optimizer']!r}")


def begun(entry: Mapping[str, Any], network: models.Network, *, memory: jem.Memory | None) -> Run:
    """A training before its first step, of a network that nothing has trained yet."""
    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False).eval() if entry.get("ema") else None
    return Run(network, optimizer(entry, network), average, memory)


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """`load_state_dict`, strict, with one line instead of a page where it does not fit."""
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise ValueError(f"expected tensors of {type(module).__name__}, got others: {str(error)[:300]}") from error


# ---- the checkpoint ----


def _moments(run: Run) -> dict[str, Tensor]:
    """What the optimiser keeps of each parameter, under `<parameter>/<name>`."""
    named = ((name, run.optimizer.state.get(p, {})) for name, p in run.network.named_parameters())
    return {f"{name}/{key}": value for name, kept in named for key, value in kept.items() if value is not None}


def _fill_moments(run: Run, tensors: Mapping[str, Tensor]) -> None:
    for name, p in run.network.named_parameters():
        for key, value in below(name, tensors).items():
            # Adam's count of steps stays where torch keeps it, on the CPU; the rest lies as its parameter does.
            like = value if value.ndim == 0 and p.ndim > 0 else torch.empty_like(p).copy_(value)
            run.optimizer.state[p][key] = like


def save(run: Run, path: Path, whose: Mapping[str, Any]) -> None:
    """Write the run to `path`, whole or not at all; `whose` is its `identity`."""
    tensors = {
        **with_prefix("network", run.network.state_dict()),
        **with_prefix("optimizer", _moments(run)),
        **with_prefix("history", run.history.tensors()),
        "generator/cpu": torch.get_rng_state(),
    }
    if run.average is not None:
        tensors |= with_prefix("average", run.average.state_dict())
    device = next(run.network.parameters()).device
    if device.type == "cuda":
        tensors["generator/cuda"] = torch.cuda.get_rng_state(device)
    facts = {"step": run.step, "sums": run.sums, "scalars": run.history.scalars, "seconds": run.seconds}
    facts |= {"events": run.history.events, "stopped": run.stopped}
    if run.memory is not None:
        tensors |= with_prefix("memory", run.memory.tensors())
        facts["memory"] = run.memory.facts()
    checkpoints.save(path, tensors, {**facts, "identity": dict(whose)})


def load(run: Run, path: Path, whose: Mapping[str, Any], *, seed: int) -> None:
    """Put `run` where the checkpoint at `path` left off; UnusableCheckpoint where it is damaged or not of `whose`."""
    try:
        tensors, facts = checkpoints.load(path)
        if facts.get("identity") != whose:
            raise ValueError(f"expected a checkpoint of {whose}, got one of {facts.get('identity')}")
        fill(run.network, below("network", tensors))
        if run.average is not None:
            fill(run.average, below("average", tensors))
        run.optimizer.state.clear()
        _fill_moments(run, below("optimizer", tensors))
        if run.memory is not None:
            run.memory = run.memory.restored(below("memory", tensors), facts["memory"], seed=seed)
        run.step, run.sums, run.seconds = facts["step"], facts["sums"], facts["seconds"]
        run.history = History.restore(facts["scalars"], below("history", tensors), facts["events"])
        run.stopped = facts["stopped"]
        torch.set_rng_state(tensors["generator/cpu"])
        if "generator/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["generator/cuda"], next(run.network.parameters()).device)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        kept = checkpoints.set_aside(path)
        raise UnusableCheckpoint(f"{error}. Kept as {kept}; training starts anew.") from error
