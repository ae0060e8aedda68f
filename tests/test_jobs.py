"""The order of jobs: a network waits for the one that judges its images, and what holds up the most starts first."""

import os
import re

import light
import pytest
import tiny
from test_entries import WITHOUT

from helpers import jobs, parameters

RAN = re.compile(r"^\[\d+ of \d+\] (.+?) (?:done|FAILED)", re.M)
LIGHT = """
plain: &plain
  {dataset: digits, architecture: smallcnn, objective: standard, optimizer: sgd, learning_rate: 1e-3,
   schedule: constant, epochs: 1, batch_size: 32, seeds: [0, 1]}
less:
  {dataset: digits, architecture: smallcnn, objective: standard, optimizer: sgd, learning_rate: 1e-3,
   schedule: constant, epochs: 1, batch_size: 32, seeds: [0, 1],
   removed: random, removed_share: 0.5, removed_by: plain, removed_judged: natural}
"""


SAME = """
{name}:
  {{dataset: digits, architecture: smallcnn, objective: standard, optimizer: sgd, learning_rate: 1e-3,
   schedule: constant, epochs: 1, batch_size: 32, seeds: [0]}}
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    tiny.profile(tmp_path, networks=tiny.NETWORKS + WITHOUT)
    (tmp_path / "params" / "tiny" / "01_one.yaml").write_text("networks: [without]\n")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_one.ipynb").write_text('{"cells": []}')
    monkeypatch.setattr(parameters, "ROOT", tmp_path)
    return tmp_path


def test_a_network_waits_for_its_reference_which_comes_first(root):
    (job,) = jobs.network("tiny", "without")
    (judge,) = jobs.network("tiny", "madry")
    assert job.needs() == [judge]
    assert judge.needs() == []
    assert job.inputs() == [], "its time does not matter: its digest is in the stamp's name"
    planned = jobs.of("tiny", ["01_one"])
    assert [one.label for one in planned] == ["network madry", "network without", "01_one", "report"]
    # The notebook itself depends on the network that it names only.
    assert [path.name.split("-")[1] for path in planned[2].inputs() if path.name.startswith("network")] == ["without"]


def test_seed_by_seed_where_each_seed_is_a_job(root, monkeypatch):
    facts = parameters.profile_facts("tiny")
    monkeypatch.setattr(parameters, "profile_facts", lambda _: facts | {"seeds_per_job": "one"})
    first, second = jobs.network("tiny", "without")
    assert [job.label for job in second.needs()] == ["network madry (seed 1)"]
    assert [job.label for job in first.needs()] == ["network madry (seed 0)"]
    assert len(jobs.of("tiny", ["01_one"])) == 6


def test_seconds_ahead_are_those_of_the_longest_chain_that_waits(root, monkeypatch):
    known = {"network without": 10.0, "01_one": 60.0}
    monkeypatch.setattr(jobs, "expected_seconds", lambda job: known.get(job.label))
    ahead = jobs.seconds_ahead(jobs.of("tiny", ["01_one"]))
    assert ahead == {"network-madry": 70, "network-without": 70, "01_one": 60, "report": 0}


@pytest.mark.process
def test_the_job_that_holds_up_the_most_is_started_first(light_tree):
    tree = light_tree
    tree.write("params/light/networks.yaml", "".join(SAME.format(name=name) for name in "abcd"))
    tree.write("params/light/91_one.yaml", "networks: [a, b, c, d]\nn_steps: 3\n")
    tree.write("params/light/profile.yaml", light.PROFILE + "network_minutes: {a: 2, b: 5, c: 1, d: 3}\n")
    status, said = tree.run("light", "91", "--cores", "1")
    assert status == 0, said
    assert RAN.findall(said) == ["network b", "network d", "network a", "network c", "91_one", "report"]


@pytest.mark.process
def test_it_is_trained_after_its_reference_and_again_only_when_that_is_another(light_tree):
    tree = light_tree
    networks = tree.write("params/light/networks.yaml", LIGHT)
    tree.write("params/light/91_one.yaml", "networks: [less]\nn_steps: 3\n")
    status, said = tree.run("light", "91", "--cores", "4")
    assert status == 0, said
    assert RAN.findall(said) == ["network plain", "network less", "91_one", "report"]
    # A newer time of the reference's stamp, or of its files, is no reason.
    for path in (*tree.figures("done").glob("network-plain-*"), *tree.figures("networks/plain").rglob("card.json")):
        os.utime(path)
    assert "everything is up to date" in tree.run("light", "91", "-n")[1]
    # A reference that has to be looked at again (its stamp is gone) is no reason either.
    next(tree.figures("done").glob("network-plain-*")).unlink()
    status, said = tree.run("light", "91", "-n")
    assert re.findall(r"would run (.+?):", said) == ["network plain"], said
    assert RAN.findall(tree.run("light", "91")[1]) == ["network plain"]
    # Another reference is: both are trained, in their order.
    networks.write_text(LIGHT.replace("epochs: 1", "epochs: 2", 1))
    status, said = tree.run("light", "91", "-n")
    assert re.findall(r"would run (.+?):", said) == ["network plain", "network less", "91_one", "report"], said
    assert RAN.findall(tree.run("light", "91")[1]) == ["network plain", "network less", "91_one", "report"]
