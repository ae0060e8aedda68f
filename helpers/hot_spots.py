"""Where the time goes: the kernels that a row's way spends most of it in (torch.profiler), or its attacks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from helpers import contests
from helpers.contests import OURS, Setting

__all__ = ["measured"]

PROFILED = {"attack_step": OURS, "chain": OURS, "corruptions": OURS, "training": "ours, float32"}
ALWAYS = ("attack_step", "training")
SHOWN = 6


def measured(setting: Setting) -> dict[str, list[dict[str, Any]]]:
    """For each of `PROFILED` that is raced its kernels by their share of time (%), longest first, the rest as one.

    Of AutoAttack its attacks in their place, with the images that each sent through the network.
    """
    found = {}
    rows = [*setting.values["speed_rows"], *ALWAYS]
    for row, way in ((row, way) for row, way in PROFILED.items() if row in rows):
        run = contests.ours(row, setting, way)
        run(0)
        found[row] = _shares(partial(run, 0), setting.device)
    if "autoattack" in rows:
        found["autoattack"] = _attacks(setting)
    return found


def _attacks(setting: Setting) -> list[dict[str, Any]]:
    done = contests.ensemble(setting, 0)
    times = sorted(((name, took) for name, took in done.seconds.items() if took > 0), key=lambda one: -one[1])
    total = sum(took for _, took in times)
    return [
        {"kernel": name, "share": 100 * took / total, "calls": done.cost[name].forward if name in done.cost else 0}
        for name, took in times
    ]


def _shares(work: Callable[[], object], device: torch.device) -> list[dict[str, Any]]:
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as watched:
        work()
    times = [
        (e.key, e.self_device_time_total if cuda else e.self_cpu_time_total, e.count) for e in watched.key_averages()
    ]
    times = sorted((one for one in times if one[1] > 0), key=lambda one: -one[1])
    total = sum(time for _, time, _ in times)
    rows = [{"kernel": key, "share": 100 * time / total, "calls": count} for key, time, count in times[:SHOWN]]
    rest = times[SHOWN:]
    if rest:
        share = 100 * sum(time for _, time, _ in rest) / total
        rows.append({"kernel": "all others", "share": share, "calls": sum(count for *_, count in rest)})
    return rows
