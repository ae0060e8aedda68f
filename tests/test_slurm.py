"""A real Slurm of one node (tests/slurm.sh): the same jobs there as here, resources, and a job that is cancelled.

It starts daemons as root, so it runs only where that is asked for: COMPANION_SLURM=1, as .ci/run sets it.
"""

import os
import re
import shutil
import subprocess
import sys
import time

import filelock
import light
import pytest

from helpers import cluster
from helpers.parameters import ROOT

SCRIPT = ROOT / "tests" / "slurm.sh"
SLURM = (
    "--executor",
    "slurm",
    "--jobs",
    "4",
    cluster.WAIT,
    "8",
)  # the plugin waits ten seconds longer when it asks in vain
CELL = """
from helpers import records
if p.n_steps == 7 and os.environ.get("HANG"):
    time.sleep(300)
record = records.save(p, "value", scalars=[records.scalar("delta_energy", p.n_steps / 7, network="plain")])
records.finish(p);
"""
SWEEP = """
title: steps
notebook: 92_two
grid: {n_steps: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}
figure: {metric: delta_energy, x: n_steps, by: [network]}
"""
# In place of papermill and nbconvert, which take three seconds a point and have tests of their own.
IN_PROCESS = """
def _papermill(source, *, values, log, timeout):
    import json
    cells = ["".join(cell["source"]) for cell in json.loads(source.read_text())["cells"] if cell["cell_type"] == "code"]
    names = {}
    for text in cells[:2] + [f"{name} = {value!r}" for name, value in values.items()] + cells[2:]:
        exec(text, names)
    return None, None


def _write_executed(notebook, path, *, error):
    for each in (path, path.with_suffix(".html")):
        files.write_text(each, "run in the process")


if __name__ == "__main__":
"""


@pytest.fixture
def slurm():
    """A Slurm of one node, for one test at a time on this machine."""
    if not os.environ.get("COMPANION_SLURM"):
        pytest.skip("starts daemons: only with COMPANION_SLURM=1")
    if cluster.faults(SLURM, sys.executable):
        pytest.skip("needs a Python whose path has no space")
    if not shutil.which("slurmctld"):
        pytest.skip("needs Slurm (Debian: slurm-wlm, munge)")
    with filelock.FileLock("/tmp/companion-slurm.lock"):
        started = subprocess.run([SCRIPT, "start"], capture_output=True, text=True, check=False)
        if started.returncode == 3:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        yield
        subprocess.run([SCRIPT, "stop"], check=True)


def shown():
    """The jobs that Slurm remembers, by rule and wildcards: its facts by name."""
    said = subprocess.run(["scontrol", "show", "job", "-o"], capture_output=True, text=True, check=True).stdout
    rows = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in said.splitlines() if line.startswith("JobId=")]
    return {row["Comment"]: row for row in rows}


def ended(said):
    """The jobs that a run says to have done."""
    return sorted(re.findall(r"^\[\d+ of \d+\] (\S+|network plain|sweep steps) done", said, re.M))


def checked_resources():
    """Of the jobs of a run of networks and notebooks: what each asked Slurm for."""
    asked = {name: row for name, row in shown().items() if not name.startswith("rule_point_")}
    assert len(asked) == 2
    for name, row in asked.items():
        minutes = "01:30:00" if name.startswith("rule_network_") else "00:10:00"
        assert (row["JobState"], row["TimeLimit"], row["MinMemoryNode"]) == ("COMPLETED", minutes, "102M")
        assert (row["CPUs/Task"], row["TresPerJob"], row["Partition"]) == ("1", "gres:gpu:1", "other")


def running(tree, sweep, point):
    """The number of a point's job in Slurm, once its notebook runs; `sweep` is the process that sent it there."""
    begun, deadline = tree.figures(f"sweeps/steps/{point}/notebooks/92_two.run.json"), time.monotonic() + 250
    while not begun.exists():
        assert sweep.poll() is None, sweep.communicate()[0]
        assert time.monotonic() < deadline, f"{point} has not begun"
        time.sleep(0.2)
    (number,) = [row["JobId"] for name, row in shown().items() if point in name and row["JobState"] == "RUNNING"]
    return number


def sweeping(tree):
    """The tree with a sweep of twelve points, which take no kernel."""
    execute = tree.folder / "helpers" / "execute.py"
    execute.write_text(execute.read_text("utf-8").replace('if __name__ == "__main__":\n', IN_PROCESS), "utf-8")
    tree.notebook("92_two", ["n_steps"], [CELL])
    tree.write("params/sweeps/steps.yaml", SWEEP)
    return tree


@pytest.mark.process
def test_a_cluster_does_what_one_machine_does_also_after_a_job_was_cancelled(slurm, light_tree, tmp_path):
    """One test for all, since there is one Slurm: its parts run at once, and wait for each other's jobs."""
    trees = {name: light.Tree(tmp_path / name) for name in ("there", "here")}
    for tree in trees.values():
        shutil.copytree(light_tree.folder, tree.folder)
        sweeping(tree)
    there, here = trees.values()
    with open(light_tree.folder / "params" / "light" / "profile.yaml", "a", encoding="utf-8") as profile:
        profile.write("gpus_per_job: 1\nnetwork_minutes: {plain: 45}\n")
    tables = [tree.figures("sweeps/steps/steps.csv") for tree in (there, here)]

    plain = light_tree.start("light", "91", *SLURM, "--default-resources", "slurm_partition=other")
    sweep = there.start("light", "--sweep", "steps", *SLURM, HANG="1")
    try:
        status, said = here.run("light", "--sweep", "steps", "--cores", "1")
        assert (status, len(ended(said))) == (0, 13), said
        number = running(there, sweep, "n_steps=7")
        subprocess.run(["scancel", number], check=True)
        said, _ = sweep.communicate(timeout=250)
        assert sweep.returncode == 1, said
        assert len(ended(said)) == 12, said  # eleven points, and the table without the twelfth
        assert "steps/n_steps=7: was killed" in said
        assert f"SLURM-job '{number}' failed, SLURM status is: 'CANCELLED'" in said
        assert "n_steps=7" not in tables[0].read_text()
        status, said = there.run("light", "--sweep", "steps", *SLURM)
        assert (status, ended(said)) == (0, ["steps/n_steps=7", "sweep steps"]), said
        assert tables[0].read_bytes() == tables[1].read_bytes()
        assert tables[0].read_bytes().count(b"\n") == 13

        said, _ = plain.communicate(timeout=250)
        assert (plain.returncode, ended(said)) == (0, ["91_one", "network plain", "report"]), said
        checked_resources()
    finally:
        there.end()
        here.end()
