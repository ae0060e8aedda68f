"""Images of given classes from a robust classifier (ebm, section 4): a start, then SGLD, batches that survive a kill.

    generate(network, start, y=…, index=…, …, folder=…) -> Generated

Finished batches are streamed to a folder, so memory does not grow with their number:

    config.json       what defines the images: digests of network and start, classes, settings
    images.npy        (N, C, H, W) uint8
    000-0003.npz      the fourth batch is in images.npy: its energies, steps, seconds and the SHA-256 of its pixels

Image i is a function of (seed, index[i], y[i], settings) and not of its batch, but for the rounding of the network's
sums, which may differ in the last bits between batch sizes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from helpers import attack_losses, checks, context, distributed, energies, files, noise, parts, run_folder, samplers
from helpers.data import ImageSet
from helpers.starts import Start

__all__ = ["Generated", "arrays_of", "chain_key", "class_targets", "generate", "pixels", "start_key", "trajectory"]

FORMAT = 2  # of the folder, and of what a generation means: another number refuses older folders
IMAGES = "images.npy"
PURPOSE = "generation"


@dataclass(frozen=True, eq=False)
class Generated:
    """What `generate` made, one row for each image.

    images: (N, C, H, W) uint8, mapped from the disk; y, index: (N,) int64; joint, marginal: (N,) float32, E(x, y)
    and E(x) of the images as they are stored, rounded; n_steps_taken: (N,) int64; seconds: computing time of all
    batches, interrupted runs included.
    """

    images: np.ndarray
    y: np.ndarray
    index: np.ndarray
    joint: np.ndarray
    marginal: np.ndarray
    n_steps_taken: np.ndarray
    seconds: float

    def arrays(self) -> dict[str, np.ndarray]:
        """The same as arrays by name; `images` stays mapped."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in dataclasses.fields(self)}


def pixels(x: Tensor) -> Tensor:
    """Images in [0, 1] as uint8: ⌊255 x + ½⌋, halves up.

    >>> pixels(torch.tensor([0.0, 0.5 / 255, 0.7, 1.0])).tolist()
    [0, 1, 179, 255]
    """
    return (x * 255 + 0.5).floor().to(torch.uint8)


def start_key(seed: int, index: Tensor) -> noise.Key:
    """Whose draws the starts of generated images are; normal ones from tables (`tabled_normal`)."""
    return noise.Key(seed, f"{PURPOSE}/start", index).tabled()


def chain_key(seed: int, index: Tensor) -> noise.Key:
    """Whose draws the noise of their chains is, from tables too."""
    return noise.Key(seed, f"{PURPOSE}/noise", index).tabled()


def class_targets(network: nn.Module, images: ImageSet, *, energy: str, batch_size: int) -> Tensor:
    """Mean energy of the real images of each class, (K,) float32 on the CPU: where a chain of that class may stop.

    `energy` is a name of samplers.ENERGIES; the joint energy is that of an image with its own label. After the
    paper's code, which freezes a chain near the mean E(x, y) of its class. Raises ValueError for an empty class.
    """
    checks.count(batch_size, "batch_size", minimum=1)
    function, device = samplers.energy_of(network, energy), context.device_of(network)
    sums = torch.zeros(images.num_classes, dtype=torch.float64)
    counts = torch.bincount(images.labels.cpu(), minlength=images.num_classes)
    if not bool(counts.all()):
        missing = images.classes[int((counts == 0).nonzero()[0])]
        raise ValueError(f"expected images of every class in {images.name}/{images.split}, got none of {missing!r}")
    with torch.no_grad():
        for rows in torch.arange(len(images)).split(batch_size):
            y = images.labels[rows]
            found = checks.per_sample(function(images.images(rows).to(device), y.to(device)), rows, "energy")
            sums.index_add_(0, y.cpu(), found.double().cpu())
    return (sums / counts).float()


# One batch ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Task:
    """What all batches share: network, start, and the keywords of samplers.chain."""

    network: nn.Module
    start: Start
    y: Tensor
    index: Tensor
    seed: int
    energy: str
    precision: samplers.Precision
    n_steps: int
    targets: Tensor | None
    rule: Mapping[str, Any]


def _first(task: _Task, rows: Tensor) -> tuple[Tensor, Tensor]:
    """x_0 of some images and their classes, on the network's device."""
    y, device = task.y[rows.to(task.y.device)], context.device_of(task.network)
    x = task.start.draw(y, start_key(task.seed, task.index[rows.to(task.index.device)]))
    if checks.images(x, f"the start {task.start.name!r}").dtype != torch.float32 or len(x) != len(y):
        raise ValueError(f"expected {len(y)} float32 images from the start {task.start.name!r}, got {len(x)} {x.dtype}")
    return x.to(device), y.to(device)


def _chain_keywords(task: _Task, y: Tensor, rows: Tensor) -> dict[str, Any]:
    index = task.index[rows.to(task.index.device)]
    target = None if task.targets is None else task.targets.to(y.device)[y]
    return {**task.rule, "key": chain_key(task.seed, index.to(y.device)), "target": target}


def _batch(task: _Task, rows: Tensor) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The images of some rows, uint8, and what is kept of them besides."""
    began = time.perf_counter()
    x, y = _first(task, rows)
    energy = samplers.energy_of(task.network, task.energy, precision=task.precision)
    states = samplers.chain(energy, samplers.State.first(x), y, **_chain_keywords(task, y, rows))
    state = next(states)
    while state.step < task.n_steps and (new := next(states, None)) is not None:
        state = new
    images = pixels(state.x)
    with torch.no_grad():
        logits = attack_losses.logits_of(task.network, images.float() / 255)
    kept = {
        "rows": rows, "joint": energies.joint(logits, y), "marginal": energies.marginal(logits),
        "n_steps_taken": state.n_taken,
    }  # fmt: skip
    part = {name: values.cpu().numpy() for name, values in kept.items()}
    return images.cpu().numpy(), part | {"seconds": np.array(time.perf_counter() - began)}


# All batches --------------------------------------------------------------------------------------------------------


def generate(
    network: nn.Module,
    start: Start,
    *,
    y: Tensor,
    index: Tensor,
    seed: int,
    energy: str,
    step_size: float,
    momentum: float,
    noise_std: float,
    n_steps: int,
    gradient: samplers.Gradient,
    stop: samplers.Stop,
    targets: Tensor | None,
    batch_size: int,
    folder: Path | str,
    tolerance: float | None = None,
    max_step: float | None = None,
    max_gradient: float | None = None,
    precision: samplers.Precision = "float32",
    callback: Callable[[int, int], None] | None = None,
) -> Generated:
    """One image for each class in `y` (N,): x_0 from `start`, then SGLD on an energy of the network, in [0, 1].

    `index` (N,) names the images: with `seed` it keys start and noise. `energy`, "joint", "marginal" or
    "cross_entropy"; step_size, momentum, noise_std, gradient, stop, tolerance, max_step and max_gradient (proximal SGLD
    where it is a number) as in samplers.sgld, which takes at most `n_steps`; `targets` (K,) are the energies at which
    the chains of a class freeze (`class_targets`). `precision` "bfloat16" is for the chain; energies in the result are
    float32's. `y` and `index` lie where the start draws, and x_0 is moved to the network's device. Images are rounded
    to uint8 halves up (`pixels`).

    `folder` keeps finished batches: the same call goes on where it was killed, and ends with the same images.
    `callback(n, N)` is told how many images are finished. Network and inputs are left as they were.

    Processes that torchrun started (`distributed.joined`) make every so-many-th batch each, in one folder that all of
    them see, and all return the same images, which are those of one process, bit for bit on the same kind of device.

    Raises ValueError for bad input and for a folder of another generation (difference named), FloatingPointError
    where an energy is not finite, OSError where the disk is full (what is finished is kept), RuntimeError while
    another process uses the folder.
    """
    rule = {
        "step_size": step_size, "momentum": momentum, "noise_std": noise_std, "gradient": gradient, "stop": stop,
        "tolerance": tolerance, "max_step": max_step, "max_gradient": max_gradient,
    }  # fmt: skip
    task = _Task(network, start, y, index, seed, energy, precision, n_steps, targets, rule)
    _check(task, batch_size=batch_size)
    config = {
        "format": FORMAT, "network": run_folder.network_digest(network), "start": start.name,
        "start_digest": parts.digest(start, "start"), "n": len(y), "y": run_folder.digest(y),
        "index": run_folder.digest(index), "seed": seed, "energy": energy, "n_steps": n_steps, **rule,
        "targets": None if targets is None else [float(t) for t in targets], "batch_size": batch_size,
        "precision": precision,
    }  # fmt: skip
    # Filled in place: small arrays kept from every batch would keep the allocator from using its memory again.
    kinds = {"joint": np.float32, "marginal": np.float32, "n_steps_taken": np.int64}
    joined = {name: np.empty(len(y), kind) for name, kind in kinds.items()}
    seconds = 0.0
    with run_folder.shared(folder, config) as kept:
        done = 0
        for number, rows in distributed.in_turn(list(enumerate(torch.arange(len(y)).split(batch_size)))):
            part = _kept(task, Path(folder) / IMAGES, kept, number, rows)
            for name, values in joined.items():
                values[rows.numpy()] = part[name]
            seconds += float(part["seconds"])
            done += len(rows)
            if callback is not None:
                callback(done, len(y))
        images = np.load(Path(folder) / IMAGES, mmap_mode="r")
    return Generated(images, y.cpu().numpy(), index.cpu().numpy(), **joined, seconds=seconds)


def arrays_of(*, folder: Path, **given: Any) -> dict[str, np.ndarray]:
    """`generate(**given, folder=folder)` as arrays by name, for parts.compute_in_folder."""
    return generate(**given, folder=folder).arrays()


def _kept(task: _Task, path: Path, kept: run_folder.Parts, number: int, rows: Tensor) -> dict[str, np.ndarray]:
    """What is kept of a batch: from the folder where its pixels are those that were written, else made now."""
    part = kept.read(0, number, rows.numpy())
    if part is not None and str(part["sha256"]) == _sha256(path, rows):
        return part
    images, made = _batch(task, rows)
    mapped = _room(path, (len(task.y), *images.shape[1:]))
    # Not through the map: on a full disk that would kill the process instead of raising an error.
    files.overwrite(path, images.tobytes(), offset=mapped.offset + int(rows[0]) * images[0].nbytes)
    made["sha256"] = np.array(hashlib.sha256(images.tobytes()).hexdigest())
    kept.write(0, number, made)
    return made


def _room(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """The stored images, a file for them where there is none; made by one process, whichever comes first."""
    with FileLock(path.with_suffix(".lock")):
        if _mapped(path, shape) is None:
            with files.atomic(path) as temporary:
                np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        mapped = _mapped(path, shape)
    assert mapped is not None
    return mapped


def _mapped(path: Path, shape: tuple[int, ...] | None = None) -> np.memmap | None:
    """The stored images, or None where there is no such file, or one of another shape."""
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    good = (
        isinstance(images, np.memmap) and images.dtype == np.uint8 and (shape is None or images.shape == tuple(shape))
    )
    return images if good else None


def _sha256(path: Path, rows: Tensor) -> str | None:
    images = _mapped(path)
    if images is None or len(images) <= int(rows[-1]):
        return None
    return hashlib.sha256(images[int(rows[0]) : int(rows[-1]) + 1].tobytes()).hexdigest()


def _check(task: _Task, *, batch_size: int) -> None:
    checks.module(task.network)
    checks.labels(task.y)
    checks.index(task.index, task.y)
    if not len(task.y):
        raise ValueError("expected at least one class in y, got none")
    if len(task.index.unique()) != len(task.index):
        raise ValueError("expected an index of its own for each image, got some twice")
    checks.count(task.n_steps, "n_steps")
    checks.count(batch_size, "batch_size", minimum=1)
    checks.choice(task.energy, samplers.ENERGIES, "energy")
    checks.choice(task.precision, samplers.PRECISIONS, "precision")
    stop = checks.choice(task.rule["stop"], samplers.STOPS, "stop")
    if (stop == "steps") != (task.targets is None):
        given = "none" if task.targets is None else "some"
        raise ValueError(
            f"expected targets (K,) exactly where chains stop at an energy, got {given} with stop {stop!r}"
        )
    if task.targets is not None and (task.targets.ndim != 1 or len(task.targets) <= int(task.y.max())):
        got = f"{tuple(task.targets.shape)} and classes up to {int(task.y.max())}"
        raise ValueError(f"expected targets (K,), one energy for each class, got {got}")


# A few chains, watched ----------------------------------------------------------------------------------------------


def trajectory(
    network: nn.Module,
    start: Start,
    *,
    y: Tensor,
    index: Tensor,
    seed: int,
    energy: str,
    step_size: float,
    momentum: float,
    noise_std: float,
    n_steps: int,
    gradient: samplers.Gradient,
    stop: samplers.Stop,
    targets: Tensor | None,
    tolerance: float | None = None,
    max_step: float | None = None,
    max_gradient: float | None = None,
    precision: samplers.Precision = "float32",
    picture_steps: Sequence[int] = (),
) -> dict[str, np.ndarray]:
    """The chains that `generate` runs for the same arguments, in one batch, with their energies at every step.

    Arrays: `step` (T,), from 0 to n_steps, or to where the last chain froze; `joint`, `marginal`, `cross_entropy`
    (T, N) float32, E(x_k, y), E(x_k) and their difference, before rounding to uint8; `picture_step` (P,), those of
    `picture_steps` that were reached, and `pictures` (P, N, C, H, W) uint8 there; `y`, `index` (N,).
    """
    rule = {
        "step_size": step_size, "momentum": momentum, "noise_std": noise_std, "gradient": gradient, "stop": stop,
        "tolerance": tolerance, "max_step": max_step, "max_gradient": max_gradient,
    }  # fmt: skip
    task = _Task(network, start, y, index, seed, energy, precision, n_steps, targets, rule)
    _check(task, batch_size=len(y))
    wanted = {checks.count(k, "picture_steps", maximum=n_steps) for k in picture_steps}
    rows = torch.arange(len(y))
    x, classes = _first(task, rows)
    seen: list[dict[str, np.ndarray]] = []
    pictures: dict[int, np.ndarray] = {}

    def watch(k: int, x_k: Tensor, _: Tensor) -> None:
        logits = attack_losses.logits_of(network, x_k)
        seen.append({name: f(logits, classes).cpu().numpy() for name, f in samplers.ENERGIES.items()})
        if k in wanted:
            pictures[k] = pixels(x_k).cpu().numpy()

    function = samplers.energy_of(network, energy, precision=precision)
    with torch.no_grad():
        samplers.sgld(function, x, classes, n_steps=n_steps, callback=watch, **_chain_keywords(task, classes, rows))
    return {
        "step": np.arange(len(seen)),
        **{name: np.stack([row[name] for row in seen]) for name in samplers.ENERGIES},
        "picture_step": np.array(sorted(pictures), dtype=np.int64),
        "pictures": np.stack([pictures[k] for k in sorted(pictures)])
        if pictures
        else np.zeros((0, *x.shape), np.uint8),
        "y": y.cpu().numpy(),
        "index": index.cpu().numpy(),
    }
