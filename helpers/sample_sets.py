"""Independent sets of generated images, each with its scores, made in one resumable piece.

    plan       which sets a comparison of networks, starts and samplers needs
    sample_set one set: generated, scored against real images, judged class by class, then left but for its first images

Set k is drawn by the network of seed k (of its seeds in turn, where it has fewer) with noise of its own: image i of set
k has the index k·N + i, so that sets share nothing and methods share, image by image, start noise and chain noise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import checks, extractors, generation, image_quality, initialisers, likeness, samplers, starts
from helpers.data import ImageSet
from helpers.extractors import Extractor
from helpers.image_quality import Protocol, Scores
from helpers.metrics import Estimate

KEPT = 1000  # first images of a set that are kept, for pictures and neighbours
# How a chain goes on from its start: with `momentum` ζ it moves up to 1/(1 − ζ) times as far, which "long_step" does
# without momentum; "start_only" takes no step.
SAMPLERS = ("start_only", "plain", "momentum", "long_step")


# What is made


@dataclass(frozen=True)
class Place:
    """One method that makes images: a network by its name, a start and a sampler."""

    network: str
    start: str
    sampler: str

    @property
    def key(self) -> str:
        """A name for a piece of the computation."""
        return f"{self.network}-{self.start}-{self.sampler}"


def plan(networks: Sequence[str], *, main: str, starts: Sequence[str]) -> list[Place]:
    """Every start and sampler under the network `main`; under the others the first and the last start with momentum.

    >>> [one.key for one in plan(["madry", "trades"], main="madry", starts=["uniform"])][3:]
    ['madry-uniform-long_step', 'trades-uniform-momentum']
    """
    if main not in networks:
        raise ValueError(f"expected main among the networks {list(networks)}, got {main!r}")
    places = [Place(main, start, sampler) for start in starts for sampler in SAMPLERS]
    ends = list(dict.fromkeys([starts[0], starts[-1]]))
    return places + [Place(name, start, "momentum") for name in networks if name != main for start in ends]


def steps(sampler: str, *, step_size: float, momentum: float, n_steps: int) -> dict[str, Any]:
    """step_size, momentum and n_steps of a sampler by its name (SAMPLERS), from those of the one with momentum.

    >>> steps("long_step", step_size=0.25, momentum=0.5, n_steps=9)
    {'step_size': 0.5, 'momentum': 0.0, 'n_steps': 9}
    """
    checks.choice(sampler, SAMPLERS, "sampler")
    if sampler == "start_only":
        return {"step_size": step_size, "momentum": 0.0, "n_steps": 0}
    if sampler == "long_step":
        return {"step_size": step_size / (1 - momentum), "momentum": 0.0, "n_steps": n_steps}
    return {"step_size": step_size, "momentum": momentum if sampler == "momentum" else 0.0, "n_steps": n_steps}


def drawn(number: int, *, n: int, num_classes: int) -> dict[str, Tensor]:
    """Classes `y`, in turn, and `index` of the images of set `number`, (n,) int64 each.

    >>> drawn(2, n=4, num_classes=3)
    {'y': tensor([0, 1, 2, 0]), 'index': tensor([ 8,  9, 10, 11])}
    """
    rows = torch.arange(checks.count(n, "n", minimum=1))
    return {"y": rows % num_classes, "index": checks.count(number, "number") * n + rows}


def seed_of(number: int, seeds: Sequence[int]) -> int:
    """The network's seed of set `number`: its seeds in turn.

    >>> [seed_of(k, (0, 5)) for k in range(3)]
    [0, 5, 0]
    """
    return seeds[number % len(seeds)]


def fitted(names: Sequence[str], images: ImageSet, *, folder: Path | None, **values: Any) -> dict[str, starts.Start]:
    """The starts `names` of training images, each with those of `values` that it takes (`initialisers.OPTIONS`)."""
    return {name: initialisers.fit(name, images, folder=folder, **initialisers.options(name, values)) for name in names}


def judge_of(network: nn.Module, *, name: str) -> Extractor:
    """A network as a judge of images that it has not made."""
    return extractors.of_network(network, name=name)


def extractor_of(
    judge: Extractor, *, kind: str, feature: str | None, device: torch.device | str
) -> tuple[Extractor, str]:
    """The extractor of the scores and its feature: "judge", "inception", or "either".

    "inception" is downloaded once where INCEPTION_WEIGHTS names no file; "either" is Inception where that variable is
    set and the judge's penultimate layer elsewhere, so a score by it says which.
    """
    checks.choice(kind, ("judge", "inception", "either"), "extractor")
    if kind == "judge" or (kind == "either" and not os.environ.get("INCEPTION_WEIGHTS")):
        return judge, extractors.PENULTIMATE
    if feature is None:
        raise ValueError(f"expected a feature of Inception where the extractor is {kind!r}, got None")
    inception = extractors.inception(download=kind == "inception")
    inception.module.to(device)
    return inception, feature


# One set


def sample_set(
    network: nn.Module,
    start: starts.Start,
    *,
    y: Tensor,
    index: Tensor,
    seed: int,
    energy: str,
    step_size: float,
    momentum: float,
    noise_std: float,
    n_steps: int,
    batch_size: int,
    reference: ImageSet,
    extractor: Extractor,
    feature: str,
    judge: Extractor,
    folder: Path | str,
    max_gradient: float | None = None,
    precision: samplers.Precision = "float32",
    origin: starts.Start | None = None,
) -> dict[str, np.ndarray]:
    """Generate one set in `folder`, score it against `reference`, and keep what the records need of it.

    Arrays: `images` (≤ 1,000, C, H, W) uint8, the first, with their classes `y`; `joint`, `marginal` (N,) energies at
    the end; `moved` (N,), the L2 distance to the end from x_0, or from the draw of `origin`, in the pixel range;
    `agrees` (N,) bool, whether the judge sees the class asked for; `seconds` of generating; `scores` and `diversity`,
    text that `scores_of` and `diversity_of` read. Diversity is in pixels, against the same real images. `max_gradient`
    and `precision` (of the chain; energies are float32) as in `generation.generate`.
    """
    made = generation.generate(
        network, start, y=y, index=index, seed=seed, energy=energy, step_size=step_size, momentum=momentum,
        noise_std=noise_std, n_steps=n_steps, gradient="plain", stop="steps", targets=None, max_gradient=max_gradient,
        precision=precision, batch_size=batch_size, folder=folder,
    )  # fmt: skip
    found = image_quality.scores(
        made.images, reference, extractor=extractor, feature=feature, seed=seed, batch_size=batch_size,
        selection=image_quality.FRESH, families=_families(extractor),
    )  # fmt: skip
    agreed = likeness.agreement(judge, made.images, y, made_by=network, batch_size=batch_size)
    spread = likeness.diversity(made.images, y, reference, extractor=None, feature=None, batch_size=batch_size)
    return {
        "images": np.array(made.images[:KEPT]),
        "y": made.y[:KEPT],
        "joint": made.joint,
        "marginal": made.marginal,
        "moved": _moved(origin or start, made, seed=seed, batch_size=batch_size),
        "agrees": (agreed.predicted.cpu() == y.cpu()).numpy(),
        "seconds": np.array(made.seconds),
        "scores": np.array(_text(found)),
        "diversity": np.array(json.dumps(asdict(spread.overall))),
    }


def _families(extractor: Extractor) -> list[str]:
    """Every kind of score that the extractor is enough for: a file that ends early has no logits, and so no IS."""
    has_logits = extractor.logits in extractor.provides
    return [one for one in image_quality.FAMILIES if one != "inception_score" or has_logits]


def _moved(start: starts.Start, made: generation.Generated, *, seed: int, batch_size: int) -> np.ndarray:
    """‖x_N − x_0‖₂ of each image, (N,) float64: a start's draws depend on seed and index alone."""
    found = []
    for rows in torch.arange(len(made.y)).split(batch_size):
        y, index = torch.from_numpy(made.y)[rows], torch.from_numpy(made.index)[rows]
        first = generation.pixels(start.draw(y, generation.start_key(seed, index))).numpy()
        change = (made.images[rows.numpy()].astype(np.float64) - first) / 255
        found.append(np.sqrt(np.square(change).reshape(len(rows), -1).sum(axis=1)))
    return np.concatenate(found)


# Scores as text, for a piece that holds arrays only


def _text(found: Scores) -> str:
    return json.dumps(asdict(found))


def scores_of(piece: Mapping[str, np.ndarray]) -> Scores:
    """The scores in what `sample_set` returned."""
    content = json.loads(str(piece["scores"]))
    protocol = Protocol(**{**content["protocol"], "shape": tuple(content["protocol"]["shape"])})
    estimates = {name: Estimate(**one) for name, one in content["estimates"].items()}
    digests = tuple(content["images_sha256"])
    return Scores(estimates, content["reasons"], protocol, digests, content["isc_split_std"])


def diversity_of(piece: Mapping[str, np.ndarray]) -> Estimate:
    """The diversity in what `sample_set` returned."""
    return Estimate(**json.loads(str(piece["diversity"])))


def by_class(piece: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    """The first `n` kept images of each class, class after class, (K·n, C, H, W) uint8."""
    return np.concatenate(list(_each_class(piece, n)))


def _each_class(piece: Mapping[str, np.ndarray], n: int) -> Iterator[np.ndarray]:
    for k in np.unique(piece["y"]):
        rows = np.flatnonzero(piece["y"] == k)[:n]
        if len(rows) < n:
            raise ValueError(f"expected {n} images of class {k} among the {len(piece['y'])} kept, got {len(rows)}")
        yield piece["images"][rows]
