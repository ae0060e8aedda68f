"""The arms of CEB's comparisons: what a network is among them, read from its recipe in networks.yaml.

    family   what it shares with others: batch_norm or no_norm, and its augmentation where the first network's differs
    case     xent · gamma0 (noise on z, γ = 0) · ceb@rho=2, cceb@rho=2, vib@rho=2 · else the objective, as madry, or the
             network's own name where others trained it

So one claim finds its numbers in every profile, however the profile calls its recipes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from helpers import parameters
from helpers.ceb import RHO_OFF

XENT, NOISE = "xent", "gamma0"
COLUMNS = ("network", "family", "case", "kind", "rho")


@dataclass(frozen=True)
class Arm:
    """One network: `kind` is the case without its ρ, and `rho` NaN where there is none to compare."""

    network: str
    family: str
    case: str
    kind: str
    rho: float

    @property
    def where(self) -> dict[str, Any]:
        """Its columns for a scalar of a record, which holds no NaN."""
        return {key: value for key, value in asdict(self).items() if value == value}


def of(names: Sequence[str], *, profile: str) -> dict[str, Arm]:
    """The arms of these networks by name. ValueError where two of them are one case of one family."""
    entries = {name: parameters.recipe(profile, name).entry for name in names}
    found = {name: arm(name, entry, like=entries[names[0]]) for name, entry in entries.items()}
    seen: dict[tuple[str, str], str] = {}
    for one in found.values():
        other = seen.setdefault((one.family, one.case), one.network)
        if other != one.network:
            raise ValueError(f"expected each case of a family once, got {other} and {one.network}, both {one.case}")
    return found


def arm(name: str, entry: Mapping[str, Any], *, like: Mapping[str, Any]) -> Arm:
    """What the recipe `entry` is, families being named by how they differ from the recipe `like`.

    >>> entry = {"objective": "ceb", "rho": 2.0, "norm": "batch", "augment": "shift"}
    >>> one = arm("some", entry, like={"augment": "none"})
    >>> one.family, one.case, one.rho
    ('batch_norm@shift', 'ceb@rho=2', 2.0)
    """
    family = "no_norm" if entry.get("norm") == "none" else f"{entry.get('norm') or 'batch'}_norm"
    augment = entry.get("augment") or "none"
    if augment != (like.get("augment") or "none"):
        family += f"@{augment}"
    if entry.get("source", "train") != "train":
        return Arm(name, family, name, name, math.nan)
    kind, rho = str(entry.get("objective")), math.nan if entry.get("rho") is None else float(entry["rho"])
    if kind == "standard":
        return Arm(name, family, XENT, XENT, math.nan)
    if kind == "ceb" and rho >= RHO_OFF:
        return Arm(name, family, NOISE, NOISE, math.nan)
    if kind not in ("ceb", "vib"):
        return Arm(name, family, kind, kind, math.nan)
    kind = "cceb" if entry.get("consistent") else kind
    return Arm(name, family, f"{kind}@rho={rho:g}", kind, rho)
