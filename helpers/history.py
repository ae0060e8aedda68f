"""What is followed while a network trains: `History`, and `monitor`, which measures one epoch on a fixed probe.

    ΔE(x) = E(x) − E(x*),   x* = last iterate of CE-PGD from a start that is the same in every epoch

so that the curves move because the network does, not because the noise did (paper 1, figure 1a).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from helpers import attacks, energies, files
from helpers.context import eval_mode, frozen
from helpers.data import ImageSet
from helpers.objectives import attack_settings

ENERGIES = ("E", "E_y", "E_adv", "E_y_adv")
FILES = ("history.json", "history.npz")


@dataclass
class History:
    """Curves of one training.

    scalars: name → one value for each finished epoch (losses and energies in nats, errors in % of images).
    arrays: "train/E", "train/E_y", "train/E_adv", "train/E_y_adv" float32 (epochs, n), "train/y" and "train/index"
    int64 (n,), and the same under "test/": the energies of each image of the probe.
    events: what happened besides, in order; of JEM the divergences (`rollback`).
    """

    scalars: dict[str, list[Any]] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def n_epochs(self) -> int:
        return len(self.scalars.get("epoch", []))

    def append(self, scalars: Mapping[str, Any], rows: Mapping[str, NDArray[Any]]) -> None:
        """Add one epoch: its scalars, and one row (n,) for each energy; "y" and "index" are kept once."""
        for name, value in scalars.items():
            self.scalars.setdefault(name, []).append(value)
        for name, row in rows.items():
            if name.rpartition("/")[2] not in ENERGIES:
                self.arrays[name] = row
            elif name in self.arrays:
                self.arrays[name] = np.concatenate([self.arrays[name], row[None]])
            else:
                self.arrays[name] = row[None].copy()

    def save(self, folder: Path) -> None:
        """Write history.npz, then history.json with its SHA-256; each whole or not at all, no pickle."""
        with files.atomic(folder / FILES[1]) as temporary:
            # In one order, so that a resumed run writes the same bytes.
            np.savez(temporary, **dict(sorted(self.arrays.items())))  # type: ignore[arg-type]
        facts = {"arrays": {"file": FILES[1], "sha256": files.sha256(folder / FILES[1])}, "scalars": self.scalars}
        files.write_json(folder / FILES[0], facts | ({"events": self.events} if self.events else {}))

    @classmethod
    def load(cls, folder: Path) -> History:
        """Read what `save` wrote; ValueError that names the file where it is missing, damaged, or another's."""
        try:
            facts = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
            expected, got = facts["arrays"]["sha256"], files.sha256(folder / FILES[1])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"expected a whole history in {folder}, got {type(error).__name__}: {error}") from error
        if expected != got:
            raise ValueError(f"expected {folder / FILES[1]} with SHA-256 {expected}, got {got}")
        with np.load(folder / FILES[1], allow_pickle=False) as stored:
            return cls(facts["scalars"], {name: stored[name] for name in stored.files}, facts.get("events", []))

    def tensors(self) -> dict[str, Tensor]:
        """The arrays as tensors, for a checkpoint."""
        return {name: torch.from_numpy(array) for name, array in self.arrays.items()}

    @classmethod
    def restore(
        cls, scalars: dict[str, list[Any]], tensors: Mapping[str, Tensor], events: list[dict[str, Any]]
    ) -> History:
        """The history that `tensors`, `scalars` and `events` of a checkpoint hold."""
        return cls(scalars, {name: t.numpy().copy() for name, t in tensors.items()}, events)


def _logits(network: nn.Module, x: Tensor) -> Tensor:
    return network(x).float()


@torch.no_grad()
def measure(
    network: nn.Module, probe: ImageSet, *, entry: Mapping[str, Any], seed: int, batch_size: int
) -> dict[str, Tensor]:
    """Energies and verdicts of each probe image, (n,) on the CPU: E, E_y, wrong and, where the recipe names a ball,
    E_adv, E_y_adv, wrong_adv under PGD of `monitor_n_steps` steps (CE, uniform start, last iterate).

    The network is measured in eval mode; its modes and flags are put back.
    """
    found: list[dict[str, Tensor]] = []
    with eval_mode(network), frozen(network):
        for rows in torch.arange(len(probe), device=probe.labels.device).split(batch_size):
            part = probe.subset(rows)
            x, y = part.images(), part.labels
            points = {"": x}
            if entry.get("attack_norm"):
                points["_adv"] = attacks.pgd(
                    attacks.cross_entropy(network),
                    x,
                    y,
                    **attack_settings(entry),
                    n_steps=entry["monitor_n_steps"],
                    start="uniform",
                    n_restarts=1,
                    returns="last",
                    seed=seed,
                    index=part.index,
                    purpose=f"monitor/{probe.split}",
                )
            measured: dict[str, Tensor] = {}
            for suffix, point in points.items():
                f = _logits(network, point)
                measured[f"E{suffix}"] = energies.marginal(f).cpu()
                measured[f"E_y{suffix}"] = energies.joint(f, y).cpu()
                measured[f"wrong{suffix}"] = (f.argmax(1) != y).cpu()
            found.append(measured)
    return {name: torch.cat([f[name] for f in found]) for name in found[0]}


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def monitor(
    network: nn.Module, probes: Mapping[str, ImageSet], *, entry: Mapping[str, Any], seed: int, batch_size: int
) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
    """One epoch's scalars and rows for `History.append`, of each probe by its name ("train", "test").

    clean_error_<probe>, energy_<probe>, joint_energy_<probe>; with a ball also pgd_error_<probe>,
    energy_adv_<probe>, joint_energy_adv_<probe>, delta_energy_<probe> (mean of E(x) − E(x*)), its standard
    deviation over images delta_energy_std_<probe>, and delta_joint_energy_<probe>.
    """
    scalars: dict[str, float] = {}
    rows: dict[str, NDArray[Any]] = {}
    for name, probe in probes.items():
        m = measure(network, probe, entry=entry, seed=seed, batch_size=batch_size)
        scalars[f"clean_error_{name}"] = 100 * _mean(m["wrong"])
        scalars[f"energy_{name}"], scalars[f"joint_energy_{name}"] = _mean(m["E"]), _mean(m["E_y"])
        if "E_adv" in m:
            delta = energies.delta(m["E"], m["E_adv"])
            scalars[f"pgd_error_{name}"] = 100 * _mean(m["wrong_adv"])
            scalars[f"energy_adv_{name}"], scalars[f"joint_energy_adv_{name}"] = _mean(m["E_adv"]), _mean(m["E_y_adv"])
            scalars[f"delta_energy_{name}"] = _mean(delta)
            scalars[f"delta_energy_std_{name}"] = float(delta.double().std(correction=0))
            scalars[f"delta_joint_energy_{name}"] = _mean(energies.delta(m["E_y"], m["E_y_adv"]))
        rows |= {f"{name}/{key}": m[key].numpy() for key in ENERGIES if key in m}
        rows[f"{name}/y"], rows[f"{name}/index"] = probe.labels.cpu().numpy(), probe.index.cpu().numpy()
    return scalars, rows
