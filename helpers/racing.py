"""The process in which `race` measures: every row of the request in its folder, one JSON each.

    python -m helpers.racing <folder>

Rows that are in the folder already are not measured again.
"""

from __future__ import annotations

import sys
import types
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from helpers import attacks, ceilings, contests, context, counting, files, hot_spots, interleaved, peers, provenance
from helpers.contests import Setting
from helpers.race import CEILINGS, GROWTH, HOT_SPOTS


def _row(row: str, setting: Setting) -> dict[str, Any]:
    """One row, measured: courses by way, reasons of the absent, versions, counts of ours."""
    contest = contests.of(row, setting)
    rounds, device = setting.values["rounds"], setting.device
    courses = interleaved.timed(contest.ways, rounds=rounds, device=device, warm=contest.warm)
    found: dict[str, Any] = {"item": contest.item, "absent": contest.absent, "rounds": rounds, "counts": None}
    found["ways"] = {name: asdict(course) for name, course in courses.items()}
    found["versions"] = {name: peers.version(name.partition(",")[0]) for name in contest.ways}
    if contest.work is not None:
        with counting.counting() as counts:
            contest.work()
        found["counts"] = {name: value / contest.work_items for name, value in asdict(counts).items()}
    return found


def _attack(setting: Setting, n: int, n_steps: int, batch_size: int, _: int = 0) -> None:
    """PGD on n images of the untrained network, in batches."""
    images, seed = setting.some(0, n), setting.values["seed"]
    attacks.run(
        "pgd_ce", setting.untrained, images.images(), images.labels, norm="linf", **setting.ball(), n_steps=n_steps,
        n_restarts=1, returns="last", seed=seed, index=images.index, batch_size=batch_size,
    )  # fmt: skip


def _growth(setting: Setting) -> dict[str, Any]:
    """Seconds and kept bytes of our PGD as batch, steps and images grow, each alone."""
    v = setting.values
    batch, steps = v["batch_sizes"][0], v["step_counts"][0]
    knobs = {
        "batch": {size: (size, steps, size) for size in v["batch_sizes"]},
        "steps": {n: (batch, n, batch) for n in v["step_counts"]},
        "images": {n: (n, steps, batch) for n in v["batch_sizes"]},
    }
    found: dict[str, Any] = {}
    for knob, several in knobs.items():
        ways = {str(value): interleaved.Way(partial(_attack, setting, *one), 1.0) for value, one in several.items()}
        courses = interleaved.timed(ways, rounds=v["rounds"], device=setting.device)
        found[knob] = []
        for value, one in several.items():
            with counting.kept_for_gradient() as held:
                _attack(setting, *one)
            found[knob].append({"value": value, "wall": courses[str(value)].wall, "kept": held.peak})
    return found


def _ceilings(setting: Setting) -> dict[str, Any]:
    """The ceilings of the device, and what it is."""
    device = setting.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else provenance.device()
    here = {"kind": device.type, "device": name, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}
    return asdict(ceilings.measured(device)) | here


def main(arguments: list[str] | None = None) -> int:
    """Command line: measure what the folder's request asks for."""
    folder = Path((arguments or sys.argv[1:])[0])
    request = files.read_json(folder / "request.json") or {}
    jobs = {CEILINGS: _ceilings, GROWTH: _growth, HOT_SPOTS: hot_spots.measured}
    jobs |= {row: partial(_row, row) for row in request["values"]["speed_rows"]}
    missing = [name for name in jobs if not (folder / f"{name}.json").exists()]
    if missing:
        device = context.setup(types.SimpleNamespace(profile=request["profile"]))
        setting = contests.prepared(request["values"], request["profile"], device)
        for name in missing:
            files.write_json(folder / f"{name}.json", jobs[name](setting))
    return 0


if __name__ == "__main__":
    sys.exit(main())
