"""Trained networks that come with the repository, so that a notebook shows a real result without training. No torch.

    params/shipped/<profile>/<name>-seed<k>/      weights.safetensors (bfloat16), card.json, history.json and .npz

The card is the one of the training, with the accuracies of the rounded weights. A shipped network stands for its recipe
only while the recipe has the digest that it was trained with: change the entry, and it is trained instead. `shipping`
puts them there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from filelock import FileLock

from helpers import files, parameters
from helpers.messages import say
from helpers.parameters import Recipe

CARD, LOCK = "card.json", "lock"


def folder(recipe: Recipe, seed: int) -> Path:
    """Where the shipped network of a recipe and seed lies, if there is one."""
    return parameters.ROOT / "params" / "shipped" / recipe.profile / f"{recipe.name}-seed{seed}"


def take(recipe: Recipe, seed: int) -> bool:
    """`adopt` under the lock of the recipe's own folder, where nothing is finished yet; whether that was done."""
    target = recipe.folder(seed)
    if not (folder(recipe, seed) / CARD).exists() or (target / CARD).exists():
        return False
    files.make_folder(target)
    with FileLock(target / LOCK):
        return not (target / CARD).exists() and adopt(recipe, seed)


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
        copy(here / name, target / name)
    copy(here / CARD, target / CARD)
    say(f"{who}: the shipped network, trained at commit {str(card['provenance']['commit'])[:7]}, stored in bfloat16")
    return True


def copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with files.atomic(target) as temporary:
        shutil.copyfile(source, temporary)
