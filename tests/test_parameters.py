import json
import shutil
import subprocess
import sys

import pytest

from helpers import glossary, parameters
from helpers.parameters import ParameterError

NETWORKS = """
.shared: &shared
  dataset: digits
  architecture: smallcnn
  optimizer: sgd
  learning_rate: 1e-2
  schedule: one_cycle
  pct_start: 0.25
  epochs: 3
  batch_size: 32
  seeds: [0, 1]
standard: {<<: *shared, objective: standard}
trades:
  <<: *shared
  objective: trades
  attack_norm: linf
  epsilon_255: 8
  step_size_255: 2
  n_steps: 7
  start: uniform
  grid: {beta: [1, 2.5], n_steps: [2, 7]}
"""
NOTEBOOK = "networks: [standard]\nn_steps: 3\nepsilon_255: 8\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of its own: the real glossary, a profile `small` with one notebook and two recipes."""
    folder = tmp_path / "params" / "small"
    folder.mkdir(parents=True)
    shutil.copy(parameters.ROOT / "params" / "schema.yaml", tmp_path / "params")
    shutil.copy(parameters.ROOT / "params" / "digits" / "profile.yaml", folder)
    (folder / "networks.yaml").write_text(NETWORKS)
    (folder / "01_small.yaml").write_text(NOTEBOOK)
    (tmp_path / "notebooks").mkdir()
    names = ("networks", "n_steps", "epsilon_255")
    cell = "\n".join(['profile = "digits"', *(f"{name} = None" for name in names)])
    cells = [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": cell}]
    (tmp_path / "notebooks" / "01_small.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.setattr(parameters, "ROOT", tmp_path)
    return tmp_path


def cell(**values):
    return {"profile": "small", "networks": None, "n_steps": None, "epsilon_255": None, **values}


# Values


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("epsilon_255: 8/255", "epsilon_255: expected a number >= 0 and <= 255 or null, got the text '8/255'"),
        ("epsilon_255: no", "epsilon_255: expected a number >= 0 and <= 255 or null, got False"),
        ("epsilon_255: [8]", "got the list [8]"),
        ("epsilon_255: .nan", "got nan"),
        ("epsilon_255: .inf", "got inf"),
        ("epsilon_l2: .inf", "epsilon_l2: expected a number >= 0 or null, got inf"),
        ("epsilon_255: 1e400", "got the text '1e400'"),
        ("epsilon_255: -8", "got -8"),
        ("epsilon_255: 256", "got 256"),
        ("epsilon_255: {a: 1}", "got {'a': 1}"),
        ("step_size_255: 0", "expected a number > 0"),
        ("n_steps: yes", "n_steps: expected a whole number >= 1 or null, got True"),
        ("n_steps: 2.5", "got 2.5"),
        ("n_steps: ten", "got the text 'ten'"),
        ("n_images: null", "expected a whole number >= 1, got nothing (null)"),
        ("seeds: 3", "expected a list, each element a whole number >= 0, got 3"),
        ("seeds: [0, -1]", "seeds[1]: "),
        ("seeds: []", "got the list []"),
        ("networks: standard", "expected a list, each element text, got the text 'standard'"),
        ("returns: lst", "one of last, first_success, max_loss (nearest: last), got the text 'lst'"),
        ("returns: off", "got False (YAML reads"),
        ("n_stepz: 3", "n_stepz: expected a known name (nearest: n_steps), got 'n_stepz'"),
        ("n_steps: 3\nn_steps: 4", "n_steps: expected each name once, got it on lines 1 and 2"),
        ("on: 3", "expected a name that YAML reads as text"),
        ("n_steps: [3", "expected YAML, got"),
        ("- 3", "expected lines of `name: value`"),
        ("networks: [standart]", "networks: expected a known name (nearest: standard), got the network 'standart'"),
        ("network: madry", "networks: expected a known name ("),
    ],
)
def test_each_fault_is_one_line_with_file_key_expected_and_got(root, line, said):
    (root / "params" / "small" / "01_small.yaml").write_text(line + "\n")
    faults = [str(fault) for fault in parameters.check("small", [])]
    first = faults[0]
    assert first.startswith("params/small/01_small.yaml: ")
    assert said in first
    assert "expected" in first
    assert "got" in first
    assert "\n" not in first


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("5e-4", 5e-4), ("1E2", 100.0), ("5.0e-4", 5e-4), (".5e1", 5.0), ("8", 8.0), ("+2e0", 2.0)],
)
def test_numbers_are_numbers_however_yaml_reads_them(root, text, value):
    (root / "params" / "small" / "01_small.yaml").write_text(f"epsilon_255: {text}\n")
    got = parameters.read("01_small", "small")["epsilon_255"]
    assert (type(got), got) == (float, value)


def test_whole_numbers_may_be_scientific_and_stay_whole(root):
    (root / "params" / "small" / "01_small.yaml").write_text("n_steps: 1e2\nn_images: 1.0e+3\n")
    values = parameters.read("01_small", "small")
    assert values == {"n_steps": 100, "n_images": 1000}
    assert all(type(value) is int for value in values.values())


def test_all_faults_of_a_file_are_told_at_once(root):
    (root / "params" / "small" / "01_small.yaml").write_text("n_steps: no\nepsilon_255: 8/255\nfoo: 1\n")
    assert [fault.key for fault in parameters.check("small", [])][:3] == ["n_steps", "epsilon_255", "foo"]


# The notebook's cell


def test_none_means_the_profiles_value_and_others_override(root):
    p = parameters.load("01_small", cell(n_steps=5, np=object(), In=[""]))
    assert (p.n_steps, p.epsilon_255, p.networks) == (5, 8.0, ["standard"])
    assert (p.profile, p.notebook) == ("small", "01_small")
    assert p.folder == root / "figures" / "small" / "01_small"


def test_numbers_of_numpy_are_taken_as_plain_ones(root):
    numpy = pytest.importorskip("numpy")
    p = parameters.load("01_small", cell(n_steps=numpy.int64(4), epsilon_255=numpy.float32(0.5)))
    assert (type(p.n_steps), type(p.epsilon_255)) == (int, float)


@pytest.mark.parametrize(
    ("globals_", "said"),
    [
        ({"n_steps": "8/255"}, "01_small, parameters cell: n_steps: expected a whole number"),
        ({"networks": ["nope"]}, "01_small, parameters cell: networks: expected a known name (standard, trades@"),
        ({"n_restarts": 2}, "n_restarts: expected a known name"),
        ({"In": ["", "# Parameters\nn_stepz = 3\n"]}, "n_stepz: expected a known name (nearest: n_steps)"),
        ({"profile": "smal"}, "profile: expected a known name (nearest: small)"),
        ({"profile": None}, "profile: expected a known name"),
    ],
)
def test_what_a_cell_or_papermill_sets_is_checked_too(root, globals_, said):
    with pytest.raises(ParameterError) as caught:
        parameters.load("01_small", cell(**globals_))
    assert said in str(caught.value)


def test_a_cell_must_set_every_name_of_the_yaml(root):
    incomplete = cell()
    del incomplete["epsilon_255"]
    with pytest.raises(ParameterError, match=r"epsilon_255: expected it set to None"):
        parameters.load("01_small", incomplete)


def test_the_notebooks_cell_is_compared_before_a_kernel_starts(root):
    (root / "params" / "small" / "01_small.yaml").write_text(NOTEBOOK + "n_images: 5\n")
    assert "n_images: expected it set" in str(parameters.check("small", ["01"])[0])
    (root / "params" / "small" / "01_small.yaml").write_text("networks: [standard]\nn_steps: 3\n")
    assert "epsilon_255: expected a known name" in str(parameters.check("small", ["01"])[0])
    (root / "notebooks" / "01_small.ipynb").unlink()
    assert "notebooks/01_small.ipynb: file: expected a notebook" in str(parameters.check("small", ["01"])[0])


def test_values_cannot_be_changed_by_accident(root):
    p = parameters.load("01_small", cell())
    with pytest.raises(AttributeError, match="cannot be changed"):
        p.n_steps = 4
    p.networks.append("x")
    p.values["n_steps"] = 9
    assert p.values == {"networks": ["standard"], "n_steps": 3, "epsilon_255": 8.0}
    with pytest.raises(AttributeError, match="nearest: n_steps"):
        _ = p.n_stepz


def test_the_values_in_force_are_shown_with_unit_and_meaning(root):
    p = parameters.load("01_small", cell())
    for text in (repr(p), p._repr_html_()):
        assert "epsilon_255" in text
        assert "8.0" in text
        assert "1/255 of the pixel range" in text
        assert parameters.glossary()["epsilon_255"].meaning.replace("'", "") in text.replace("'", "").replace(
            "&#x27;", ""
        )


def test_the_digest_follows_values_and_the_networks_entries_and_nothing_else(root):
    first = parameters.load("01_small", cell()).digest
    assert parameters.load("01_small", cell(n_steps=3, other=1)).digest == first
    assert parameters.load("01_small", cell(n_steps=4)).digest != first
    networks = root / "params" / "small" / "networks.yaml"
    networks.write_text("# a comment\n" + NETWORKS)
    assert parameters.load("01_small", cell()).digest == first
    networks.write_text(NETWORKS.replace("epochs: 3", "epochs: 4"))
    assert parameters.load("01_small", cell()).digest != first


# Recipes


def test_a_grid_becomes_one_recipe_for_each_point(root):
    names = [f"trades@beta={beta},n_steps={n}" for beta in ("1", "2.5") for n in (2, 7)]
    assert list(parameters.recipes("small")) == ["standard", *names]
    entry = parameters.recipe("small", "trades@beta=2.5,n_steps=2").entry
    assert (entry["beta"], entry["n_steps"], entry["learning_rate"]) == (2.5, 2, 0.01)
    assert entry["momentum"] is None
    assert set(entry) == set(parameters.recipe_terms()) - {"seeds"}


def test_a_rehearsal_takes_the_first_seeds_of_each_recipe_and_runs_under_another_digest(root, monkeypatch):
    whole, loaded = parameters.recipe("small", "standard"), parameters.load("01_small", cell())
    assert whole.seeds == (0, 1)
    monkeypatch.setenv("MAX_SEEDS", "1")
    first = parameters.recipe("small", "standard")
    assert first.seeds == (0,)
    assert first.folder(0) == whole.folder(0), "the same network, trained once for both"
    assert parameters.load("01_small", cell()).digest != loaded.digest
    monkeypatch.setenv("MAX_SEEDS", "7")
    assert parameters.recipe("small", "standard").seeds == (0, 1)
    monkeypatch.setenv("MAX_SEEDS", "")
    assert parameters.recipe("small", "standard").seeds == (0, 1)


@pytest.mark.parametrize("given", ["0", "-1", "one", "1.5"])
def test_another_number_of_seeds_is_refused(root, monkeypatch, given):
    monkeypatch.setenv("MAX_SEEDS", given)
    with pytest.raises(parameters.ParameterError, match=f"MAX_SEEDS: expected a whole number from 1 on, got '{given}'"):
        parameters.recipes("small")


def test_a_recipes_hash_covers_entry_seed_and_objective_and_not_what_does_not_train(root, monkeypatch):
    path = root / "params" / "small" / "networks.yaml"
    base = parameters.recipe("small", "standard")
    digests = {base.digest(0), base.digest(1)}
    assert len(digests) == 2
    assert base.folder(1) == root / f"figures/small/networks/standard/seed1-{base.digest(1)}"
    path.write_text(NETWORKS.replace("batch_size: 32", "checkpoint_every: 9\n  published: a text\n  batch_size: 32"))
    assert parameters.recipe("small", "standard").digest(0) == base.digest(0)
    path.write_text(NETWORKS.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    assert parameters.recipe("small", "standard").digest(0) == base.digest(0)
    path.write_text(NETWORKS.replace("learning_rate: 1e-2", "learning_rate: 0.01"))
    assert parameters.recipe("small", "standard").digest(0) == base.digest(0)
    path.write_text(NETWORKS.replace("learning_rate: 1e-2", "learning_rate: 0.02"))
    assert parameters.recipe("small", "standard").digest(0) != base.digest(0)
    path.write_text(NETWORKS)
    monkeypatch.setitem(parameters.OBJECTIVE_VERSIONS, "standard", 2)
    assert parameters.recipe("small", "standard").digest(0) not in digests


def test_a_new_name_in_the_glossary_trains_nothing_anew(root):
    before = parameters.recipe("small", "standard").digest(0)
    schema = root / "params" / "schema.yaml"
    schema.write_text(schema.read_text().replace("\nrecipe:\n", "\nrecipe:\n  novelty: {type: bool, meaning: new}\n"))
    after = parameters.recipe("small", "standard")
    assert "novelty" in after.entry
    assert after.digest(0) == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("objective: standard", "objective: stendard", "standard: objective: expected one of"),
        ("objective: standard", "objectiv: standard", "objectiv: expected a known name (nearest: objective)"),
        ("  epochs: 3\n", "", "standard: epochs: expected a whole number >= 1 (source train), got nothing"),
        ("  pct_start: 0.25\n", "", "pct_start: expected a number > 0 and <= 1 (schedule one_cycle), got nothing"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "seeds: expected each seed once"),
        ("  step_size_255: 2\n", "", "step_size_255: expected a number > 0 and <= 255 (attack_norm linf), got nothing"),
        ("grid: {beta: [1, 2.5], n_steps: [2, 7]}", "beta: 8/255", "trades: beta: expected a number >= 0 or null, got"),
        ("grid: {beta: [1, 2.5], n_steps: [2, 7]}", "grid: {beta: 1}", "trades: grid: expected a name with a list"),
        ("standard: {", "a/b: {", "a/b: expected letters, digits"),
        ("objective: trades", "objective: weat_adv", "weight_normalisation: expected one of"),
        (
            "objective: trades",
            "objective: mail_trades\n  weight_normalisation: mean",
            "margin_slope: expected a number",
        ),
        ("objective: trades", "objective: fgsm_rs", "step_over_epsilon: expected a number > 0 (objective fgsm_rs)"),
        ("objective: trades", "objective: trades\n  energy_penalty: abs", "energy_penalty_weight: expected a number"),
        (
            "objective: trades",
            "objective: trades\n  energy_penalty: hinge\n  energy_penalty_weight: 1",
            "energy_penalty_margin: expected a number >= 0 (energy_penalty hinge)",
        ),
        (
            "objective: standard",
            "objective: standard, energy_penalty: abs, energy_penalty_weight: 1",
            "standard attacks",
        ),
    ],
)
def test_faults_of_recipes_are_told_before_training(root, old, new, said):
    assert old in NETWORKS
    (root / "params" / "small" / "networks.yaml").write_text(NETWORKS.replace(old, new))
    assert any(
        said in str(fault) and "params/small/networks.yaml" in str(fault) for fault in parameters.check("small", [])
    )


def test_the_shipped_recipes_and_parameters_are_right():
    for profile in parameters.profiles():
        assert parameters.profile_facts(profile)["threads"] >= 1
        assert [str(fault) for fault in parameters.check(profile, [])] == []


def test_every_networks_yaml_entry_has_a_version_of_its_objective():
    assert set(parameters.OBJECTIVE_VERSIONS) >= set(parameters.glossary()["objective"].choices)


# The glossary and the command line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("parameters: {a: {type: intt, meaning: x}}", "a.type: expected a known name (nearest: int)"),
        ("parameters: {a: {type: int}}", "a.meaning: expected text"),
        ("parameters: {a: {typ: int, meaning: x}}", "a.typ: expected a known name (nearest: type)"),
        ("parameter: {a: {type: int, meaning: x}}", "parameter: expected a known name (nearest: parameters)"),
        ("parameters: {a: {meaning: x}}\nrecipe: {a: {meaning: x}}", "a: expected a name once"),
    ],
)
def test_a_faulty_glossary_is_told(tmp_path, text, said):
    (tmp_path / "schema.yaml").write_text(text)
    with pytest.raises(ParameterError) as caught:
        glossary.read_terms(tmp_path / "schema.yaml", where="schema.yaml")
    assert said in str(caught.value)


def test_every_metric_has_unit_and_meaning():
    assert parameters.metrics()
    assert all(term.unit and term.meaning for term in parameters.metrics().values())


def test_notebooks_are_found_by_number_name_and_path(root):
    for given in ("01", "1", "01_small", "01_s", "notebooks/01_small.ipynb"):
        assert parameters.named("small", [given]) == ["01_small"]
    with pytest.raises(ParameterError, match="got '07'"):
        parameters.named("small", ["07"])


def command(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=parameters.ROOT)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["digits"], 0, ""),
        (["digits", "01", "--set", "n_steps=7", "--set", "epsilon_255=1e-3"], 0, ""),
        (["digits", "01", "--set", "epsilon_255=8/255"], 2, "got the text '8/255'"),
        (["digits", "01", "--set", "n_stepz=7"], 2, "command line: n_stepz: expected a known name (nearest: n_steps)"),
        (["digit"], 2, "nearest: digits"),
        (["digits", "99"], 2, "notebook: expected a known name"),
    ],
)
def test_the_command_line_says_each_fault_and_ends_with_2(arguments, status, said):
    done = command("-m", "helpers.parameters", "check", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == (1 if said else 0)


def test_checking_and_planning_import_nothing_heavy():
    program = (
        "import sys; from helpers import parameters, sources, files, jobs, execute, workflow, kernel;"
        "assert not parameters.check('digits', []); jobs.of('digits', parameters.notebooks('digits'));"
        "print([m for m in ('torch', 'numpy', 'pandas', 'matplotlib', 'papermill', 'IPython') if m in sys.modules])"
    )
    done = command("-c", program)
    assert done.stdout == "[]\n", done.stdout + done.stderr
