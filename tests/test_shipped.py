"""Networks that come with the repository: stored and measured rounded, used only for the recipe of their training."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch

from helpers import checkpoints, execute, files, jobs, parameters, shipped, zoo


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A repository of its own with the profile `tiny`, one network of which is shipped and no longer in the cache."""
    tiny.profile(tmp_path)
    monkeypatch.setattr(parameters, "ROOT", tmp_path)
    assert zoo.main(["ship", "tiny", "madry", "--seed", "0"]) == 0
    shutil.move(tmp_path / "figures", tmp_path / "first")
    return tmp_path


def recipe() -> parameters.Recipe:
    return parameters.recipe("tiny", "madry")


def test_a_shipped_network_comes_without_training(root, capsys, monkeypatch):
    monkeypatch.setattr(zoo.train, "fit", lambda *a, **k: pytest.fail("it was trained"))
    network = zoo.get("madry", profile="tiny")
    assert "madry, seed 0: the shipped network" in capsys.readouterr().err
    assert next(network.parameters()).dtype == torch.float32
    assert zoo.history("madry", profile="tiny").scalars["epoch"] == [1, 2]
    assert tiny.same(network, zoo.get("madry", profile="tiny"))


def test_its_job_of_a_run_is_a_copy_and_no_process(root, monkeypatch):
    monkeypatch.setattr(execute.subprocess, "call", lambda *a, **k: pytest.fail("a process was started"))
    job = jobs.Job("tiny", "network", "madry", seeds=(0,))
    assert execute.run(job, threads=1) == 0
    assert job.stamp.exists()
    assert "the shipped network" in job.log.read_text(encoding="utf-8")
    assert "stored" in zoo.card("madry", profile="tiny")


@pytest.mark.parametrize("spoil", [True, False], ids=["no longer whole", "another seed"])
def test_the_job_of_one_that_does_not_ship_is_a_process(root, monkeypatch, spoil):
    started = []
    monkeypatch.setattr(execute.subprocess, "call", lambda *a, **k: started.append(a) or 1)
    if spoil:
        (shipped.folder(recipe(), 0) / "history.npz").write_bytes(b"")
    assert execute.run(jobs.Job("tiny", "network", "madry", seeds=(0,) if spoil else (1,)), threads=1) == 1
    assert started


def test_its_weights_are_those_trained_rounded(root):
    network = zoo.get("madry", profile="tiny")
    there = next((root / "first").glob("*/networks/madry/*/weights.safetensors"))
    trained, _ = checkpoints.load(there)
    for name, tensor in network.state_dict().items():
        expected = trained[name].to(torch.bfloat16).to(tensor.dtype) if tensor.is_floating_point() else trained[name]
        assert tensor.equal(expected), name
    assert not network.body.linear.weight.equal(trained["body.linear.weight"])


def test_its_card_measures_the_rounded_weights_on_all_test_images(root):
    card, network = zoo.card("madry", profile="tiny"), zoo.get("madry", profile="tiny")
    test = zoo.dataset("madry", profile="tiny", split="test")
    right = network(test.images()).argmax(1) == test.labels
    assert card["accuracy"]["clean"]["value"] == pytest.approx(100 * right.float().mean().item(), abs=1e-4)
    assert card["accuracy"]["pgd"]["n"] == card["data"]["n_test"] > recipe().entry["evaluation_n_images"]
    assert card["stored"] == "bfloat16"
    assert card["files"]["weights.safetensors"] == files.sha256(recipe().folder(0) / "weights.safetensors")


def test_another_seed_or_recipe_is_trained(root, capsys):
    assert not shipped.adopt(recipe(), 1)
    tiny.profile(root, networks=tiny.NETWORKS.replace("learning_rate: 0.1", "learning_rate: 0.05"))
    zoo.get("madry", profile="tiny")
    assert "no longer that of the shipped network" in capsys.readouterr().err
    assert "stored" not in zoo.card("madry", profile="tiny")


@pytest.mark.parametrize("name", ["weights.safetensors", "history.npz", "card.json"])
def test_a_damaged_one_is_reported_and_trained_instead(root, capsys, name):
    path = shipped.folder(recipe(), 0) / name
    path.write_bytes(path.read_bytes()[:-7])
    before = files.sha256(path)
    zoo.get("madry", profile="tiny")
    assert "is not usable" in capsys.readouterr().err
    assert "stored" not in zoo.card("madry", profile="tiny")
    assert files.sha256(path) == before


def test_only_networks_trained_here_are_shipped(root, capsys):
    path = root / "params" / "tiny" / "networks.yaml"
    path.write_text(
        path.read_text(encoding="utf-8")
        + "\nborrowed: {source: checkpoint, architecture: smallcnn, width: 2, dataset: digits, file: x, sha256: '"
        + "0" * 64
        + "'}\n",
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match="expected a network trained here, got borrowed"):
        zoo.ship("borrowed", profile="tiny", seed=0)


def test_every_network_in_the_repository_fits_its_recipe():
    for path in sorted((parameters.ROOT / "params" / "shipped").glob("*/*/card.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        assert card["digest"] == parameters.recipe(card["profile"], card["name"]).digest(card["seed"]), path
        assert {name: files.sha256(path.parent / name) for name in card["files"]} == card["files"]
        assert sum(one.stat().st_size for one in path.parent.iterdir()) <= 8 * 2**20


def test_the_profile_for_a_first_look_asks_for_shipped_networks_only():
    """So that a clone with the data alone runs it: no other people's files, nothing to train."""
    profile = "cifar10-cpu"
    run = set(parameters.notebooks(profile)) - set(parameters.profile_facts(profile).get("on_request") or [])
    values = [parameters.read(one, profile) for one in run]
    wanted = {name for given in values for name in parameters.network_names(given)}
    assert {"standard", "madry", "weat_nat", "madry_few"} <= wanted
    for recipe in (parameters.recipe(profile, name) for name in wanted):
        for seed in recipe.seeds:
            card = json.loads((shipped.folder(recipe, seed) / "card.json").read_text(encoding="utf-8"))
            assert card["digest"] == recipe.digest(seed), (recipe.name, seed)
            assert card["accuracy"]["clean"]["n"] == 10_000
    every = (parameters.ROOT / "params" / "shipped").rglob("*.*")
    assert sum(path.stat().st_size for path in every) <= 30 * 2**20
