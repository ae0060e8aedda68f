"""One step of training: a batch's images, the objective on them, its gradient, the optimiser's step.

Where several processes train (`distributed`), each takes its share of the batch and all make the same step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from helpers import augment, distributed, jem, objectives, seeds
from helpers.data import ImageSet
from helpers.training_state import Run


@dataclass(frozen=True)
class Place:
    """Where a step stands: the recipe's entry, the training's seed, the epoch from 0, steps in an epoch."""

    entry: Mapping[str, Any]
    seed: int
    epoch: int
    per_epoch: int


def images_of(images: ImageSet, rows: Tensor, *, entry: Mapping[str, Any], seed: int, epoch: int) -> Tensor:
    """Augmented images (B, C, H, W) of some rows, float32 in [0, 1]."""
    given: dict[str, Any] = {"seed": seed, "index": images.index[rows], "epoch": epoch}
    pixels = augment.augment(entry.get("augment") or "none", images.pixels[rows], **given)
    return (pixels.float() / 255).contiguous(memory_format=torch.channels_last)


def _outcome(run: Run, seen: nn.Module, rows: tuple[Tensor, ...], images: ImageSet, place: Place) -> objectives.Outcome:
    """The objective on these rows: those that are classified and, of JEM, those that p(x) sees."""
    entry, epoch = place.entry, place.epoch
    index, y = images.index[rows[0]], images.labels[rows[0]]
    if run.memory is None:
        x = images_of(images, rows[0], entry=entry, seed=place.seed, epoch=epoch)
        given: dict[str, Any] = {"seed": place.seed, "index": index, "epoch": epoch}
        return objectives.evaluate(seen, x, y, entry=entry, progress=run.step / place.per_epoch, **given)
    own, other = run.memory.seed, seeds.derived(run.memory.seed, "p(x)") % 2**32
    batch = jem.Batch(
        images_of(images, rows[0], entry=entry, seed=own, epoch=epoch), y, index,
        images_of(images, rows[1], entry=entry, seed=other, epoch=epoch), images.index[rows[1]],
    )  # fmt: skip
    return jem.evaluate(seen, batch, run.memory, entry=entry, epoch=epoch, step=run.step)


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


def _loss(outcome: objectives.Outcome, n: int) -> Tensor:
    """This process's part of the mean loss over a batch of n."""
    return outcome.loss.mean() if len(outcome.loss) == n else outcome.loss.sum() / n


def _sums(outcome: objectives.Outcome) -> dict[str, float]:
    """What a step adds to the epoch's sums: loss, wrong and each term, in sum over the images, and their number."""
    n = len(outcome.loss)
    found = {"loss": outcome.loss.mean().item() * n, "wrong": int(outcome.wrong.sum()), "images": n}
    return found | {f"term {name}": float(term.sum()) for name, term in outcome.terms.items()}


def step(run: Run, seen: nn.Module, rows: tuple[Tensor, ...], images: ImageSet, place: Place) -> float:
    """One step of the optimiser on these rows of `images`, the whole batch's; returns its mean loss.

    `seen` is the run's network, perhaps in bfloat16. Raises FloatingPointError where loss or gradient are not finite,
    divergence.Diverged where a training of JEM goes wrong.
    """
    seen.train()
    n = len(rows[0])
    outcome = _outcome(run, seen, tuple(distributed.share(some) for some in rows), images, place)
    run.optimizer.zero_grad(set_to_none=True)
    _loss(outcome, n).backward()
    distributed.add_gradients(run.network)
    sums = distributed.added(_sums(outcome))
    value, norm = sums["loss"] / n, _gradient_norm(run.network).item()
    for what, number in (("training loss", value), ("gradient norm", norm)):
        if number - number != 0:  # NaN or infinite
            raise FloatingPointError(f"{what} is {number} at step {run.step + 1} (epoch {place.epoch + 1})")
    if run.memory is not None:
        jem.watched(run.memory, outcome, norm)
    run.optimizer.step()
    run.step += 1
    if run.average is not None:
        _follow(run.average, run.network, decay=place.entry["ema"])
    parts = {**sums, "gradient": norm, "steps": 1}
    run.sums = {name: run.sums.get(name, 0.0) + part for name, part in parts.items()}
    return value
