"""What every notebook keeps (STYLE, section 9), and every notebook run from a fresh kernel."""

import ast
import json
import os
import re
import subprocess

import filelock
import pytest
import trees
import yaml

from helpers import contests, hybrid_methods, ledger, parameters, records, settings
from helpers.parameters import ROOT

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = {path.stem: json.loads(path.read_text("utf-8")) for path in PATHS}
PROFILES = sorted(path.parent.name for path in (ROOT / "params").glob("*/[0-9][0-9]_*.yaml"))
CASES = sorted((path.parent.name, path.stem) for path in (ROOT / "params").glob("*/[0-9][0-9]_*.yaml"))

each = pytest.mark.parametrize("name", list(NOTEBOOKS))


def _code(name: str) -> list[tuple[str, str]]:
    return [(cell["id"], "".join(cell["source"])) for cell in NOTEBOOKS[name]["cells"] if cell["cell_type"] == "code"]


def _stored(source: str) -> set[str]:
    names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}


def _imported(source: str) -> set[str]:
    lines = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {(alias.asname or alias.name).split(".")[0] for line in lines for alias in line.names}


def _text(name: str) -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOKS[name]["cells"] if cell["cell_type"] == "markdown"]


def test_the_notebooks_of_this_project_are_all_here():
    assert {
        "00_start_here",
        "01_energy_landscape",
        "02_training_dynamics",
        "03_weat",
        "04_generation",
        "05_generation_ablations",
        "06_robust_jem",
        "07_hybrid_evaluation",
        "08_ceb_robustness",
        "10_ceb_calibration",
    } <= set(NOTEBOOKS)
    assert {"digits", "cifar10-cpu", "cifar10", "paper"} <= set(PROFILES)


@each
def test_no_outputs_counts_or_widget_state(name):
    notebook = NOTEBOOKS[name]
    assert "widgets" not in notebook["metadata"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@each
def test_short_cells_few_cells_no_definitions(name):
    cells = NOTEBOOKS[name]["cells"]
    assert len(cells) <= 30
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert all(re.fullmatch(r"[a-z0-9-]+", cell["id"]) for cell in cells), "ids are names, not random"
    for place, source in _code(name):
        assert len(source.splitlines()) <= (30 if place == "parameters" else 15), place  # one name a line is no code
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(source))), place


@each
def test_fixed_order(name):
    title = _text(name)[0]
    assert title.startswith("# ")
    assert "colab-badge" in title
    assert "**Claim" in title
    assert "Runtime" in title
    assert _text(name)[-1].startswith("## Limits")
    code = _code(name)
    assert [place for place, _ in code[:4]] == ["colab", "imports", "parameters", "setup"]
    assert code[-1][1] == "records.finish(p);"


@each
def test_parameters_cell_holds_a_profile_and_nones(name):
    cells = [cell for cell in NOTEBOOKS[name]["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert len(cells) == 1
    lines = "".join(cells[0]["source"]).splitlines()
    assert lines[0] == 'profile = "digits"'
    assert all(re.fullmatch(r"[a-z_0-9]+ = None", line) for line in lines[1:])
    assert f'parameters.load("{name}", globals())' in dict(_code(name))["setup"]


@pytest.mark.parametrize(("profile", "name"), CASES)
def test_cell_and_yaml_name_the_same_parameters(profile, name):
    cell = parameters.cell_names(ROOT / "notebooks" / f"{name}.ipynb")
    values = yaml.safe_load((ROOT / "params" / profile / f"{name}.yaml").read_text("utf-8"))
    assert set(cell) == {"profile", *values}


@pytest.mark.parametrize(("profile", "name"), CASES)
def test_every_parameter_is_used(profile, name):
    values = yaml.safe_load((ROOT / "params" / profile / f"{name}.yaml").read_text("utf-8"))
    used = {
        node.attr
        for _, source in _code(name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "p"
    }
    if name == ledger.NOTEBOOK:  # where the claims themselves name parameters, after a $
        used |= {role for claim in ledger.read() for role in claim.roles}
    if name == "05_generation_ablations":  # its knobs, of which it takes what the ablations ask for
        used |= {*settings.LISTS.values(), "l2_step_sizes", "start_noise_std", "energy_tolerance"}
    if name == "06_robust_jem":  # of which its methods are made
        used |= set(hybrid_methods.KNOBS)
    if name == "11_performance":  # which another process takes
        used |= set(contests.KNOBS)
    assert set(values) <= used


@each
def test_a_cell_can_be_run_again(name):
    # parameters.load takes every parameter of the glossary that it finds among the variables for one that is meant.
    terms = {"profile", *yaml.safe_load((ROOT / "params" / "schema.yaml").read_text("utf-8"))["parameters"]}
    for place, source in _code(name):
        if place != "parameters":
            assert not (_stored(source) | _imported(source)) & terms, place


@each
def test_names_are_defined_by_an_earlier_cell(name):
    known = set(dir(__builtins__)) | set(vars(__import__("builtins")))
    for place, source in _code(name):
        names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
        loaded = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        known |= _imported(source) | _stored(source)
        assert loaded <= known, place


@each
def test_numbers_of_results_are_not_typed_into_captions(name):
    for place, source in _code(name):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.keyword) and node.arg == "caption":
                text = "".join(
                    part.value
                    for part in ast.walk(node)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )
                assert not re.search(r"\d+[.,]\d", text), place


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """One tree for all workers: each network is trained once, and notebooks run beside each other as in a run."""
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = home / "a tree" / "with spaces"
    with filelock.FileLock(home / "tree.lock"):
        return folder if folder.exists() else trees.tiny(folder)


EXPECTED = {
    "00_start_here": {"attack", "own"},
    "01_energy_landscape": {"plane", "pairs", "violins", "health", "identities"},
    "02_training_dynamics": {"curves", "phases", "plane", "weighted", "overfitting", "single_step"},
    "03_weat": {"robustness", "health", "weights", "ablation", "removal"},
    "04_generation": {"look", "grid", "starts", "quality", "chains", "networks", "nearest", "gallery"},
    "05_generation_ablations": {"look", "settings", "best"},
    "06_robust_jem": {"training", "quality", "grids", "samplers", "knobs", "phases"},
    "07_hybrid_evaluation": {
        "calibration",
        "detection",
        "curves",
        "robustness",
        "health",
        "energies",
        "nearest",
        "gallery",
        "refinement",
    },
    "08_ceb_robustness": {
        "sweep",
        "optimum",
        "information",
        "others",
        "curves",
        "steps",
        "attacks",
        "samples",
        "health",
    },
    "09_ceb_corruptions": {"images", "errors", "cells", "published", "official"},
    "10_ceb_calibration": {"clean", "severity"},
    "11_performance": {"race", "counts", "growth", "hot_spots", "bill"},
    "12_claims": {"claims"},
}


def execute(tree, job, *, again=True):
    """Run a job of the tree; without `again` only where it has not been run, also by another worker at this moment.

    00 alone writes the PDFs of its figures too.
    """
    environment = trees.environment(tree) | ({"COMPANION_FIGURES": "png,pdf"} if job.startswith("00") else {})
    with filelock.FileLock(tree.parent / f"{job.replace('/', '-')}.lock"):
        if again or not (tree / "figures" / "digits" / job / "finished.json").exists():
            command = [trees.PYTHON, "-m", "helpers.execute", "digits", job]
            done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
@each
def test_runs_from_a_fresh_kernel(name, tree):
    execute(tree, name)
    folder = tree / "figures" / "digits" / name
    finished = json.loads((folder / "finished.json").read_text("utf-8"))
    made = {
        kind: {entry["name"] for entry in finished["outputs"] if entry["kind"] == kind} for kind in ("record", "figure")
    }
    assert made["record"] == EXPECTED[name]
    assert made["figure"]
    written = {path.stem for path in folder.glob("*.pdf")}
    assert written == (made["figure"] if name == "00_start_here" else set())
    for record in made["record"]:
        records.load(folder / f"{record}.json")
    assert not (folder / "parts").exists()
    executed = json.loads((folder.parent / "notebooks" / f"{name}.ipynb").read_text("utf-8"))
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    said = "".join("".join(output["text"]) for output in outputs if output.get("name") == "stderr")
    assert "Warning" not in said, said
    if name == "00_start_here":
        assert "widgets" not in executed["metadata"]
        last = next(cell for cell in executed["cells"] if cell["id"] == "explorer-show")
        assert any("image/png" in output.get("data", {}) for output in last["outputs"]), (
            "a still picture, visible in HTML"
        )
        assert "A still picture" in (folder.parent / "notebooks" / f"{name}.html").read_text("utf-8")
    if name == "01_energy_landscape":
        bounds = {"float64": 1e-10, "float32": 1e-5}
        identities = records.load(folder / "identities.json").scalars
        assert len(identities) == 4
        assert all(row.value <= bounds[row.dtype] for row in identities.itertuples())


@pytest.mark.process
def test_a_point_of_a_sweep_has_the_numbers_that_the_whole_notebook_has_there(tree):
    home = tree / "figures" / "digits"
    execute(tree, "05_generation_ablations", again=False)
    execute(tree, "generation_noise/noise_stds=0")
    whole = records.load(home / "05_generation_ablations" / "settings.json").content["scalars"]
    point = home / "sweeps" / "generation_noise" / "noise_stds=0" / "05_generation_ablations"
    alone = records.load(point / "settings.json").content["scalars"]
    by_id = {row["id"]: row for row in whole}
    assert {row.get("noise_std") for row in alone if row["ablation"] == "noise"} == {0.0}
    assert len(alone) < len(whole)
    assert all(by_id[row["id"]] == row for row in alone)
    assert not (point / "best.json").exists(), "a point has nothing to choose from"


@pytest.mark.process
def test_runs_by_hand_from_the_notebooks_folder(tree):
    # As Jupyter starts it: in notebooks/, and nothing but the first cell says where helpers lie.
    code = "\n".join(
        source for place, source in _code("02_training_dynamics") if place in ("colab", "imports", "parameters")
    )
    environment = trees.environment(tree) | {"PYTHONPATH": ""}
    command = [trees.PYTHON, "-c", code + "\nprint(parameters.__file__)"]
    done = subprocess.run(command, cwd=tree / "notebooks", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tree / "helpers" / "parameters.py")
