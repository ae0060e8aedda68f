"""What figures and tables ask of a tidy frame, said once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd


def needed(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuse a frame that lacks one of `columns`, has no rows, or holds numbers that are not finite in them."""
    columns = list(columns)
    if missing := [column for column in columns if column not in frame]:
        raise ValueError(f"frame: expected columns {missing}, got {list(frame.columns)}")
    if not len(frame):
        raise ValueError("frame: expected at least one row, got none")
    for column in columns:
        if pd.api.types.is_float_dtype(frame[column]) and not np.isfinite(frame[column]).all():
            raise ValueError(f"frame, column {column!r}: expected finite numbers, got NaN or infinity")


def size(part: pd.DataFrame, seed: str = "seed") -> str:
    """How many images a frame holds, for a reader; several seeds are told apart from images.

    >>> size(pd.DataFrame({"seed": [0, 0, 1, 1], "E": [1.0, 2.0, 3.0, 4.0]}))
    'n = 2 images × 2 seeds'
    """
    n_seeds = part[seed].nunique() if seed in part else 1
    n = f"n = {len(part) // n_seeds:,} image{'' if len(part) == n_seeds else 's'}"
    return n if n_seeds == 1 else f"{n} × {n_seeds} seeds"


def groups(frame: pd.DataFrame, column: str | None, order: Sequence[str] | None = None) -> dict[str, pd.DataFrame]:
    """The rows of `frame` by the values of `column`, in `order` or as they first appear; all under "" for None."""
    if column is None:
        return {"": frame}
    names = list(order) if order is not None else list(dict.fromkeys(frame[column]))
    found = {str(name): frame[frame[column] == name] for name in names}
    if empty := [name for name, rows in found.items() if not len(rows)]:
        raise ValueError(f"{column}: expected one of {sorted(set(frame[column]))}, got {empty}")
    return found
