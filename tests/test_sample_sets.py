import numpy as np
import pytest
import sets
import torch

from helpers import extractors, image_quality, initialisers, likeness, sample_sets
from helpers.sample_sets import Place


def test_the_plan_has_every_way_under_one_network_and_both_ends_under_the_others():
    places = sample_sets.plan(["a", "b"], main="a", starts=["uniform", "class_gaussian", "class_pca"])
    assert [one for one in places if one.network == "b"] == [
        Place("b", "uniform", "momentum"), Place("b", "class_pca", "momentum"),
    ]  # fmt: skip
    mine = [(one.start, one.sampler) for one in places if one.network == "a"]
    assert len(mine) == len(set(mine)) == 3 * len(sample_sets.SAMPLERS)
    with pytest.raises(ValueError, match="expected main among the networks"):
        sample_sets.plan(["a"], main="c", starts=["uniform"])


def test_a_longer_step_goes_as_far_as_momentum_does_under_a_constant_gradient():
    # v ← ζ v − α g tends to −α g / (1 − ζ): the step that "long_step" takes at once.
    momentum, long = (
        sample_sets.steps(one, step_size=0.1, momentum=0.8, n_steps=5) for one in ("momentum", "long_step")
    )
    assert momentum == {"step_size": 0.1, "momentum": 0.8, "n_steps": 5}
    assert long == {"step_size": pytest.approx(0.1 / (1 - 0.8)), "momentum": 0.0, "n_steps": 5}
    assert sample_sets.steps("start_only", step_size=0.1, momentum=0.8, n_steps=5)["n_steps"] == 0
    with pytest.raises(ValueError, match="sampler"):
        sample_sets.steps("heun", step_size=0.1, momentum=0.8, n_steps=5)


def test_sets_share_no_index_and_have_their_classes_in_turn():
    each = [sample_sets.drawn(k, n=7, num_classes=3) for k in range(3)]
    every = torch.cat([one["index"] for one in each])
    assert every.tolist() == list(range(21))
    assert all(one["y"].tolist() == [0, 1, 2, 0, 1, 2, 0] for one in each)


def test_a_set_says_what_its_images_are():
    found = sets.piece("plain")
    images = found["images"]
    assert images.shape == (16, 1, 2, 3)
    assert images.dtype == np.uint8
    judged = images.reshape(16, -1)[:, :4].argmax(axis=1)  # the toy's logits are its first pixels
    assert found["agrees"].tolist() == (judged == found["y"]).tolist()
    first = sets.first_images().numpy()
    change = (images / 255.0 - first).reshape(16, -1)
    assert found["moved"] == pytest.approx(np.linalg.norm(change, axis=1), abs=0.02)  # rounded to 1/255
    # E(x, y) = −2 x_y: two steps of α = 0.05 raise the pixel of the class by 0.2 at most, and no other.
    moved = change[np.arange(16), found["y"]]
    assert moved == pytest.approx(np.minimum(1, first.reshape(16, -1)[np.arange(16), found["y"]] + 0.2)
                                  - first.reshape(16, -1)[np.arange(16), found["y"]], abs=0.005)  # fmt: skip
    own = images.reshape(16, -1)[np.arange(16), found["y"]] / 255
    assert found["joint"] == pytest.approx(-2 * own, abs=1e-5)


def test_the_start_alone_has_not_moved():
    found = sets.piece("start_only")
    assert found["moved"].tolist() == [0.0] * 16
    assert found["images"] / 255 == pytest.approx(sets.first_images().numpy(), abs=0.5 / 255 + 1e-6)


def test_scores_and_diversity_come_back_as_they_were():
    found = sets.piece("plain")
    scores = sample_sets.scores_of(found)
    judge = sets.judges.judge()
    again = image_quality.scores(
        found["images"], sets.REFERENCE, extractor=judge, feature="penultimate", seed=3, batch_size=8, selection="fresh"
    )
    assert scores.protocol == again.protocol
    assert {name: one.value for name, one in scores.estimates.items()} == pytest.approx(
        {name: one.value for name, one in again.estimates.items()}
    )
    spread = likeness.diversity(
        found["images"], torch.from_numpy(found["y"]), sets.REFERENCE, extractor=None, feature=None, batch_size=8
    )
    assert sample_sets.diversity_of(found) == spread.overall


def test_the_first_images_of_each_class_come_class_after_class():
    found = {"y": np.array([0, 1, 0, 1, 0]), "images": np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)}
    assert sample_sets.by_class(found, 2).ravel().tolist() == [0, 2, 1, 3]
    with pytest.raises(ValueError, match="expected 3 images of class 1 among the 5 kept, got 2"):
        sample_sets.by_class(found, 3)


def test_starts_get_the_options_that_they_take():
    fits = sample_sets.fitted(
        ["uniform", "class_pca"], sets.REFERENCE, folder=None, retained_variance=0.9, pca_spread=0.5
    )
    assert fits["class_pca"].pca_spread == 0.5
    assert isinstance(fits["uniform"], initialisers.Uniform)


def test_the_extractor_is_the_judge_unless_inception_is_there(monkeypatch):
    judge = sets.judges.judge()
    monkeypatch.delenv("INCEPTION_WEIGHTS", raising=False)
    for kind in ("judge", "either"):
        assert sample_sets.extractor_of(judge, kind=kind, feature=None, device="cpu") == (judge, extractors.PENULTIMATE)
    monkeypatch.setenv("INCEPTION_WEIGHTS", "somewhere")
    with pytest.raises(ValueError, match="expected a feature of Inception"):
        sample_sets.extractor_of(judge, kind="either", feature=None, device="cpu")
    with pytest.raises(FileNotFoundError):
        sample_sets.extractor_of(judge, kind="either", feature="64", device="cpu")


def test_the_precision_of_the_chain_is_handed_on():
    with pytest.raises(ValueError, match="precision to be one of"):
        sets.piece(precision="half")
