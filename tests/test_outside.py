"""Sets outside the training data: shape, way of preparation, draws that keep, and what is missing."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from helpers import data, outside, readers


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "test")


@pytest.fixture(scope="module")
def colour():
    pixels = torch.randint(256, (30, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return data.from_tensors(pixels, torch.arange(30) % 3, name="cifar10")


@pytest.mark.parametrize("name", ["letters", "photographs", "interpolation", "noise"])
def test_each_set_has_the_shape_of_the_networks_images(name, digits, colour):
    for like in (digits, colour):
        found = outside.outside(name, like, n=25, seed=0)
        assert found.shape == like.shape
        assert found.pixels.dtype == torch.uint8
        assert len(found) == 25
        assert found.name == name
    again, other = (outside.outside(name, digits, n=25, seed=seed) for seed in (0, 1))
    assert outside.outside(name, digits, n=25, seed=0).checksum == again.checksum != other.checksum


def test_a_set_with_fewer_images_gives_all_of_them(digits):
    assert len(outside.outside("letters", digits, n=10_000, seed=0)) == 208


def test_images_are_drawn_without_replacement(digits):
    found = outside.outside("letters", digits, n=100, seed=0)
    assert len(found.index.unique()) == 100
    assert found.index.sort().values.tolist() != list(range(100))
    own = data.load("letters", "test")
    assert found.pixels[3].equal(readers.as_scans(own.pixels[own.index == found.index[3]])[0])


def test_the_scans_themselves_pass_through_as_scans_unchanged(digits):
    values = torch.from_numpy(load_digits().images[digits.index.numpy()])[:, None]
    coarse = (values * 255 / 16).round().to(torch.uint8)
    assert readers.as_scans(coarse).equal(digits.pixels)


def test_foreign_images_beside_digits_are_as_coarse_as_these(digits):
    found = outside.outside("letters", digits, n=50, seed=0)
    known = set(digits.pixels.unique().tolist())
    assert set(found.pixels.unique().tolist()) <= known, "no grey value that a scan cannot have"


def test_colour_becomes_grey_by_its_weights_and_grey_colour_by_copies(digits, colour):
    plain = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [80, 80, 80]], dtype=torch.uint8)
    several = data.from_tensors(plain[:, :, None, None].expand(-1, -1, 32, 32), torch.zeros(4, dtype=torch.int64))
    grey = outside.fitted(several, data.from_tensors(torch.zeros(1, 1, 32, 32), torch.tensor([0])))
    assert grey.pixels[:, 0, 0, 0].tolist() == [75, 147, 28, 80]
    letters = outside.outside("letters", colour, n=5, seed=0)
    assert letters.pixels[:, 0].equal(letters.pixels[:, 2])
    with pytest.raises(ValueError, match="square"):
        outside.fitted(letters, data.from_tensors(torch.zeros(1, 1, 4, 5), torch.tensor([0])))


def test_an_interpolation_is_the_mean_of_two_images_of_different_classes(digits):
    few = digits.first(60)
    found = outside.outside("interpolation", few, n=60, seed=0)
    means = (few.pixels[:, None].int() + few.pixels[None].int() + 1) // 2
    for i in range(60):
        partners = (means[i] == found.pixels[i].int()).flatten(1).all(1).nonzero().flatten()
        assert len(partners)
        assert (few.labels[partners] != few.labels[i]).any()
        assert not (partners == i).any()


def test_partners_are_drawn_evenly_among_the_images_of_other_classes():
    pixels = torch.zeros(403, 1, 1, 1, dtype=torch.uint8)
    pixels[400:, 0, 0, 0] = torch.tensor([20, 40, 60])
    labels = torch.cat([torch.zeros(400), torch.ones(3)]).long()
    like = data.from_tensors(pixels, labels, name="two")
    several = [outside.outside("interpolation", like, n=400, seed=seed).pixels.flatten() for seed in range(10)]
    counts = np.array([int((torch.cat(several) == value).sum()) for value in (10, 20, 30)])
    assert counts.sum() == 4000
    assert np.square(counts - 4000 / 3).sum() / (4000 / 3) < 9.21, "χ² of 2 degrees, 1 %"


def test_one_class_has_nothing_to_interpolate_with():
    like = data.from_tensors(torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64), name="one")
    with pytest.raises(ValueError, match="two classes"):
        outside.outside("interpolation", like, n=2, seed=0)


def test_noise_is_even_and_keyed_by_image(digits):
    whole = outside.outside("noise", digits, n=200, seed=3)
    part = outside.outside("noise", digits.subset(slice(50, 200)), n=150, seed=3)
    assert whole.pixels[50:].equal(part.pixels)
    assert abs(whole.images().mean() - 0.5) < 0.01
    assert (whole.pixels.min(), whole.pixels.max()) == (0, 255)


def test_missing_sets_are_named_with_their_command_and_the_rest_goes_on(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    found, missing = outside.collected(["letters", "svhn", "noise"], digits, n=5, seed=0)
    assert list(found) == ["letters", "noise"]
    assert list(missing) == ["svhn"]
    assert "python -m helpers.data download svhn" in missing["svhn"]
    assert "is not in DATA_ROOT" in missing["svhn"]


def test_the_networks_own_data_and_unknown_names_are_refused(digits):
    with pytest.raises(ValueError, match="other than the network's own"):
        outside.outside("digits", digits, n=5, seed=0)
    with pytest.raises(ValueError, match="nearest: letters"):
        outside.outside("leters", digits, n=5, seed=0)
