"""The report page of a profile: `python -m helpers.report <profile>` writes figures/<profile>/index.html.

One page that asks nothing of other machines: images are in it, there is no script, and its policy forbids both.
Everything that was read from a file is escaped by the template. Results that are missing, damaged or left over from an
earlier run are said to be so; the page is written in any case. No torch.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from helpers import embedding, files, parameters, records
from helpers.tables import MISSING, Interval

TEMPLATE = Path(__file__).with_suffix(".html")
OUTCOMES = {"ok": "done", "failed": "failed", "running": "did not come to an end", None: "has not run"}
KINDS = {"ok": "ok", "failed": "failed"}
NAMING = ("metric", "id", "value", "unit", "n", "seeds", "low", "high", "level", "interval_kind")
RADII = {"linf": ("epsilon_255", "L∞ {:g}/255"), "l2": ("epsilon_l2", "L2 {:g}")}
MOST_ROWS = 600  # of a record's numbers on the page; all of them are in the record


def write(profile: str, *, folder: Path | None = None) -> Path:
    """Write the page of `profile` from what lies in `folder` (figures/<profile>); returns its path."""
    folder = parameters.ROOT / "figures" / profile if folder is None else folder
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected the results of a run, found no folder; start ./run_all.sh {profile}")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(TEMPLATE.read_text("utf-8")).render(content(profile, folder))
    path = folder / "index.html"
    files.write_text(path, page)
    return path


def content(profile: str, folder: Path) -> dict[str, Any]:
    """All that the template prints, by name."""
    notebooks = [notebook(folder, name) for name in _names(profile, folder)]
    origins = [run["provenance"] for run in notebooks if run["provenance"]]
    done = sum(run["kind"] == "ok" for run in notebooks)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {
        "profile": profile,
        "title": _title(profile),
        "summary": f"{done} of {len(notebooks)} notebooks done. Page made {now}.",
        "header": _machine(origins),
        "warnings": _warnings(origins),
        "notebooks": notebooks,
        "networks": networks(profile, folder),
    }


def _names(profile: str, folder: Path) -> list[str]:
    """The profile's notebooks, and others whose results lie in the folder."""
    try:
        known = parameters.notebooks(profile)
    except parameters.ParameterError:
        known = []
    found = {path.parent.name for path in folder.glob("[0-9][0-9]_*/*.json")}
    return sorted({*known, *found, *(path.name.split(".")[0] for path in folder.glob("notebooks/*.run.json"))})


def _title(profile: str) -> str:
    try:
        return str(parameters.profile_facts(profile)["title"])
    except parameters.ParameterError:
        return profile


def _machine(origins: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What all runs had in common, or each of what they had."""

    def each(values: Iterable[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, ""))) or MISSING

    versions: dict[str, list[Any]] = {}
    for origin in origins:
        for name, version in (origin.get("versions") or {}).items():
            versions.setdefault(name, []).append(version)
    times = sorted(str(origin.get("finished_at", "")) for origin in origins)
    return [
        ("commit", each(_commit(origin) for origin in origins)),
        ("finished", " to ".join(dict.fromkeys([times[0], times[-1]])) if times else MISSING),
        ("device", each(origin.get("device") for origin in origins)),
        ("platform", each(origin.get("platform") for origin in origins)),
        ("threads", each(origin.get("threads") for origin in origins)),
        ("versions", ", ".join(f"{name} {each(found)}" for name, found in versions.items()) or MISSING),
    ]


def _commit(origin: Mapping[str, Any]) -> str:
    """Twelve digits of the commit, whether files differed from it, or why it is not known."""
    if origin.get("commit") in (None, "unknown"):
        return f"unknown ({origin.get('commit_note', 'not recorded')})"
    return str(origin["commit"])[:12] + (" with changes" if origin.get("dirty") else "")


def _warnings(origins: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    if len({str(origin.get("commit")) for origin in origins}) > 1:
        lines.append("The notebooks were run at different commits; each figure names its own.")
    if any(origin.get("dirty") for origin in origins):
        lines.append("Some files differed from the commit when a notebook was run.")
    return lines


# One notebook


def notebook(folder: Path, name: str) -> dict[str, Any]:
    """How the notebook went, and its figures, tables and numbers in the order in which it made them."""
    status = _mapping(files.read_json(folder / "notebooks" / f"{name}.run.json"))
    sentinel = _mapping(files.read_json(folder / name / "finished.json"))
    outcome = status.get("outcome", "ok" if sentinel else None)
    listed = [_mapping(entry) for entry in sentinel.get("outputs") or []]
    present = {(kind, one.name.removesuffix(f".{kind}.json")): one for kind in ("figure", "table")
               for one in sorted((folder / name).glob(f"*.{kind}.json")) if not one.name.startswith(".")}  # fmt: skip
    order = [(str(entry.get("kind")), Path(str(entry.get("name"))).name) for entry in listed]
    current = [key for key in order if key[0] in ("figure", "table")] if sentinel else list(present)
    left = [key for key in present if key not in current]
    return {
        "name": name,
        "outcome": OUTCOMES.get(outcome, str(outcome)),
        "kind": KINDS.get(str(outcome), "other"),
        "seconds": _number(status.get("seconds"), "{:.1f}"),
        "memory": _number(status.get("peak_memory_mib", status.get("peak_memory_mb")), "{:,.0f} MiB"),
        "error": str(status.get("error") or "no reason was recorded") if outcome == "failed" else "",
        "links": _existing(folder, _run_links(name)),
        "notes": _notes(outcome, left, finished=bool(sentinel), shown=bool(current)),
        "exhibits": [exhibit(folder, name, kind, one) for kind, one in current],
        "numbers": _numbers(folder, name, [one for kind, one in order if kind == "record"]),
        "provenance": _mapping(sentinel.get("provenance")),
    }


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any, form: str) -> str:
    plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return form.format(value) if plain else MISSING


def _run_links(name: str) -> list[tuple[str, str]]:
    executed = f"notebooks/{name}"
    return [("executed", f"{executed}.html"), ("ipynb", f"{executed}.ipynb"), ("log", f"logs/{name}.log")]


def _existing(folder: Path, wanted: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those links that lead to a file, as addresses relative to the page."""
    return [(text, quote(path)) for text, path in wanted if _inside(folder, path).is_file()]


def _inside(folder: Path, path: str) -> Path:
    """`path` in `folder`; one that leads out of it stands for a file that is not there."""
    found = (folder / path).resolve()
    return found if found.is_relative_to(folder.resolve()) else folder / "outside"


def _notes(outcome: str | None, left: list[tuple[str, str]], *, finished: bool, shown: bool) -> list[str]:
    lines = []
    if outcome is None:
        lines.append("This notebook has not run in this profile.")
    if outcome is not None and not finished and shown:
        lines.append("It did not come to its end: what follows was made before it stopped, or by an earlier run.")
    if finished and left:
        lines.append(f"Left by an earlier run and not shown: {', '.join(one for _, one in left)}.")
    return lines


def exhibit(folder: Path, notebook: str, kind: str, name: str) -> dict[str, Any]:
    """A figure or table: picture or rows, caption, links and where it comes from; faults where files are not there."""
    home = folder / notebook
    side = _mapping(files.read_json(home / f"{name}.{kind}.json"))
    found: dict[str, Any] = {"name": name, "caption": str(side.get("caption", name)), "alt": str(side.get("alt", name))}
    found |= {"image": "", "width": 0, "height": 0, "rows": None, "columns": [], "numeric": [], "faults": []}
    if not side:
        return found | {"links": [], "origin": [], "faults": [f"{name}.{kind}.json is missing or damaged."]}
    made = [str(one) for one in side.get("files") or [] if Path(str(one)).name == one]
    origins = [_mapping(one) for one in side.get("record") or []]
    faults = [f"{one} is missing." for one in made if not (home / one).is_file()]
    if kind == "table":
        found |= {key: side.get(key) or [] for key in ("columns", "rows", "numeric")}
        found["numeric"] = [*found["numeric"], *[False] * len(found["columns"])]
    else:
        picture = next((home / one for one in made if one.endswith((".gif", ".png")) and (home / one).is_file()), None)
        try:
            found |= embedding.picture(picture) if picture is not None else {}
        except ValueError as error:
            faults.append(str(error))
    linked = [(one.rpartition(".")[2].upper(), f"{notebook}/{one}") for one in made]
    linked += [(f"record {one.get('name')}", f"{one.get('notebook')}/{one.get('file')}") for one in origins]
    return found | {"links": _existing(folder, linked), "origin": _origin(folder, origins), "faults": faults}


def _origin(folder: Path, origins: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Provenance of the records that an exhibit was made from."""
    lines: list[tuple[str, str]] = []
    for one in origins:
        path = _inside(folder, f"{one.get('notebook')}/{one.get('file')}")
        lines.append(("record", f"{one.get('notebook')}/{one.get('file')}"))
        lines.append(("SHA-256", str(one.get("sha256") or "no arrays")))
        origin = _mapping(_mapping(files.read_json(path)).get("provenance"))
        values = _mapping(origin.get("parameters"))
        lines.append(("commit", _commit(origin or one)))
        lines.append(("parameters", ", ".join(f"{name} = {value}" for name, value in values.items()) or MISSING))
        machine = [origin.get("device"), f"{origin.get('threads')} threads" if "threads" in origin else None]
        lines.append(("machine", ", ".join(str(part) for part in machine if part) or MISSING))
        when = f"{origin.get('finished_at')}, {origin.get('wall_seconds')} s after the start"
        lines.append(("written", when if "finished_at" in origin else MISSING))
    return lines


def _numbers(folder: Path, notebook: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """The scalars of the notebook's records, one table for each record."""
    found = []
    for name in names:
        try:
            record = records.load(folder / notebook / f"{name}.json")
        except records.RecordError as error:
            fault = str(error).replace(f"{folder}/", "")
            found.append({"name": name, "columns": ["damaged"], "rows": [[fault]], "numeric": [False]})
            continue
        rows = [_scalar(row) for row in record.content["scalars"][:MOST_ROWS]]
        if rows:
            heads = ["metric", "where", "value", "unit", "n", "seeds", "interval"]
            numeric = [False, False, True, False, True, False, False]
            found.append({"name": name, "columns": heads, "rows": rows, "numeric": numeric})
    return found


def _scalar(row: Mapping[str, Any]) -> list[str]:
    where = ", ".join(f"{key} = {value}" for key, value in row.items() if key not in NAMING and value is not None)
    value = MISSING if row["value"] is None else str(Interval(row["value"], row["low"], row["high"]))
    seeds = ", ".join(map(str, row["seeds"] or [])) or MISSING
    kind = f"{row['interval_kind']}, {100 * row['level']:g} %" if row["low"] is not None else MISSING
    return [row["metric"], where, value, row["unit"], _number(row["n"], "{:,}"), seeds, kind.replace("_", " ")]


# Networks


def networks(profile: str, folder: Path) -> dict[str, Any]:
    """The trained networks that the profile's recipes name now, from their cards."""
    try:
        known = list(parameters.recipes(profile).values())
    except parameters.ParameterError:
        known = []
    rows, attacks = [], []
    for recipe in known:
        for seed in recipe.seeds:
            home = folder / "networks" / recipe.name / f"seed{seed}-{recipe.digest(seed)}"
            card = _mapping(files.read_json(home / "card.json"))
            if card:
                rows.append(_network(recipe.name, seed, card))
                attacks.append(_attack(_mapping(_mapping(card.get("accuracy")).get("pgd"))))
    columns = ["network", "seed", "architecture", "objective", "clean (%)", "PGD (%)", "in", "n", "seconds"]
    numeric = [False, True, False, False, True, True, False, True, True]
    said = "; ".join(dict.fromkeys(one for one in attacks if one)) or "not measured."
    return {"columns": columns, "rows": rows, "numeric": numeric, "attack": said}


def _network(name: str, seed: int, card: Mapping[str, Any]) -> list[str]:
    entry, accuracy = _mapping(card.get("entry")), _mapping(card.get("accuracy"))
    made = _mapping(card.get("provenance"))
    return [
        name,
        str(seed),
        str(entry.get("architecture") or MISSING),
        str(entry.get("objective") or entry.get("source") or MISSING),
        *(_accuracy(_mapping(accuracy.get(kind))) for kind in ("clean", "pgd")),
        ball(_mapping(accuracy.get("pgd"))) or MISSING,
        _number(_mapping(accuracy.get("clean")).get("n"), "{:,}"),
        _number(made.get("seconds"), "{:.1f}"),
    ]


def _accuracy(stored: Mapping[str, Any]) -> str:
    value, low, high = (stored.get(key) for key in ("value", "low", "high"))
    return str(Interval(float(value), low, high)) if isinstance(value, int | float) else MISSING


def _attack(stored: Mapping[str, Any]) -> str:
    """The attack of a card's robust accuracy, in words; its ball is a column."""
    if not stored:
        return ""
    return f"{stored.get('attack')} with {stored.get('n_steps')} steps, returns = {stored.get('returns')}"


def ball(stored: Mapping[str, Any] | None) -> str | None:
    """Norm and radius of a card's robust accuracy, in [0, 1] pixels; None where it has none.

    >>> ball({"attack_norm": "linf", "epsilon_255": 8.0}), ball({"attack_norm": "l2", "epsilon_l2": 0.5})
    ('L∞ 8/255', 'L2 0.5')
    """
    if not stored or stored.get("attack_norm") not in RADII:
        return None
    key, text = RADII[stored["attack_norm"]]
    return text.format(stored[key]) if isinstance(stored.get(key), int | float) else None


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m helpers.report <profile>`: write the page and print its path."""
    parser = argparse.ArgumentParser(prog="python -m helpers.report", description="Write the report page of a profile.")
    parser.add_argument("profile")
    try:
        path = write(parser.parse_args(arguments).profile)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(path.relative_to(parameters.ROOT) if path.is_relative_to(parameters.ROOT) else path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
