"""Sweeps of a notebook over its parameters: what `params/sweeps/*.yaml` asks for, as points, and what came of them.

    python -m helpers.sweeps points  <profile> <sweep>     the points' names as JSON, for a matrix of jobs
    python -m helpers.sweeps collect <profile> <sweep>     one tidy CSV and a figure of the points that are done

A file names a notebook and a grid over its parameters, the same for every profile:

    title: …
    notebook: 01_energy_landscape
    fixed: {attacks: [pgd_ce]}                    # parameters that every point sets
    grid: {epsilon_255: [0, 8, 16]}               # every combination is a point
    seeds: [0, 1]                                 # short for a parameter `seed` of the grid
    recipe: [weat_adv_beta, weat_adv]             # or a point for each network that networks.yaml makes of recipes
    figure: {metric: delta_energy, x: epsilon_255, by: [network], where: {returns: last}}

A parameter that is a list takes lists; one value in place of a list is a list of it alone (`attacks: [fgsm, pgd_ce]`
are two points). Of the recipes one at least has a `grid:`, whose names are swept; one without is a point with the
values that it has. Each point is one papermill process with a folder of its own,
figures/<profile>/sweeps/<sweep>/<point>/, in which lies what the notebook otherwise writes to figures/<profile>/. No
torch.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helpers import files, glossary, parameters
from helpers.glossary import ParameterError, ParameterErrors, Term, nearest, show

KEYS = ("title", "notebook", "fixed", "grid", "seeds", "recipe", "figure")
FIGURE = ("metric", "x", "by", "where")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@=,+-]{0,99}")


@dataclass(frozen=True)
class Point:
    """One run of the notebook: `overrides` are the parameters that it sets, `swept` the columns that tell it apart."""

    sweep: str
    name: str
    overrides: Mapping[str, Any]
    swept: Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """What the figure shows: `metric` over the swept `x`, a line for each combination of the columns `by`."""

    metric: str
    x: str
    by: tuple[str, ...] = ("network",)
    where: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Sweep:
    """One file of params/sweeps, expanded for a profile."""

    name: str
    profile: str
    title: str
    notebook: str
    points: tuple[Point, ...]
    figure: Picture | None = None

    @property
    def home(self) -> Path:
        """figures/<profile>/sweeps/<sweep>."""
        return parameters.ROOT / "figures" / self.profile / "sweeps" / self.name

    @property
    def table(self) -> Path:
        """The CSV with every point's numbers."""
        return self.home / f"{self.name}.csv"

    def point(self, name: str) -> Point:
        """The point of that name; an error with the nearest one for another."""
        found = next((one for one in self.points if one.name == name), None)
        if found is None:
            there = [one.name for one in self.points]
            raise ParameterError(_where(self.name), "point", nearest(name, there), got=repr(name))
        return found


def names() -> list[str]:
    """The sweeps that there are."""
    return sorted(path.stem for path in (parameters.ROOT / "params" / "sweeps").glob("*.yaml"))


def _where(name: str) -> str:
    return f"params/sweeps/{name}.yaml"


def read(name: str, profile: str) -> Sweep:
    """The sweep of that name for a profile, every value checked; ParameterError(s) where something is wrong."""
    if name not in names():
        raise ParameterError("params/sweeps", "sweep", nearest(name, names()), got=repr(name))
    where = _where(name)
    given = glossary.read_yaml(parameters.ROOT / "params" / "sweeps" / f"{name}.yaml", where=where)
    for key in given:
        if key not in KEYS:
            raise ParameterError(where, key, nearest(key, KEYS), got=repr(key))
    title, notebook = (glossary.checked(Term(key, "sweep", type="str"), given.get(key), where=where)
                       for key in ("title", "notebook"))  # fmt: skip
    base = _base(notebook, profile, where=where)
    fixed = _fixed(_block(given, "fixed", where=where), base, where=where)
    axes = _axes(given, base, where=where)
    clash = sorted(fixed.keys() & {"networks" if key == "recipe" else key for key in axes})
    if clash:
        raise ParameterError(where, f"fixed.{clash[0]}", "it either fixed or swept", got="both")
    points = list(_points(name, axes, fixed, profile=profile, where=where))
    made = Sweep(name, profile, title, notebook, tuple(points))
    return replace(made, figure=_picture(_block(given, "figure", where=where), made, where=where))


def check(name: str, profile: str) -> list[ParameterError]:
    """Every fault of a sweep for a profile: its file, and each point's values in its notebook."""
    try:
        sweep = read(name, profile)
    except ParameterErrors as several:
        return several.faults
    except ParameterError as fault:
        return [fault]
    faults = []
    for point in sweep.points:
        faults += parameters.check(profile, [sweep.notebook], overrides=point.overrides)
    return list({str(fault): fault for fault in faults}.values())


def _block(given: Mapping[str, Any], key: str, *, where: str) -> dict[str, Any]:
    block = given.get(key)
    if block is not None and not isinstance(block, dict):
        raise ParameterError(where, key, "lines of `name: value`", got=show(block))
    return block or {}


def _base(notebook: str, profile: str, *, where: str) -> dict[str, Any]:
    """The notebook's values in the profile, which a point may change."""
    there = parameters.notebooks(profile)
    if notebook not in there:
        raise ParameterError(where, "notebook", nearest(notebook, there) + f" of {profile}", got=repr(notebook))
    return parameters.read(notebook, profile)


def _fixed(block: Mapping[str, Any], base: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    return {name: _value(name, value, base, where=f"{where}: fixed") for name, value in block.items()}


def _value(name: str, value: object, base: Mapping[str, Any], *, where: str) -> Any:
    """A value of a notebook's parameter, checked; one where a list is wanted is a list of it alone."""
    if name not in base:
        raise ParameterError(where, name, nearest(name, base), got=repr(name))
    term = parameters.glossary()[name]
    alone = term.type.startswith("list") and isinstance(value, str | int | float)
    return glossary.checked(term, [value] if alone else value, where=where)


def _axes(given: Mapping[str, Any], base: Mapping[str, Any], *, where: str) -> dict[str, list[Any]]:
    """Name → its values, in the order of the file; seeds last, `recipe` first, with the names of recipes."""
    axes: dict[str, list[Any]] = {}
    faults: list[ParameterError] = []
    lists = _block(given, "grid", where=where) | ({"seed": given["seeds"]} if "seeds" in given else {})
    for name, values in lists.items():
        block = "seeds" if name == "seed" and "seeds" in given else f"grid.{name}"
        if not isinstance(values, list) or not values:
            raise ParameterError(where, block, "a list of values", got=show(values))
        axes[name] = []
        for i, value in enumerate(values):
            try:
                axes[name].append(_value(name, value, base, where=f"{where}: grid[{i}]"))
            except ParameterError as fault:
                faults.append(fault)
    if faults:
        raise faults[0] if len(faults) == 1 else ParameterErrors(faults)
    if "recipe" in given:
        if "networks" not in base or "networks" in axes:
            expected = "a notebook with `networks` that the grid leaves alone"
            raise ParameterError(where, "recipe", expected, got=show(given["recipe"]))
        several = given["recipe"] if isinstance(given["recipe"], list) else [given["recipe"]]
        axes = {"recipe": several, **axes}
    if not axes:
        raise ParameterError(where, "grid", "lines of `name: [values]`, seeds or a recipe", got="nothing")
    return axes


def _points(
    sweep: str, axes: Mapping[str, list[Any]], fixed: Mapping[str, Any], *, profile: str, where: str
) -> Iterable[Point]:
    """Every combination of the axes' values, each with its name; two of one name are a fault."""
    parts = [
        _networks(several, profile, where=where) if name == "recipe" else [({name: v}, {name: v}) for v in several]
        for name, several in axes.items()
    ]
    seen: set[str] = set()
    for combination in itertools.product(*parts):
        overrides = {key: value for one, _ in combination for key, value in one.items()}
        swept = {key: value for _, one in combination for key, value in one.items()}
        name = _named(swept)
        if name in seen:
            raise ParameterError(where, "grid", "each point once", got=f"{name} twice")
        seen.add(name)
        yield Point(sweep, name, {**fixed, **overrides}, swept)


def _networks(recipes: list[Any], profile: str, *, where: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """For each network that `recipes` make: the parameter that names it, and its values of what their grids sweep.

    By these values where they are numbers, so that a recipe without a grid stands among those of a grid.
    """
    there = parameters.recipes(profile)
    known = sorted({name.partition("@")[0] for name in there})
    for recipe in recipes:
        if recipe not in known:
            expected = nearest(str(recipe), known) + f" of params/{profile}/networks.yaml"
            raise ParameterError(where, "recipe", expected, got=show(recipe))
    found = [one for recipe in recipes for one in there.values() if one.name.partition("@")[0] == recipe]
    pairs = [pair for one in found for pair in one.name.partition("@")[2].split(",") if pair]
    swept = list(dict.fromkeys(pair.partition("=")[0] for pair in pairs))
    if not swept:
        named = ", ".join(map(str, recipes))
        raise ParameterError(where, "recipe", f"one with a grid in params/{profile}/networks.yaml", got=named)
    for one in found:
        if lacking := [key for key in swept if one.entry.get(key) is None]:
            raise ParameterError(where, "recipe", f"networks that all have {lacking[0]}", got=f"{one.name} without")
    points = [({"networks": [one.name]}, {key: one.entry[key] for key in swept}) for one in found]
    if all(isinstance(value, int | float) for _, values_ in points for value in values_.values()):
        points.sort(key=lambda point: tuple(point[1].values()))
    return points


def _named(swept: Mapping[str, Any]) -> str:
    """A folder's name for a point: what is swept, or a hash where that is too long or has other letters.

    >>> _named({"epsilon_255": 8.0, "attacks": ["fgsm", "pgd_ce"], "seed": 0})
    'epsilon_255=8,attacks=fgsm+pgd_ce,seed=0'
    """
    name = ",".join(f"{key}={_text(value)}" for key, value in swept.items())
    if _NAME.fullmatch(name):
        return name
    return "point-" + hashlib.sha256(json.dumps(dict(swept), sort_keys=True).encode()).hexdigest()[:12]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_text, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _picture(block: Mapping[str, Any], sweep: Sweep, *, where: str) -> Picture | None:
    if not block:
        return None
    for key in block:
        if key not in FIGURE:
            raise ParameterError(where, f"figure.{key}", nearest(key, FIGURE), got=repr(key))
    swept = list(sweep.points[0].swept)
    for key, known in (("metric", parameters.metrics()), ("x", dict.fromkeys(swept))):
        if block.get(key) not in known:
            raise ParameterError(where, f"figure.{key}", nearest(str(block.get(key)), known), got=show(block.get(key)))
    by, only = block.get("by", ["network"]), _block(block, "where", where=where)
    if not isinstance(by, list) or not by or not all(isinstance(name, str) for name in by):
        raise ParameterError(where, "figure.by", "a list of the scalars' keys, such as [network]", got=show(by))
    others = [name for name in swept if name != block["x"]]
    return Picture(block["metric"], block["x"], (*by, *others), tuple(only.items()))


# What came of the points


def values(sweep: Sweep, point: Point) -> parameters.Parameters:
    """The parameters in force at a point."""
    read_ = parameters.read(sweep.notebook, sweep.profile, overrides=point.overrides)
    folder = sweep.home / point.name / sweep.notebook
    return parameters.Parameters(sweep.notebook, sweep.profile, values=read_, folder=folder)


def missing(sweep: Sweep) -> dict[str, str]:
    """Points whose results are not there as they are asked for now, and why, by name."""
    found = {}
    for point in sweep.points:
        folder = sweep.home / point.name
        status = files.read_json(folder / "notebooks" / f"{sweep.notebook}.run.json") or {}
        finished = files.read_json(folder / sweep.notebook / "finished.json")
        if not isinstance(finished, dict):
            found[point.name] = str(status.get("error") or "has not run")
        elif (finished.get("provenance") or {}).get("digest") != values(sweep, point).digest:
            found[point.name] = "its results are of other parameters or networks"
    return found


def main(arguments: list[str] | None = None) -> int:
    """Command line (see the module): 0 done, 1 no point could be collected, 2 wrong parameters."""
    parser = argparse.ArgumentParser(prog="python -m helpers.sweeps", description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["points", "collect"])
    parser.add_argument("profile")
    parser.add_argument("sweep")
    given = parser.parse_args(arguments)
    try:
        sweep = read(given.sweep, given.profile)
        faults = check(given.sweep, given.profile)
    except ParameterError as fault:
        faults = fault.faults if isinstance(fault, ParameterErrors) else [fault]
    if faults:
        print(*faults, sep="\n", file=sys.stderr)
        return 2
    if given.command == "points":
        print(json.dumps([point.name for point in sweep.points]))
        return 0
    from helpers import collected

    return collected.write(sweep)


if __name__ == "__main__":
    sys.exit(main())
