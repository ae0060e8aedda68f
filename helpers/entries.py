"""The entries of a networks.yaml: merged, checked, complete, and grids expanded. No torch."""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from helpers.glossary import ParameterError, ParameterErrors, Term, checked_all, read_yaml, show

# A checked entry (every key, None where not given) and its seeds.
Checked = tuple[dict[str, Any], tuple[int, ...]]

# (key, value) → the keys that it needs beside it.
_NEEDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("objective", "madry"): ("attack_norm", "n_steps", "start"),
    ("objective", "trades"): ("attack_norm", "n_steps", "start", "beta"),
    ("attack_norm", "linf"): ("epsilon_255", "step_size_255"),
    ("attack_norm", "l2"): ("epsilon_l2", "step_size_l2"),
    ("start", "gaussian"): ("start_std",),
    ("schedule", "one_cycle"): ("pct_start",),
    ("schedule", "step"): ("milestones", "decay"),
    ("architecture", "wrn"): ("depth", "width"),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def read(path: Path, terms: Mapping[str, Term], *, where: str) -> dict[str, Checked]:
    """Every recipe of a networks.yaml by name; all faults of all entries are raised at once.

    Keys that start with a point are blocks which others merge by `<<:`.
    """
    faults: list[ParameterError] = []
    found: dict[str, Checked] = {}
    for name, entry in read_yaml(path, where=where).items():
        if name.startswith("."):
            continue
        try:
            if not _NAME.fullmatch(name):
                raise ParameterError(where, name, "letters, digits, _ . -", got=repr(name))
            if not isinstance(entry, dict):
                raise ParameterError(where, name, "lines of `name: value`", got=show(entry))
            found.update(_expand(name, entry, terms=terms, where=f"{where}: {name}"))
        except ParameterError as fault:
            faults += fault.faults if isinstance(fault, ParameterErrors) else [fault]
    if faults:
        raise faults[0] if len(faults) == 1 else ParameterErrors(faults)
    return found


def _expand(
    name: str, entry: dict[str, Any], *, terms: Mapping[str, Term], where: str
) -> Iterator[tuple[str, Checked]]:
    """The entry's points of its grid, each checked, under names like `trades@beta=3`."""
    grid = entry.get("grid", {})
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise ParameterError(where, "grid", "a name with a list of values on each line", got=show(grid))
    fixed = {key: value for key, value in entry.items() if key != "grid"}
    for point in itertools.product(*grid.values()):
        values = checked_all(
            {"seeds": [0], "source": "train", **fixed, **dict(zip(grid, point, strict=True))}, terms, where=where
        )
        _check_complete(values, terms, where=where)
        seeds = tuple(values.pop("seeds"))
        if len(set(seeds)) < len(seeds):
            raise ParameterError(where, "seeds", "each seed once", got=show(list(seeds)))
        suffix = ",".join(f"{key}={_short(values[key])}" for key in grid)
        complete = {key: values.get(key) for key in terms if key != "seeds"}
        yield (f"{name}@{suffix}" if suffix else name), (complete, seeds)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_complete(values: Mapping[str, Any], terms: Mapping[str, Term], *, where: str) -> None:
    """Refuse an entry that lacks a key which its source, or another of its values, needs."""
    source = values["source"]
    needed = {name: f"{terms[name].expected} (source {source})" for name in terms if source in terms[name].required}
    if source == "train":
        for (key, value), others in _NEEDS.items():
            if values.get(key) == value:
                needed |= {other: f"{terms[other].expected} ({key} {value})" for other in others}
    for name, expected in needed.items():
        if values.get(name) is None:
            raise ParameterError(where, name, expected.replace(" or null", ""), got="nothing")
