"""One readable training loop: any objective, any schedule, and exact resume.

`fit` trains a recipe of networks.yaml with SGD or Adam. All that is drawn is a function of (seed, epoch, image), so a
run killed anywhere and started again ends with the same bits as an undisturbed one (same machine, same threads):
images are shuffled by a generator seeded from (seed, epoch), augmented and attacked with keyed noise, and the
checkpoint holds network, optimiser, moving average, history and torch's generators.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers import (
    batch_norm,
    bottleneck,
    data,
    distributed,
    information,
    jem,
    models,
    rollback,
    schedules,
    training_state,
    training_step,
)
from helpers.context import deterministic
from helpers.halved import InBfloat16
from helpers.history import History, monitor
from helpers.messages import say
from helpers.parameters import Recipe
from helpers.seeds import derived
from helpers.training_state import Run
from helpers.training_step import Place

__all__ = ["Datasets", "History", "Progress", "datasets", "fit"]

CHECKPOINT = "checkpoint.safetensors"
MONITOR_BATCH = 500
Callback = Callable[["Progress"], None]


@dataclass(frozen=True)
class Progress:
    """What a callback sees after every step: step and epoch count from 1."""

    step: int
    n_steps: int
    epoch: int
    n_epochs: int
    loss: float
    history: History


@dataclass(frozen=True)
class Datasets:
    """The images a recipe trains on, and the test images whose first `monitor_n_images` are followed."""

    train: data.ImageSet
    test: data.ImageSet


def datasets(entry: Mapping[str, Any]) -> Datasets:
    """The data a recipe names; see `data.load` for what it raises."""
    return Datasets(*(dataset(entry, split) for split in ("train", "test")))


def dataset(entry: Mapping[str, Any], split: str) -> data.ImageSet:
    """One split of the data a recipe names: "train", "validation" (its validation_fraction) or "test"."""
    return data.load(
        entry["dataset"],
        split,
        image_size=entry.get("image_size"),
        validation_fraction=entry.get("validation_fraction") or 0.0,
        split_seed=entry.get("split_seed") or 0,
    )


def build(entry: Mapping[str, Any], shape: tuple[int, int, int], num_classes: int) -> models.Network:
    """The untrained network of a recipe, for images (C, H, W)."""
    network = models.build(
        entry["architecture"],
        num_classes=num_classes,
        in_channels=shape[0],
        image_size=shape[1],
        width=entry.get("width"),
        depth=entry.get("depth"),
        norm=entry.get("norm") or "batch",
        mean=entry.get("mean"),
        std=entry.get("std"),
    )
    return bottleneck.narrowed(network, entry)


# ---- the loop ----


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators seeded for this training, and put back afterwards."""
    cuda = [device] if device.type == "cuda" else []
    flags: Any = torch.utils.deterministic
    filled = flags.fill_uninitialized_memory
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(derived(seed, "global"))
        # Determinism would also fill every new tensor with NaN first, a tenth of the time; we read none unwritten.
        flags.fill_uninitialized_memory = False
        try:
            yield
        finally:
            flags.fill_uninitialized_memory = filled


def _begun(recipe: Recipe, seed: int, sets: Datasets, *, device: torch.device) -> Run:
    """A run before its first step; torch's generators are seeded first, so that it is the same one every time."""
    torch.manual_seed(derived(seed, "global"))
    entry = recipe.entry
    network = build(entry, sets.train.shape, sets.train.num_classes).to(device)
    for layer in batch_norm.layers(network) if entry.get("batch_norm_momentum") else ():
        layer.momentum = entry["batch_norm_momentum"]
    if entry.get("latent"):
        bottleneck.of(network).set_prior(sets.train.labels)
    memory = jem.Memory.begun(entry, sets.train, seed=seed) if entry["objective"] == jem.OBJECTIVE else None
    return training_state.begun(entry, network, memory=memory)


def _evaluated(run: Run, sets: Datasets) -> models.Network:
    """The network as it is measured and returned: of JEM with the batch-norm averages of the training images."""
    return run.result if run.memory is None else batch_norm.settled(run.result, sets.train, batch_size=MONITOR_BATCH)


def _finish_epoch(run: Run, sets: Datasets, *, entry: Mapping[str, Any], seed: int, epoch: int) -> None:
    """Measure the probe and add a row to the history; of several processes the first does."""
    if not distributed.world().first:
        run.sums = dict(training_state.NOTHING)
        return
    s, group = run.sums, run.optimizer.param_groups[0]
    scalars: dict[str, Any] = {
        "epoch": epoch + 1,
        "step": run.step,
        "learning_rate": group["lr"],
        "momentum": group.get("momentum"),
        "train_loss": s["loss"] / s["images"],
        "train_error": 100 * s["wrong"] / s["images"],
        "gradient_norm": s["gradient"] / s["steps"],
    }
    scalars |= {name.removeprefix("term "): s[name] / s["images"] for name in s if name.startswith("term ")}
    rows: dict[str, Any] = {}
    n = entry.get("monitor_n_images")
    if n:
        network = _evaluated(run, sets)
        probes = {"train": sets.train.first(n), "test": sets.test.first(n)}
        measured, rows = monitor(network, probes, entry=entry, seed=seed, batch_size=MONITOR_BATCH)
        scalars |= measured
        if run.memory is not None:
            scalars |= jem.followed(network, run.memory, sets.test.first(n))
        if entry.get("latent"):
            scalars |= information.monitor(network, probes, seed=seed, batch_size=MONITOR_BATCH)
    run.history.append(scalars, rows)
    run.sums = dict(training_state.NOTHING)


def _orders(run: Run, sets: Datasets, *, size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, ...]]:
    """The rows of each step of an epoch; of JEM a second order of the same images for p(x)."""
    purposes = ("shuffle",) if run.memory is None else ("shuffle", "shuffle p(x)")
    own = seed if run.memory is None else run.memory.seed
    generators = [torch.Generator().manual_seed(derived(own, purpose, epoch)) for purpose in purposes]
    return zip(*(data.batches(sets.train, batch_size=size, generator=g) for g in generators), strict=True)


def _epochs(run: Run, sets: Datasets, *, recipe: Recipe, seed: int, folder: Path, callback: Callback | None) -> None:
    """Train from `run.step` to the end, with a checkpoint every `checkpoint_every` steps and after each epoch."""
    entry, n, size = recipe.entry, len(sets.train), recipe.entry["batch_size"]
    per_epoch = -(-n // size)
    n_steps = entry["epochs"] * per_epoch
    every = entry.get("checkpoint_every") or n_steps
    device, whose = sets.train.labels.device, training_state.identity(recipe, seed)
    seen = InBfloat16(run.network, device) if entry.get("precision") == "bfloat16" else run.network
    started, before = time.monotonic(), run.seconds
    while run.step < n_steps:
        epoch, done = divmod(run.step, per_epoch)
        for k, rows in enumerate(_orders(run, sets, size=size, seed=seed, epoch=epoch)):
            if k < done:
                continue
            rate, momentum = schedules.at(run.step, entry=entry, n_steps=n_steps, steps_per_epoch=per_epoch)
            group = run.optimizer.param_groups[0]
            group.update({"lr": rate} | ({"momentum": momentum} if "momentum" in group else {}))
            loss = training_step.step(run, seen, rows, sets.train, Place(entry, seed, epoch, per_epoch))
            run.seconds = before + time.monotonic() - started
            if k + 1 == per_epoch:
                _finish_epoch(run, sets, entry=entry, seed=seed, epoch=epoch)
                if run.memory is not None:
                    rollback.keep(run, folder, whose)
            if distributed.world().first and (k + 1 == per_epoch or run.step % every == 0):
                training_state.save(run, folder / CHECKPOINT, whose)
            if callback is not None:
                callback(Progress(run.step, n_steps, epoch + 1, entry["epochs"], loss, run.history))


def _resumed(begin: Callable[[], Run], recipe: Recipe, seed: int, *, folder: Path) -> Run:
    """The run where its checkpoint left off, or before its first step. Of several processes the first judges it."""
    run, path, who = begin(), folder / CHECKPOINT, f"{recipe.name}, seed {seed}"
    usable = False
    if distributed.world().first and path.exists():
        try:
            training_state.load(run, path, training_state.identity(recipe, seed), seed=seed)
            say(f"{who}: going on after step {run.step}")
            usable = True
        except training_state.UnusableCheckpoint as error:
            say(f"{who}: checkpoint not usable: {error}")
            run = begin()
    if distributed.told(usable) and not distributed.world().first:
        training_state.load(run, path, training_state.identity(recipe, seed), seed=seed)
    return run


def _check_processes(entry: Mapping[str, Any], n: int) -> None:
    """Refuse what several processes cannot train as one does."""
    size = distributed.world().size
    if size == 1:
        return
    if entry["objective"] == jem.OBJECTIVE or entry.get("weight_normalisation") == "mean":
        what = f"objective {entry['objective']} (weight_normalisation {entry.get('weight_normalisation') or 'none'})"
        raise ValueError(f"expected one process for {what}, whose loss looks at the whole batch, got {size}")
    least = min(entry["batch_size"], n % entry["batch_size"] or n)
    if least < size:
        raise ValueError(f"expected at most {least} processes, an image of the smallest batch for each, got {size}")


def _trained(
    run: Run, sets: Datasets, *, recipe: Recipe, seed: int, folder: Path, callback: Callback | None,
    begin: Callable[[], Run],
) -> Run:  # fmt: skip
    """The run at its end: the last step, or where it was given up after too many divergences (of JEM)."""
    per_epoch, whose = -(-len(sets.train) // recipe.entry["batch_size"]), training_state.identity(recipe, seed)
    while not run.stopped:
        try:
            _epochs(run, sets, recipe=recipe, seed=seed, folder=folder, callback=callback)
            return run
        except FloatingPointError as error:
            if run.memory is None:
                raise FloatingPointError(f"{recipe.name}, seed {seed}: {error}") from error
            run = rollback.back(
                run, error, begin=begin, folder=folder, whose=whose, seed=seed, epoch=run.step // per_epoch + 1,
                max_rollbacks=recipe.entry["max_rollbacks"],
            )  # fmt: skip
            training_state.save(run, folder / CHECKPOINT, whose)
            next_is = "given up" if run.stopped else f"going on from step {run.step} with other noise"
            say(f"{recipe.name}, seed {seed}: diverged ({error}); {next_is}")
    return run


def fit(
    recipe: Recipe,
    seed: int,
    *,
    folder: Path,
    device: torch.device | str,
    callback: Callback | None = None,
    sets: Datasets | None = None,
) -> tuple[models.Network, History]:
    """Train a recipe: the network in eval mode (its moving average where `ema` > 0), and its history.

        v ← m v + (∇L + λ θ),   θ ← θ − η v    (SGD; with `nesterov`: θ ← θ − η (∇L + λ θ + m v); or Adam)

    η and m follow the recipe's schedule (`schedules.at`), λ is `weight_decay`, L the mean of the objective's
    per-sample loss over the batch. The last network is returned, not the one that did best somewhere.

    `folder` keeps checkpoint.safetensors; where one of this recipe and seed lies there, training goes on from it, bit
    for bit; a damaged or foreign one is set aside with a suffix, which is said on stderr. `sets` are the data, by
    default those that the recipe names; what it leaves out of them (`removed`) is the caller's affair (`zoo`), since
    that takes another network. `callback(Progress)` sees every step after its checkpoint.
    The objective jem keeps a replay buffer in the checkpoint, leaves it in `folder` (`jem.keep`) and, where it
    diverges, goes back and on with other noise; the history's events say so (`divergence`, `rollback`). Other
    objectives raise FloatingPointError with step and value when loss or gradient stop being finite. ValueError for a
    recipe that leaves images out where no `sets` are given.

    Processes that torchrun started (`distributed.joined`) train one network together; the first writes and measures.
    With batch norm each normalises its own share. ValueError for a loss that looks at its whole batch.
    """
    device = torch.device(device)
    if sets is None and recipe.reference is not None:
        raise ValueError(f"expected sets with {recipe.name}, which leaves images out ({recipe.entry['removed']})")
    sets = sets or datasets(recipe.entry)
    sets = Datasets(sets.train.to(device), sets.test.to(device))
    _check_processes(recipe.entry, len(sets.train))
    # torchvision's max pooling has no deterministic backward on CUDA.
    strict = device.type == "cpu" or not recipe.entry["architecture"].startswith(models.TORCHVISION_PREFIX)
    with _own_randomness(seed, device), deterministic() if strict else nullcontext():
        begin = functools.partial(_begun, recipe, seed, sets, device=device)
        run = _resumed(begin, recipe, seed, folder=folder)
        run = _trained(run, sets, recipe=recipe, seed=seed, folder=folder, callback=callback, begin=begin)
        network = _evaluated(run, sets).eval()
    if run.memory is not None:
        jem.keep(run.memory, folder)
        rollback.sweep(folder)
    return network, run.history
