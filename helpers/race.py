"""The measurements of `11_performance`, made in a process of their own, in which all ways of a row run (`racing`).

The process runs in the Python that the variable PEERS_PYTHON names, where the peers are installed, else in this one,
where most of them are not; `helpers` it takes from here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from helpers import files
from helpers.parameters import ROOT

__all__ = ["CEILINGS", "GROWTH", "HOT_SPOTS", "measure", "results"]

CEILINGS, GROWTH, HOT_SPOTS = "ceilings", "growth", "hot_spots"
COMMAND = ["-m", "helpers.racing"]


def measure(*, folder: Path | str, profile: str, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Measure the rows that `values` name: what the process wrote in `folder`, by row, as arrays of text.

    RuntimeError with its last words where it fails; called again, it goes on with the rows that are missing.
    """
    folder = Path(folder)
    files.write_json(folder / "request.json", {"profile": profile, "values": dict(values)})
    python = os.environ.get("PEERS_PYTHON") or sys.executable
    # A kernel's matplotlib backend is a package that the other Python need not have.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "MPLBACKEND": "Agg"}
    command = [python, *COMMAND, str(folder.resolve())]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        words = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise RuntimeError(f"expected the measurements to come to their end, got: {' … '.join(words[-3:])}")
    wanted = [CEILINGS, *values["speed_rows"], GROWTH, HOT_SPOTS]
    return {name: np.array((folder / f"{name}.json").read_text("utf-8")) for name in wanted}


def results(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What `measure` came back with, by row.

    >>> results({"chain": np.array('{"rounds": 3}')})
    {'chain': {'rounds': 3}}
    """
    return {name: json.loads(str(text)) for name, text in found.items()}
