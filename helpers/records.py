"""Results with their origin: compute, save a record, then draw from the record only (DESIGN, contract 5).

A record is `<name>.json`, which a person can read (scalars with unit, n, seeds and interval; provenance),
and, for per-sample values, `<name>.npz` beside it, named and hashed in the JSON. The JSON is written last,
so a run killed in between leaves a record that says it is damaged, never one that is silently wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import arrays as npz
from helpers import files, parts
from helpers.provenance import provenance as provenance
from helpers.scalars import RESERVED, Scalar
from helpers.scalars import RecordError as RecordError
from helpers.scalars import scalar as scalar

if TYPE_CHECKING:
    from helpers.parameters import Parameters

FORMAT = "record/1"
# What differs between two runs that computed the same.
INCIDENTAL = {
    "commit",
    "dirty",
    "commit_note",
    "wall_seconds",
    "peak_memory_mib",
    "peak_device_memory_mib",
    "finished_at",
}
COST_UNITS = {"s", "ms", "min", "h", "MiB", "GiB", "images/s"}
COST_UNITS |= {"×", "operation/s", "B/s", "% of the ceiling", "% of the time"}


@dataclass(frozen=True)
class Record:
    """A saved result: `.scalars` (DataFrame), `.frame(name)`, `.arrays[name]`, `.provenance`."""

    path: Path
    content: dict[str, Any]
    stored: dict[str, np.ndarray] = field(repr=False)

    @property
    def name(self) -> str:
        """The record's name, that of its file without suffix."""
        return str(self.content["record"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Commit, parameters, versions, device, threads, time and memory of the run that made it."""
        return dict(self.content["provenance"])

    @property
    def scalars(self) -> pd.DataFrame:
        """One row for each scalar; what a scalar does not have is missing."""
        return pd.DataFrame(self.content["scalars"], columns=_columns(self.content["scalars"]))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {name: self.stored[f"array/{name}"] for name in self.content["arrays"]}

    def frame(self, name: str) -> pd.DataFrame:
        """The tidy frame `name`, columns in the order in which they were saved."""
        frames = self.content["frames"]
        if name not in frames:
            raise RecordError(f"{self.path}: expected one of the frames {sorted(frames)}, got {name!r}")
        return pd.DataFrame({column: self.stored[f"frame/{name}/{column}"] for column in frames[name]["columns"]})

    def value(self, metric: str, **where: object) -> float | None:
        """The value of the one scalar of `metric` that agrees with `where`."""
        rows = [row for row in self.content["scalars"] if row["metric"] == metric]
        rows = [row for row in rows if all(row.get(key) == entry for key, entry in where.items())]
        if len(rows) != 1:
            raise RecordError(f"{self.path}: expected one {metric} where {where}, got {[row['id'] for row in rows]}")
        value: float | None = rows[0]["value"]
        return value


def _columns(rows: Iterable[Scalar]) -> list[str]:
    return list(dict.fromkeys([*RESERVED, *(key for row in rows for key in row)]))


def save(
    p: Parameters,
    name: str,
    *,
    scalars: Iterable[Scalar] = (),
    frames: Mapping[str, pd.DataFrame] | None = None,
    arrays: Mapping[str, object] | None = None,
) -> Record:
    """Write the record `name` of the notebook of `p` and return it as it was read back.

    Frames are tidy: unnamed index (dropped), columns of numbers, booleans or strings, none missing in a string column.
    """
    checked_name(name)
    path = p.folder / f"{name}.json"
    rows, frames, arrays = list(scalars), frames or {}, arrays or {}
    ids = [row["id"] for row in rows]
    if double := {entry for entry in ids if ids.count(entry) > 1}:
        raise RecordError(f"{name}: expected each scalar once, got several of {sorted(double)}")
    stored = {f"array/{key}": value for key, value in npz.checked(arrays).items()}
    for key, frame in frames.items():
        stored |= {f"frame/{key}/{column}": value for column, value in _frame_columns(frame, f"{name}, {key}").items()}
    content: dict[str, Any] = {"format": FORMAT, "record": name, "profile": p.profile, "notebook": p.notebook}
    content["frames"] = {key: {"rows": len(frame), "columns": list(frame.columns)} for key, frame in frames.items()}
    content["arrays"] = {key: _shape(stored[f"array/{key}"]) for key in arrays}
    p.folder.mkdir(parents=True, exist_ok=True)
    content["npz"] = None
    if stored:
        target = path.with_suffix(".npz")
        content["npz"] = {"file": target.name, "sha256": npz.write(target, stored)}
    content |= {"scalars": rows, "provenance": provenance(p)}
    files.write_text(path, _text(content))
    if not stored:
        path.with_suffix(".npz").unlink(missing_ok=True)
    note(p, "record", name)
    return load(path)


def checked_name(name: str) -> str:
    """`name` if it can be a file's name everywhere, else `RecordError`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.@=-]*", name):
        raise RecordError(f"name: expected letters, digits and _ . @ = -, got {name!r}")
    return name


def _shape(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


def _frame_columns(frame: pd.DataFrame, name: str) -> dict[str, np.ndarray]:
    if any(entry is not None for entry in frame.index.names):
        raise RecordError(f"{name}: expected a frame with an unnamed index, got {frame.index.names}; use reset_index()")
    if not all(isinstance(column, str) for column in frame.columns) or not frame.columns.is_unique:
        raise RecordError(f"{name}: expected columns named once, by strings, got {list(frame.columns)}")
    out = {}
    for column in frame.columns:
        series = frame[column]
        gaps = not isinstance(series.dtype, np.dtype) and series.isna().any()  # would come back as another type
        if pd.api.types.is_numeric_dtype(series.dtype) and not gaps:  # booleans are numeric for pandas
            out[column] = series.to_numpy()
        elif all(isinstance(entry, str) for entry in series):
            out[column] = np.array(series.to_list(), dtype=np.str_) if len(series) else np.array([], dtype="<U1")
        else:
            raise RecordError(f"{name}, column {column!r}: expected numbers, booleans or strings without gaps")
    try:
        return npz.checked(out)
    except ValueError as error:
        raise RecordError(f"{name}: {error}") from None


def _text(content: Mapping[str, Any]) -> str:
    """JSON with one line for each scalar, so that a person reads it and a diff shows what changed."""
    head = {key: value for key, value in content.items() if key not in ("scalars", "provenance")}
    lines = [f"    {_line(row)}" for row in content["scalars"]]
    block = "[\n" + ",\n".join(lines) + "\n  ]" if lines else "[]"
    entries = [f'  "{key}": {_line(value)}' for key, value in head.items()]
    origin = json.dumps(content["provenance"], indent=2, ensure_ascii=False, allow_nan=False).replace("\n", "\n  ")
    return "{\n" + ",\n".join([*entries, f'  "scalars": {block}', f'  "provenance": {origin}']) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def load(path: Path | str) -> Record:
    """The record at `path` (its JSON); `RecordError` naming the file where it or its arrays are not as written."""
    path = Path(path)
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: expected a record, found no file; run the notebook that makes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: expected a whole JSON record, got: {error}; run its notebook again") from None
    keys = ("record", "profile", "notebook", "frames", "arrays", "npz", "scalars", "provenance")
    if not isinstance(content, dict) or content.get("format") != FORMAT or any(key not in content for key in keys):
        raise RecordError(f"{path}: expected a record ({FORMAT}), got another JSON file")
    stored: dict[str, np.ndarray] = {}
    if content["npz"] is not None:
        try:
            stored = npz.read(path.parent / content["npz"]["file"], sha256=content["npz"]["sha256"])
        except npz.DamagedFile as error:
            raise RecordError(f"{error}, named in {path.name}; run its notebook again") from error
    return Record(path, content, stored)


def find(p: Parameters, name: str, *, notebook: str | None = None) -> Record:
    """The record `name` of the notebook of `p`, or of another `notebook` of the same profile."""
    folder = p.folder if notebook is None else p.folder.parent / checked_name(notebook)
    return load(folder / f"{checked_name(name)}.json")


_outputs: dict[Path, dict[tuple[str, str], None]] = {}


def note(p: Parameters, kind: str, name: str) -> None:
    """Remember that this run wrote `name` (a "record", "figure" or "table"); `finish` lists them in this order."""
    _outputs.setdefault(p.folder.resolve(), {})[kind, name] = None


def finish(p: Parameters) -> Path:
    """The sentinel at the end of a notebook: `finished.json`, what the run wrote, in order; removes the parts.

    Without this file a notebook has not come to its end, whatever its cells say.
    """
    p.folder.mkdir(parents=True, exist_ok=True)
    outputs = [{"kind": kind, "name": name} for kind, name in _outputs.get(p.folder.resolve(), {})]
    path = p.folder / "finished.json"
    content = {"format": "finished/1", "notebook": p.notebook, "profile": p.profile, "outputs": outputs}
    files.write_json(path, content | {"provenance": provenance(p)})
    parts.clear(p)
    return path


def compare(folder_a: Path | str, folder_b: Path | str) -> list[str]:
    """Differences between the records under two folders, one line each; time, memory and commit do not count.

    Scalars and parameters are compared value by value, arrays and frames bit for bit (NaN equal to NaN).
    """
    found_a, found_b = _records(Path(folder_a)), _records(Path(folder_b))
    lines = [f"{name}: only in {folder_a}" for name in sorted(set(found_a) - set(found_b))]
    lines += [f"{name}: only in {folder_b}" for name in sorted(set(found_b) - set(found_a))]
    for name in sorted(set(found_a) & set(found_b)):
        try:
            a, b = load(found_a[name]), load(found_b[name])
        except RecordError as error:
            lines.append(str(error))
            continue
        lines += [f"{name}: {line}" for line in _differences(_comparable(a), _comparable(b))]
        for key in sorted(set(a.stored) | set(b.stored)):
            lines += [f"{name}: {key}: {line}" for line in _array_difference(a.stored.get(key), b.stored.get(key))]
    return lines


def _records(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise RecordError(f"{folder}: expected a folder of records, found none")
    paths = sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path for path in paths if f'"{FORMAT}"' in _head(path)}


def _head(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as stream:
        return stream.read(200)


def _comparable(record: Record) -> dict[str, Any]:
    content = {key: value for key, value in record.content.items() if key not in ("npz", "scalars", "provenance")}
    rows = {row["id"]: row for row in record.content["scalars"] if row["unit"] not in COST_UNITS}
    origin = {key: value for key, value in record.provenance.items() if key not in INCIDENTAL}
    return content | {"scalars": rows, "provenance": origin}


def _differences(a: Any, b: Any, place: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [*a, *(key for key in b if key not in a)]
        return [line for key in keys for line in _differences(a.get(key), b.get(key), f"{place}/{key}".lstrip("/"))]
    return [] if a == b and type(a) is type(b) else [f"{place}: {a!r} against {b!r}"]


def _array_difference(a: np.ndarray | None, b: np.ndarray | None) -> list[str]:
    if a is None or b is None:
        return ["only in one of them"]
    if npz.identical(a, b):
        return []
    if a.shape != b.shape or a.dtype != b.dtype:
        return [f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}"]
    return [f"{int(np.sum(a != b))} of {a.size} values differ"]


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m helpers.records compare A B`: print the differences; 1 where there are any."""
    parser = argparse.ArgumentParser(prog="python -m helpers.records")
    command = parser.add_subparsers(dest="command", required=True).add_parser("compare")
    command.add_argument("a", type=Path)
    command.add_argument("b", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        lines = compare(chosen.a, chosen.b)
    except RecordError as error:
        print(error, file=sys.stderr)
        return 2
    n = len(_records(chosen.a))
    print("\n".join(lines) if lines else f"no difference in {n} record{'' if n == 1 else 's'}")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
