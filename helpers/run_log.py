"""What a run of `./run_all.sh` cost, kept: figures/<profile>/runs/<its start>.json. No torch.

A run in which no job started leaves none. README's table of runs is made from those that were committed.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers import files, provenance
from helpers.jobs import Job

FORMAT = "run/1"
COST = ("outcome", "seconds", "peak_memory_mb")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts(
    planned: Sequence[Job], outcomes: Mapping[str, Mapping[str, Any]], *, seconds: float, status: int
) -> dict[str, Any]:
    """The file's content: what was asked for, each job that started with its cost, the clock, the machine, the commit.

    Args:
        planned: all jobs of the run, the last one its report.
        outcomes: the status files of the jobs that started, by `Job.label`, as `helpers.execute` wrote them.
        seconds: by the clock, from Snakemake's start to its end; installing packages is not in it.
        status: 0 where every job ended well.
    """
    ended = datetime.datetime.now(datetime.UTC)
    ran = [job for job in planned if job.label in outcomes]
    return {
        "format": FORMAT,
        "profile": planned[-1].profile,
        "target": planned[-1].label,
        "notebooks": [job.slug for job in planned if job.kind == "notebook"],
        "started_at": (ended - datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        "wall_seconds": round(seconds, 1),
        "status": status,
        "up_to_date": len(planned) - len(ran),
        "jobs": [_cost(job, outcomes[job.label]) for job in ran],
        "max_seeds": os.environ.get("MAX_SEEDS"),
        "cores": cores(),
        **provenance.machine(),
        "versions": provenance.versions(),
        **provenance.commit(),
    }


def _cost(job: Job, status: Mapping[str, Any]) -> dict[str, Any]:
    return {"job": job.label, "kind": job.kind, **{key: status.get(key) for key in COST}}


def keep(planned: Sequence[Job], outcomes: Mapping[str, Mapping[str, Any]], *, seconds: float, status: int) -> Path:
    """Write the file of this run and return its path; OSError where it cannot be written."""
    content = facts(planned, outcomes, seconds=seconds, status=status)
    begun = datetime.datetime.fromisoformat(content["started_at"])
    path = planned[-1].home / "runs" / f"{begun:%Y%m%dT%H%M%SZ}.json"
    files.write_json(path, content)
    return path


def read(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The runs kept in these folders (each one `runs`), the oldest first."""
    found = [files.read_json(path) or {} for folder in folders for path in sorted(folder.glob("*.json"))]
    return [one for one in found if one.get("format") == FORMAT]
