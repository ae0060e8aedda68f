"""Which training images are left out: known answers, what is refused, and that a network is trained on the others."""

import pytest
import tiny
import torch

from helpers import data, parameters, removal, train, zoo
from helpers.removal import Judgement

INDEX = torch.arange(10)
SEEN = Judgement(
    torch.tensor([-5.0, -1.0, -4.0, -2.0, -3.0, -9.0, -8.0, -7.0, -6.0, -2.0]),
    torch.tensor([True, False, True, True, True, True, False, True, False, True]),
)
REMOVED = """
without:
  <<: *tiny
  objective: madry
  n_steps: 2
  start: uniform
  removed_share: 0.05
  removed_by: madry
  removed_judged: attacked
  grid: {removed: [high_energy, misclassified]}
"""


def rows(arm, n, *, seed=0, seen=SEEN):
    return removal.rows(seen, arm=arm, n=n, seed=seed, index=INDEX).tolist()


def test_high_energy_is_the_top_of_those_classified_rightly():
    # Row 1 has the highest energy and is misclassified; rows 3 and 9 tie, and the earlier comes first.
    assert rows("high_energy", 1) == [3]
    assert rows("high_energy", 3) == [3, 4, 9]
    assert rows("low_energy", 2) == [5, 7]
    assert rows("high_energy", 0) == []


def test_misclassified_and_random_are_drawn_evenly_by_seed():
    assert rows("misclassified", 3) == [1, 6, 8]
    drawn = [tuple(rows("misclassified", 1, seed=seed)) for seed in range(300)]
    assert {row for (row,) in drawn} == {1, 6, 8}
    counts = [sum(row == one for (row,) in drawn) for one in (1, 6, 8)]
    assert all(abs(count - 100) < 4 * (300 * (1 / 3) * (2 / 3)) ** 0.5 for count in counts)
    assert rows("random", 4) == rows("random", 4)
    assert rows("random", 4) != rows("random", 4, seed=1)
    taken = [row for seed in range(200) for row in rows("random", 5, seed=seed)]
    assert all(abs(taken.count(row) - 100) < 4 * 50**0.5 for row in range(10))


def test_a_draw_depends_on_the_image_and_not_on_its_row():
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    mixed = removal.rows(
        Judgement(SEEN.energy[order], SEEN.correct[order]), arm="random", n=4, seed=0, index=INDEX[order]
    )
    assert sorted(INDEX[order][mixed].tolist()) == rows("random", 4)


def test_too_few_of_a_kind_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=r"expected 4 images to leave out as misclassified, got 3 of 10.*attacked"):
        rows("misclassified", 4)
    with pytest.raises(ValueError, match="expected 8 images to leave out as high_energy, got 7 of 10"):
        rows("high_energy", 8)
    with pytest.raises(ValueError, match="removed"):
        rows("none", 1)
    with pytest.raises(ValueError, match="one shape"):
        removal.rows(SEEN, arm="random", n=1, seed=0, index=INDEX[:9])


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository of its own with the profile `tiny` and two networks that leave images out."""
    tiny.profile(tmp_path, networks=tiny.NETWORKS + REMOVED)
    monkeypatch.setattr(parameters, "ROOT", tmp_path)
    return tmp_path


def test_judged_on_natural_images_and_under_attack(root):
    network = zoo.get("madry", profile="tiny")
    images = zoo.dataset("madry", profile="tiny", split="train").first(60)
    entry = parameters.recipe("tiny", "without@removed=high_energy").entry
    attacked = removal.judge(network, images, entry=entry, seed=0, batch_size=25)
    natural = removal.judge(network, images, entry=entry | {"removed_judged": "natural"}, seed=0, batch_size=60)
    logits = network(images.images())
    assert natural.correct.equal(logits.argmax(1) == images.labels)
    for seen in (natural, attacked):
        torch.testing.assert_close(seen.energy, -logits.logsumexp(1).detach())
    assert (attacked.correct <= natural.correct).float().mean() > 0.9  # an attack hardly ever helps
    assert attacked.correct.sum() < natural.correct.sum()


def test_a_network_is_trained_without_what_its_reference_names(root):
    name = "without@removed=high_energy"
    card = zoo.card(name, profile="tiny", seed=1)
    said = card["data"]["removed"]
    assert (root / "figures" / "tiny" / "networks" / "madry").is_dir(), "the reference is trained first"
    assert (said["by"], said["reference"]) == ("madry", parameters.recipe("tiny", "madry").digest(1))
    assert (said["arm"], said["judged"], said["of"], said["n"]) == ("high_energy", "attacked", 1257, 63)
    assert card["data"]["n_train"] == 1257 - 63
    assert said["misclassified_removed"] == 0
    reference = zoo.get("madry", profile="tiny", seed=1)
    images = zoo.dataset(name, profile="tiny", split="train")
    entry = parameters.recipe("tiny", name).entry
    kept, _ = removal.leave_out(images, reference, entry=entry, seed=1, batch_size=500)
    assert kept.checksum == card["data"]["train_checksum"]
    gone = sorted(set(images.index.tolist()) - set(kept.index.tolist()))
    seen = removal.judge(reference, images, entry=entry, seed=1, batch_size=500)
    taken = torch.isin(images.index, torch.tensor(gone))
    assert seen.energy[seen.correct & ~taken].max() <= seen.energy[taken].min()
    assert said["energy_removed"] == pytest.approx(seen.energy[taken].mean().item(), abs=1e-5)
    assert said["energy_kept"] == pytest.approx(seen.energy[~taken].mean().item(), abs=1e-5)


def test_all_of_the_misclassified_arm_are_misclassified(root):
    said = zoo.card("without@removed=misclassified", profile="tiny")["data"]["removed"]
    assert said["misclassified_removed"] == said["n"] == 63


def test_training_needs_the_images_where_some_are_left_out(tmp_path, root):
    recipe = parameters.recipe("tiny", "without@removed=high_energy")
    with pytest.raises(ValueError, match="expected sets with without@removed=high_energy"):
        train.fit(recipe, 0, folder=tmp_path, device="cpu")


def test_what_is_left_out_keeps_its_order_and_places():
    images = data.load("digits", "train").first(40)
    network = zoo.wrap(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10)), num_classes=10)
    entry = {"removed": "random", "removed_share": 0.25, "removed_judged": "natural"}
    kept, facts = removal.leave_out(images, network, entry=entry, seed=3, batch_size=40)
    assert (len(kept), facts["n"]) == (30, 10)
    assert kept.index.equal(kept.index.sort().values)
    assert set(kept.index.tolist()) < set(images.index.tolist())
