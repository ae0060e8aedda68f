"""Where a number comes from: commit, parameters, versions, machine, time and memory.

Nothing here imports torch: what it says of torch comes from the installed package's metadata and,
where the process has torch in use already, from that.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.parameters import ROOT

if TYPE_CHECKING:
    from helpers.parameters import Parameters

STARTED = time.monotonic()
PACKAGES = ("torch", "torchvision", "numpy")


def commit(root: Path = ROOT) -> dict[str, Any]:
    """`commit` and `dirty` of the work tree at `root`; without git, commit "unknown" and `commit_note` why.

    A repository further up does not count: an unpacked archive in somebody's home repository has no commit of ours.
    """
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != root.resolve():
            return {"commit": "unknown", "dirty": None, "commit_note": "no git repository of this project"}
        head = _git(root, "rev-parse", "HEAD")
        return {"commit": head, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except FileNotFoundError:
        return {"commit": "unknown", "dirty": None, "commit_note": "git is not installed"}
    except subprocess.SubprocessError:
        return {"commit": "unknown", "dirty": None, "commit_note": "no git repository of this project"}


def _git(root: Path, *arguments: str) -> str:
    # A git hook's GIT_DIR would otherwise point these commands at another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=20, env=environment
    ).stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python, torch, torchvision, NumPy and of this package; "not installed" where there is none."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    try:
        found["helpers"] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        found["helpers"] = "unknown"
    return found


def device() -> str:
    """The graphics card's name where CUDA is in use in this process, else the processor's."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine() -> dict[str, str]:
    """`device` and `platform`: what a number was computed on."""
    return {"device": device(), "platform": f"{platform.system()} {platform.machine()}"}


def threads() -> int:
    """Threads that torch uses for one operation in this process; without torch, the processors there are."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else (os.cpu_count() or 1)


def peak_memory() -> dict[str, float | None]:
    """Largest memory of this process so far, MiB: `peak_memory_mib`, and `peak_device_memory_mib` with CUDA."""
    found: dict[str, float | None] = {"peak_memory_mib": None}
    try:
        import resource  # POSIX only
    except ImportError:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["peak_memory_mib"] = round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found["peak_device_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return found


def provenance(p: Parameters | None = None) -> dict[str, Any]:
    """All that is known of the run: commit, parameters `p`, versions, device, threads, platform, time, memory.

    `wall_seconds` counts from the import of this module, at the notebook's start.
    """
    run: dict[str, Any] = {}
    if p is not None:
        run = {"profile": p.profile, "notebook": p.notebook, "parameters": dict(p.values), "digest": p.digest}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    cost = {"wall_seconds": round(time.monotonic() - STARTED, 2), **peak_memory(), "finished_at": now}
    return {**commit(), **run, "versions": versions(), "threads": threads(), **machine(), **cost}
