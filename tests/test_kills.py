"""SIGKILL of a whole run at random moments, and again, and again: the records are those of an undisturbed run."""

import os
import random
import signal
import subprocess
import time

import pytest
import yaml

from helpers import files, records

pytestmark = pytest.mark.process
KILLS = int(os.environ.get("COMPANION_TEST_KILLS", "2"))
NOTEBOOK = "01"


def smaller(tree):
    """Two seeds of one network, one after the other, a notebook that keeps what it has computed, and the report."""
    path = tree.folder / "params" / "digits" / "networks.yaml"
    entries = yaml.safe_load(path.read_text("utf-8"))
    kept = {"trades": entries["trades"] | {"seeds": [0, 1]}}
    path.write_text(yaml.safe_dump(kept), "utf-8")
    path = tree.folder / "params" / "digits" / "01_energy_landscape.yaml"
    values = yaml.safe_load(path.read_text("utf-8"))
    values |= {key: list(kept) for key in ("networks", "violin_networks")} | {"attacks": ["pgd_ce", "apgd_t"]}
    path.write_text(yaml.safe_dump(values), "utf-8")


def networks(tree):
    """Every network's weights by their place: their hash."""
    folder = tree.figures("networks")
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in folder.rglob("weights.safetensors")}


def kill_after(tree, seconds):
    """Start a run and kill its process group after so many seconds; True where it had not ended by itself."""
    process = tree.start("digits", NOTEBOOK, COMPANION_FIGURES="png")
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    assert process.returncode == 0
    return False


def test_killed_at_random_moments_the_records_are_those_of_an_undisturbed_run(tiny_tree, other_tiny_tree):
    smaller(tiny_tree)
    smaller(other_tiny_tree)
    start = time.monotonic()
    status, said = other_tiny_tree.run("digits", NOTEBOOK, COMPANION_FIGURES="png")
    assert status == 0, said
    whole = time.monotonic() - start
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    # A start costs some seconds before anything new is done; a third of the whole lets each part be hit and finished.
    killed = [kill_after(tiny_tree, moments.uniform(0.5, max(6.0, whole / 3))) for _ in range(KILLS)]
    status, said = tiny_tree.run("digits", NOTEBOOK, COMPANION_FIGURES="png")
    told = f"seed {seed}, killed: {killed}\n{said}"
    assert status == 0, told
    assert any(killed), told
    assert records.compare(other_tiny_tree.figures(), tiny_tree.figures()) == [], told
    assert networks(tiny_tree) == networks(other_tiny_tree) != {}, told
    left = [path for path in tiny_tree.figures().rglob("*") if path.name.startswith((".tmp-", "checkpoint", "parts"))]
    assert left == [], told
    status, said = tiny_tree.run("digits", NOTEBOOK, COMPANION_FIGURES="png")
    assert status == 0
    assert "done (elapsed" not in said  # and everything is up to date
