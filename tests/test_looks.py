"""What a network says of several sets: logits, energies and scores against values by hand."""

import judges
import numpy as np
import pytest
import torch

from helpers import looks


@pytest.fixture(scope="module")
def found():
    sets = {name: judges.image_set(judges.noise(6, seed=seed)) for seed, name in enumerate(("test", "far"))}
    net = judges.Nested(gain=2.0).train()
    return sets, net, looks.look(net, sets, mass_of=["test"], batch_size=4)


def test_logits_and_energies_are_the_networks(found):
    sets, net, arrays = found
    f = 2 * sets["far"].images().flatten(1)[:, :4]  # the toy's logits are its first pixels, twice
    assert torch.allclose(looks.logits(arrays, "far"), f)
    assert looks.energy(arrays, "far") == pytest.approx(-f.logsumexp(1).detach().numpy(), abs=1e-6)
    assert net.training, "left as it was"


def test_each_score_is_higher_for_what_looks_more_like_data(found):
    sets, _, arrays = found
    p = (2 * sets["test"].images().flatten(1)[:, :4]).softmax(1)
    assert torch.allclose(looks.score(arrays, "test", "log_density"), torch.from_numpy(-looks.energy(arrays, "test")))
    assert torch.allclose(looks.score(arrays, "test", "max_probability").float(), p.amax(1))
    mass = -2 * p.norm(dim=1)  # ∇ₓ log Σ exp(2 x_k) = 2 p_k
    assert torch.allclose(looks.score(arrays, "test", "approximate_mass"), mass, atol=1e-6)


def test_the_mass_is_only_where_it_was_asked_for(found):
    assert sorted(found[2]) == ["far logits", "test logits", "test mass"]
    assert all(isinstance(one, np.ndarray) for one in found[2].values())
    with pytest.raises(ValueError, match="nothing"):
        looks.look(found[1], found[0], mass_of=["nothing"], batch_size=4)


def test_validation_images_come_along_where_all_recipes_keep_the_same():
    sets = looks.splits(["standard", "madry"], main="madry", profile="digits", n_images=50)
    assert {name: len(one) for name, one in sets.items()} == {"train": 50, "test": 50, "validation": 180}
    assert not set(sets["train"].index.tolist()) & set(sets["validation"].index.tolist())
    # madry_few keeps other images, among them such as standard was trained on
    assert set(looks.splits(["standard", "madry_few"], main="standard", profile="digits", n_images=50)) == {
        "train",
        "test",
    }


def test_networks_of_different_data_are_refused():
    with pytest.raises(ValueError, match="all of one data set"):
        looks.splits(["madry", "madry_svhn"], main="madry", profile="paper", n_images=5)
    with pytest.raises(ValueError, match=r"robust_network: expected one of the networks \(standard\), got 'madry'"):
        looks.splits(["standard"], main="madry", profile="digits", n_images=5)


def test_trainings_that_diverged_or_were_given_up_are_named(monkeypatch):
    event = {"step": 3, "gave_up": False}
    cards = {0: {}, 1: {"training": {"epochs": 10, "events": [event], "gave_up": False}}}
    cards[2] = {"training": {"epochs": 7, "events": [event, event], "gave_up": True}}
    monkeypatch.setattr(looks.zoo, "card", lambda name, *, profile, seed: cards[seed])
    said = looks.trainings([("standard", seed) for seed in cards], profile="digits")
    assert said.splitlines() == [
        "Standard, seed 1: diverged 1 time",
        "Standard, seed 2: diverged 2 times, then given up after epoch 7: it is measured as it was then",
    ]
    assert looks.trainings([("standard", 0)], profile="digits").startswith("No training")
    assert looks.trainings([("standard_resnet20", 2)], profile="cifar10-cpu").startswith("No training"), (
        "not trained here"
    )
