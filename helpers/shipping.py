"""Puts a trained network into the repository, rounded to bfloat16, where `shipped` finds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helpers import checkpoints, files, history
from helpers.parameters import Recipe
from helpers.shipped import CARD, copy, folder

WEIGHTS = "weights.safetensors"
STORED = torch.bfloat16


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
        copy(made / name, target / name)
    hashes = {name: files.sha256(target / name) for name in (WEIGHTS, *history.FILES)}
    files.write_json(target / CARD, {**card, "stored": str(STORED).removeprefix("torch."), "files": hashes})
    return target
