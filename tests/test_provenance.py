import json
import shutil
import subprocess

import pytest
from runs import Run

from helpers import provenance
from helpers.provenance import commit

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a.txt").write_text("1")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


@needs_git
def test_commit_and_whether_the_tree_differs_from_it(repository):
    clean = commit(repository)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (repository / "new.txt").write_text("files made by a run do not count")
    assert commit(repository) == clean
    (repository / "a.txt").write_text("2")
    assert commit(repository) == clean | {"dirty": True}


@needs_git
def test_an_archive_inside_somebody_elses_repository_has_no_commit(repository, monkeypatch):
    (repository / "inner").mkdir()
    found = commit(repository / "inner")
    assert (found["commit"], found["dirty"]) == ("unknown", None)
    assert "no git repository of this project" in found["commit_note"]
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))  # as inside a git hook
    assert commit(repository / "inner")["commit"] == "unknown"


def test_without_git_the_commit_is_unknown_and_says_so(tmp_path, monkeypatch):
    assert commit(tmp_path)["commit_note"] == "no git repository of this project"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(tmp_path) == {"commit": "unknown", "dirty": None, "commit_note": "git is not installed"}


def test_provenance_is_json_and_names_no_folder(tmp_path):
    found = provenance.provenance(Run(tmp_path))
    text = json.dumps(found, allow_nan=False)
    assert str(tmp_path) not in text
    assert str(provenance.ROOT) not in text
    assert found["parameters"]["epsilon_255"] == 8.0
    assert found["digest"] == "0123456789ab"
    assert found["threads"] >= 1
    assert found["peak_memory_mib"] > 1
    assert set(found["versions"]) == {"python", "torch", "torchvision", "numpy", "helpers"}
    assert "unknown" not in found["versions"].values()


def test_memory_is_in_mebibytes(monkeypatch):
    resource = pytest.importorskip("resource")

    class Usage:
        ru_maxrss = 3 * 2**20

    monkeypatch.setattr(resource, "getrusage", lambda who: Usage)
    monkeypatch.setattr(provenance.sys, "platform", "linux")
    assert provenance.peak_memory()["peak_memory_mib"] == 3072  # KiB there
    monkeypatch.setattr(provenance.sys, "platform", "darwin")
    assert provenance.peak_memory()["peak_memory_mib"] == 3  # bytes there


def test_missing_packages_are_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    assert provenance.versions()["no-such-package"] == "not installed"
