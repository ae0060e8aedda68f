"""A trained network by name and seed: from the cache, from the repository, from foreign weights, or trained now.

    python -m helpers.zoo list [profile]
    python -m helpers.zoo train <profile> <name> [--seed k]
    python -m helpers.zoo ship  <profile> <name> [--seed k]    into the repository, rounded to bfloat16

A recipe of networks.yaml and a seed have one folder, named by their hash, that holds weights.safetensors,
history.json and .npz, and card.json, which is written last: a folder with a card is finished. Before use every file
is compared with the SHA-256 in the card; what does not fit is set aside with a suffix and made again, which is said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from helpers import (
    checkpoints,
    context,
    data,
    distributed,
    files,
    foreign,
    jem,
    metrics,
    models,
    parameters,
    removal,
    shipped,
    shipping,
    train,
    training_state,
)
from helpers import history as histories
from helpers.foreign import wrap
from helpers.history import History
from helpers.messages import say
from helpers.parameters import Recipe
from helpers.provenance import provenance

__all__ = ["card", "dataset", "get", "histories_of", "history", "main", "seeds", "wrap"]

CARD, LOCK, WEIGHTS = shipped.CARD, shipped.LOCK, shipping.WEIGHTS
CARD_STEPS = 20  # PGD on the card: 20 steps, as paper 1 evaluates
BALL = ("attack_norm", "epsilon_255", "epsilon_l2", "step_size_255", "step_size_l2")
BATCH = 500


# ---- what is asked for ----


def get(name: str, *, profile: str, seed: int = 0, device: torch.device | str = "cpu") -> models.Network:
    """The network `name` of params/<profile>/networks.yaml, in eval mode on `device`.

    Trained networks come from the cache, or from those that the repository ships; where there is none they are trained
    on the spot (on CUDA where there is one), going on from the last checkpoint, while other processes that want the
    same network wait. Foreign ones are
    loaded from their file, checked by SHA-256. Raises ParameterError for an unknown name, ValueError for a seed that
    the recipe does not list, and what data and weights that are missing raise.
    """
    recipe = _recipe(name, profile=profile, seed=seed)
    if recipe.entry["source"] != "train":
        return foreign.build(recipe.entry).to(device)
    return _ensure(recipe, seed)[1].to(device)


def card(name: str, *, profile: str, seed: int = 0) -> dict[str, Any]:
    """What is known of a network: recipe, accuracies (%, with Wilson intervals) on its test set, hashes, provenance.

    Made first where it is missing: that trains the network, or measures the foreign one.
    """
    return _ensure(_recipe(name, profile=profile, seed=seed), seed)[0]


def history(name: str, *, profile: str, seed: int = 0) -> History:
    """The curves of a network's training (`train.History`); ValueError for a network that was not trained here."""
    recipe = _recipe(name, profile=profile, seed=seed)
    if recipe.entry["source"] != "train":
        raise ValueError(f"expected a network trained here, got {name}, whose source is {recipe.entry['source']}")
    _ensure(recipe, seed)
    return History.load(recipe.folder(seed))


def buffer(name: str, *, profile: str, seed: int = 0) -> data.ImageSet:
    """The replay buffer that a network with objective jem was left with; ValueError for another network."""
    recipe = _recipe(name, profile=profile, seed=seed)
    _ensure(recipe, seed)
    return jem.buffer_in(recipe.folder(seed), dataset(name, profile=profile, split="train"))


def histories_of(names: Iterable[str], *, profile: str) -> dict[tuple[str, int], History]:
    """The curves of several networks, every seed of each, by (network, seed)."""
    return {(name, k): history(name, profile=profile, seed=k) for name in names for k in seeds(name, profile=profile)}


def seeds(name: str, *, profile: str) -> tuple[int, ...]:
    """The seeds that a recipe lists."""
    return parameters.recipe(profile, name).seeds


def dataset(name: str, *, profile: str, split: str) -> data.ImageSet:
    """One split of the data that a recipe names: "train", "validation" or "test"."""
    return train.dataset(parameters.recipe(profile, name).entry, split)


def _recipe(name: str, *, profile: str, seed: int) -> Recipe:
    recipe = parameters.recipe(profile, name)
    if seed not in recipe.seeds:
        raise ValueError(f"expected a seed of {name} in profile {profile}: {list(recipe.seeds)}, got {seed}")
    return recipe


# ---- the cache ----


class _Damaged(ValueError):
    """A finished folder whose files are not what its card says."""


def _ready(recipe: Recipe, seed: int) -> tuple[dict[str, Any], models.Network | None] | None:
    """Card and network (None for foreign ones) of a finished folder; None where nothing is finished yet."""
    folder = recipe.folder(seed)
    if not (folder / CARD).exists():
        return None
    try:
        facts = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if facts["digest"] != recipe.digest(seed):
            raise _Damaged(f"expected the card of {recipe.digest(seed)} in {folder}, got that of {facts['digest']}")
        for name, expected in facts["files"].items():
            got = files.sha256(folder / name)
            if got != expected:
                raise _Damaged(f"expected {folder / name} with SHA-256 {expected}, got {got}")
        if recipe.entry["source"] != "train":
            return facts, None
        return facts, _load(recipe, folder, facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Damaged(f"{recipe.name}, seed {seed}: not usable: {type(error).__name__}: {error}") from error


def _load(recipe: Recipe, folder: Path, facts: Mapping[str, Any]) -> models.Network:
    shape, num_classes = facts["input"]["shape"], facts["input"]["num_classes"]
    with torch.random.fork_rng(devices=[]):  # building draws first weights, which nobody will see
        network = train.build(recipe.entry, (shape[0], shape[1], shape[2]), num_classes)
    tensors, _ = checkpoints.load(folder / WEIGHTS)
    training_state.fill(network, tensors)
    return network.eval()


def _ensure(recipe: Recipe, seed: int) -> tuple[dict[str, Any], models.Network]:
    """A valid card and network, made now where there are none; one process at a time, or all that torchrun started."""
    first, found = distributed.world().first, None
    if distributed.world().size == 1:
        with contextlib.suppress(_Damaged):  # judged again under the lock, where nobody else is at work on it
            found = _ready(recipe, seed)
    if found is None:
        with _locked(recipe.folder(seed), f"{recipe.name}, seed {seed}") if first else contextlib.nullcontext():
            if distributed.told(first and _missing(recipe, seed)):
                _make(recipe, seed)
            distributed.told(True)  # what the first process writes is written
            found = _ready(recipe, seed)
    assert found is not None
    return found  # type: ignore[return-value]


def _missing(recipe: Recipe, seed: int) -> bool:
    """Whether a network must be made, under its lock: a damaged one is set aside, one that ships is taken."""
    try:
        if _ready(recipe, seed) is not None:
            return False
    except _Damaged as damage:
        folder = recipe.folder(seed)
        aside = [checkpoints.set_aside(folder / n) for n in (CARD, *_files(folder))]
        say(f"{damage}. Set aside as {', '.join(a.name for a in aside if a)}; made again.")
    return not shipped.adopt(recipe, seed)


@contextmanager
def _locked(folder: Path, what: str) -> Iterator[None]:
    """Hold the folder's lock; a line says so where another process has it. The system frees it when we are killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{what}: another process is making it; waiting ({folder / LOCK})")
            lock.acquire()
    except OSError as error:
        raise OSError(
            error.errno, f"cannot make {what} in {folder}: {os.strerror(error.errno or 0)}. Make the folder writable"
        ) from error
    try:
        yield
    finally:
        lock.release()


# ---- making ----


def _make(recipe: Recipe, seed: int) -> None:
    """Train or measure, then write everything, the card last."""
    folder, entry, started = recipe.folder(seed), recipe.entry, time.monotonic()
    files.sweep(folder)
    written: dict[str, str] = {}
    course: dict[str, Any] = {}
    first = distributed.world().first
    if entry["source"] == "train":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        sets, removed = _sets(recipe, seed, device=device)
        with _progress(recipe, seed) if first else contextlib.nullcontext() as callback:
            network, curves = train.fit(recipe, seed, folder=folder, device=device, callback=callback, sets=sets)
        if not first:
            return
        checkpoints.save(folder / WEIGHTS, network.state_dict(), {"digest": recipe.digest(seed)})
        curves.save(folder)
        written = {name: files.sha256(folder / name) for name in _files(folder)}
        course = _course(curves)
        test, facts = sets.test, {"n_train": len(sets.train), "train_checksum": sets.train.checksum, **removed}
    else:
        network = foreign.build(entry)
        test, facts = train.dataset(entry, "test"), {"n_train": 0}
        device = torch.device("cpu")
    facts |= {"n_test": len(test), "test_checksum": test.checksum}
    about = {
        "name": recipe.name,
        "profile": recipe.profile,
        "seed": seed,
        "digest": recipe.digest(seed),
        "objective_version": parameters.OBJECTIVE_VERSIONS.get(entry.get("objective") or ""),
        "entry": {key: value for key, value in entry.items() if value is not None},
        "input": {"shape": list(test.shape), "num_classes": network.num_classes},
        "n_parameters": sum(p.numel() for p in network.parameters()),
        "data": facts,
        "accuracy": _accuracies(network, test.to(device), entry=entry, seed=seed),
        **course,
        "files": written,
        "provenance": {
            **provenance(),
            "trained_on": str(device),
            "processes": distributed.world().size,
            "seconds": round(time.monotonic() - started, 2),
        },
    }
    files.write_json(folder / CARD, about)
    (folder / train.CHECKPOINT).unlink(missing_ok=True)


def _files(folder: Path) -> list[str]:
    """What a finished training leaves: weights, history and, of JEM, the replay buffer."""
    return [WEIGHTS, *histories.FILES, *(name for name in (jem.BUFFER,) if (folder / name).exists())]


def _course(curves: History) -> dict[str, Any]:
    """A card's facts about the course of a training: its divergences, and whether it was given up after them."""
    events = curves.events
    gave_up = bool(events and events[-1]["gave_up"])
    return {"training": {"epochs": curves.n_epochs, "events": events, "gave_up": gave_up}}


def _sets(recipe: Recipe, seed: int, *, device: torch.device) -> tuple[train.Datasets, dict[str, Any]]:
    """The data of a recipe, less the training images that it leaves out, and a card's facts about those.

    The reference, which decides on them, is the network of the same seed; it is trained first where it is not there.
    """
    sets, reference = train.datasets(recipe.entry), recipe.reference
    if reference is None:
        return sets, {}
    judge = _ensure(reference, seed)[1].to(device)
    images, facts = removal.leave_out(sets.train.to(device), judge, entry=recipe.entry, seed=seed, batch_size=BATCH)
    facts |= {"by": reference.name, "reference": reference.digest(seed)}
    return train.Datasets(images.to("cpu"), sets.test), {"removed": facts}


def _accuracies(
    network: models.Network, test: data.ImageSet, *, entry: Mapping[str, Any], seed: int
) -> dict[str, dict[str, Any]]:
    """Clean and, where the recipe names a ball, PGD-20 accuracy on the test images (`evaluation_n_images` of them)."""
    n = entry.get("evaluation_n_images") or len(test)
    setting = {**entry, "monitor_n_steps": CARD_STEPS}
    measured = histories.measure(network, test.first(n), entry=setting, seed=seed, batch_size=BATCH)
    found = {"clean": asdict(metrics.accuracy(~measured["wrong"]))}
    if "wrong_adv" in measured:
        attack = {"attack": "pgd_ce", "n_steps": CARD_STEPS, "start": "uniform", "returns": "last"}
        used = {key: entry[key] for key in BALL if entry.get(key) is not None}
        found["pgd"] = {**asdict(metrics.accuracy(~measured["wrong_adv"])), **attack, **used}
    return found


@contextmanager
def _progress(recipe: Recipe, seed: int) -> Iterator[train.Callback]:
    """A bar on stderr: in a terminal it moves, in a log it is a line every half minute."""
    terminal = sys.stderr.isatty()
    label = f"{recipe.name}, seed {seed}"
    with tqdm(desc=label, unit="step", mininterval=0.5 if terminal else 30, file=sys.stderr, dynamic_ncols=True) as bar:

        def show(p: train.Progress) -> None:
            if bar.total != p.n_steps or p.step != bar.n + 1:  # begun, gone on with, or gone back after a divergence
                bar.reset(p.n_steps)
                bar.n = bar.initial = p.step - 1
            bar.set_postfix_str(f"epoch {p.epoch}/{p.n_epochs}, loss {p.loss:.3f}", refresh=False)
            bar.update(1)

        yield show


def ship(name: str, *, profile: str, seed: int) -> Path:
    """Put a trained network into the repository (`helpers.shipping`): weights in bfloat16, measured once rounded.

    On all test images, whatever `evaluation_n_images` says of the card after training.
    """
    recipe = _recipe(name, profile=profile, seed=seed)
    if recipe.entry["source"] != "train":
        raise ValueError(f"expected a network trained here, got {name}, whose source is {recipe.entry['source']}")
    facts, network = _ensure(recipe, seed)
    state = shipping.rounded(network)
    training_state.fill(network, state)
    entry = {**recipe.entry, "evaluation_n_images": None}
    accuracy = _accuracies(network, train.dataset(entry, "test"), entry=entry, seed=seed)
    return shipping.write(recipe, seed, state=state, card={**facts, "accuracy": accuracy})


# ---- command line ----


def _list(profile: str | None) -> None:
    for each in [profile] if profile else parameters.profiles():
        for name, recipe in parameters.recipes(each).items():
            done = [k for k in recipe.seeds if (recipe.folder(k) / CARD).exists()]
            what = recipe.entry.get("objective") or recipe.entry["source"]
            shown = recipe.entry.get("architecture") or recipe.entry.get("model_id")
            print(f"{each:12} {name:24} {shown!s:20} {what:12} seeds {list(recipe.seeds)}, there {done}")


def _line(facts: Mapping[str, Any]) -> str:
    shown = [f"{kind} {metrics.Estimate(**_estimate(a))} %" for kind, a in facts["accuracy"].items()]
    return f"{facts['name']}, seed {facts['seed']}: {', '.join(shown)} on {facts['accuracy']['clean']['n']} test images"


def _estimate(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {key: stored[key] for key in ("value", "low", "high", "n", "kind", "level")}


def main(arguments: list[str] | None = None) -> int:
    """`list` the networks, `train` or `ship` one (all its seeds without --seed); returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.zoo", description="Networks by name.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list").add_argument("profile", nargs="?")
    for command, meaning in (
        ("train", "make a network that is not there yet; finished ones are only checked"),
        ("ship", "put a network into the repository, in bfloat16, with its card"),
    ):
        one = commands.add_parser(command, help=meaning)
        one.add_argument("profile")
        one.add_argument("name")
        one.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            _list(options.profile)
            return 0
        wanted = seeds(options.name, profile=options.profile)
        context.setup(SimpleNamespace(profile=options.profile))
        with distributed.joined() as here:
            for seed in wanted if options.seed is None else (options.seed,):
                made = card(options.name, profile=options.profile, seed=seed)
                if here.first:
                    say(_line(made))
                if options.command == "ship":
                    say(f"shipped in {ship(options.name, profile=options.profile, seed=seed)}")
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"helpers.zoo: {error}", file=sys.stderr)
        return 2 if isinstance(error, parameters.ParameterError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
