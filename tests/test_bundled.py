"""Images that packages bring along: which there are, that letters are legible, that patches are the photographs."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_sample_image

from helpers import bundled, data


@pytest.fixture(scope="module")
def letters():
    return {split: data.load("letters", split) for split in ("train", "test")}


def test_every_letter_of_every_face_once(letters):
    assert {split: len(part) for split, part in letters.items()} == {"train": 8 * 52, "test": 4 * 52}
    for part in letters.values():
        assert part.shape == (1, 32, 32)
        assert part.classes == bundled.LETTERS
        assert part.labels.bincount().unique().numel() == 1
    faces = [set(names) for names in bundled.FACES.values()]
    assert not faces[0] & faces[1]


def test_letters_are_bright_on_black_and_fill_their_frame_in_its_middle(letters):
    ink = letters["test"].pixels[:, 0] > 0
    for axis in (1, 2):
        seen = ink.any(axis)
        first, last = seen.int().argmax(1), 31 - seen.int().flip(1).argmax(1)
        assert (first + last - 31).abs().max() <= 2, "the same margin at both ends, but for an odd pixel"
    extent = torch.stack([ink.any(axis).sum(1) for axis in (1, 2)]).max(0).values
    assert extent.min() >= bundled.FILLED - 3, "a thin end may fade away"
    assert extent.median() == bundled.FILLED
    assert extent.max() <= bundled.FILLED
    assert letters["test"].pixels.amax((1, 2, 3)).min() > 200


def test_letters_are_legible_across_faces(letters):
    # The nearest glyph without serifs is the same letter, upper or lower case being one.
    test, train = (letters[split].images().flatten(1) for split in ("test", "train"))
    near = letters["train"].labels[torch.cdist(test, train).argmin(1)]
    assert (near % 26 == letters["test"].labels % 26).float().mean() > 0.6, "by chance 1 in 26"


def test_patches_put_together_are_the_photographs():
    train, test = (data.load("photographs", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (2 * 13 * 12, 2 * 13 * 8)
    for label, name in enumerate(bundled.PHOTOGRAPHS):
        halves = [part.pixels[part.labels == label].reshape(13, -1, 3, 32, 32) for part in (train, test)]
        whole = torch.cat(halves, 1).permute(0, 3, 1, 4, 2).reshape(416, 640, 3)
        assert whole.equal(torch.from_numpy(load_sample_image(f"{name}.jpg")[:416].copy()))


def test_a_face_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setitem(bundled.FACES, "test", ("DejaVuNone",))
    with pytest.raises(ValueError, match="letters"):
        data.load("letters", "test")
    with pytest.raises(OSError, match="resource"):
        bundled.read_letters(Path(), "test")
