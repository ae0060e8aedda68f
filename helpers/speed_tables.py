"""The numbers of `speed`, said to a reader: tables, the rows of figures, and which aims are met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from helpers.contests import OURS
from helpers.race import CEILINGS
from helpers.speed import Results, raced
from helpers.tables import Interval

MARK = "median, least and largest of the rounds"
ROWS = {
    "attack_step": "one attack step",
    "autoattack": "AutoAttack standard",
    "chain": "class-conditional chain",
    "class_gaussian": "class-Gaussian start",
    "class_pca": "class-PCA start",
    "corruptions": "corruptions",
    "training": "adversarial training",
}
# Against whom a ratio is aimed at, and the ratio on a CPU and on a GPU.
AIMS: dict[str, tuple[tuple[str, ...], float, float]] = {
    "attack_step": (("torchattacks",), 1.3, 3.0),
    "pgd": (("torchattacks",), 2.5, 5.0),
    "autoattack": (("AutoAttack",), 3.0, 4.0),
    "chain": (("JEM++", "ECCV"), 1.5, 4.0),
    "class_gaussian": (("one at a time",), 20.0, 50.0),
    "class_pca": (("one at a time",), 20.0, 50.0),
    "corruptions": (("imagecorruptions",), 5.0, 50.0),
    "training": (("plain loop",), 1.5, 4.0),
}


def label(row: str) -> str:
    """How a row is printed.

    >>> label("pgd_20"), label("chain")
    ('verdicts under PGD-20', 'class-conditional chain')
    """
    return f"verdicts under PGD-{row.removeprefix('pgd_')}" if row.startswith("pgd_") else ROWS[row]


def _interval(row: Mapping[Any, Any]) -> Interval:
    low, high = (None if pd.isna(row[end]) else float(row[end]) for end in ("low", "high"))
    return Interval(float(row["value"]), low, high)


def race_table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A line for each row and rival: our time, theirs, ratios by the clock and by the processor, agreement."""
    lines = []
    ratios = scalars[(scalars["metric"] == "speed_ratio") & (scalars["clock"] == "wall")]
    for one in ratios.to_dict("records"):
        row, way = one["row"], one["way"]
        here = scalars[(scalars["row"] == row)]
        line: dict[str, Any] = {"work": label(row), "against": way, "ours (µs)": _micro(here, OURS)}
        if pd.isna(one["value"]):
            line |= {"theirs (µs)": None, "ratio": None, "ratio (processor)": None, "not run": one["reason"]}
        else:
            cpu = here[(here["metric"] == "speed_ratio") & (here["way"] == way) & (here["clock"] == "cpu")]
            line |= {"theirs (µs)": _micro(here, way), "ratio": _interval(one), "not run": None}
            line["ratio (processor)"] = _interval(cpu.iloc[0].to_dict())
            half = here[(here["metric"] == "halved_speed_ratio") & (here["way"] == way) & (here["clock"] == "wall")]
            line["ratio, bfloat16"] = _interval(half.iloc[0].to_dict()) if len(half) else None
        same = here[(here["metric"] == "verdict_agreement") & (here["way"] == way)]
        line["same verdict (%)"] = _interval(same.iloc[0].to_dict()) if len(same) else None
        lines.append(line)
    order = ["work", "against", "ours (µs)", "theirs (µs)", "ratio", "ratio (processor)", "ratio, bfloat16"]
    return pd.DataFrame(lines, columns=[*order, "same verdict (%)", "not run"], dtype=object)


def _micro(here: pd.DataFrame, way: str) -> float:
    chosen = here[(here["metric"] == "seconds_per_item") & (here["way"] == way) & here["round"].isna()]
    return float(f"{1e6 * float(chosen['value'].iloc[0]):.3g}")


def count_table(scalars: pd.DataFrame) -> pd.DataFrame:
    """A line for each row: operations and bytes of an item, the least time that they take here, and our share of it."""
    named = {
        "operations": "operations",
        "bytes_moved": "bytes",
        "least_seconds": "least (µs)",
        "share_of_ceiling": "share (%)",
    }
    lines = []
    for (row, way), several in scalars[scalars["metric"].isin(named)].groupby(["row", "way"], sort=False):
        values = dict(zip(several["metric"], several["value"], strict=True))
        values["least_seconds"] *= 1e6
        lines.append(
            {"work": label(str(row)), "way": way} | {title: float(f"{values[m]:.3g}") for m, title in named.items()}
        )
    return pd.DataFrame(lines, dtype=object)


def reading(scalars: pd.DataFrame, *, device: str) -> str:
    """Each aim: met, missed or not run. Only whole measurements beside the rival that the aim names are compared."""
    lines = []
    for row in dict.fromkeys(scalars.loc[scalars["metric"] == "speed_ratio", "row"]):
        rivals, cpu, cuda = AIMS["pgd" if row.startswith("pgd_") else row]
        aim = cuda if device == "cuda" else cpu
        for rival in rivals:
            here = scalars[(scalars["row"] == row) & (scalars["way"] == rival)]
            lines.append(f"{label(row)} against {rival}: {_against(here, aim)}")
    return "\n".join(lines)


def _against(here: pd.DataFrame, aim: float) -> str:
    ratios = here[here["metric"] == "speed_ratio"]
    wall = ratios[ratios["clock"] == "wall"].iloc[0].to_dict()
    if pd.isna(wall["value"]):
        return str(wall["reason"])
    found, cpu = _interval(wall), _interval(ratios[ratios["clock"] == "cpu"].iloc[0].to_dict())
    words = [f"{found} × as fast ({cpu} by the processor), aim {aim:g} ×: {_met(found, aim)}"]
    half = here[(here["metric"] == "halved_speed_ratio") & (here["clock"] == "wall")]
    if len(half):
        other = _interval(half.iloc[0].to_dict())
        words.append(f"with gradients in bfloat16 {other} ×: {_met(other, aim)}")
    return "; ".join(words)


def _met(found: Interval, aim: float) -> str:
    """Whether a ratio reaches its aim in all rounds, in some, in none."""
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return "met" if low >= aim else "missed" if high < aim else "met in some rounds only"


def causes(race: pd.DataFrame, counts: pd.DataFrame, spots: pd.DataFrame, *, device: str) -> str:
    """Why an aim is missed, a line for each miss: our share of the machine's ceiling, the kernels that take the time.

    At s % of the ceiling nothing that computes the same is more than 100 / s times as fast as ours.
    """
    lines = []
    for row, rival, found, aim in _aimed(race, device=device):
        if _met(found, aim) == "met":
            continue
        words = []
        share = counts[(counts["metric"] == "share_of_ceiling") & (counts["row"] == row) & (counts["way"] == OURS)]
        if len(share):
            most = 100 / float(share["value"].iloc[0])
            reach = "" if found.value * most >= aim else ", short of the aim"
            words.append(f"ours is at {100 / most:.0f} % of the ceiling, which is {found.value * most:.3g} ×{reach}")
        kernels = spots[spots["row"] == row].head(3)
        if len(kernels):
            named = zip(kernels["kernel"], kernels["value"], strict=True)
            words.append("its time: " + ", ".join(f"{name} {float(value):.0f} %" for name, value in named))
        said = "; ".join(words) or "nothing was counted or profiled"
        lines.append(f"{label(row)} against {rival}, {found} × for {aim:g} ×: {said}")
    return "\n".join(lines) or "No aim is missed in any round."


def _aimed(race: pd.DataFrame, *, device: str) -> list[tuple[str, str, Interval, float]]:
    """Row, rival, ratio by the clock and aim of each comparison that an aim names and that was run."""
    found = []
    ratios = race[(race["metric"] == "speed_ratio") & (race["clock"] == "wall") & race["value"].notna()]
    for one in ratios.to_dict("records"):
        rivals, cpu, cuda = AIMS["pgd" if one["row"].startswith("pgd_") else one["row"]]
        if one["way"] in rivals:
            found.append((one["row"], one["way"], _interval(one), cuda if device == "cuda" else cpu))
    return found


def growth_frame(scalars: pd.DataFrame) -> pd.DataFrame:
    """Rows for `plots.ladder`: what was measured beside the line of proportion, of time to each knob."""
    measured = scalars[scalars["metric"].isin(["time_ratio", "activation_memory"])].assign(line="measured")
    straight = measured[measured["metric"] == "time_ratio"].assign(line="in proportion", low=np.nan, high=np.nan)
    straight["value"] = straight["times"]
    frame = pd.concat([measured, straight], ignore_index=True)
    return frame[["knob", "line", "metric", "times", "value", "low", "high"]]


def growth_reading(scalars: pd.DataFrame) -> str:
    """By how much time and memory grow from the smallest to the largest value of each knob."""
    lines = []
    for knob, several in scalars[scalars["metric"] == "time_ratio"].groupby("knob", sort=False):
        last = several.sort_values("times").to_dict("records")[-1]
        kept = scalars[(scalars["metric"] == "activation_memory") & (scalars["knob"] == knob)]["value"]
        memory = f"kept activations × {kept.max() / kept.min():.2f}"
        lines.append(f"{knob} × {last['times']:g}: time × {_interval(last)}, {memory}")
    return "\n".join(lines)


def ratios(scalars: pd.DataFrame) -> pd.DataFrame:
    """Rows for `plots.interval_dots`: the ratios by the clock of what was run."""
    chosen = scalars[(scalars["metric"] == "speed_ratio") & (scalars["clock"] == "wall") & scalars["value"].notna()]
    lines = [f"{label(row)}: {way}" for row, way in zip(chosen["row"], chosen["way"], strict=True)]
    return chosen.assign(line=lines, measure="ratio")


def machine(found: Results) -> str:
    """What was measured on, and the versions of the peers."""
    here = found[CEILINGS]
    versions = {name: one for row in raced(found).values() for name, one in row["versions"].items() if one}
    threads = f"{here['threads']} thread{'s' * (here['threads'] != 1)}"
    peers = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{here['device']}, {threads}, torch {here['torch']}" + (f"; {peers}" if peers else "")


def ceilings_text(scalars: pd.DataFrame) -> str:
    """The ceilings in words."""
    value = scalars.set_index("metric")["value"]
    return (
        f"Ceilings: {value['float32_rate'] / 1e9:.3g} GFLOP/s in float32, "
        f"{value['bfloat16_rate'] / 1e9:.3g} in bfloat16, {value['bandwidth'] / 1e9:.3g} GB/s copied."
    )


def spot_table(scalars: pd.DataFrame) -> pd.DataFrame:
    """Kernels by their share."""
    shown = scalars.assign(work=scalars["row"].map(label), share=scalars["value"].astype(float).round(1))
    return shown[["work", "kernel", "calls", "share"]].rename(columns={"share": "share (%)"}).astype(object)


def absent(found: Results) -> Iterable[str]:
    """A line for each peer that is not there."""
    reasons: dict[str, list[str]] = {}
    for row, one in raced(found).items():
        for way, why in one["absent"].items():
            reasons.setdefault(f"{way}: {why}", []).append(label(row))
    return [f"{who} ({', '.join(rows)})" for who, rows in reasons.items()]
