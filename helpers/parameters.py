"""What a run is asked to do: read from `params/`, checked against the glossary before anything starts. No torch.

    python -m helpers.parameters check <profile> [NN …] [--set name=value …]

ends with status 2 and one line for each fault.
"""

import argparse
import ast
import functools
import hashlib
import html
import importlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from helpers import entries
from helpers import glossary as _glossary
from helpers.glossary import ParameterError, ParameterErrors, Term, checked_all, nearest
from helpers.versions import OBJECTIVE_VERSIONS, REMOVAL_VERSION

__all__ = ["OBJECTIVE_VERSIONS", "ROOT", "ParameterError", "ParameterErrors", "Parameters", "Recipe", "Term"]

ROOT: Path = Path(__file__).resolve().parent.parent

# Keys of an entry that do not change what is trained.
_WITHOUT_EFFECT = {"published", "url", "checkpoint_every"}


# The glossary and what there is


def _where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _terms() -> dict[str, dict[str, Term]]:
    path = ROOT / "params" / "schema.yaml"
    return _glossary.read_terms(path, where=_where(path))


def glossary() -> dict[str, Term]:
    """Every name a notebook's YAML, networks.yaml or profile.yaml may hold."""
    terms = _terms()
    return {**terms["parameters"], **terms["recipe"], **terms["profile"]}


def metrics() -> dict[str, Term]:
    """Every name a record's scalar may carry, with unit and meaning."""
    return dict(_terms()["metrics"])


def profiles() -> list[str]:
    """The folders of `params/` that hold a profile.yaml."""
    return sorted(path.parent.name for path in (ROOT / "params").glob("*/profile.yaml"))


def _folder(profile: object) -> Path:
    """params/<profile>, or an error that names the nearest profile."""
    if not isinstance(profile, str) or profile not in profiles():
        raise ParameterError("params", "profile", nearest(str(profile), profiles()), got=repr(profile))
    return ROOT / "params" / profile


def notebooks(profile: str) -> list[str]:
    """The notebooks a profile runs: the names of its NN_*.yaml, in order."""
    return sorted(path.stem for path in _folder(profile).glob("[0-9][0-9]_*.yaml"))


def named(profile: str, wanted: list[str]) -> list[str]:
    """Full names of notebooks given by number, by the start of their name or by path.

    For no names all of them, but those that the profile runs on request only (`on_request` in its profile.yaml).

    >>> named("digits", ["1"]) == named("digits", ["01"])
    True
    """
    there = notebooks(profile)
    found = []
    for name in wanted:
        stem = Path(name).name.removesuffix(".ipynb").removesuffix(".yaml")
        number = stem.zfill(2) + "_" if stem.isdigit() else stem
        matching = [full for full in there if full == stem] or [full for full in there if full.startswith(number)]
        if len(matching) != 1:
            got = f"{name!r}" if not matching else f"{name!r}, which fits {', '.join(matching)}"
            raise ParameterError(f"params/{profile}", "notebook", nearest(stem, there), got=got)
        found += matching
    asked = profile_facts(profile).get("on_request") or [] if not wanted else []
    return sorted(set(found)) if wanted else [name for name in there if name not in asked]


def profile_facts(profile: str) -> dict[str, Any]:
    """The checked contents of a profile's profile.yaml: title, cost, threads."""
    path = _folder(profile) / "profile.yaml"
    values = _glossary.read_yaml(path, where=_where(path))
    return checked_all(values, _terms()["profile"], where=_where(path), complete=True)


# A notebook's parameters


class Parameters:
    """The values in force for one notebook, read by attribute: `p.n_steps`.

    `profile` and `notebook` name it, `folder` is where its results go (figures/<profile>/<notebook>, or `folder` where
    that is given), `values` is a dict of all values and `digest` a hash of them and of the networks they name. Nothing
    can be assigned.
    """

    profile: str
    notebook: str
    digest: str
    folder: Path

    def __init__(self, notebook: str, profile: str, *, values: Mapping[str, Any], folder: Path | None = None) -> None:
        used = [recipe(profile, name) for name in network_names(values)]
        networks = {one.name: [one.digest(seed) for seed in one.seeds] for one in used}
        digest = _hash({"notebook": notebook, "profile": profile, "values": values, "networks": networks})
        folder = ROOT / "figures" / profile / notebook if folder is None else folder
        vars(self).update(notebook=notebook, profile=profile, digest=digest, folder=folder, _values=_copy(dict(values)))

    @property
    def values(self) -> dict[str, Any]:
        """Name → value, a copy."""
        copy: dict[str, Any] = _copy(vars(self)["_values"])
        return copy

    def __getattr__(self, name: str) -> Any:
        values = vars(self).get("_values", {})
        if name.startswith("_") or name not in values:
            raise AttributeError(
                f"{name!r} is not a parameter of {vars(self).get('notebook')}: {nearest(name, values)}"
            )
        return _copy(values[name])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"parameters cannot be changed ({name} = {value!r}): change the YAML or the first cell")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *vars(self)["_values"]]

    def _lines(self) -> Iterator[tuple[str, str, str, str]]:
        terms = glossary()
        for name, value in vars(self)["_values"].items():
            yield name, json.dumps(value, ensure_ascii=False), terms[name].unit, terms[name].meaning

    def __repr__(self) -> str:
        head = f"{self.notebook} · profile {self.profile} · {self.digest}"
        return "\n".join([head, *(f"  {n} = {v} {u}  # {m}".replace("   #", "  #") for n, v, u, m in self._lines())])

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(text)}</td>" for text in line) + "</tr>"
            for line in self._lines()
        )
        head = html.escape(f"{self.notebook} · profile {self.profile} · {self.digest}")
        names = "".join(f"<th style='text-align:left'>{text}</th>" for text in ("name", "value", "unit", "meaning"))
        return f"<table><caption>{head}</caption><tr>{names}</tr>{rows}</table>"


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def read(notebook: str, profile: str, *, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The checked values of params/<profile>/<notebook>.yaml, the networks it names included.

    `overrides`, a sweep's point, are checked values that take the place of some of them.
    """
    path = _folder(profile) / f"{notebook}.yaml"
    if not path.exists():
        raise ParameterError(f"params/{profile}", "notebook", nearest(notebook, notebooks(profile)), got=repr(notebook))
    values = checked_all(_glossary.read_yaml(path, where=_where(path)), _terms()["parameters"], where=_where(path))
    values.update(overrides or {})
    _check_networks(values, profile, where=_where(path))
    return values


def _check_networks(values: Mapping[str, Any], profile: str, *, where: str) -> None:
    for name in network_names(values):
        recipe(profile, name, where=where)


def network_names(values: Mapping[str, Any]) -> list[str]:
    """The networks that parameters name: every `networks` or `…_networks`, `network` or `…_network`, each once.

    >>> network_names({"networks": ["standard", "madry"], "robust_network": "madry", "long_networks": ["trades"]})
    ['standard', 'madry', 'trades']
    """
    named: list[str] = []
    for key, value in values.items():
        if isinstance(value, list) and key.rpartition("_")[2] == "networks":
            named += value
        elif isinstance(value, str) and key.rpartition("_")[2] == "network":
            named.append(value)
    return list(dict.fromkeys(named))


def load(notebook: str, cell: Mapping[str, object]) -> Parameters:
    """The parameters in force in `notebook`: the profile's YAML, overridden by what its parameters cell sets.

    `cell` is the notebook's globals(): `profile`, and every name of the YAML, where None means the YAML's value. Other
    variables are let pass, but a parameter of the glossary that the YAML lacks, a name of the YAML that the cell
    lacks, and a name that papermill injected and nobody knows are errors.
    """
    where = f"{notebook}, parameters cell"
    if "profile" not in cell:
        raise ParameterError(where, "profile", nearest("profile", profiles()), got="nothing")
    profile = cell["profile"]
    values = read(notebook, _folder(profile).name)
    terms = _terms()["parameters"]
    for name in values.keys() - cell.keys():
        raise ParameterError(
            where, name, f"it set to None or a value, as in params/{profile}/{notebook}.yaml", got="nothing"
        )
    for name in [*_injected(cell), *(name for name in cell if name in terms)]:
        if name not in values and name != "profile":
            raise ParameterError(where, name, nearest(name, values), got=repr(name))
    overrides = {name: cell[name] for name in values if cell[name] is not None}
    values.update(checked_all(overrides, terms, where=where))
    _check_networks(values, str(profile), where=where)
    return Parameters(notebook, str(profile), values=values, folder=_point_folder(notebook, str(profile)))


def _point_folder(notebook: str, profile: str) -> Path | None:
    """Where a sweep's point writes: `helpers.execute` tells the kernel COMPANION_POINT=<sweep>/<point>. Else None."""
    point = os.environ.get("COMPANION_POINT")
    return ROOT / "figures" / profile / "sweeps" / point / notebook if point else None


def _injected(cell: Mapping[str, object]) -> list[str]:
    """Names assigned in the cell that papermill injects, as IPython's `In` remembers it (papermill only warns)."""
    history = cell.get("In")
    names: list[str] = []
    for source in history if isinstance(history, list) else []:
        if isinstance(source, str) and source.lstrip().startswith("# Parameters\n"):
            names += assigned(source)
    return names


def assigned(source: str) -> list[str]:
    """Names that a cell's plain assignments set, in order.

    >>> assigned("# Parameters\\nn_steps = 3\\nseeds = [0]")
    ['n_steps', 'seeds']
    """
    names = []
    for statement in ast.parse(source).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


# Recipes of trained networks


@dataclass(frozen=True)
class Recipe:
    """One network of networks.yaml: its checked entry (every key, None where not given) and its seeds."""

    profile: str
    name: str
    entry: dict[str, Any]
    seeds: tuple[int, ...]

    @property
    def reference(self) -> "Recipe | None":
        """The recipe of the network that decides which training images are left out; None where none are."""
        name = entries.reference(self.entry)
        return None if name is None else recipe(self.profile, name)

    def digest(self, seed: int) -> str:
        """Hash of what is trained: entry, seed, the objective's version, and the reference's. 12 hexadecimal digits."""
        given = {k: v for k, v in self.entry.items() if v is not None and k not in _WITHOUT_EFFECT}
        hashed = {"entry": given, "seed": seed, "version": OBJECTIVE_VERSIONS.get(self.entry.get("objective") or "", 0)}
        judge = self.reference
        if judge is not None:
            hashed["removal"] = [REMOVAL_VERSION, judge.digest(seed)]
        return _hash(hashed)

    def folder(self, seed: int) -> Path:
        """Where this network of this seed lies: figures/<profile>/networks/<name>/seed<k>-<digest>."""
        return ROOT / "figures" / self.profile / "networks" / self.name / f"seed{seed}-{self.digest(seed)}"


def recipes(profile: str) -> dict[str, Recipe]:
    """Every recipe of params/<profile>/networks.yaml by name, grids expanded into names like `trades@beta=3`.

    Where MAX_SEEDS is set, a rehearsal, only so many seeds of each count: the others are neither trained nor measured.
    """
    path = _folder(profile) / "networks.yaml"
    if not path.exists():
        return {}
    written = path.stat().st_mtime_ns, (ROOT / "params/schema.yaml").stat().st_mtime_ns
    return dict(_recipes(profile, path, _max_seeds(), written))


def _max_seeds() -> int | None:
    given = os.environ.get("MAX_SEEDS", "")
    if given and not (given.isdecimal() and int(given)):
        raise ParameterError("the environment", "MAX_SEEDS", "a whole number from 1 on", got=repr(given))
    return int(given) if given else None


@functools.lru_cache(maxsize=8)
def _recipes(profile: str, path: Path, max_seeds: int | None, _: tuple[int, int]) -> dict[str, Recipe]:
    found = entries.read(path, recipe_terms(), where=_where(path), max_seeds=max_seeds)
    return {name: Recipe(profile, name, entry, seeds) for name, (entry, seeds) in found.items()}


def recipe(profile: str, name: str, *, where: str | None = None) -> Recipe:
    """The recipe of that name; an unknown name is an error with the nearest known one."""
    there = recipes(profile)
    if name not in there:
        raise ParameterError(
            where or f"params/{profile}/networks.yaml", "networks", nearest(name, there), got=f"the network {name!r}"
        )
    return there[name]


def recipe_terms() -> dict[str, Term]:
    """The names an entry of networks.yaml may hold (beside `grid`)."""
    terms = _terms()
    return {**{name: term for name, term in terms["parameters"].items() if term.recipe}, **terms["recipe"]}


# Before a run


def check(profile: str, wanted: list[str], *, overrides: Mapping[str, object] | None = None) -> list[ParameterError]:
    """Every fault of a profile: its profile.yaml, networks.yaml, and the YAML and cell of the wanted notebooks."""
    faults: list[ParameterError] = []

    def collect(function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ParameterError as fault:
            faults.extend(fault.faults if isinstance(fault, ParameterErrors) else [fault])

    if collect(_folder, profile) is None:
        return faults
    collect(profile_facts, profile)
    collect(recipes, profile)
    for notebook in collect(named, profile, wanted) or []:
        collect(_check_notebook, notebook, profile, overrides or {})
    return list({str(fault): fault for fault in faults}.values())


def _check_notebook(notebook: str, profile: str, overrides: Mapping[str, object]) -> None:
    values = read(notebook, profile)
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    cell = {**dict.fromkeys(cell_names(path)), "profile": profile}
    load(notebook, {**cell, **overrides})
    for name in overrides.keys() - values.keys():
        raise ParameterError("command line", name, nearest(name, values), got=repr(name))
    if notebook == "12_claims":  # by name: else every notebook would depend on the ledger's code, see sources.of
        importlib.import_module("helpers.ledger").check(profile)


def cell_names(path: Path) -> list[str]:
    """The names that a notebook's cell tagged `parameters` sets, in order."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        raise ParameterError(_where(path), "file", "a notebook", got="no such file, or not a notebook") from None
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ParameterError(_where(path), "cells", "one cell tagged `parameters`", got=f"{len(tagged)}")
    return assigned("".join(tagged[0]["source"]))


def main(arguments: list[str] | None = None) -> int:
    """Command line: `check <profile> [NN …] [--set name=value …]`."""
    parser = argparse.ArgumentParser(prog="python -m helpers.parameters", description=__doc__)
    parser.add_argument("command", choices=["check"])
    parser.add_argument("profile")
    parser.add_argument("notebooks", nargs="*")
    parser.add_argument("--set", action="append", default=[], metavar="name=value", help="a value, as papermill's -p")
    given = parser.parse_args(arguments)
    overrides = {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in given.set)}
    faults = check(given.profile, given.notebooks, overrides=overrides)
    print(*faults, sep="\n", end="\n" if faults else "", file=sys.stderr)
    return 2 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
