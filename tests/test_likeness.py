"""Agreement, diversity and neighbours: known answers, coverage, and what is refused."""

import math

import numpy as np
import pytest
import torch
from judges import Nested, image_set, judge, noise
from scipy import stats

from helpers import extractors, likeness, metrics

PIXELS = {"extractor": None, "feature": None, "batch_size": 16}


# ---- agreement ----


def of_classes(y, wrong=()):
    """Images of which the brightest of four pixels is their class (the toy judge's verdict), but for rows `wrong`."""
    images = np.zeros((len(y), 1, 2, 3), np.uint8)
    seen = np.array(y)
    seen[list(wrong)] = (seen[list(wrong)] + 1) % 4
    images.reshape(len(y), -1)[np.arange(len(y)), seen] = 255
    return images, torch.tensor(y)


def test_agreement_counts_by_class_and_in_all():
    images, y = of_classes([0, 0, 0, 0, 1, 1, 3, 3], wrong=[0, 6])
    found = likeness.agreement(judge(), images, y, made_by=Nested(shift=0.5), batch_size=3)
    assert found.overall == metrics.wilson(6, 8)
    assert found.by_class == {0: metrics.wilson(3, 4), 1: metrics.wilson(2, 2), 3: metrics.wilson(1, 2)}
    assert found.predicted.tolist() == [1, 0, 0, 0, 1, 1, 0, 3]


def test_a_network_does_not_judge_its_own_images():
    images, y = of_classes([0, 1])
    with pytest.raises(ValueError, match="expected a judge other than the network that made the images, got judge"):
        likeness.agreement(judge(), images, y, made_by=Nested(), batch_size=2)
    assert likeness.agreement(judge(), images, y, made_by=None, batch_size=2).overall.value == 100


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0]), "expected y with one class for each of 2 images, got 1"),
        (torch.tensor([0, 4]), r"below 4 \(the number of classes\)"),
        (torch.tensor([0.0, 1.0]), "expected y to be int64"),
    ],
)
def test_classes_that_do_not_fit_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        likeness.agreement(judge(), of_classes([0, 1])[0], y, made_by=None, batch_size=2)


def test_a_judge_needs_the_images_own_classes():
    images, y = of_classes([0, 1])
    extractor = judge()
    object.__setattr__(extractor, "num_classes", None)
    with pytest.raises(ValueError, match="expected a judge with the images' own classes"):
        likeness.agreement(extractor, images, y, made_by=None, batch_size=2)


# ---- diversity ----


def test_the_mean_distance_of_pairs_and_its_error_are_the_definitions():
    images = noise(30, seed=0)
    rows = torch.arange(30) % 2
    mean, error = likeness._spread(images, rows, 1)
    x = images[rows == 1].reshape(15, -1).astype(float) / 255
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    assert mean == pytest.approx(d.sum() / (15 * 14))
    without = [np.delete(np.delete(d, i, 0), i, 1).sum() / (14 * 13) for i in range(15)]
    assert error == pytest.approx(math.sqrt(14 / 15 * np.sum((without - np.mean(without)) ** 2)))


def test_blocks_change_nothing(monkeypatch):
    images, y = noise(40, seed=0), torch.zeros(40, dtype=torch.long)
    whole = likeness._spread(images, y, 0)
    monkeypatch.setattr(likeness, "ROWS", 7)
    assert likeness._spread(images, y, 0) == pytest.approx(whole)


def test_images_half_as_far_apart_are_half_as_diverse():
    labels = np.arange(80) % 2
    real = noise(80, seed=0, top=100) * 2
    made = real.copy()
    made[labels == 0] //= 2
    found = likeness.diversity(made, torch.from_numpy(labels), image_set(real, labels), **PIXELS)
    assert found.by_class[0].value == pytest.approx(0.5)
    assert found.by_class[1].value == pytest.approx(1)
    assert found.overall.value == pytest.approx(0.75)
    errors = [one.high - one.value for one in found.by_class.values()]
    assert found.overall.high - 0.75 == pytest.approx(math.hypot(*errors) / 2)
    assert found.made[0].value == pytest.approx(found.real[0].value / 2)


def test_a_picture_made_many_times_has_no_diversity():
    real = noise(40, seed=0)
    made = np.repeat(noise(1, seed=1), 20, axis=0)
    found = likeness.diversity(made, torch.zeros(20, dtype=torch.long), image_set(real), **PIXELS)
    assert (found.overall.value, found.overall.low, found.overall.high) == (0, 0, 0)


def test_in_features_the_features_count():
    real, made, y = noise(40, seed=0), noise(30, seed=1), torch.zeros(30, dtype=torch.long)
    pixels = likeness.diversity(made, y, image_set(real), **PIXELS)
    given = {"extractor": judge(shift=0.5), "feature": "penultimate", "batch_size": 16}
    features = likeness.diversity(made, y, image_set(real), **given)
    assert features.overall.value == pytest.approx(pixels.overall.value, rel=1e-5)  # the toy's features are the pixels
    assert features.space.startswith("judge ")
    assert features.space.endswith(", penultimate")
    logits = likeness.diversity(made, y, image_set(real), **given | {"feature": "logits"})
    assert logits.made[0].value < pixels.made[0].value  # four pixels of six


def test_the_interval_of_diversity_covers():
    covered = 0
    for seed in range(100):
        y = torch.zeros(60, dtype=torch.long)  # fewer real images than made ones, so that their error counts
        found = likeness.diversity(noise(60, seed=seed), y, image_set(noise(20, seed=1000 + seed)), **PIXELS)
        covered += found.overall.low <= 1 <= found.overall.high
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], 100, 0.95)
    assert low <= covered <= high


def test_two_images_are_no_class():
    labels = torch.tensor([0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="expected at least 3 images of class 0, made and real, got 2"):
        likeness.diversity(noise(5, seed=0), labels, image_set(noise(9, seed=1), np.arange(9) % 3), **PIXELS)


# ---- neighbours ----


@pytest.mark.parametrize("rows", [3, 10, 2000])
def test_the_nearest_training_image_is_found_in_any_block(monkeypatch, rows):
    monkeypatch.setattr(likeness, "ROWS", rows)
    training, made = noise(25, seed=0), noise(11, seed=1)
    found = likeness.nearest(made, image_set(training), **PIXELS | {"batch_size": 4})
    d = np.linalg.norm((made[:, None] / 255.0 - training[None] / 255.0).reshape(11, 25, -1), axis=2)
    assert found.row.tolist() == d.argmin(1).tolist()
    assert np.allclose(found.distance, d.min(1))
    assert found.space == "pixels"


@pytest.mark.parametrize("rows", [10, 2000])
def test_a_copy_is_at_no_distance_exactly_and_the_first_of_equals_counts(monkeypatch, rows):
    monkeypatch.setattr(likeness, "ROWS", rows)
    training = noise(30, seed=0, shape=(3, 32, 32))
    training[20] = training[5]
    found = likeness.nearest(training[[20, 7]], image_set(training), **PIXELS)
    assert found.row.tolist() == [5, 7]
    assert found.distance.tolist() == [0, 0]


def test_in_features_the_nearest_is_near_in_features():
    training = np.zeros((2, 1, 2, 3), np.uint8)
    training[0, 0, 0, 0], training[1, 0, 1, 2] = 100, 50  # the second differs only where the judge's logits do not look
    made = np.zeros((1, 1, 2, 3), np.uint8)
    made[0, 0, 0, 0] = 90
    given = {"batch_size": 4, "extractor": judge()}
    images = image_set(training)
    assert likeness.nearest(made, images, feature="penultimate", **given).row.tolist() == [0]
    made[0, 0, 0, 0] = 40
    found = likeness.nearest(made, images, feature="logits", **given)
    assert (found.row.tolist(), found.distance.tolist()) == ([1], pytest.approx([40 / 255]))


def test_pixels_and_features_are_not_mixed():
    images = image_set(noise(9, seed=0))
    with pytest.raises(ValueError, match="expected extractor and feature together or neither"):
        likeness.nearest(noise(3, seed=1), images, extractor=judge(), feature=None, batch_size=2)
    with pytest.raises(ValueError, match=r"expected images of shape \(1, 2, 3\), got \(1, 3, 3\)"):
        likeness.nearest(noise(3, seed=1, shape=(1, 3, 3)), images, **PIXELS)
    one = likeness.nearest(noise(3, seed=1), images, **PIXELS)
    two = likeness.nearest(noise(3, seed=1), images, extractor=judge(), feature="logits", batch_size=2)
    with pytest.raises(ValueError, match="expected distances in one space, got 'pixels' and 'judge"):
        likeness.copies(one, two, quantile=0.1)


def test_copies_are_told_from_images_that_are_new():
    training, unseen = image_set(noise(200, seed=0)), noise(200, seed=1)
    held_out = likeness.nearest(unseen, training, **PIXELS)
    new = likeness.copies(likeness.nearest(noise(200, seed=2), training, **PIXELS), held_out, quantile=0.1)
    assert new.share_too_near.value == pytest.approx(10, abs=4 * 100 * math.sqrt(0.1 * 0.9 * 2 / 200))
    copied = noise(200, seed=2)
    copied[:120] = noise(200, seed=0)[:120]
    found = likeness.copies(likeness.nearest(copied, training, **PIXELS), held_out, quantile=0.1)
    assert found.share_too_near.value > 60
    assert found.made.value < found.held_out.value
    assert found.threshold == pytest.approx(np.quantile(held_out.distance, 0.1))


def test_distances_of_a_memory_map_are_those_of_its_array(tmp_path):
    made, training = noise(20, seed=0), image_set(noise(30, seed=1))
    np.save(tmp_path / "images.npy", made)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    one, two = (likeness.nearest(images, training, **PIXELS) for images in (made, mapped))
    assert torch.equal(one.row, two.row)
    assert torch.equal(one.distance, two.distance)
    y = torch.arange(20) % 2
    reference = image_set(noise(30, seed=1), np.arange(30) % 2)
    assert likeness.diversity(mapped, y, reference, **PIXELS) == likeness.diversity(made, y, reference, **PIXELS)
    assert extractors.sha256_of(mapped) == extractors.sha256_of(made)
