"""What a run on a cluster asks Slurm for, and what Snakemake must be told of it that a reader need not type. No torch.

    ./run_all.sh paper --executor slurm --jobs 50

Memory, minutes, threads and GPUs of a job are those that params/<profile>/profile.yaml states.
"""

import itertools
import re
import statistics
import subprocess
from collections.abc import Sequence

from helpers import parameters
from helpers.jobs import Job

STATUS, WAIT = "--slurm-status-command", "--slurm-init-seconds-before-status-checks"
LEAST_MINUTES = 10
# Seconds after which Snakemake first asks how its jobs are, and after each answer that brought news.
SOONEST, LATEST = 5, 40


def resources(profile: str) -> dict[str, int]:
    """What every job of a profile asks for besides minutes and threads: memory in MB, GPUs where it needs them."""
    facts = parameters.profile_facts(profile)
    asked, gpus = {"mem_mb": int(1024 * facts["memory_gb"]) or 1024}, facts.get("gpus_per_job") or 0
    return asked | ({"gpu": gpus} if gpus else {})


def minutes(job: Job) -> int:
    """The time that a job asks for: twice what profile.yaml states for it, at least ten minutes.

    A job of whose kind nothing is stated, as of most networks, asks for as long as the longest that is.
    """
    facts = parameters.profile_facts(job.profile)
    stated = {kind: facts.get(f"{kind}_minutes") or {} for kind in ("network", "notebook")}
    longest = max((value for each in stated.values() for value in each.values()), default=0.0)
    return max(LEAST_MINUTES, int(2 * stated.get(job.kind, {}).get(job.name, longest)))


def executor(options: Sequence[str]) -> str | None:
    """The executor that Snakemake's options name.

    >>> executor(["--executor", "slurm", "--jobs", "4"]), executor(["--executor=slurm"]), executor(["--cores", "2"])
    ('slurm', 'slurm', None)
    """
    for word, following in itertools.pairwise([*options, ""]):
        if word in ("--executor", "-e"):
            return following
        if word.startswith("--executor="):
            return word.partition("=")[2]
    return None


def faults(given: Sequence[str], python: str) -> list[parameters.ParameterError]:
    """What makes every job of a cluster fail: `python` below a folder with a space, which Snakemake does not quote.

    >>> print(*faults(["--executor", "slurm"], "/my work/bin/python"))
    command line: --executor: expected a Python whose path has no space (or COMPANION_PYTHON), got /my work/bin/python
    >>> faults(["--executor", "slurm"], "/work/bin/python"), faults(["--cores", "2"], "/my work/bin/python")
    ([], [])
    """
    if executor(given) is None or " " not in python:
        return []
    expected = "a Python whose path has no space (or COMPANION_PYTHON)"
    return [parameters.ParameterError("command line", "--executor", expected, got=python)]


def options(given: Sequence[str], profile: str) -> list[str]:
    """What Snakemake's Slurm plugin needs besides the options that a reader gave; none of them is given twice.

    Where the cluster keeps no accounts of past jobs, `sacct` tells nothing and the plugin would wait for ever: then it
    asks `squeue`. How often it asks goes by how long the profile's jobs take.
    """
    if executor(given) != "slurm":
        return []
    settings, added = _settings(), {}
    seconds = _patience(profile)
    if settings.get("AccountingStorageType", "") in ("(null)", "accounting_storage/none"):
        added[STATUS] = "squeue"
        remembered = re.match(
            r"\d+", settings.get("MinJobAge", "")
        )  # seconds; less than 3 × WAIT and it is sacct again
        seconds = min(seconds, int(remembered[0]) // 3) if remembered else seconds
    added[WAIT] = str(max(1, seconds))
    there = {word.partition("=")[0] for word in given}
    return [word for name, value in added.items() if name not in there for word in (name, value)]


def _patience(profile: str) -> int:
    """A sixth of the usual notebook's time, in seconds, within bounds."""
    stated = parameters.profile_facts(profile)["notebook_minutes"]
    usual = statistics.median(stated.values()) if stated else 0.0
    return int(min(LATEST, max(SOONEST, 60 * usual / 6)))


def _settings() -> dict[str, str]:
    """The cluster's configuration, name → value; empty where Slurm does not answer, which Snakemake then tells."""
    try:
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = (line.partition("=") for line in shown.stdout.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
