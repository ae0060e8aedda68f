"""Tables of results: estimates with their intervals, published values beside ours, CSV and LaTeX.

A cell may be an estimate (anything with `value`, `low`, `high`, such as `metrics.Estimate`). It is printed as
"52.3 [50.1, 54.5]"; the CSV holds value, low and high in full precision in three columns.
"""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from helpers import files
from helpers.parameters import ROOT
from helpers.saving import Origin, checked, describe

if TYPE_CHECKING:
    from helpers.parameters import Parameters

UNCERTAIN = {"low", "?", "recalled", "unverified"}  # tags of published values that are not printed as fact
MISSING = "–"
LONG = 40  # letters of a cell that is a sentence


@dataclass(frozen=True)
class Interval:
    """A value with its interval, printed with as many decimals as the interval's width deserves.

    >>> str(Interval(52.31, 50.12, 54.49)), str(Interval(0.1234, 0.1210, 0.1258)), str(Interval(3.0, None, None))
    ('52.3 [50.1, 54.5]', '0.1234 [0.1210, 0.1258]', '3')
    """

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None or not math.isfinite(self.low + self.high):
            return f"{self.value:.4g}"
        half = (self.high - self.low) / 2
        digits = min(max(1 - math.floor(math.log10(half)), 0), 9) if half > 0 else 3
        value, low, high = (f"{round(entry, digits) + 0.0:.{digits}f}" for entry in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def wide(scalars: pd.DataFrame, *, rows: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """A record's scalars as a table: one row for each combination of the columns `rows`, one column for each metric.

    Cells are intervals; what was not measured is None. Each cell must be measured once: ValueError names the others.
    """
    chosen = scalars[scalars["metric"].isin(metrics)]
    if absent := [name for name in metrics if name not in set(chosen["metric"])]:
        raise ValueError(f"metrics: expected some of {sorted(set(scalars['metric']))}, got {absent}")
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in chosen.to_dict("records"):
        place = tuple(row[name] for name in rows)
        cells = table.setdefault(place, dict.fromkeys(metrics))
        if cells[row["metric"]] is not None:
            raise ValueError(f"{row['metric']}: expected one value where {dict(zip(rows, place, strict=True))}")
        if not _absent(row["value"]):
            low, high = (None if _absent(row[name]) else row[name] for name in ("low", "high"))
            cells[row["metric"]] = Interval(row["value"], low, high)
    lines = [{**dict(zip(rows, place, strict=True)), **cells} for place, cells in table.items()]
    return pd.DataFrame(lines, columns=[*rows, *metrics], dtype=object)


def published(
    df: pd.DataFrame,
    published_csv: Path | str,
    *,
    on: Sequence[str],
    value: str,
    ours: str,
    how: Literal["left", "right", "inner", "outer"] = "outer",
) -> pd.DataFrame:
    """Published values beside ours: the columns `on`, published, source, trust, ours, difference (ours − published).

    `published_csv` is a file name in params/published or a path; `value` its column of numbers, `ours` the column of
    `df`. `how` as in pandas: "outer" also keeps rows that only one side has. A value whose tag says that it is
    recalled or unverified is left out. The difference carries our interval, moved: published values have none.
    """
    path = Path(published_csv)
    path = path if path.is_absolute() else ROOT / "params" / "published" / path
    theirs = pd.read_csv(path)
    if missing := [name for name in [*on, value] if name not in theirs]:
        raise ValueError(f"{path.name}: expected columns {missing}, got {list(theirs.columns)}")
    if missing := [name for name in [*on, ours] if name not in df]:
        raise ValueError(f"df: expected columns {missing}, got {list(df.columns)}")
    if theirs.duplicated(list(on)).any() or df.duplicated(list(on)).any():
        raise ValueError(f"on: expected columns that tell rows apart, got {list(on)}")
    theirs = theirs.rename(columns={value: "published"})
    for name in ("source", "trust"):
        theirs[name] = theirs.get(name)
    theirs.loc[theirs["trust"].isin(list(UNCERTAIN)), "published"] = float("nan")
    theirs = theirs[[*on, "published", "source", "trust"]]
    both = theirs.merge(df[[*on, ours]].rename(columns={ours: "ours"}), on=list(on), how=how, sort=False)
    moved = [_moved(a, b) for a, b in zip(both["ours"], both["published"], strict=True)]
    return both.astype({"ours": object}).assign(difference=pd.Series(moved, index=both.index, dtype=object))


def _moved(ours: Any, theirs: Any) -> Interval | None:
    if _absent(ours) or _absent(theirs):
        return None
    value, low, high = _parts(ours)
    return Interval(value - theirs, None if low is None else low - theirs, None if high is None else high - theirs)


def _absent(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _parts(value: Any) -> tuple[float, float | None, float | None]:
    """Value, low and high of an estimate or a number; an interval that is not finite is none."""
    if not hasattr(value, "low"):
        return float(value), None, None
    if _absent(value.low) or _absent(value.high):
        return float(value.value), None, None
    return float(value.value), float(value.low), float(value.high)


def text(value: Any) -> str:
    """A cell as it is printed: estimates with interval, numbers with four digits, a dash for what is missing.

    >>> text(91.73), text(None), text(1000), text(True), text("PGD-CE")
    ('91.73', '–', '1,000', 'yes', 'PGD-CE')
    """
    if _absent(value):
        return MISSING
    if hasattr(value, "low"):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save(
    df: pd.DataFrame,
    p: Parameters,
    name: str,
    record: Origin,
    *,
    caption: str,
    headers: Mapping[str, str] | None = None,
) -> Shown:
    """Write `name`.csv (full precision), `name`.tex (booktabs) and `name`.table.json; as last line of a cell it shows.

    `headers` prints a column under another name. The index is not printed: use `reset_index()` to keep it.
    """
    origin = checked(name, record, caption)
    titles = [(headers or {}).get(column, column) for column in df.columns]
    lines = [[text(value) for value in row] for row in df.itertuples(index=False, name=None)]
    files.write_text(p.folder / f"{name}.csv", as_csv(df))
    files.write_text(
        p.folder / f"{name}.tex", as_latex(titles, lines, numeric=_numeric(df), caption=caption, name=name)
    )
    made = [f"{name}.csv", f"{name}.tex"]
    cells = {"columns": titles, "rows": lines, "numeric": _numeric(df)}
    describe(p, "table", name, origin=origin, caption=caption, alt=None, made=made, more=cells)
    return show(df, headers=headers)


def as_csv(df: pd.DataFrame) -> str:
    """CSV in full precision; a column of estimates becomes three: name, name_low, name_high."""
    columns: dict[str, list[Any]] = {}
    for column in df.columns:
        values = list(df[column])
        if any(hasattr(value, "low") for value in values):
            parts = [(None, None, None) if _absent(value) else _parts(value) for value in values]
            columns |= {f"{column}{end}": [part[i] for part in parts] for i, end in enumerate(("", "_low", "_high"))}
        else:
            columns[column] = [None if _absent(value) else value for value in values]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def _numeric(df: pd.DataFrame) -> list[bool]:
    """Which columns hold numbers, and so are set flush right."""
    return [
        all(_absent(value) or hasattr(value, "low") or isinstance(value, int | float) or hasattr(value, "item")
            for value in df[column]) for column in df.columns
    ]  # fmt: skip


LATEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {character: f"\\{character}" for character in "&%$#_"}
LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "−": "$-$", "–": "--", "Δ": r"$\Delta$", "ε": r"$\epsilon$"}
LATEX |= {"∞": r"$\infty$", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "β": r"$\beta$", "±": r"$\pm$"}


def escaped(value: str) -> str:
    r"""`value` for LaTeX.

    >>> escaped("robust_accuracy (%)")
    'robust\\_accuracy (\\%)'
    """
    return "".join(LATEX.get(character, character) for character in value)


def as_latex(
    titles: Sequence[str], lines: Sequence[Sequence[str]], *, numeric: Sequence[bool], caption: str, name: str
) -> str:
    """A `table` environment with booktabs rules; everything escaped."""
    label = "".join(character if character.isalnum() else "-" for character in name)
    body = [" & ".join(map(escaped, line)) + r" \\" for line in lines]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escaped(caption)}}}",
            rf"  \label{{tab:{label}}}",
            rf"  \begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}",
            r"    \toprule",
            "    " + " & ".join(map(escaped, titles)) + r" \\",
            r"    \midrule",
            *(f"    {line}" for line in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def readme(df: pd.DataFrame, *, headers: Mapping[str, str] | None = None) -> str:
    """`df` as README.md has it: GitHub's Markdown, estimates with their interval, a dash for what is missing.

    >>> print(readme(pd.DataFrame({"E(x|y)": [Interval(52.31, 50.12, 54.49), None], "n": [1000, 2]})))
    | E(x\\|y) | n |
    | --- | ---: |
    | 52.3 [50.1, 54.5] | 1,000 |
    | – | 2 |
    """
    shown = show(df, headers=headers)
    rule = ["---:" if right else "---" for right in shown.numeric]
    rule[0] = "---"
    lines = [[re.sub(r"[|*]", r"\\\g<0>", cell) for cell in line] for line in (shown.titles, *shown.lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


class Shown:
    """A table as a notebook shows it."""

    def __init__(self, titles: Sequence[str], lines: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
        self.titles, self.lines, self.numeric = titles, lines, numeric

    def __repr__(self) -> str:
        return pd.DataFrame(self.lines, columns=list(self.titles)).to_string(index=False)

    def _repr_html_(self) -> str:
        aligned = [f"text-align:{'right' if right else 'left'}" for right in self.numeric]
        head = _row("th", self.titles, aligned)
        body = "".join(_row("td", line, aligned) for line in self.lines)
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, cells: Sequence[str], styles: Sequence[str]) -> str:
    """One row; a cell with a sentence in it is broken into lines, others are not."""
    widths = ["min-width:14em" if len(cell) > LONG else "white-space:nowrap" for cell in cells]
    inside = (
        f'<{tag} style="{style};{width}">{html.escape(cell)}</{tag}>'
        for cell, style, width in zip(cells, styles, widths, strict=True)
    )
    return f"<tr>{''.join(inside)}</tr>"


def show(df: pd.DataFrame, *, headers: Mapping[str, str] | None = None) -> Shown:
    """`df` as a notebook shows it: estimates with intervals, a dash for what is missing."""
    titles = [(headers or {}).get(column, column) for column in df.columns]
    lines = [[text(value) for value in row] for row in df.itertuples(index=False, name=None)]
    return Shown(titles, lines, _numeric(df))
