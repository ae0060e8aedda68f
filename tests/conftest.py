"""Fixtures that all tests share, and the skipping of tests whose machine, data or browser is not there."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import light
import pytest
import trees

from helpers.parameters import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `foreign` tests without the data they need, and `browser` tests without a Chromium."""
    foreign = bool(os.environ.get("DATA_ROOT") and os.environ.get("CHECKPOINTS"))
    for item in items:
        if item.get_closest_marker("foreign") and not foreign:
            item.add_marker(pytest.mark.skip(reason="needs DATA_ROOT with CIFAR-10 and CHECKPOINTS with its networks"))
        if item.get_closest_marker("browser") and CHROMIUM is None:
            item.add_marker(pytest.mark.skip(reason="needs Chromium"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """The CPU, and CUDA where there is one."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return str(request.param)


def _copy(folder: Path) -> Path:
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        left_out = shutil.ignore_patterns(".venv", ".git", "figures", "data", ".snakemake", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, folder, ignore=left_out)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The project as a clone of it would be, uncommitted files included, in a folder with a space in its name."""
    return _copy(tmp_path / "a clone")


def _tiny(folder: Path) -> light.Tree:
    trees.tiny(folder)
    shutil.copytree(ROOT / ".ci", folder / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    return light.Tree(folder, profile="digits")


@pytest.fixture
def tiny_tree(tmp_path: Path) -> Iterator[light.Tree]:
    """A copy whose digits profile is cut down to seconds; its networks, notebooks and report are the real ones."""
    tree = _tiny(tmp_path / "a tiny clone")
    yield tree
    tree.end()


@pytest.fixture
def other_tiny_tree(tmp_path: Path) -> Iterator[light.Tree]:
    """A second such copy."""
    tree = _tiny(tmp_path / "another tiny clone")
    yield tree
    tree.end()


@pytest.fixture
def light_tree(copied: Path) -> Iterator[light.Tree]:
    """A clone with a profile `light`: two notebooks that compute nothing, and stand-ins for zoo and report.

    For tests of what starts, when and why, which need no torch.
    """
    tree = light.Tree(copied)
    tree.fill()
    yield tree
    tree.end()


@pytest.fixture(scope="session")
def _run_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = light.Tree(_copy(tmp_path_factory.mktemp("run before") / "a clone"))
    tree.fill()
    status, said = tree.run("light")
    assert status == 0, said
    return tree.folder


@pytest.fixture
def done_tree(_run_before: Path, tmp_path: Path) -> Iterator[light.Tree]:
    """A `light_tree` in which everything has been run, and that was moved to another folder since."""
    tree = light.Tree(shutil.copytree(_run_before, tmp_path / "a clone", symlinks=True))
    yield tree
    tree.end()
