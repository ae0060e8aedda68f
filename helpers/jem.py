"""The joint energy-based model: JEM (Grathwohl et al., 2020), JEM++ (Yang, Su & Ji, 2021), and its robust variant.

A classifier f is trained as one and as a model of the images, log p(x, y) = log p(y|x) + log p(x):

    L = w_clf · CE + w_px · ( E(x_d) − E(x_q) ),      E(x) = −log Σ_k exp f(x)[k]

x_d are data, x_q ends of chains that descend the energy from a replay buffer (`replay_buffer`, `proximal`); the
difference is the contrastive estimate of −∇ log p(x). CE is taken on a second, separate batch, by `clf_input`

    clean   CE(x, y)          JEM, JEM++
    adv     CE(x*, y)         the robust variant (Korst & Asadulaev, 2022), x* by CE-PGD on the noised images
    both    CE(x, y) + CE(x*, y)

so that p(x) sees data and never attacked images. Both batches carry Gaussian noise, clipped to the range, from streams
of their own. With ε = 0 "adv" is "clean" bit for bit.

Batch norm by `batch_norm_policy`, the names of the public code: with "alltrain1" E(x_d) is taken before the chains
run and with "alltrain2" after, all in training mode; with "eval" chains and both energies of p(x) see eval mode. The
first two differ in the running averages only, so not in the gradient. Attacks use their batch's statistics and leave
no trace (the public code has no attack). Numbers that the papers print for images in [−1, 1] end in `_pm1` in a recipe
and are converted here, once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helpers import (
    attack_losses,
    batch_norm,
    checkpoints,
    checks,
    context,
    energies,
    initialisers,
    losses,
    noise,
    pgd,
    proximal,
    samplers,
    starts,
)
from helpers.data import ImageSet, from_tensors
from helpers.divergence import Limits, Step, Watch
from helpers.objectives import Outcome, attack_settings
from helpers.replay_buffer import ReplayBuffer

OBJECTIVE = "jem"  # in a recipe
BUFFER = "buffer.safetensors"
CLF_INPUTS = ("clean", "adv", "both")
POLICIES = ("alltrain1", "alltrain2", "eval")
SATURATED = 5 / 255  # a pixel value nearer than this to an end of the range
FILL_BATCH = 500


# Settings of a recipe -----------------------------------------------------------------------------------------------


def sampler_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """step_size, max_gradient (None: no clamp), noise_std and n_steps of a recipe's chains, in [0, 1].

    One step stands for `chain_n_inner_steps` of PYLD, which it equals (`proximal`), by `step_convention`.

    >>> entry = {"chain_n_steps": 10, "chain_n_inner_steps": 5, "chain_step_size_pm1": 0.2, "chain_noise_std_pm1": 0.0,
    ...     "chain_max_gradient_pm1": 1.0, "step_convention": "train"}
    >>> sampler_settings(entry)
    {'step_size': 0.25, 'noise_std': 0.0, 'max_gradient': 2.0, 'n_steps': 10}
    """
    step = proximal.outer_step_size(
        entry["step_convention"],
        step_size=entry["chain_step_size_pm1"],
        n_inner_steps=entry["chain_n_inner_steps"],
        full_step_size=0.0,
    )
    published = {"step_size": step, "noise_std": entry["chain_noise_std_pm1"]}
    if entry["chain_max_gradient_pm1"] is not None:
        published["max_gradient"] = entry["chain_max_gradient_pm1"]
    found: dict[str, Any] = {"max_gradient": None, **proximal.in_unit_range(**published)}
    return {name: found[name] for name in ("step_size", "noise_std", "max_gradient")} | {
        "n_steps": checks.count(entry["chain_n_steps"], "chain_n_steps")
    }


def start_of(entry: Mapping[str, Any], images: ImageSet) -> starts.Start:
    """Where a recipe's chains begin: `chain_start`, fitted on its training images, with JEM++'s jitter."""
    start = initialisers.fit(entry["chain_start"], images, folder=None)
    if isinstance(start, starts.ClassGaussian):
        return dataclasses.replace(start, jitter_std=starts.JEMPP_JITTER_STD)
    return start


# What is kept from step to step -------------------------------------------------------------------------------------


def stream_seed(seed: int, stream: int) -> int:
    """Seed of the noise of stream k of a training, below 2³²; stream 0 is the seed itself.

    >>> stream_seed(3, 0), stream_seed(3, 1) != stream_seed(3, 2)
    (3, True)
    """
    if stream == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/stream {stream}".encode()).digest()[:4], "little")


@dataclass
class Memory:
    """What a training remembers: the replay buffer, the watch over divergence, the number of the noise stream."""

    buffer: ReplayBuffer
    watch: Watch
    stream: int
    seed: int

    @classmethod
    def begun(cls, entry: Mapping[str, Any], images: ImageSet, *, seed: int, stream: int = 0) -> Memory:
        """That of a training's first step: a buffer filled from the start, on the images' device."""
        n_slots = entry["buffer_n_per_class"] * images.num_classes
        if entry["batch_size"] > n_slots:
            raise ValueError(
                f"expected batch_size to be at most the {n_slots} images of the replay buffer (buffer_n_per_class for "
                f"{images.num_classes} classes), got {entry['batch_size']}"
            )
        own = stream_seed(seed, stream)
        buffer = ReplayBuffer.filled(
            start_of(entry, images), num_classes=images.num_classes, n_per_class=entry["buffer_n_per_class"],
            reinit_freq=entry["reinit_freq"], seed=own, device=images.labels.device, batch_size=FILL_BATCH,
        )  # fmt: skip
        return cls(buffer, Watch(Limits.of(entry, num_classes=images.num_classes)), stream, own)

    def on_stream(self, stream: int, *, seed: int) -> Memory:
        """The same images, gone on with under other noise; the watch begins anew. `seed` is the training's."""
        own, kept = stream_seed(seed, stream), self.buffer
        again = ReplayBuffer.restored(
            kept.state(), start=kept.start, num_classes=kept.num_classes, reinit_freq=kept.reinit_freq, seed=own,
            device=kept.images.device,
        )  # fmt: skip
        return Memory(again, Watch(self.watch.limits), stream, own)

    def tensors(self) -> dict[str, Tensor]:
        """What changes, for a checkpoint; the rest is in `facts`."""
        return self.buffer.state()

    def facts(self) -> dict[str, Any]:
        """What changes and is no tensor."""
        return {"stream": self.stream, "watch": self.watch.facts()}

    def restored(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, seed: int) -> Memory:
        """The memory of a checkpoint of the same recipe and `seed`, of whose training this one is the beginning."""
        again = self.on_stream(facts["stream"], seed=seed)
        again.buffer = ReplayBuffer.restored(
            tensors, start=self.buffer.start, num_classes=self.buffer.num_classes, reinit_freq=self.buffer.reinit_freq,
            seed=again.seed, device=self.buffer.images.device,
        )  # fmt: skip
        again.watch = Watch.restored(self.watch.limits, facts["watch"])
        return again


# The objective ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """One step's images: `x` (B, C, H, W) with labels `y` (B,), and `data` (B, C, H, W) of p(x); their `index`es."""

    x: Tensor
    y: Tensor
    index: Tensor
    data: Tensor
    data_index: Tensor


def noised(x: Tensor, *, std: float, seed: int, purpose: str, index: Tensor, epoch: int) -> Tensor:
    """clip(x + σ ξ) in [0, 1], ξ keyed by (seed, purpose, image, epoch); x itself where σ = `std` is 0."""
    if std == 0:
        return x
    key = noise.Key(seed, f"train/noise/{purpose}", index, epoch)
    return (x + std * key.normal(x.shape[1:], dtype=x.dtype)).clamp(0, 1)


@contextmanager
def _modelling(network: nn.Module, policy: str) -> Iterator[None]:
    """The network as p(x) sees it under a batch-norm policy."""
    with context.eval_mode(network) if policy == "eval" else nullcontext():
        yield


def _energy(network: nn.Module, name: str) -> samplers.Energy:
    """The energy of a network in the mode that it is in."""
    function = samplers.ENERGIES[name]
    return lambda x, y: function(network(x), y)


def chains(network: nn.Module, memory: Memory, n: int, *, entry: Mapping[str, Any], step: int) -> Tensor:
    """Ends x_q (n, C, H, W) of chains from the buffer, written back to it; no gradient flows through them."""
    drawn = memory.buffer.draw(n)
    key = noise.Key(memory.seed, f"train/chains/step {step}", drawn.slots)
    settings = sampler_settings(entry)
    with _modelling(network, entry["batch_norm_policy"]), context.frozen(network):
        x = samplers.sgld(
            _energy(network, entry["chain_energy"]), drawn.x, drawn.y, **settings, momentum=0.0, gradient="plain",
            key=key,
        )  # fmt: skip
    memory.buffer.write(drawn.slots, x)
    return x


def _contrast(
    network: nn.Module, x: Tensor, memory: Memory, *, entry: Mapping[str, Any], step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """E(x_d), E(x_q), (B,) each with gradients, and x_q."""
    policy = checks.choice(entry["batch_norm_policy"], POLICIES, "batch_norm_policy")

    def energy(points: Tensor) -> Tensor:
        with _modelling(network, policy):
            return energies.marginal(network(points))

    before = energy(x) if policy == "alltrain1" else None
    x_q = chains(network, memory, len(x), entry=entry, step=step)
    return (energy(x) if before is None else before), energy(x_q), x_q


def attacked(
    network: nn.Module, x: Tensor, y: Tensor, *, entry: Mapping[str, Any], seed: int, index: Tensor, epoch: int
) -> Tensor:
    """x* (B, C, H, W): the last iterate of CE-PGD as the recipe says, with each batch's own statistics."""

    def loss(points: Tensor, labels: Tensor) -> attack_losses.LossValue:
        logits = network(points)
        return attack_losses.LossValue(losses.cross_entropy(logits, labels), logits.argmax(1) != labels)

    given: dict[str, Any] = {name: entry.get(name) for name in ("n_steps", "start", "start_std")}
    given |= attack_settings(entry)
    with batch_norm.own_statistics(network), context.frozen(network):
        return pgd.pgd(
            loss, x, y, **given, n_restarts=1, returns="last", seed=seed, index=index,
            purpose=f"train/attack/epoch {epoch}",
        )  # fmt: skip


def _classified(network: nn.Module, x: Tensor, y: Tensor, attack: Callable[[], Tensor], clf_input: str) -> Any:
    """CE (B,) by `clf_input`, and the logits of its last term."""
    seen = {"clean": lambda: [x], "adv": lambda: [attack()], "both": lambda: [x, attack()]}
    logits = [network(points) for points in seen[checks.choice(clf_input, CLF_INPUTS, "clf_input")]()]
    return torch.stack([losses.cross_entropy(f, y) for f in logits]).sum(0), logits[-1]


def _saturated(x: Tensor) -> Tensor:
    """Share of pixel values at an end of the range, (B,) in %."""
    return 100 * ((x < SATURATED) | (x > 1 - SATURATED)).flatten(1).float().mean(1)


def evaluate(
    network: nn.Module, batch: Batch, memory: Memory, *, entry: Mapping[str, Any], epoch: int, step: int
) -> Outcome:
    """The objective on one batch, (B,); gradients flow into the network's parameters, chains go on in `memory`.

    `terms` of the outcome: energy_data E(x_d), energy_chain E(x_q), energy_gap, classification_loss (nat),
    chain_saturation and data_saturation (%), chain_std, each (B,). The network stays in its mode, which is training.
    """
    noise_std = proximal.in_unit_range(noise_std=entry["data_noise_std_pm1"])["noise_std"]
    shared: dict[str, Any] = {"std": noise_std, "seed": memory.seed, "epoch": epoch}
    data = noised(batch.data, **shared, purpose="p(x)", index=batch.data_index)
    x = noised(batch.x, **shared, purpose="p(y|x)", index=batch.index)
    energy_data, energy_chain, x_q = _contrast(network, data, memory, entry=entry, step=step)

    def attack() -> Tensor:
        return attacked(network, x, batch.y, entry=entry, seed=memory.seed, index=batch.index, epoch=epoch)

    classification, logits = _classified(network, x, batch.y, attack, entry["clf_input"])
    gap = energy_data - energy_chain
    loss = entry["p_x_weight"] * gap + entry["p_y_given_x_weight"] * classification
    terms = {
        "energy_data": energy_data, "energy_chain": energy_chain, "energy_gap": gap,
        "classification_loss": classification, "chain_saturation": _saturated(x_q), "data_saturation": _saturated(data),
        "chain_std": x_q.flatten(1).std(1),
    }  # fmt: skip
    return Outcome(loss, logits.argmax(1) != batch.y, {name: value.detach() for name, value in terms.items()})


def watched(memory: Memory, outcome: Outcome, gradient: float) -> None:
    """Tell the watch of a step with this outcome and norm of the gradient; raises divergence.Diverged."""
    mean = {name: float(value.mean()) for name, value in outcome.terms.items()}
    memory.watch.see(
        Step(
            gap=mean["energy_gap"],
            saturation=mean["chain_saturation"] - mean["data_saturation"],
            gradient=gradient,
            classification=mean["classification_loss"],
        )
    )


def gradient_norms(network: nn.Module, x: Tensor) -> Tensor:
    """‖∇ₓE(x)‖₂ of each image, (B,); the network in the mode that it is in."""
    with context.frozen(network), torch.enable_grad():
        points = x.detach().requires_grad_()
        slope = torch.autograd.grad(energies.marginal(network(points)).sum(), points)[0]
    return slope.flatten(1).norm(dim=1)


def followed(network: nn.Module, memory: Memory, probe: ImageSet) -> dict[str, float]:
    """At an epoch's end: mean ‖∇ₓE‖₂ of the network, as it is, at the probe and at as many images of the buffer."""
    slots = torch.linspace(0, len(memory.buffer) - 1, len(probe)).long()
    at = {"chain": memory.buffer.images[slots.to(memory.buffer.images.device)], "data": probe.images()}
    return {f"{name}_gradient_norm": float(gradient_norms(network, x).double().mean()) for name, x in at.items()}


# The buffer of a finished training ----------------------------------------------------------------------------------


def keep(memory: Memory, folder: Path) -> None:
    """Write the buffer's images, as uint8, beside the weights of a finished training."""
    pixels = (memory.buffer.images * 255 + 0.5).floor().to(torch.uint8)
    facts = {"num_classes": memory.buffer.num_classes, "stream": memory.stream}
    checkpoints.save(folder / BUFFER, {"pixels": pixels}, facts)


def buffer_in(folder: Path, like: ImageSet) -> ImageSet:
    """The images that `keep` wrote, as a data set with the classes of `like`: slot s is of class s div n.

    Raises ValueError that names the file where it is missing or damaged.
    """
    path = folder / BUFFER
    if not path.exists():
        raise ValueError(
            f"expected the replay buffer of a network trained with objective {OBJECTIVE} at {path}, got none"
        )
    tensors, facts = checkpoints.load(path)
    pixels, k = tensors["pixels"], int(facts["num_classes"])
    labels = torch.arange(len(pixels)) // (len(pixels) // k)
    return from_tensors(pixels, labels, classes=like.classes, name="replay buffer", split="train")
