"""What `race` measured, as numbers of records; `speed_tables` says them to a reader.

A ratio is their time over ours within a round: above 1 we are faster. Of R rounds the median is given with the least
and the largest, an interval that holds the true median with chance 1 − 2^(1−R) where rounds are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from helpers import metrics, records
from helpers.ceilings import Ceilings
from helpers.contests import HALVED, OURS
from helpers.counting import Counts
from helpers.race import CEILINGS, GROWTH, HOT_SPOTS
from helpers.records import Scalar

__all__ = ["Results", "agreement", "ceilings_of", "counted", "growth", "hot_spots", "raced", "summary", "training_rate"]

Results = Mapping[str, Any]


def raced(found: Results) -> dict[str, Any]:
    """The rows among the results."""
    return {row: one for row, one in found.items() if row not in (CEILINGS, GROWTH, HOT_SPOTS)}


def ceilings_of(found: Results) -> Ceilings:
    """The machine's ceilings."""
    return Ceilings(**{name: found[CEILINGS][name] for name in ("float32", "bfloat16", "bandwidth")})


def _median(values: Sequence[float]) -> dict[str, Any]:
    """The median with the least and the largest, as keywords of a scalar."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return {"value": float(array[0]), "n": 1}
    ends = {"interval": (float(array.min()), float(array.max())), "interval_kind": "range of rounds"}
    return {"value": float(np.median(array)), "n": len(array), "level": 1 - 2.0 ** (1 - len(array)), **ends}


# Numbers ------------------------------------------------------------------------------------------------------------


def summary(found: Results) -> list[Scalar]:
    """Scalars of the race: every round of every way, medians, ratios; what was not run says why."""
    rows: list[Scalar] = []
    for row, one in raced(found).items():
        for way, course in one["ways"].items():
            place: dict[str, Any] = {"row": row, "way": way}
            for metric, times in (("seconds_per_item", course["wall"]), ("processor_seconds_per_item", course["cpu"])):
                rows.append(records.scalar(metric, **_median(times), item=one["item"], **place))
                rows += [records.scalar(metric, times[k], round=k, **place) for k in range(len(times))]
            if way != OURS:
                rows += _ratios("speed_ratio", one["ways"][OURS], course, place)
            if HALVED in one["ways"] and not way.startswith(OURS):
                rows += _ratios("halved_speed_ratio", one["ways"][HALVED], course, place)
        rows += [
            records.scalar("speed_ratio", None, reason=f"not run: {why}", row=row, way=way, clock="wall")
            for way, why in one["absent"].items()
        ]
    return rows


def _ratios(metric: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], place: Mapping[str, Any]) -> list[Scalar]:
    rows = []
    for clock in ("wall", "cpu"):
        ratios = [b / a for a, b in zip(ours[clock], theirs[clock], strict=True)]
        rows.append(records.scalar(metric, **_median(ratios), clock=clock, **place))
    return rows


def agreement(found: Results) -> list[Scalar]:
    """Scalars of the verdicts: each way's robust accuracy, and the share of images on which it agrees with ours."""
    rows: list[Scalar] = []
    for row, one in raced(found).items():
        ours = np.array(one["ways"][OURS]["verdicts"], dtype=bool)
        for way, course in one["ways"].items() if len(ours) else ():
            said = np.array(course["verdicts"], dtype=bool)
            rows.append(records.scalar("robust_accuracy", metrics.accuracy(said), row=row, way=way))
            if way != OURS:
                rows.append(records.scalar("verdict_agreement", metrics.accuracy(said == ours), row=row, way=way))
    return rows


def _best(course: Mapping[str, Any], here: Mapping[str, Any]) -> float:
    """The least time of an item: by the clock, or by the processor where a busy machine has kept it waiting."""
    wall: float = min(course["wall"])
    return wall if here["kind"] == "cuda" else min(wall, min(course["cpu"]) / here["threads"])


def _counted_ways(row: str, one: Mapping[str, Any], ceilings: Ceilings) -> list[tuple[str, float]]:
    """Our ways of a row that was counted, each with the rate that bounds it."""
    if one["counts"] is None:
        return []
    full, half = ("ours, float32", OURS) if row == "training" else (OURS, HALVED)
    found = [(full, ceilings.float32), (half, ceilings.bfloat16)]
    return [(way, rate) for way, rate in found if way in one["ways"]]


def counted(found: Results) -> list[Scalar]:
    """Scalars of the counts of our ways, the time that the ceilings imply for them, and our share of it.

    Of a way in bfloat16, which moves fewer bytes than were counted, the rate of products alone is the ceiling.
    """
    ceilings = ceilings_of(found)
    rows = [records.scalar(metric, getattr(ceilings, name)) for name, metric in (
        ("float32", "float32_rate"), ("bfloat16", "bfloat16_rate"), ("bandwidth", "bandwidth"))]  # fmt: skip
    for row, one in raced(found).items():
        for way, rate in _counted_ways(row, one, ceilings):
            counts, best = Counts(**one["counts"]), _best(one["ways"][way], found[CEILINGS])
            full = rate == ceilings.float32
            least = ceilings.least_seconds(counts) if full else counts.operations / rate
            place: dict[str, Any] = {"row": row, "way": way}
            rows.append(records.scalar("operations", counts.operations, **place))
            rows.append(records.scalar("bytes_moved", counts.bytes_moved, **place))
            rows.append(records.scalar("least_seconds", least, **place))
            rows.append(records.scalar("share_of_ceiling", 100 * least / best, **place))
    return rows


def growth(found: Results) -> list[Scalar]:
    """Scalars of the cost against batch, steps and images: time over that of the smallest, and kept activations."""
    rows: list[Scalar] = []
    for knob, several in found[GROWTH].items():
        first = several[0]
        for one in several:
            times = 1 if one is first else one["value"] / first["value"]
            place: dict[str, Any] = {"knob": knob, "value_of_knob": one["value"], "times": float(times)}
            ratios = [b / a for a, b in zip(first["wall"], one["wall"], strict=True)]
            rows.append(records.scalar("time_ratio", **_median(ratios), **place))
            rows.append(records.scalar("activation_memory", one["kept"] / 2**20, **place))
    return rows


def hot_spots(found: Results) -> list[Scalar]:
    """Scalars of where the time goes."""
    return [
        records.scalar("share_of_time", one["share"], row=row, kernel=one["kernel"], calls=one["calls"])
        for row, several in found[HOT_SPOTS].items()
        for one in several
    ]


def training_rate(found: Results) -> float | None:
    """Operations a second of our training (bfloat16), by the counts of one image; None where it was not raced."""
    one = raced(found).get("training")
    return None if one is None else float(one["counts"]["operations"] / np.median(one["ways"][OURS]["wall"]))
