"""Figures on disk: PNG and PDF that say where they come from, and `<name>.figure.json` with caption and alt text.

The same figure gives the same bytes: no dates are written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from helpers import files, records, style

if TYPE_CHECKING:
    from helpers.parameters import Parameters

Origin = records.Record | Sequence[records.Record]


def save(fig: Figure, p: Parameters, name: str, record: Origin, *, caption: str, alt: str | None = None) -> Figure:
    """Write `name`.png (200 dpi), `name`.pdf and `name`.figure.json beside the record; returns `fig`.

    With COMPANION_FIGURES=png in the environment there is no PDF, of which embedding the letters is most of the time.
    `record` is what the figure was drawn from, one record or several. `caption` says what is seen; `alt` describes
    the picture to who cannot see it (the caption where not given). As the last line of a cell it shows the figure.
    """
    origin = checked(name, record, caption)
    text = f"{caption} From {', '.join(entry['file'] for entry in origin)}, commit {origin[0]['commit']}."
    made = [f"{name}.{kind}" for kind in _formats()]
    with style.in_style():
        with files.atomic(p.folder / f"{name}.png") as path:
            png = {"Title": name, "Description": text, "Source": _source(origin), "Software": None}
            fig.savefig(path, dpi=200, metadata=png)
        if f"{name}.pdf" in made:
            with files.atomic(p.folder / f"{name}.pdf") as path, _laid_out(fig):
                pdf = {"Title": name, "Subject": text, "Keywords": _source(origin), "CreationDate": None}
                fig.savefig(path, metadata=pdf)
        else:
            (p.folder / f"{name}.pdf").unlink(missing_ok=True)  # an earlier run's, of other numbers
    describe(p, "figure", name, origin=origin, caption=caption, alt=alt, made=made)
    return fig


def _formats() -> tuple[str, ...]:
    given = os.environ.get("COMPANION_FIGURES") or "png,pdf"
    if given not in ("png", "png,pdf"):
        raise ValueError(f"expected COMPANION_FIGURES to be png or png,pdf, got {given!r}")
    return tuple(given.split(","))


@contextmanager
def _laid_out(fig: Figure) -> Iterator[None]:
    """Axes stay where the last drawing put them: the PDF is the PNG's picture, and the layout is worked out once."""
    engine = fig.get_layout_engine()
    fig.set_layout_engine("none")
    try:
        yield
    finally:
        fig.set_layout_engine(engine)


def checked(name: str, record: Origin, caption: str) -> list[dict[str, Any]]:
    """Of each record its name, file, the SHA-256 of its arrays and its commit; nothing is written before this holds."""
    records.checked_name(name)
    if not caption.strip():
        raise ValueError(f"{name}: expected a caption that says what is seen, got {caption!r}")
    several = list(record) if isinstance(record, Sequence) else [record]
    if not several or not all(isinstance(entry, records.Record) for entry in several):
        raise ValueError(f"{name}: expected the record, or records, that it was made from, got {record!r}")
    return [
        {
            "name": entry.name,
            "notebook": entry.content["notebook"],
            "file": entry.path.name,
            "sha256": (entry.content["npz"] or {}).get("sha256"),
            "commit": entry.provenance["commit"],
        }
        for entry in several
    ]


def _source(origin: Sequence[dict[str, Any]]) -> str:
    return "; ".join(f"{entry['notebook']}/{entry['file']} sha256={entry['sha256']}" for entry in origin)


def describe(
    p: Parameters,
    kind: str,
    name: str,
    *,
    origin: list[dict[str, Any]],
    caption: str,
    alt: str | None,
    made: list[str],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write `name`.<kind>.json for the report, with `more`; after the files that it names."""
    content = {"format": f"{kind}/1", "name": name, "caption": caption, "alt": alt or caption}
    files.write_json(p.folder / f"{name}.{kind}.json", content | {"record": origin, "files": made} | dict(more or {}))
    records.note(p, kind, name)
