"""The environment that the scripts set up: whose Python, what is installed, and when again."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import parameters


def environment(*arguments, **settings):
    base = {k: v for k, v in os.environ.items() if not k.startswith("COMPANION_")}
    command = ["bash", "-c", f". '{parameters.ROOT}/.ci/env.sh' && echo ready $PYTHON", *arguments]
    return subprocess.run(command, env=base | settings, capture_output=True, text=True)


def test_a_python_of_the_readers_own_is_used_as_it_is():
    done = environment(COMPANION_PYTHON=sys.executable)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ready {sys.executable}\n", "")


def test_a_python_without_the_packages_is_refused_by_name(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    done = environment(COMPANION_PYTHON=str(tmp_path / "bare" / "bin" / "python"))
    assert (done.returncode, done.stdout) == (1, "")
    for said in ("COMPANION_PYTHON", "torch is missing, 2.10 or later is needed", "snakemake is missing, 9 or later"):
        assert said in done.stderr


def test_what_is_not_a_python_is_refused_by_name():
    done = environment(COMPANION_PYTHON="/bin/false")
    assert done.returncode == 1
    assert re.fullmatch(r"COMPANION_PYTHON=\S*/bin/false: expected a Python 3.11 or later\n", done.stderr)


def test_no_python_at_all_is_told(tmp_path):
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("bash", "dirname"):
        (bare / name).symlink_to(shutil.which(name))
    shutil.copytree(parameters.ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "run_all.sh").write_text((parameters.ROOT / "run_all.sh").read_text())
    done = subprocess.run(
        [bare / "bash", tmp_path / "run_all.sh"], env={"PATH": str(bare)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "No Python 3.11 or later was found" in done.stderr


@pytest.fixture
def installer(monkeypatch, tmp_path):
    """The module .ci/environment.py with its folder in tmp_path and its installing processes replaced by a list."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("environment", parameters.ROOT / ".ci" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "a clone"
    root.mkdir()
    shutil.copy(parameters.ROOT / "requirements.lock", root)
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    for name, path in {"ROOT": "", "VENV": ".venv", "LOCK": "requirements.lock"}.items():
        monkeypatch.setattr(module, name, root / path)
    monkeypatch.setattr(module, "STAMP", module.VENV / "companion-installed")
    monkeypatch.setattr(module, "PYTHON", module.VENV / "bin" / "python")
    module.calls, module.fails = [], set()

    def call(command, **_):
        words = [str(word) for word in command]
        module.calls.append(words)
        if "venv" in words:
            (module.VENV / "bin").mkdir(parents=True)
            (module.VENV / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
            module.PYTHON.touch()
        if "--quiet" in words and "bootstrap" not in module.fails:
            (module.VENV / "bin" / "uv").touch()
        return int(any(word in words for word in module.fails))

    monkeypatch.setattr(module.subprocess, "call", call)
    return module


def test_installing_is_done_once_and_again_when_the_lock_changes(installer, monkeypatch):
    monkeypatch.setattr(installer.shutil, "which", lambda _: "/usr/bin/uv")
    installer.install()
    assert [words[:3] for words in installer.calls][1:] == [["/usr/bin/uv", "pip", "sync"]]
    assert {"--require-hashes", "--compile-bytecode"} <= set(installer.calls[-1])
    pth = installer.VENV / "lib" / "python3.11" / "site-packages" / "energy_companion.pth"
    assert pth.read_text() == f"{installer.ROOT}\n"
    installer.calls.clear()
    installer.install()
    assert installer.calls == []
    installer.LOCK.write_text(installer.LOCK.read_text() + "# changed\n")
    installer.install()
    assert [words[1:3] for words in installer.calls if "pip" in words] == [["pip", "sync"]]


def test_our_lock_is_not_the_one_that_uv_waits_for(installer, monkeypatch):
    monkeypatch.setattr(installer.shutil, "which", lambda _: "/usr/bin/uv")
    installer.install()
    assert [path.name for path in installer.VENV.iterdir() if "lock" in path.name] == ["companion-lock"]


def test_a_killed_installation_is_taken_up_again(installer, monkeypatch):
    monkeypatch.setattr(installer.shutil, "which", lambda _: "/usr/bin/uv")
    monkeypatch.setattr(installer, "_install_lock", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        installer.install()
    assert not installer.installed()
    left = installer.VENV / "lib" / "python3.11" / "site-packages" / "half"
    left.mkdir()
    monkeypatch.setattr(installer, "_install_lock", lambda: None)
    installer.install()
    assert installer.installed()
    assert not left.exists()  # it may look like an installed package


def test_without_uv_the_pinned_one_is_fetched_and_pip_is_the_last_resort(installer, monkeypatch):
    monkeypatch.setattr(installer.shutil, "which", lambda _: None)
    installer.install()
    fetched, synced = installer.calls[-2:]
    assert {"pip", "--require-hashes", "--quiet"} <= set(fetched)
    assert synced[0] == str(installer.VENV / "bin" / "uv")
    installer.STAMP.unlink()
    (installer.VENV / "bin" / "uv").unlink()
    installer.fails |= {"--quiet", "bootstrap"}
    installer.calls.clear()
    installer.install()
    assert installer.calls[-1][1:4] == ["-m", "pip", "install"]
    assert installer.calls[-1][-1] == str(installer.LOCK)


def test_the_pinned_uv_has_hashes_and_its_lines_only(installer):
    text = installer._blocks()["uv"]
    assert re.match(r"uv==\d", text)
    assert text.count("==") == 1
    assert "--hash=sha256:" in text


def test_another_build_of_torch_comes_without_hashes_and_without_what_torch_brings(installer, monkeypatch):
    monkeypatch.setattr(installer.shutil, "which", lambda _: "/usr/bin/uv")
    monkeypatch.setenv("UV_TORCH_BACKEND", "cpu")
    installer.install()
    pins = Path(installer.calls[-1][-1]).read_text().splitlines()
    names = [re.split("==", line)[0] for line in pins]
    assert {"torch", "torchvision", "papermill", "snakemake", "numpy"} <= set(names)
    assert names.count("numpy") == 2  # one for each range of Pythons
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert "hash" not in " ".join(pins)


@pytest.mark.parametrize(
    ("there", "floor", "good"),
    [
        ("2.10.0+cu126", "2.10", True),
        ("2.9.1", "2.10", False),
        ("9.27.1", "9", True),
        ("3.0a1", "3.1", False),
        ("2.10", "2.10.0", False),
    ],
)
def test_versions_are_compared_by_their_numbers(installer, there, floor, good):
    assert (installer._numbers(there) >= installer._numbers(floor)) == good
