"""The badge and the first cell of each notebook, and that cell run for real beside a stand-in for Colab."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from helpers import colab
from helpers.parameters import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]


def _cells(path: Path) -> list[dict]:
    return json.loads(path.read_text("utf-8"))["cells"]


def _first_code(path: Path) -> str:
    return "".join(next(cell for cell in _cells(path) if cell["cell_type"] == "code")["source"])


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_badge_opens_this_notebook_in_this_repository(path):
    title = "".join(_cells(path)[0]["source"])
    place = REPOSITORY.removeprefix("https://github.com/")
    assert f"(https://colab.research.google.com/github/{place}/blob/main/notebooks/{path.name})" in title


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_first_cell_clones_this_repository_and_is_the_same_everywhere(path):
    assert f'"{REPOSITORY}"' in _first_code(path)
    assert _first_code(path) == _first_code(NOTEBOOKS[0])


def test_the_address_stands_nowhere_else_in_the_code():
    place = REPOSITORY.removeprefix("https://github.com/")
    files = [*(ROOT / "helpers").glob("*.py"), ROOT / "Snakefile", ROOT / "run_all.sh"]
    assert [path.name for path in files if path.exists() and place in path.read_text("utf-8")] == []


def test_requirements_are_those_of_the_project_the_widgets_and_torch_fidelity():
    lines = colab.requirements(ROOT / "pyproject.toml")
    names = {line.split(">=")[0] for line in lines}
    assert {"torch", "torchvision", "numpy", "pyyaml", "safetensors", "ipywidgets", "torch-fidelity"} <= names
    assert not names & {"snakemake", "papermill"}


def test_constraints_pin_what_is_installed():
    import torch

    assert f"torch=={torch.__version__.split('+')[0]}" in {line.split("+")[0] for line in colab.constraints()}


def _installed(site: Path, name: str, version: str) -> None:
    """A stand-in for an installed package: an importable module and the metadata that pip reads."""
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(f"__version__ = {version!r}\n")
    info = site / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text("")


def _wheel(folder: Path, name: str, version: str, *, requires: str = "") -> None:
    module = name.replace("-", "_")
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        info = f"{module}-{version}.dist-info"
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        wheel.writestr(f"{module}.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def runtime(tmp_path, bare):
    """A bare environment like Colab's: its own torch, most requirements, not safetensors; a google.colab module."""
    shutil.copytree(bare, tmp_path / "venv", symlinks=True)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    for line in colab.requirements(ROOT / "pyproject.toml"):
        name, _, version = line.partition(">=")
        if name not in ("torch", "safetensors"):
            _installed(site, name, f"{version}.5")
    _installed(site, "torch", "2.11.0+cu128")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    _wheel(wheels, "safetensors", "0.7.0", requires="torch>=2.0")
    _wheel(wheels, "torch", "2.15.0")  # newer than the runtime's: must stay where it is
    return tmp_path


def _clone_source(folder: Path) -> Path:
    """A repository with the tree as it is now, committed or not."""
    source = folder / "origin"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("helpers", "notebooks", "params"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", source)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-C", str(source)]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "tree"]):
        subprocess.run([*git, *command], check=True)
    return source


def _run_cell(runtime: Path, code: str, *, setting: str = "import google.colab\n") -> subprocess.CompletedProcess:
    work = runtime / "content"
    work.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON", "GIT_"))}
    environment |= {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": (runtime / "wheels").as_uri(),  # pip splits a plain path at a space
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{runtime / 'origin'}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
    }
    command = [str(runtime / "venv" / "bin" / "python"), "-c", setting + code]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.process
def test_on_colab_the_cell_brings_the_repository_and_leaves_torch_alone(runtime):
    _clone_source(runtime)
    cell = _first_code(NOTEBOOKS[0])
    probe = (
        "\nimport helpers, safetensors, torch\n"
        "print(helpers.__file__, safetensors.__version__, torch.__version__, os.getcwd(), sep='|')"
    )
    done = _run_cell(runtime, cell + "\n" + cell + probe)  # twice: a cell is run again without harm
    assert done.returncode == 0, done.stderr
    helpers, safetensors, torch, cwd = done.stdout.strip().splitlines()[-1].split("|")
    assert Path(cwd).parent == runtime / "content"
    assert Path(helpers) == Path(cwd) / "helpers" / "__init__.py"
    assert safetensors == "0.7.0"
    assert torch == "2.11.0+cu128"
    again = _run_cell(runtime, cell + probe)  # a restarted kernel: the clone is there
    assert again.returncode == 0, again.stderr


@pytest.mark.process
def test_a_runtime_that_is_too_old_is_named(runtime):
    _clone_source(runtime)
    site = next((runtime / "venv").glob("lib/python*/site-packages"))
    shutil.rmtree(site / "torch-2.11.0+cu128.dist-info")
    _installed(site, "torch", "2.5.0+cu121")
    done = _run_cell(runtime, _first_code(NOTEBOOKS[0]))
    assert done.returncode != 0
    assert "torch==2.5.0+cu121" in done.stderr
    assert "newer runtime" in done.stderr


@pytest.mark.process
def test_elsewhere_the_cell_installs_and_clones_nothing(runtime):
    done = _run_cell(runtime, _first_code(NOTEBOOKS[0]) + "\nprint('done')", setting="")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert list((runtime / "content").iterdir()) == []
