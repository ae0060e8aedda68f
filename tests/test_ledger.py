import json

import ledgers
import pytest
from ledgers import ROLES, write

from helpers import jobs, ledger, parameters
from helpers.parameters import ParameterError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project whose claims.yaml is for the test to write."""
    return ledgers.project(tmp_path, monkeypatch)


# Faults of the file, before anything starts


GOOD = """A1:
  paper: ebm
  statement: s
  evidence: {notebook: 01_energy_landscape, record: pairs, metric: delta_energy}
  comparison: {kind: value, above: 0}
"""
FAULTS = [
    ("statement: s", "statment: s", "statment: expected a known name (nearest: statement), got 'statment'"),
    ("ebm", "emb", "paper: expected one of ebm, rjem, ceb (nearest: ebm), got the text 'emb'"),
    ("  statement: s\n", "", "statement: expected text, got nothing"),
    ("delta_energy", "delta_enrgy", "evidence.metric: expected a known name (nearest: delta_energy) of params/schema"),
    ("record: pairs, ", "", "evidence.record: expected text, got nothing"),
    ("01_energy", "01_enrgy", "evidence.notebook: expected a known name (nearest: 01_energy_landscape), got '01_enrgy"),
    ("record: pairs", "record: pairs, wher: {a: b}", "evidence.wher: expected a known name (nearest: where), got"),
    ("record: pairs", "record: pairs, where: {network: [a]}", "evidence.where.network: expected a text, number or tr"),
    ("record: pairs", "record: pairs, where: a", "evidence.where: expected lines of `name: value`, got the text 'a'"),
    ("record: pairs", "record: pairs, epochs: [0, 1]", "evidence.epochs: expected it with `frame` only"),
    ("record: pairs", "record: pairs, frame: f, epochs: [1, 0]", "evidence.epochs: expected first and last"),
    ("record: pairs", "record: pairs, frame: f, epochs: [0, 99]", "evidence.epochs[1]: expected a list"),
    ("record: pairs", "record: pairs, frame: f, take: most", "evidence.take: expected one of mean, max, min, max_abs"),
    ("record: pairs", "record: pairs, frame: f, quantiles: {E: [0.5, 0.2]}", "evidence.quantiles.E: expected two sha"),
    ("record: pairs", "record: pairs, helth: health", "evidence.helth: expected a known name (nearest: health), got"),
    ("record: pairs", "record: pairs, health: helth", "evidence.health: expected one of health or null (nearest: heal"),
    ("record: pairs", "record: pairs, health: health", "evidence.health: expected it with metric robust_accuracy only"),
    ("record: pairs", "record: pairs, over: {network: [a]}", "evidence.over: expected one name with a list of two"),
    ("record: pairs", "record: pairs, over: {network: [a, a]}", "evidence.over: expected each value once"),
    ("record: pairs", "record: pairs, over: {metric: [fid, fdi]}", "evidence.metric: expected a known name (nearest"),
    ("kind: value", "kind: valeu", "comparison.kind: expected one of value, difference, order, largest, smallest (ne"),
    ("above: 0", "abve: 0", "comparison.abve: expected a known name (nearest: above), got 'abve'"),
    ("above: 0", "above: 8/255", "comparison.above: expected a number or null, got the text '8/255'"),
    ("above: 0", "above: no", "comparison.above: expected a number or null, got False"),
    (", above: 0", "", "comparison: expected `above`, `below` or both, got neither"),
    ("above: 0", "above: 2, below: 1", "comparison.above: expected less than `below`, got 2.0"),
    ("kind: value, above: 0", "kind: order, above: 0", "comparison: expected no bound: order compares terms with ea"),
    ("kind: value, above: 0", "kind: order", "evidence.over: expected two terms or more for kind order, got 1"),
    ("kind: value", "kind: difference", "evidence.over: expected two terms for kind difference, got 1"),
    ("above: 0", "above: 0, factor: 2", "comparison.factor: expected it with kind difference only, got 2.0"),
    ("  comparison: {kind: value, above: 0}\n", "", "comparison: expected lines of `name: value` (or the reason"),
    ("statement: s", "statement: s\n  unmeasured: why", "evidence: expected nothing beside `unmeasured`"),
    ("statement: s", "statement: s\n  published: {value: 1, trust: high}", "published.source: expected text, got no"),
    ("statement: s", "statement: s\n  published: {value: yes, source: x, trust: high}", "published.value: expected a"),
    ("statement: s", "statement: s\n  published: {value: 1, source: x, trust: sure}", "published.trust: expected one"),
    ("statement: s", "statement: s\n  min_seeds: 0", "min_seeds: expected a whole number >= 1"),
    (GOOD, GOOD + GOOD, "expected each name once, got it on lines 1 and 6"),
    (GOOD, "A1: [1]\n", "entry: expected lines of `name: value`, got the list [1]"),
    ("record: pairs", "record: pairs, where: {network: $standart_network}", "$standart_network: expected a known name"),
]


@pytest.mark.parametrize(("old", "new", "said"), FAULTS)
def test_each_fault_is_one_line_with_file_claim_expected_and_got(root, old, new, said):
    assert old in GOOD
    write(root, GOOD.replace(old, new))
    with pytest.raises(ParameterError) as caught:
        ledger.check("tiny")
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"params/claims.yaml: A1: {said}")
    assert ": expected " in lines[0]
    assert ", got " in lines[0]


def test_all_faults_are_told_at_once(root):
    write(root, GOOD.replace("paper: ebm", "paper: emb") + GOOD.replace("A1", "A2").replace("record: pairs, ", ""))
    with pytest.raises(ParameterError) as caught:
        ledger.check("tiny")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["A1", "A2"]


def test_a_fault_is_found_by_the_check_before_a_run_and_by_no_other_notebook(root):
    write(root, GOOD.replace("paper: ebm", "paper: emb"))
    (root / "notebooks").mkdir()
    names = {"12_claims": [*ROLES, "seed"], "01_energy_landscape": ["n_steps"]}
    for name, given in names.items():
        source = "\n".join(['profile = "tiny"', *(f"{one} = None" for one in given)])
        cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source}
        (root / "notebooks" / f"{name}.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert [str(fault)[:29] for fault in parameters.check("tiny", ["12"])] == ["params/claims.yaml: A1: paper"]
    assert parameters.check("tiny", ["01"]) == []


# The file that is here


def test_the_claims_of_the_first_paper_are_all_here():
    every = ledger.read()
    for k in range(1, 9):
        assert [claim for claim in every if claim.id.startswith(f"C{k}")], k
    assert len({claim.statement for claim in every}) == len(every)
    data = {claim.only_on for claim in every} - {None}
    assert data <= {"cifar10", "cifar100", "svhn", "tiny-imagenet"}


def test_robust_accuracies_name_the_checks_that_their_notebook_makes_of_those_networks():
    terms = [term for claim in ledger.read() for term in claim.terms if term.metric == ledger.DOUBTED]
    unnamed = {term.place for term in terms if term.health is None}
    assert unnamed == {"03_weat/removal"}  # whose networks are not examined
    for notebook in {term.notebook for term in terms if term.health}:
        source = (parameters.ROOT / "notebooks" / f"{notebook}.ipynb").read_text("utf-8")
        assert all(f'records.save(p, \\"{name}\\"' in source for name in ledger.HEALTH), notebook


@pytest.mark.parametrize("profile", parameters.profiles())
def test_each_profile_names_the_networks_of_the_claims(profile):
    ledger.check(profile)
    values = parameters.read("12_claims", profile)
    there = parameters.read("01_energy_landscape", profile)["networks"]
    assert {values["standard_network"], values["robust_network"]} <= set(there)


def test_its_job_waits_for_the_notebooks_that_it_reads():
    job = jobs.notebook("digits", "12_claims")
    read = {one.name for one in job.needs() if one.kind == "notebook"}
    assert read == {*ledger.notebooks()} & {*parameters.notebooks("digits")}
    assert {
        "01_energy_landscape",
        "04_generation",
        "06_robust_jem",
        "07_hybrid_evaluation",
        "08_ceb_robustness",
        "09_ceb_corruptions",
    } <= read
    assert {jobs.notebook("digits", name).stamp for name in read} | {ledger.path()} <= set(job.inputs())
    asked = [one.name for one in jobs.of("digits", ["12_claims"]) if one.kind == "notebook"]
    assert asked == [*sorted(read), "12_claims"]
    other = jobs.notebook("digits", "01_energy_landscape")
    assert other.needs() == other.networks()
