"""One readable training loop: any objective, any schedule, and exact resume.

`fit` trains a recipe of networks.yaml with SGD. Everything that is drawn is a function of (seed, epoch, image), so a
run killed anywhere and started again ends with the same bits as an undisturbed one (same machine, same threads):
images are shuffled by a generator seeded from (seed, epoch), augmented and attacked with keyed noise, and the
checkpoint holds network, optimiser, moving average, history and torch's generators.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helpers import augment, bottleneck, checkpoints, data, information, models, objectives, schedules
from helpers.checkpoints import below, say, with_prefix
from helpers.context import deterministic
from helpers.history import History, monitor
from helpers.parameters import Recipe

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


def derived(seed: int, *purpose: object) -> int:
    """A generator's seed for one purpose, so that a new purpose shifts no other stream.

    >>> derived(0, "shuffle", 1) == derived(0, "shuffle", 2)
    False
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


class _InBfloat16(nn.Module):
    """The same network computing in bfloat16, its logits float32; parameters and modes are shared."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device_type = network, device.type

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device_type, dtype=torch.bfloat16):
            return self.network(x).float()

    def features(self, x: Tensor) -> Tensor:
        """f(x), float32: what follows it, a bottleneck's densities, computes in float32."""
        with torch.autocast(self.device_type, dtype=torch.bfloat16):
            return self.network.features(x).float()  # type: ignore[operator]


@dataclass
class _Run:
    """All that changes while a network trains, and therefore all that a checkpoint holds."""

    network: models.Network
    optimizer: torch.optim.SGD
    average: models.Network | None  # exponential moving average of the weights
    step: int = 0  # finished steps
    sums: dict[str, float] = field(default_factory=lambda: dict(_NOTHING))  # of the running epoch
    history: History = field(default_factory=History)
    seconds: float = 0.0

    @property
    def result(self) -> models.Network:
        return self.network if self.average is None else self.average


FOLLOWED = "followed/"  # sums of the objective's own terms
_NOTHING: dict[str, float] = {"loss": 0.0, "wrong": 0, "images": 0, "gradient": 0.0, "steps": 0}


# ---- the checkpoint ----


def _identity(recipe: Recipe, seed: int) -> dict[str, Any]:
    return {"name": recipe.name, "seed": seed, "digest": recipe.digest(seed)}


def _momenta(run: _Run) -> dict[str, Tensor]:
    state = run.optimizer.state
    pairs = ((name, state[p].get("momentum_buffer")) for name, p in run.network.named_parameters() if p in state)
    return {name: buffer for name, buffer in pairs if buffer is not None}


def _save(run: _Run, path: Path, identity: Mapping[str, Any]) -> None:
    tensors = {
        **with_prefix("network", run.network.state_dict()),
        **with_prefix("momentum", _momenta(run)),
        **with_prefix("history", run.history.tensors()),
        "generator/cpu": torch.get_rng_state(),
    }
    if run.average is not None:
        tensors |= with_prefix("average", run.average.state_dict())
    device = next(run.network.parameters()).device
    if device.type == "cuda":
        tensors["generator/cuda"] = torch.cuda.get_rng_state(device)
    facts = {"step": run.step, "sums": run.sums, "scalars": run.history.scalars, "seconds": run.seconds}
    checkpoints.save(path, tensors, {**facts, "identity": dict(identity)})


def _resume(run: _Run, path: Path, identity: Mapping[str, Any]) -> None:
    """Put `run` where the checkpoint at `path` left off. A damaged or foreign one is set aside, and said so."""
    try:
        tensors, facts = checkpoints.load(path)
        if facts.get("identity") != identity:
            raise ValueError(f"expected a checkpoint of {identity}, got one of {facts.get('identity')}")
        fill(run.network, below("network", tensors))
        if run.average is not None:
            fill(run.average, below("average", tensors))
        buffers = below("momentum", tensors)
        for name, p in run.network.named_parameters():
            if name in buffers:
                run.optimizer.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(buffers[name])
        run.step, run.sums, run.seconds = facts["step"], facts["sums"], facts["seconds"]
        run.history = History.restore(facts["scalars"], below("history", tensors))
        torch.set_rng_state(tensors["generator/cpu"])
        if "generator/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["generator/cuda"], next(run.network.parameters()).device)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        kept = checkpoints.set_aside(path)
        raise _UnusableCheckpoint(f"{error}. Kept as {kept}; training starts anew.") from error


class _UnusableCheckpoint(Exception):
    """A checkpoint that was set aside; `fit` starts from the beginning."""


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """`load_state_dict`, strict, with one line instead of a page where it does not fit."""
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise ValueError(f"expected tensors of {type(module).__name__}, got others: {str(error)[:300]}") from error


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


def _start(entry: Mapping[str, Any], sets: Datasets, *, device: torch.device) -> _Run:
    network = build(entry, sets.train.shape, sets.train.num_classes).to(device)
    network = network.to(memory_format=torch.channels_last)
    if entry.get("latent"):
        bottleneck.of(network).set_prior(sets.train.labels)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=entry["learning_rate"],
        momentum=0.9,  # set anew before every step, as is the rate; SGD only needs to know that there is one
        weight_decay=entry.get("weight_decay") or 0.0,
        nesterov=bool(entry.get("nesterov")),
    )
    average = copy.deepcopy(network).requires_grad_(False).eval() if entry.get("ema") else None
    return _Run(network, optimizer, average)


def _gradient_norm(network: nn.Module) -> Tensor:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm()


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, *, decay: float) -> None:
    """average ← decay · average + (1 − decay) · network; counters and running statistics are copied."""
    for mean, p in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(p, 1 - decay)
    for kept, b in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(b)


def _train_step(
    run: _Run, seen: nn.Module, *, rows: Tensor, sets: Datasets, entry: Mapping[str, Any], seed: int, epoch: int
) -> float:
    """One step of SGD on these rows; returns the loss. `seen` is the network, perhaps in bfloat16."""
    index, y = sets.train.index[rows], sets.train.labels[rows]
    pixels = augment.augment(
        entry.get("augment") or "none", sets.train.pixels[rows], seed=seed, index=index, epoch=epoch
    )
    x = (pixels.float() / 255).contiguous(memory_format=torch.channels_last)
    seen.train()
    progress = run.step / -(-len(sets.train) // entry["batch_size"])
    outcome = objectives.evaluate(seen, x, y, entry=entry, seed=seed, index=index, epoch=epoch, progress=progress)
    loss = outcome.loss.mean()
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    value, norm = loss.item(), _gradient_norm(run.network).item()
    for what, number in (("training loss", value), ("gradient norm", norm)):
        if number - number != 0:  # NaN or infinite
            raise FloatingPointError(f"{what} is {number} at step {run.step + 1} (epoch {epoch + 1})")
    run.optimizer.step()
    run.step += 1
    if run.average is not None:
        _follow(run.average, run.network, decay=entry["ema"])
    parts = {"loss": value * len(y), "wrong": int(outcome.wrong.sum()), "images": len(y), "gradient": norm, "steps": 1}
    parts |= {FOLLOWED + name: term.sum().item() for name, term in outcome.followed.items()}
    run.sums = {name: run.sums.get(name, 0.0) + part for name, part in parts.items()}
    return value


def _finish_epoch(run: _Run, sets: Datasets, *, entry: Mapping[str, Any], seed: int, epoch: int) -> None:
    """Measure the probe and add a row to the history."""
    s, group = run.sums, run.optimizer.param_groups[0]
    scalars: dict[str, Any] = {
        "epoch": epoch + 1,
        "step": run.step,
        "learning_rate": group["lr"],
        "momentum": group["momentum"],
        "train_loss": s["loss"] / s["images"],
        "train_error": 100 * s["wrong"] / s["images"],
        "gradient_norm": s["gradient"] / s["steps"],
        **{name.removeprefix(FOLLOWED): s[name] / s["images"] for name in s if name.startswith(FOLLOWED)},
    }
    rows: dict[str, Any] = {}
    n = entry.get("monitor_n_images")
    if n:
        probes = {"train": sets.train.first(n), "test": sets.test.first(n)}
        measured, rows = monitor(run.result, probes, entry=entry, seed=seed, batch_size=MONITOR_BATCH)
        scalars |= measured
        if entry.get("latent"):
            scalars |= information.monitor(run.result, probes, seed=seed, batch_size=MONITOR_BATCH)
    run.history.append(scalars, rows)
    run.sums = dict(_NOTHING)


def _epochs(run: _Run, sets: Datasets, *, recipe: Recipe, seed: int, folder: Path, callback: Callback | None) -> None:
    """Train from `run.step` to the end, with a checkpoint every `checkpoint_every` steps and after each epoch."""
    entry, n, size = recipe.entry, len(sets.train), recipe.entry["batch_size"]
    per_epoch = -(-n // size)
    n_steps = entry["epochs"] * per_epoch
    every = entry.get("checkpoint_every") or n_steps
    device = sets.train.labels.device
    seen = _InBfloat16(run.network, device) if entry.get("precision") == "bfloat16" else run.network
    started, before = time.monotonic(), run.seconds
    while run.step < n_steps:
        epoch, done = divmod(run.step, per_epoch)
        generator = torch.Generator().manual_seed(derived(seed, "shuffle", epoch))
        for k, rows in enumerate(data.batches(sets.train, batch_size=size, generator=generator)):
            if k < done:
                continue
            rate, momentum = schedules.at(run.step, entry=entry, n_steps=n_steps, steps_per_epoch=per_epoch)
            run.optimizer.param_groups[0].update(lr=rate, momentum=momentum)
            loss = _train_step(run, seen, rows=rows, sets=sets, entry=entry, seed=seed, epoch=epoch)
            if k + 1 == per_epoch:
                _finish_epoch(run, sets, entry=entry, seed=seed, epoch=epoch)
            if k + 1 == per_epoch or run.step % every == 0:
                run.seconds = before + time.monotonic() - started
                _save(run, folder / CHECKPOINT, _identity(recipe, seed))
            if callback is not None:
                callback(Progress(run.step, n_steps, epoch + 1, entry["epochs"], loss, run.history))


def fit(
    recipe: Recipe,
    seed: int,
    *,
    folder: Path,
    device: torch.device | str,
    callback: Callback | None = None,
    sets: Datasets | None = None,
) -> tuple[models.Network, History]:
    """Train a recipe with SGD: the network in eval mode (its moving average where `ema` > 0), and its history.

        v ← m v + (∇L + λ θ),   θ ← θ − η v    (with `nesterov`: θ ← θ − η (∇L + λ θ + m v))

    η and m follow the recipe's schedule (`schedules.at`), λ is `weight_decay`, L the mean of the objective's
    per-sample loss over the batch. The last network is returned, not the one that did best somewhere.

    `folder` keeps checkpoint.safetensors; where one of this recipe and seed lies there, training goes on from it, bit
    for bit; a damaged or foreign one is set aside with a suffix, which is said on stderr. `sets` are the data, by
    default those that the recipe names; what it leaves out of them (`removed`) is the caller's affair (`zoo`), since
    that takes another network. `callback(Progress)` sees every step after its checkpoint.
    Raises FloatingPointError with step and value when loss or gradient stop being finite, and ValueError for a recipe
    that leaves images out where no `sets` are given.
    """
    device = torch.device(device)
    if sets is None and recipe.reference is not None:
        raise ValueError(f"expected sets with {recipe.name}, which leaves images out ({recipe.entry['removed']})")
    sets = sets or datasets(recipe.entry)
    sets = Datasets(sets.train.to(device), sets.test.to(device))
    # torchvision's max pooling has no deterministic backward on CUDA.
    strict = device.type == "cpu" or not recipe.entry["architecture"].startswith(models.TORCHVISION_PREFIX)
    with _own_randomness(seed, device), deterministic() if strict else nullcontext():
        run = _start(recipe.entry, sets, device=device)
        if (folder / CHECKPOINT).exists():
            try:
                _resume(run, folder / CHECKPOINT, _identity(recipe, seed))
                say(f"{recipe.name}, seed {seed}: going on after step {run.step}")
            except _UnusableCheckpoint as error:
                say(f"{recipe.name}, seed {seed}: checkpoint not usable: {error}")
                torch.manual_seed(derived(seed, "global"))
                run = _start(recipe.entry, sets, device=device)
        try:
            _epochs(run, sets, recipe=recipe, seed=seed, folder=folder, callback=callback)
        except FloatingPointError as error:
            raise FloatingPointError(f"{recipe.name}, seed {seed}: {error}") from error
    return run.result.eval(), run.history
