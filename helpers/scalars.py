"""One number of a record: a metric of the glossary, its value, unit, n, seeds, interval, and where it was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from helpers.parameters import metrics

RESERVED = ("id", "metric", "value", "unit", "n", "seeds", "low", "high", "level", "interval_kind")
Scalar = dict[str, Any]


class RecordError(ValueError):
    """A record is missing, damaged, or would say what no record may say."""


class EstimateLike(Protocol):
    """What `scalar` needs of a `metrics.Estimate`."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def n(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def level(self) -> float: ...


def scalar(
    metric: str,
    value: float | EstimateLike | None,
    *,
    unit: str | None = None,
    n: int | None = None,
    seeds: Sequence[int] | None = None,
    interval: tuple[float, float] | None = None,
    interval_kind: str | None = None,
    level: float | None = None,
    **where: str | int | float | bool | None,
) -> Scalar:
    """One number of a record: a metric of the glossary, its value, and `where` it was measured (network, attack …).

    `value` is a number, a `metrics.Estimate` (which brings n, interval and kind), or None with `reason="not run: …"`.
    NaN and infinity are refused: a number that could not be had is None and says why.

    >>> row = scalar("accuracy", 91.7, n=1000, interval=(89.8, 93.3), interval_kind="wilson", network="standard")
    >>> row["id"], row["unit"]
    ('accuracy[network=standard]', '%')
    """
    known = metrics()
    if metric not in known:
        names = ", ".join(known)
        raise RecordError(f"metric: expected a name of params/schema.yaml, metrics ({names}), got {metric!r}")
    if unit is not None and unit != known[metric].unit:
        raise RecordError(f"{metric}: expected the glossary's unit {known[metric].unit!r}, got {unit!r}")
    if taken := set(where) & set(RESERVED):
        raise RecordError(f"{metric}: {sorted(taken)} cannot name where a value was measured")
    where = {key: _plain(entry, f"{metric}, {key}") for key, entry in where.items()}
    low, high = interval if interval is not None else (None, None)
    measured = {"value": value, "n": n, "low": low, "high": high, "level": level, "interval_kind": interval_kind}
    if not isinstance(value, int | float | None) and hasattr(value, "low"):
        measured |= _of_estimate(value) | ({} if n is None else {"n": n})
    measured["level"] = measured["level"] or (None if measured["low"] is None else 0.95)
    plain: Scalar = {key: _plain(entry, f"{metric}, {key}") for key, entry in measured.items()}
    plain |= {"id": _identity(metric, where), "metric": metric, "unit": known[metric].unit}
    plain["seeds"] = None if seeds is None else [int(seed) for seed in seeds]
    return _consistent({key: plain[key] for key in RESERVED} | where)


def _of_estimate(estimate: EstimateLike) -> dict[str, Any]:
    """What an estimate says; one of kind "none" has no interval."""
    found: dict[str, Any] = {"value": estimate.value, "n": estimate.n, "interval_kind": estimate.kind}
    if estimate.kind == "none":
        return found | {"low": None, "high": None, "level": None}
    return found | {"low": estimate.low, "high": estimate.high, "level": estimate.level}


def _identity(metric: str, where: Mapping[str, Any]) -> str:
    place = ",".join(f"{key}={where[key]}" for key in sorted(where) if key != "reason")
    return f"{metric}[{place}]" if place else metric


def _plain(value: Any, name: str) -> Any:
    """`value` as JSON knows it; numbers finite, NumPy's scalars unwrapped."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if not isinstance(value, str | int | float | bool | None):
        raise RecordError(f"{name}: expected a number, a string or None, got {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{name}: expected a finite number, or None with reason=…, got {value}")
    return value


def _consistent(row: Scalar) -> Scalar:
    value, low, high, kind = row["value"], row["low"], row["high"], row["interval_kind"]
    if value is None and not row.get("reason"):
        raise RecordError(f"{row['id']}: expected a number, or None with reason=…, got None")
    if isinstance(value, bool | str):
        raise RecordError(f"{row['id']}: expected a number or None, got {value!r}")
    if (low is None) != (kind in (None, "none")):
        raise RecordError(f"{row['id']}: expected an interval together with its kind, got {(low, high)} and {kind!r}")
    if low is not None and (value is None or not low <= value <= high):
        raise RecordError(f"{row['id']}: expected low <= value <= high, got {low}, {value}, {high}")
    return row
