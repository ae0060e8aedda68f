"""Other people's attacks, samplers and corruptions behind one convention each, where they are installed.

    with torchattacks, ART, foolbox, AutoAttack:  attack(x, y) -> x_adv      images in [0, 1]
    with JEM++ and the ECCV repository:           chain(y) -> x              from uniform noise
    with imagecorruptions:                        spoil(name, severity, pixels) -> pixels      one image (H, W, C) uint8

None of them is a dependency, and none of their code is here. Packages come from the environment that runs this (README,
"Against other code"); the three that are on no index are checkouts in the folder that the variable PEERS names. What is
not there raises `Absent`, which says what is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["ATTACKS", "CHAINS", "Absent", "corruption", "version"]

PACKAGES = {
    "torchattacks": "torchattacks",
    "ART": "adversarial-robustness-toolbox",
    "foolbox": "foolbox",
    "imagecorruptions": "imagecorruptions-imaug",
}
CHECKOUTS = {"AutoAttack": "auto-attack", "JEM++": "JEMPP", "ECCV": "Robust-Classifiers-under-the-lens-of-EBM"}
Attack = Callable[[Tensor, Tensor], Tensor]
Chain = Callable[[Tensor], Tensor]


class Absent(Exception):
    """A peer that is not there, or that cannot do what is asked."""


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Absent(f"{name} cannot be imported: {error}") from error


def _checkout(peer: str, module: str, *, inside: str = "") -> types.ModuleType:
    """A module of a checkout, imported with that folder first; loose modules are forgotten: two have a `utils`."""
    if "PEERS" not in os.environ:
        raise Absent("PEERS names no folder of checkouts")
    folder = Path(os.environ["PEERS"]) / CHECKOUTS[peer] / inside
    if not folder.is_dir():
        raise Absent(f"no {CHECKOUTS[peer]} in the folder PEERS")
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        with torch.backends.cudnn.flags():  # JEM++ sets its own for the whole process
            found = importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"{CHECKOUTS[peer]} cannot be imported: {error}") from error
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            there = str(folder) in (getattr(sys.modules[name], "__file__", None) or "")
            if there and "." not in name and not hasattr(sys.modules[name], "__path__"):
                del sys.modules[name]  # a package stays: it may import more of itself later
    return found


def version(peer: str) -> str:
    """The version of an installed peer; of a checkout what its folder is called, whose commit the README states."""
    if peer in PACKAGES:
        try:
            return importlib.metadata.version(PACKAGES[peer])
        except importlib.metadata.PackageNotFoundError:
            return "not installed"
    return CHECKOUTS.get(peer, "")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


# Attacks: L∞-PGD on cross-entropy from an even start ----------------------------------------------------------------


def _torchattacks(network: nn.Module, *, epsilon: float, step_size: float, n_steps: int, **_: Any) -> Attack:
    attack: Attack = _package("torchattacks").PGD(
        network, eps=epsilon, alpha=step_size, steps=n_steps, random_start=True
    )
    return attack


def _foolbox(network: nn.Module, *, epsilon: float, step_size: float, n_steps: int, **_: Any) -> Attack:
    package = _package("foolbox")
    device = next(network.parameters()).device
    seen = package.PyTorchModel(network.eval(), bounds=(0, 1), device=device)
    attack = package.attacks.LinfPGD(abs_stepsize=step_size, steps=n_steps, random_start=True)

    def run(x: Tensor, y: Tensor) -> Tensor:
        _, found, _ = attack(seen, x, y, epsilons=epsilon)
        return found

    return run


def _art(
    network: nn.Module, *, epsilon: float, step_size: float, n_steps: int, shape: tuple[int, ...], num_classes: int
) -> Attack:
    _package("art")
    estimators, evasion = _package("art.estimators.classification"), _package("art.attacks.evasion")
    device = next(network.parameters()).device
    seen = estimators.PyTorchClassifier(
        network.eval(), loss=nn.CrossEntropyLoss(), input_shape=shape, nb_classes=num_classes, clip_values=(0.0, 1.0),
        device_type="gpu" if device.type == "cuda" else "cpu",
    )  # fmt: skip

    def run(x: Tensor, y: Tensor) -> Tensor:
        attack = evasion.ProjectedGradientDescent(
            seen, norm=np.inf, eps=epsilon, eps_step=step_size, max_iter=n_steps, num_random_init=1,
            batch_size=len(x), verbose=False,
        )  # fmt: skip
        return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)

    return run


def autoattack(network: nn.Module, *, epsilon: float, batch_size: int) -> Attack:
    """The official AutoAttack standard, L∞."""
    official, device = _checkout("AutoAttack", "autoattack"), str(next(network.parameters()).device)
    attack = official.AutoAttack(network.eval(), norm="Linf", eps=epsilon, device=device, verbose=False)

    def run(x: Tensor, y: Tensor) -> Tensor:
        with _quietly():
            found: Tensor = attack.run_standard_evaluation(x, y, bs=batch_size)
        return found

    return run


ATTACKS: dict[str, Callable[..., Attack]] = {"torchattacks": _torchattacks, "ART": _art, "foolbox": _foolbox}


# Chains: plain SGLD on E(x, y) from uniform noise -------------------------------------------------------------------


class _Conditional(nn.Module):
    """A network as JEM++ has it: images in [−1, 1], and −E(x, y)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.f = network

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.f((x + 1) / 2).gather(1, y[:, None])


def _only(shape: tuple[int, ...]) -> None:
    if tuple(shape) != (3, 32, 32):
        raise Absent(f"made for images of shape (3, 32, 32), not {tuple(shape)}")


def _jempp(network: nn.Module, *, shape: tuple[int, ...], step_size: float, noise_std: float, n_steps: int) -> Chain:
    _only(shape)
    theirs = _checkout("JEM++", "eval_jempp")
    seen = _Conditional(network)

    def run(y: Tensor) -> Tensor:
        args = types.SimpleNamespace(
            device=y.device, batch_size=len(y), in_steps=0, sgld_lr=4 * step_size, sgld_std=2 * noise_std,
            uncond=False, init="r", reinit_freq=0.05,
        )  # fmt: skip
        seen.eval()
        found: Tensor = theirs.sample_q(seen, [], y=y, n_steps=n_steps, in_steps=0, args=args)
        return (found + 1) / 2

    return run


def _eccv(network: nn.Module, *, shape: tuple[int, ...], step_size: float, noise_std: float, n_steps: int) -> Chain:
    _only(shape)
    theirs = _checkout("ECCV", "utils", inside="image_generation")

    def run(y: Tensor) -> Tensor:
        with _quietly():
            found = theirs.sample_q_SGLD(
                network, batch_size=len(y), step_size=2 * step_size, y=y, n_steps=n_steps, inizialization="random",
                loss_func="energy_xy", noise_variance=noise_std, alpha=1.0,
            )  # fmt: skip
        last: Tensor = found[1]
        return last

    return run


CHAINS: dict[str, Callable[..., Chain]] = {"JEM++": _jempp, "ECCV": _eccv}


# Corruptions --------------------------------------------------------------------------------------------------------


def corruption() -> Callable[[str, int, np.ndarray], np.ndarray]:
    """imagecorruptions' `corrupt` on one image (H, W, C) uint8 of at least 32 pixels."""
    package = _package("imagecorruptions")

    def spoil(name: str, severity: int, pixels: np.ndarray) -> np.ndarray:
        found: np.ndarray = package.corrupt(pixels, corruption_name=name, severity=severity)
        return found

    return spoil
