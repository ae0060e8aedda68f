import base64
import csv
import io
import json
import os
import re
import signal
import time

import pandas as pd
import pytest
import tiny
import yaml
from runs import Run

from helpers import collected, files, jobs, parameters, plots, records, sweeps, workflow
from helpers.parameters import ParameterError

NETWORKS = (
    tiny.NETWORKS
    + """
trades:
  <<: *tiny
  objective: trades
  beta: 6
  n_steps: 2
  start: gaussian
  start_std: 0.001

swept:
  <<: *tiny
  objective: trades
  n_steps: 2
  start: gaussian
  start_std: 0.001
  grid: {beta: [1, 4.5], epochs: [1, 2]}
"""
)
SWEEP = """
title: steps
notebook: 01_small
fixed: {epsilon_255: 8}
grid:
  n_steps: [1, 2, 5]
figure: {metric: delta_energy, x: n_steps, by: [network]}
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A profile `tiny` with the notebook 01_small and a sweep `steps` over its n_steps."""
    tiny.profile(tmp_path, networks=NETWORKS)
    names = {"networks": ["standard"], "n_steps": 3, "epsilon_255": 51.0, "attacks": ["fgsm"], "seed": 0}
    (tmp_path / "params" / "tiny" / "01_small.yaml").write_text(yaml.safe_dump(names))
    source = "\n".join(['profile = "tiny"', *(f"{name} = None" for name in names)])
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_small.ipynb").write_text(json.dumps({"cells": [cell]}))
    (tmp_path / "params" / "sweeps").mkdir()
    monkeypatch.setattr(parameters, "ROOT", tmp_path)
    monkeypatch.delenv("COMPANION_POINT", raising=False)
    write(tmp_path, SWEEP)
    return tmp_path


def write(root, text):
    (root / "params" / "sweeps" / "steps.yaml").write_text(text, "utf-8")


def names(root, text):
    write(root, text)
    return [point.name for point in sweeps.read("steps", "tiny").points]


HEAD = "title: t\nnotebook: 01_small\n"


# Points


def test_every_combination_is_a_point_in_the_order_of_the_file(root):
    found = names(root, HEAD + "grid: {n_steps: [1, 2], epsilon_255: [8, 0.5]}\nseeds: [0, 1]\n")
    assert found[:3] == [
        "n_steps=1,epsilon_255=8,seed=0",
        "n_steps=1,epsilon_255=8,seed=1",
        "n_steps=1,epsilon_255=0.5,seed=0",
    ]
    assert len(set(found)) == 8
    point = sweeps.read("steps", "tiny").points[-1]
    assert point.overrides == {"n_steps": 2, "epsilon_255": 0.5, "seed": 1} == point.swept


def test_what_is_fixed_is_set_but_does_not_tell_points_apart(root):
    points = sweeps.read("steps", "tiny").points
    assert [point.name for point in points] == ["n_steps=1", "n_steps=2", "n_steps=5"]
    assert points[0].overrides == {"epsilon_255": 8.0, "n_steps": 1}
    assert points[0].swept == {"n_steps": 1}


def test_one_value_in_place_of_a_list_is_a_list_of_it_alone(root):
    assert names(root, HEAD + "fixed: {networks: standard}\ngrid: {attacks: [fgsm, [fgsm, pgd_ce]]}\n") == [
        "attacks=fgsm",
        "attacks=fgsm+pgd_ce",
    ]
    points = sweeps.read("steps", "tiny").points
    assert [point.overrides for point in points] == [
        {"networks": ["standard"], "attacks": ["fgsm"]},
        {"networks": ["standard"], "attacks": ["fgsm", "pgd_ce"]},
    ]
    write(root, HEAD + "grid: {attacks: [fgsm, {a: 1}]}\n")
    assert "grid[1]: attacks: expected a list, each element one of" in str(sweeps.check("steps", "tiny")[0])


def test_a_recipe_is_swept_over_its_grid(root):
    found = names(root, HEAD + "recipe: swept\ngrid: {n_steps: [7]}\n")
    assert found == [f"beta={beta},epochs={epochs},n_steps=7" for beta in (1, 4.5) for epochs in (1, 2)]
    point = sweeps.read("steps", "tiny").points[1]
    assert point.overrides == {"networks": ["swept@beta=1,epochs=2"], "n_steps": 7}
    assert point.swept == {"beta": 1.0, "epochs": 2, "n_steps": 7}
    planned = jobs.of_sweep("tiny", "steps")
    networks = [f"swept@beta={beta},epochs={epochs}" for beta in (1, 4.5) for epochs in (1, 2)]
    assert [job.name for job in planned if job.kind == "network"] == networks


def test_a_recipe_without_a_grid_is_one_point_more(root):
    found = names(root, HEAD + "recipe: [trades, swept]\n")
    assert found[-2:] == ["beta=4.5,epochs=2", "beta=6,epochs=2"]  # by value, in whatever order they are named
    point = sweeps.read("steps", "tiny").points[-1]
    assert point.overrides == {"networks": ["trades"]}
    assert point.swept == {"beta": 6.0, "epochs": 2}


def test_a_name_that_is_no_folder_becomes_a_hash(root):
    assert sweeps._named({"attacks": ["fgsm"] * 30}).startswith("point-")
    assert sweeps._named({"dataset": "folder:/a/b"}).startswith("point-")
    assert sweeps._named({"dataset": "folder:/a/b"}) != sweeps._named({"dataset": "folder:/a/c"})


FAULTS = [
    (HEAD + "grid: {n_steps: [1, 8/255]}", "grid[1]: n_steps: expected a whole number >= 1 or null, got the text '8/2"),
    (HEAD + "grid: {n_stepz: [1]}", "grid[0]: n_stepz: expected a known name (nearest: n_steps), got 'n_stepz'"),
    (HEAD + "grid: {n_steps: 3}", "grid.n_steps: expected a list of values, got 3"),
    (HEAD + "grid: {n_steps: []}", "grid.n_steps: expected a list of values"),
    (HEAD + "grid: {n_steps: [1, 1.0]}", "grid: expected each point once, got n_steps=1 twice"),
    (HEAD + "grid: [1]", "grid: expected lines of `name: value`, got the list [1]"),
    (HEAD, "grid: expected lines of `name: [values]`, seeds or a recipe, got nothing"),
    (HEAD + "seeds: [a]", "grid[0]: seed: expected a whole number >= 0, got the text 'a'"),
    (HEAD + "grids: {n_steps: [1]}", "grids: expected a known name (nearest: grid), got 'grids'"),
    (HEAD + "fixed: {n_steps: 1}\ngrid: {n_steps: [1]}", "fixed.n_steps: expected it either fixed or swept, got both"),
    (HEAD + "fixed: {n_steps: x}\nseeds: [1]", "fixed: n_steps: expected a whole number"),
    (HEAD + "recipe: swep", "recipe: expected a known name (nearest: swept) of params/tiny/networks.yaml, got the te"),
    (HEAD + "recipe: [swept, [a]]", "recipe: expected a known name"),
    (HEAD + "recipe: [madry, trades]", "recipe: expected one with a grid in params/tiny/networks.yaml, got madry, tra"),
    (HEAD + "recipe: [swept, madry]", "recipe: expected networks that all have beta, got madry without"),
    (HEAD + "recipe: [swept, swept]", "grid: expected each point once, got beta=1,epochs=1 twice"),
    (HEAD + "recipe: swept\nfixed: {networks: [madry]}", "fixed.networks: expected it either fixed or swept"),
    (HEAD + "recipe: swept\ngrid: {networks: [[madry]]}", "recipe: expected a notebook with `networks` that the gri"),
    (HEAD.replace("small", "smal") + "seeds: [0]", "notebook: expected a known name (nearest: 01_small) of tiny, got"),
    ("notebook: 01_small\nseeds: [0]", "title: expected text, got nothing (null)"),
    (SWEEP.replace("x: n_steps", "x: n_step"), "figure.x: expected a known name (nearest: n_steps), got the text 'n"),
    (SWEEP.replace("delta_energy", "delta"), "figure.metric: expected a known name (nearest: delta_energy"),
    (SWEEP.replace("[network]", "network"), "figure.by: expected a list"),
    (SWEEP.replace("by:", "bye:"), "figure.bye: expected a known name (nearest: by), got 'bye'"),
]


@pytest.mark.parametrize(("text", "said"), FAULTS)
def test_each_fault_is_one_line_with_file_key_expected_and_got(root, text, said):
    write(root, text)
    faults = [str(fault) for fault in sweeps.check("steps", "tiny")]
    assert len(faults) == 1, faults
    assert faults[0].startswith(f"params/sweeps/steps.yaml: {said}")
    assert ", got " in faults[0]


def test_a_value_that_only_the_profile_refuses_is_found_too(root):
    write(root, HEAD + "grid: {networks: [[standard], [standart]]}")
    assert "got the network 'standart'" in str(sweeps.check("steps", "tiny")[0])


def test_an_unknown_sweep_or_point_names_the_nearest(root):
    with pytest.raises(ParameterError, match=r"params/sweeps: sweep: .*nearest: steps"):
        sweeps.read("step", "tiny")
    with pytest.raises(ParameterError, match=r"point: .*nearest: n_steps=1"):
        jobs.named("tiny", "steps/n_steps=10")


@pytest.mark.parametrize("profile", parameters.profiles())
@pytest.mark.parametrize("name", sweeps.names())
def test_the_sweeps_that_are_here_are_good_in_every_profile_that_has_their_networks(name, profile):
    there = yaml.safe_load((parameters.ROOT / "params" / "sweeps" / f"{name}.yaml").read_text())
    if there["notebook"] not in parameters.notebooks(profile):
        assert f"{name}.yaml: notebook: expected a known name" in str(sweeps.check(name, profile)[0])
    elif profile == "cifar10-cpu" and "recipe" in there:  # nothing is trained there
        assert "of params/cifar10-cpu/networks.yaml" in str(sweeps.check(name, profile)[0])
    elif not {*there.get("grid", {}).get("stability_networks", [[]])[0]} <= {*parameters.recipes(profile)}:
        assert profile == "cifar10-cpu"
        assert "got the network 'stability_" in str(sweeps.check(name, profile)[0])
    else:
        assert sweeps.check(name, profile) == []
        assert sweeps.read(name, profile).points


# Jobs and folders of points


def test_a_point_has_folders_of_its_own(root):
    *points, last = jobs.of_sweep("tiny", "steps")[1:]
    home = root / "figures" / "tiny" / "sweeps" / "steps"
    job = points[-1]
    assert (job.label, job.slug, job.home) == ("steps/n_steps=5", "steps/n_steps=5", home / "n_steps=5")
    places = [job.stamp, job.status, job.log, *job.vouched()]
    assert all(place.is_relative_to(home / "n_steps=5") for place in places)
    assert jobs.named("tiny", job.slug) == job
    assert (last.kind, last.stamp, last.vouched()) == (
        "sweep",
        home / "done" / "sweep-steps.json",
        [home / "steps.csv"],
    )
    assert jobs.named("tiny", "sweep-steps") == last
    assert "networks" not in str(job.stamp)
    standard = next(job for job in jobs.of_sweep("tiny", "steps") if job.kind == "network")
    assert standard.stamp.parent == root / "figures" / "tiny" / "done"  # shared with every other run


def test_only_a_changed_point_has_another_digest(root):
    (root / "helpers").mkdir()
    before = {job.label: job.digest for job in jobs.of_sweep("tiny", "steps") if job.point}
    write(root, SWEEP.replace("5]", "5, 6]"))
    after = {job.label: job.digest for job in jobs.of_sweep("tiny", "steps") if job.point}
    assert {name: after[name] for name in before} == before
    assert len(set(after.values())) == 4
    write(root, SWEEP.replace("epsilon_255: 8", "epsilon_255: 9"))
    assert not set(before.values()) & {job.digest for job in jobs.of_sweep("tiny", "steps") if job.point}


def test_parameters_of_a_point_write_to_its_folder(root, monkeypatch):
    cell = {"profile": "tiny", "networks": None, "n_steps": 5, "epsilon_255": None, "attacks": None, "seed": None}
    plain = parameters.load("01_small", cell)
    monkeypatch.setenv("COMPANION_POINT", "steps/n_steps=5")
    p = parameters.load("01_small", cell)
    assert p.folder == root / "figures" / "tiny" / "sweeps" / "steps" / "n_steps=5" / "01_small"
    assert plain.folder == root / "figures" / "tiny" / "01_small"
    assert (p.digest, repr(p)) == (plain.digest, repr(plain))  # it is the same question


@pytest.mark.parametrize(
    ("line", "sweep", "rest", "dry"),
    [
        ("digits --sweep steps", "steps", [], False),
        ("--sweep=steps -n", "steps", [], True),
        ("digits --sweep steps --cores 4", "steps", ["--cores", "4"], False),
        ("digits --jobs 3 --sweep steps", "steps", ["--jobs", "3"], False),
        ("digits --sweep", " ", [], False),
    ],
)
def test_the_command_line_takes_a_sweep(line, sweep, rest, dry):
    assert workflow.understand(line.split()) == workflow.Request("digits", [], dry, rest, sweep)


def test_a_sweep_takes_no_notebook_beside_it(root, capsys):
    assert workflow.main(["tiny", "01", "--sweep", "steps"]) == 2
    assert capsys.readouterr().err == "command line: --sweep: expected no notebook beside it, got 01\n"
    assert workflow.main(["tiny", "--sweep", "step"]) == 2
    assert "nearest: steps" in capsys.readouterr().err


# Collecting


def done(sweep, point, rows):
    """The results of a point, as its notebook would leave them."""
    p = sweeps.values(sweep, point)
    run = Run(p.folder, profile="tiny", notebook="01_small", values=p.values, digest=p.digest)
    records.save(run, "pairs", scalars=rows)
    records.finish(run)


def row(network, value, **where):
    ends = {"interval": (value - 1, value + 1), "interval_kind": "normal"}
    return records.scalar("delta_energy", value, n=10, seeds=[0, 1], network=network, **ends, **where)


def test_one_tidy_table_of_the_points_that_are_done(root, capsys):
    sweep = sweeps.read("steps", "tiny")
    done(sweep, sweep.points[0], [row("standard", 1.0), row("madry", 2.0, n_steps="own")])
    done(sweep, sweep.points[2], [row("standard", 5.0)])
    files.write_json(sweep.home / "n_steps=2" / "notebooks" / "01_small.run.json", {"error": "cell 3: ValueError: no"})
    assert sweeps.missing(sweep) == {"n_steps=2": "cell 3: ValueError: no"}
    assert sweeps.main(["collect", "tiny", "steps"]) == 0
    said = capsys.readouterr()
    assert said.out == "figures/tiny/sweeps/steps/steps.csv\n"
    assert said.err == "left out, n_steps=2: cell 3: ValueError: no\n"
    rows = list(csv.DictReader(io.StringIO((sweep.home / "steps.csv").read_text("utf-8"))))
    assert [(r["n_steps"], r["network"], float(r["value"]), r["of_n_steps"]) for r in rows] == [
        ("1", "standard", 1.0, ""), ("1", "madry", 2.0, "own"), ("5", "standard", 5.0, ""),
    ]  # fmt: skip
    assert {"metric", "unit", "low", "high", "interval_kind", "n", "seeds", "record", "point"} <= set(rows[0])
    assert (rows[0]["seeds"], rows[0]["low"]) == ("0 1", "0.0")
    record = records.load(sweep.home / "sweep.json")
    assert record.value("delta_energy", n_steps=5) == 5.0
    figure = json.loads((sweep.home / "sweep.figure.json").read_text())
    assert "1 of 3 points are missing" in figure["caption"]
    assert (sweep.home / "sweep.png").exists()


def test_a_swept_list_is_one_cell_of_the_table(root):
    write(root, HEAD + "grid: {attacks: [pgd_ce, [fgsm, pgd_ce]]}\n")
    sweep = sweeps.read("steps", "tiny")
    for point in sweep.points:
        done(sweep, point, [row("standard", 1.0)])
    assert [collected.numbers(sweep, point)[0]["attacks"] for point in sweep.points] == ["pgd_ce", "fgsm+pgd_ce"]


def test_results_of_other_parameters_are_left_out(root):
    sweep = sweeps.read("steps", "tiny")
    done(sweep, sweep.points[0], [row("standard", 1.0)])
    write(root, SWEEP.replace("epsilon_255: 8", "epsilon_255: 9"))
    found = sweeps.missing(sweeps.read("steps", "tiny"))
    assert found["n_steps=1"] == "its results are of other parameters or networks"
    assert found["n_steps=2"] == "has not run"
    assert collected.write(sweeps.read("steps", "tiny")) == 1


def test_a_figure_of_two_swept_parameters_has_a_line_for_each_of_the_second(root):
    write(root, SWEEP.replace("  n_steps: [1, 2, 5]", "  n_steps: [1, 2]\n  seed: [0, 1]"))
    sweep = sweeps.read("steps", "tiny")
    assert sweep.figure.by == ("network", "seed")
    for i, point in enumerate(sweep.points):
        done(sweep, point, [row("standard", float(i))])
    assert collected.write(sweep) == 0
    assert json.loads((sweep.home / "sweep.figure.json").read_text())["caption"].endswith("with 95 % intervals.")


def test_interval_curves_show_each_interval():
    columns = {"n": [1, 2, 1], "who": ["a", "a", "b"], "value": [1.0, 2.0, 3.0]}
    frame = pd.DataFrame(columns | {"low": [0.5, 1.0, None], "high": [2.0, 4.0, None]})
    figure = plots.interval_curves(frame, x="n", by="who", x_label="n", y_label="value (nat)")
    bars = [line for c in figure.axes[0].containers for line in c[2][0].get_segments()]
    assert [[round(float(y), 6) for _, y in bar] for bar in bars] == [[0.5, 2.0], [1.0, 4.0], [3.0, 3.0]]


# Continuous integration


def test_the_matrix_runs_what_run_all_runs(root, capsys):
    text = (sweeps.Path(__file__).parent.parent / ".github" / "workflows" / "sweep.yml").read_text("utf-8")
    flow = yaml.safe_load(text)
    assert set(flow[True]["workflow_dispatch"]["inputs"]) == {"sweep", "profile"}
    work = flow["jobs"]
    assert set(work) == {"points", "point", "collect"}
    assert work["point"]["strategy"]["matrix"]["point"] == "${{ fromJSON(needs.points.outputs.points) }}"
    assert work["point"]["strategy"]["fail-fast"] is False
    commands = {name: " ".join(str(step.get("run", "")) for step in job["steps"]) for name, job in work.items()}
    assert 'python -m helpers.sweeps points "$PROFILE" "$SWEEP"' in commands["points"]
    assert '-m helpers.execute "$PROFILE" "$SWEEP/$POINT"' in commands["point"]
    assert '-m helpers.sweeps collect "$PROFILE" "$SWEEP"' in commands["collect"]
    assert not re.search(r"run:[^\n]*\$\{\{", text), "what a person typed reaches the shell as a variable only"
    assert sweeps.main(["points", "tiny", "steps"]) == 0
    assert json.loads(capsys.readouterr().out) == ["n_steps=1", "n_steps=2", "n_steps=5"]


# A real sweep


CELL = """
from helpers import records
if p.n_steps == 5 and os.environ.get("HANG"):
    time.sleep(300)
assert p.n_steps != 2, "two is too many"
record = records.save(p, "value", scalars=[records.scalar("delta_energy", float(p.n_steps), network="plain")])
records.finish(p);
"""


@pytest.fixture
def swept_tree(light_tree):
    """A tree with a sweep `steps`: its point 2 fails, its point 5 takes for ever with HANG."""
    light_tree.notebook("92_two", ["n_steps"], [CELL])
    figure = "figure: {metric: delta_energy, x: n_steps, by: [network]}\n"
    light_tree.write(
        "params/sweeps/steps.yaml", "title: steps\nnotebook: 92_two\ngrid: {n_steps: [1, 2, 5]}\n" + figure
    )
    return light_tree


def ended(said):
    """The jobs that a run says to have done."""
    return set(re.findall(r"^\[\d of \d\] (\S+|sweep steps) done", said, re.M))


def running(tree):
    """The outputs that Snakemake has noted as begun and not yet as finished."""
    notes = (tree.folder / ".snakemake" / "incomplete").glob("*")
    return [base64.urlsafe_b64decode(note.name).decode() for note in notes]


@pytest.mark.process
def test_a_killed_sweep_goes_on_and_a_failing_point_stops_no_other(swept_tree):
    home = swept_tree.figures("sweeps/steps")
    process = swept_tree.start("light", "--sweep", "steps", "--cores", "2", HANG="1")
    state, done = home / "n_steps=5" / "notebooks" / "92_two.run.json", home / "n_steps=1" / "done" / "92_two.json"
    deadline = time.monotonic() + 240
    while not (state.exists() and done.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    # A moment passes between a job's last write and Snakemake's note of it; killed in between, the job runs again.
    while any("n_steps=1/" in output for output in running(swept_tree)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert any("n_steps=5/" in output for output in running(swept_tree))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert done.exists()
    assert not (home / "steps.csv").exists()

    status, said = swept_tree.run("light", "--sweep", "steps")
    assert status == 1, said
    assert ended(said) == {"steps/n_steps=5", "sweep steps"}  # not point 1, which was done before the kill
    assert "steps/n_steps=2 FAILED: cell" in said
    assert "AssertionError: two is too many" in said
    values = list(csv.DictReader(io.StringIO((home / "steps.csv").read_text())))
    assert [(row["n_steps"], float(row["value"])) for row in values] == [("1", 1.0), ("5", 5.0)]
    assert f"Table: {home / 'steps.csv'}" in said
    assert (home / "n_steps=5" / "92_two" / "value.json").exists()
    assert "two is too many" in (home / "n_steps=2" / "notebooks" / "92_two.html").read_text()
    assert not swept_tree.figures("92_two").exists()  # the notebook's own results are left alone
