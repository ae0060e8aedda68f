"""What is raced in `11_performance`: a `Contest` for each row, our way first, then the plain ways and the peers.

    row             one item of its work
    attack_step     one step of L∞-PGD on one image, untrained network
    pgd_<n>         the verdict on one image under PGD of n steps, robust network
    autoattack      the same under AutoAttack standard
    chain           one step of a class-conditional chain on one image, from uniform noise
    class_gaussian  one image drawn from the normal law of a class
    class_pca       one image drawn from the principal components of a class
    corruptions     one image corrupted once
    training        one image in one epoch of adversarial training, untrained network

Every way of a row has the same weights, images, radius, steps and threads. Attacks by others get the network with its
batch norm as layers of its own, which is how their users have it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import (
    attacks,
    autoattack,
    corruptions,
    data,
    halved,
    initialisers,
    metrics,
    models,
    noise,
    parameters,
    peers,
    plain_ways,
    samplers,
    starts,
    training_state,
    training_step,
    verdicts,
    zoo,
)  # fmt: skip
from helpers.contest import Contest
from helpers.interleaved import Way

__all__ = ["KNOBS", "ROWS", "Contest", "Setting", "ensemble", "of", "ours", "prepared"]

# The notebook's parameters that rows take, by name.
KNOBS = (
    "robust_network", "speed_rows", "speed_architecture", "speed_width", "speed_depth", "rounds", "epsilon_255",
    "step_radii", "step_n_images", "batch_size", "n_images", "ensemble_n_images", "n_chains", "sample_n_steps",
    "n_generated", "single_n_images", "retained_variance", "pca_spread", "corruption_names",
    "corruption_profile", "severities", "corrupted_n_images", "train_batch_size", "inner_n_steps", "batch_sizes",
    "step_counts", "seed",
)  # fmt: skip

OURS, HALVED = "ours", "ours, bfloat16"  # gradients alone; verdicts and last energies are float32's
STEPS_AT_ONCE = 5  # of an attack whose single step is timed: its start is shared between them
CHAIN = {"step_size": 0.25, "noise_std": 0.005}  # of JEM++ in [0, 1]; what a step costs does not depend on them
TRAINING = {
    "objective": "madry", "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
    "schedule": "constant", "epochs": 1, "augment": "crop_flip", "ema": 0, "attack_norm": "linf", "start": "uniform",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What all rows share: the notebook's parameters by name, device, images, networks."""

    values: Mapping[str, Any]
    profile: str
    device: torch.device
    train: data.ImageSet
    test: data.ImageSet
    robust: models.Network
    untrained: models.Network

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.test.shape

    def ball(self) -> dict[str, Any]:
        """Radius and step of the attacks, in [0, 1]."""
        epsilon = self.values["epsilon_255"] / 255
        return {"epsilon": epsilon, "step_size": epsilon * self.values["step_radii"]}

    def some(self, k: int, n: int) -> data.ImageSet:
        """The k-th n test images, round the set where it ends."""
        rows = torch.arange(k * n, (k + 1) * n) % len(self.test)
        return self.test.subset(rows.to(self.device))


def prepared(values: Mapping[str, Any], profile: str, device: torch.device) -> Setting:
    """Images and networks of the rows, on `device`."""
    name = values["robust_network"]
    sets = [zoo.dataset(name, profile=profile, split=split).to(device) for split in ("train", "test")]
    c, h, _ = sets[0].shape
    torch.manual_seed(values["seed"])
    untrained = models.build(
        values["speed_architecture"], num_classes=sets[0].num_classes, in_channels=c, image_size=h,
        width=values["speed_width"], depth=values["speed_depth"],
    )  # fmt: skip
    robust = zoo.get(name, profile=profile, seed=zoo.seeds(name, profile=profile)[0], device=device)
    return Setting(values, profile, device, sets[0], sets[1], robust.eval(), untrained.to(device).eval())


def _right(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return metrics.predictions(network, x, batch_size=len(x)).to(y.device).argmax(1) == y


# Attacks ------------------------------------------------------------------------------------------------------------


def _attackers(s: Setting, network: nn.Module, n_steps: int) -> dict[str, Callable[[], peers.Attack]]:
    """The plain way and the peers, each made when it is asked for."""
    theirs = plain_ways.layered(network)
    given: dict[str, Any] = {**s.ball(), "n_steps": n_steps}
    more = {"shape": s.shape, "num_classes": s.test.num_classes}
    found: dict[str, Callable[[], peers.Attack]] = {
        "plain loop": lambda: lambda x, y: plain_ways.pgd(theirs, x, y, **given)
    }
    return found | {name: partial(make, theirs, **given, **more) for name, make in peers.ATTACKS.items()}


def _attack_step(s: Setting) -> Contest:
    n, network = s.values["step_n_images"], s.untrained
    images = s.some(0, n)
    x, y = images.images(), images.labels
    given: dict[str, Any] = {"norm": "linf", "start": "uniform", "n_restarts": 1, "returns": "last"}
    given |= {**s.ball(), "n_steps": STEPS_AT_ONCE, "seed": s.values["seed"], "index": images.index}

    def ours(k: int, seen: nn.Module = network) -> None:
        attacks.pgd(attacks.cross_entropy(seen), x, y, **given)

    items = float(n * STEPS_AT_ONCE)
    contest = Contest("image and step", {OURS: Way(ours, items)}, work=lambda: ours(0), work_items=items)
    contest.ways[HALVED] = Way(partial(ours, seen=halved.InBfloat16(network, s.device)), items)
    makes = _attackers(s, network, STEPS_AT_ONCE)
    own = peers.ATTACKS["torchattacks"]
    makes["torchattacks, batch norm folded"] = lambda: own(network, **s.ball(), n_steps=STEPS_AT_ONCE)
    for name, make in makes.items():
        contest.invited[name] = partial(_searching, make, x, y, items)
    return contest


def _searching(make: Callable[[], peers.Attack], x: Tensor, y: Tensor, items: float) -> Way:
    attack = make()

    def run(k: int) -> None:
        attack(x, y)

    return Way(run, items)


def _judging(s: Setting, attack: Callable[..., Tensor], n: int, *, keyed: bool = False) -> Way:
    """An attack that returns points, and the verdicts on them, in batches; each round has images of its own.

    `keyed`: it takes the images' places in their data set too.
    """

    def run(k: int) -> Tensor:
        images, size = s.some(k, n), s.values["batch_size"]
        found = []
        for rows in torch.arange(n, device=s.device).split(size):
            x, y = images.images(rows), images.labels[rows]
            x_adv = attack(x, y, images.index[rows]) if keyed else attack(x, y)
            found.append(_right(s.robust, x, y) & _right(s.robust, x_adv, y))
        return torch.cat(found)

    return Way(run, n)


def _judged(s: Setting, make: Callable[[], peers.Attack], n: int) -> Way:
    return _judging(s, make(), n)


def _pgd(s: Setting, n_steps: int) -> Contest:
    n = max(1, s.values["n_images"] // s.values["rounds"])
    given: dict[str, Any] = {**s.ball(), "norm": "linf", "n_steps": n_steps, "n_restarts": 1, "seed": s.values["seed"]}

    def ours(k: int, precision: verdicts.Precision = "float32") -> Tensor:
        images, size = s.some(k, n), s.values["batch_size"]
        return verdicts.standing(
            s.robust, images.images(), images.labels, index=images.index, batch_size=size, precision=precision, **given
        )

    def plain(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        return attacks.run("pgd_ce", s.robust, x, y, returns="first_success", index=index, batch_size=len(x), **given)

    contest = Contest("image", {OURS: Way(ours, n)}, work=lambda: ours(0), work_items=n)
    contest.ways[HALVED] = Way(partial(ours, precision="bfloat16"), n)
    contest.ways["ours, plain"] = _judging(s, plain, n, keyed=True)
    for name, make in _attackers(s, s.robust, n_steps).items():
        contest.invited[name] = partial(_judged, s, make, n)
    return contest


def ensemble(s: Setting, k: int, precision: verdicts.Precision = "float32") -> autoattack.Evaluation:
    """AutoAttack standard on the images of round k."""
    images = s.some(k, max(1, s.values["ensemble_n_images"] // s.values["rounds"]))
    return autoattack.standard(
        s.robust, images.images(), images.labels, norm="linf", epsilon=s.ball()["epsilon"], seed=s.values["seed"],
        index=images.index, batch_size=s.values["batch_size"], precision=precision,
    )  # fmt: skip


def _autoattack(s: Setting) -> Contest:
    n, size = max(1, s.values["ensemble_n_images"] // s.values["rounds"]), s.values["batch_size"]

    def ours(k: int, precision: verdicts.Precision = "float32") -> Tensor:
        return ensemble(s, k, precision).robust

    contest = Contest("image", {OURS: Way(ours, n), HALVED: Way(partial(ours, precision="bfloat16"), n)}, warm=False)
    theirs = plain_ways.layered(s.robust).eval()
    make = partial(peers.autoattack, theirs, epsilon=s.ball()["epsilon"], batch_size=size)
    contest.invited["AutoAttack"] = partial(_judged, s, make, n)
    return contest


# Chains and their starts --------------------------------------------------------------------------------------------


def _chain(s: Setting) -> Contest:
    n, v = s.values["n_chains"], s.values
    y = torch.arange(n, device=s.device) % s.test.num_classes
    key = noise.Key(v["seed"], "speed", torch.arange(n, device=s.device)).tabled()
    start = starts.Uniform(shape=s.shape, num_classes=s.test.num_classes)
    rule: dict[str, Any] = CHAIN | {"n_steps": v["sample_n_steps"]}

    def ours(k: int, precision: samplers.Precision = "float32") -> None:
        energy = samplers.energy_of(s.robust, "joint", precision=precision)
        samplers.sgld(energy, start.draw(y, key), y, momentum=0.0, gradient="plain", key=key, **rule)

    items = float(n * v["sample_n_steps"])
    contest = Contest("image and step", {OURS: Way(ours, items)}, work=lambda: ours(0), work_items=items)
    contest.ways[HALVED] = Way(partial(ours, precision="bfloat16"), items)
    theirs = plain_ways.layered(s.robust).eval()
    for name, make in peers.CHAINS.items():
        contest.invited[name] = partial(_chaining, partial(make, theirs, shape=s.shape, **rule), y, items)
    return contest


def _chaining(make: Callable[[], peers.Chain], y: Tensor, items: float) -> Way:
    chain = make()

    def run(k: int) -> None:
        chain(y)

    return Way(run, items)


def _drawing(s: Setting, start: starts.Start, single: Callable[[Tensor], Tensor]) -> Contest:
    """A start that draws all images at once beside one that draws them singly, of which fewer are drawn."""
    n, few, classes = s.values["n_generated"], s.values["single_n_images"], s.test.num_classes
    y = torch.arange(n, device=s.device) % classes
    key = noise.Key(s.values["seed"], "speed", torch.arange(n, device=s.device)).tabled()

    def ours(k: int) -> None:
        start.draw(y, key.at(k))

    def singly(k: int) -> None:
        single(torch.arange(few, device=s.device) % classes)

    ways = {OURS: Way(ours, n), "one at a time": Way(singly, few)}
    return Contest("image", ways, work=lambda: ours(0), work_items=n)


def _class_gaussian(s: Setting) -> Contest:
    start = initialisers.fit("class_gaussian", s.train, folder=None)
    assert isinstance(start, starts.ClassGaussian)
    laws = plain_ways.gaussians(start.pixels, jitter_std=start.jitter_std, device=s.device)
    return _drawing(s, start, lambda y: plain_ways.class_gaussian(laws, y, s.shape))


def _class_pca(s: Setting) -> Contest:
    folder = parameters.ROOT / "figures" / s.profile / "starts"
    options = {name: s.values[name] for name in ("retained_variance", "pca_spread")}
    start = initialisers.fit("class_pca", s.train, folder=folder, **options)
    mean, directions, counts = (getattr(start, name) for name in ("mean", "directions", "n_components"))
    return _drawing(s, start, lambda y: plain_ways.class_pca(mean, directions, counts, y, s.shape))


# Corruptions and training -------------------------------------------------------------------------------------------


def _corruptions(s: Setting) -> Contest:
    n, v = s.values["corrupted_n_images"], s.values
    images = s.some(0, n)
    x, every = images.images(), [(name, severity) for name in v["corruption_names"] for severity in v["severities"]]
    given: dict[str, Any] = {"profile": v["corruption_profile"], "seed": v["seed"], "index": images.index}

    def ours(k: int) -> None:
        for name, severity in every:
            corruptions.corrupt(name, x, severity=severity, **given)

    items = float(n * len(every))
    contest = Contest("image and corruption", {OURS: Way(ours, items)}, work=lambda: ours(0), work_items=items)
    contest.invited["imagecorruptions"] = lambda: _spoiling(s, images, every, items)
    return contest


def _spoiling(s: Setting, images: data.ImageSet, every: list[tuple[str, int]], items: float) -> Way:
    if s.shape[0] != 3 or s.shape[1] < 32:
        raise peers.Absent(f"made for colour images of at least 32 pixels, not {s.shape}")
    spoil = peers.corruption()
    pixels = [np.ascontiguousarray(one) for one in images.pixels.permute(0, 2, 3, 1).cpu().numpy()]

    def run(k: int) -> None:
        for name, severity in every:
            for one in pixels:
                spoil(name, severity, one)

    return Way(run, items)


def _training(s: Setting) -> Contest:
    v, n = s.values, s.values["train_batch_size"]
    entry = TRAINING | {"epsilon_255": v["epsilon_255"], "step_size_255": v["epsilon_255"] * v["step_radii"]}
    entry |= {"n_steps": v["inner_n_steps"], "batch_size": n}
    rows = torch.arange(n, device=s.device)
    contest = Contest("image", {OURS: _fitting(s, entry | {"precision": "bfloat16"}, rows)})
    contest.ways["ours, float32"] = _fitting(s, entry | {"precision": "float32"}, rows)
    contest.work, contest.work_items = (lambda: contest.ways["ours, float32"].run(0)), n
    images = s.train.subset(rows)
    x, y = images.images(), images.labels
    theirs = plain_ways.layered(s.untrained)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def plain(k: int) -> None:
        plain_ways.training_step(theirs, optimizer, x, y, **s.ball(), n_steps=v["inner_n_steps"])

    contest.ways["plain loop"] = Way(plain, n)
    return contest


def _fitting(s: Setting, entry: dict[str, Any], rows: Tensor) -> Way:
    """Steps of our training loop on the same rows, from the untrained weights."""
    run = training_state.begun(entry, copy.deepcopy(s.untrained), memory=None)
    seen = halved.InBfloat16(run.network, s.device) if entry["precision"] == "bfloat16" else run.network
    place = training_step.Place(entry, s.values["seed"], 0, 1)

    def step(k: int) -> None:
        training_step.step(run, seen, (rows,), s.train, place)

    return Way(step, len(rows))


ROWS: dict[str, Callable[[Setting], Contest]] = {
    "attack_step": _attack_step, "autoattack": _autoattack, "chain": _chain, "class_gaussian": _class_gaussian,
    "class_pca": _class_pca, "corruptions": _corruptions, "training": _training,
}  # fmt: skip


def ours(row: str, setting: Setting, way: str = OURS) -> Callable[[int], Tensor | None]:
    """A round of one of our own ways of a row, no peer invited to it."""
    return _made(row, setting).ways[way].run


def of(row: str, setting: Setting) -> Contest:
    """The contest of a row, one of `ROWS` or pgd_<n>, with the peers that are there."""
    return _made(row, setting).gathered()


def _made(row: str, setting: Setting) -> Contest:
    if row.startswith("pgd_"):
        return _pgd(setting, int(row.removeprefix("pgd_")))
    return ROWS[row](setting)
