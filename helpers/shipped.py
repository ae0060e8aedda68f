"""Trained networks that come with the repository, so that a notebook shows a real result without training.

    params/shipped/<profile>/<name>-seed<k>/      weights.safetensors (bfloat16), card.json, history.json and .npz

The card is the one of the training, with the accuracies of the rounded weights. A shipped network stands for its recipe
only while the recipe has the digest that it was trained with: change the entry, and it is trained instead.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helpers import checkpoints, files, history, parameters
from helpers.checkpoints import say
from helpers.parameters import Recipe

CARD, WEIGHTS = "card.json", "weights.safetensors"
STORED = torch.bfloat16


def folder(recipe: Recipe, seed: int) -> Path:
    """Where the shipped network of a recipe and seed lies, if there is one."""
    return parameters.ROOT / "params" / "shipped" / recipe.profile / f"{recipe.name}-seed{seed}"


def rounded(network: nn.Module) -> dict[str, torch.Tensor]:
    """The network's state with its floats in bfloat16 (8 bits of mantissa: a relative error of at most 2⁻⁹).

    >>> rounded(nn.Linear(1, 1))["weight"].dtype
    torch.bfloat16
    """
    return {name: t.to(STORED) if t.is_floating_point() else t for name, t in network.state_dict().items()}


def write(recipe: Recipe, seed: int, *, state: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> Path:
    """Put a finished network's rounded `state` and `card` into the repository's folder, the card last; that folder."""
    target, made = folder(recipe, seed), recipe.folder(seed)
    target.mkdir(parents=True, exist_ok=True)
    (target / CARD).unlink(missing_ok=True)
    checkpoints.save(target / WEIGHTS, state, {"digest": recipe.digest(seed)})
    for name in history.FILES:
        _copy(made / name, target / name)
    hashes = {name: files.sha256(target / name) for name in (WEIGHTS, *history.FILES)}
    files.write_json(target / CARD, {**card, "stored": str(STORED).removeprefix("torch."), "files": hashes})
    return target


def adopt(recipe: Recipe, seed: int) -> bool:
    """Copy the shipped network into the recipe's own folder, its card last; False where none fits, which is said.

    Every file is compared with the card's SHA-256 first. The repository's copy is never touched.
    """
    here, target = folder(recipe, seed), recipe.folder(seed)
    if not (here / CARD).exists():
        return False
    who = f"{recipe.name}, seed {seed}"
    try:
        card = json.loads((here / CARD).read_text(encoding="utf-8"))
        if card["digest"] != recipe.digest(seed):
            say(f"{who}: the recipe is no longer that of the shipped network ({card['digest']}), so it is trained")
            return False
        for name, expected in card["files"].items():
            got = files.sha256(here / name)
            if got != expected:
                raise ValueError(f"expected {name} with SHA-256 {expected}, got {got}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        say(f"{who}: the shipped network in {here} is not usable ({type(error).__name__}: {error}), so it is trained")
        return False
    for name in card["files"]:
        _copy(here / name, target / name)
    _copy(here / CARD, target / CARD)
    say(f"{who}: the shipped network, trained at commit {str(card['provenance']['commit'])[:7]}, stored in bfloat16")
    return True


def _copy(source: Path, target: Path) -> None:
    with files.atomic(target) as temporary:
        shutil.copyfile(source, temporary)
