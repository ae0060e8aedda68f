"""Real images edited by the sampler that generates: half of each filled in, and each drawn to another class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import editing, generation, noise, samplers, starts
from helpers.data import ImageSet

INPAINTED, MORPHED = "right half filled in", "drawn to the next class"
ROWS = {INPAINTED: ("image", "start", "end"), MORPHED: ("image", "halfway", "end")}


def edited(
    network: nn.Module,
    images: ImageSet,
    start: starts.Start,
    *,
    energy: str,
    step_size: float,
    momentum: float,
    noise_std: float,
    n_steps: int,
    seed: int,
    device: torch.device | str,
) -> dict[str, np.ndarray]:
    """The first image of each class, inpainted and morphed: for each of ROWS its three rows, (3·K, C, H, W) uint8.

    The right half is unknown and begins as a draw of `start`; the next class is the one with the next number (of the
    last the first), and the chain may go anywhere in [0, 1]. Settings as in `samplers.sgld`.
    """
    ones = images.per_class(1)
    x, y = ones.images().to(device), ones.labels.to(device)
    rule: dict[str, Any] = {"step_size": step_size, "momentum": momentum, "noise_std": noise_std, "gradient": "plain"}
    key = noise.Key(seed, "gallery", ones.index.to(device)).tabled()
    function = samplers.energy_of(network, energy)
    known = torch.zeros(x.shape[-2:], dtype=torch.bool, device=device)
    known[:, : x.shape[-1] // 2] = True
    begun = torch.where(known, x, start.draw(ones.labels, noise.Key(seed, "gallery", ones.index).tabled()).to(device))
    filled = editing.inpaint(function, begun, y, known=known, n_steps=n_steps, key=key, **rule)
    towards = (y + 1) % images.num_classes
    half, whole = (
        editing.morph(function, x, towards, epsilon_l2=None, n_steps=n, key=key, **rule)
        for n in (n_steps // 2, n_steps)
    )
    return {INPAINTED: _pixels(x, begun, filled), MORPHED: _pixels(x, half, whole)}


def _pixels(*rows: Tensor) -> np.ndarray:
    return generation.pixels(torch.cat(rows)).cpu().numpy()
