"""Augmentation: what each does to pixels, and draws that belong to the image and the epoch."""

import math

import pytest
import torch

from helpers import augment

X = torch.randint(1, 256, (64, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(100, 164)


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_contract(name):
    before, state = X.clone(), torch.get_rng_state()
    out = augment.augment(name, X, seed=1, index=INDEX, epoch=2)
    assert out.shape == X.shape
    assert out.dtype == torch.uint8
    assert X.equal(before)
    assert torch.get_rng_state().equal(state)
    rows = torch.tensor([40, 3])
    alone = augment.augment(name, X[rows], seed=1, index=INDEX[rows], epoch=2)
    assert alone.equal(out[rows])
    if name != "none":
        assert not augment.augment(name, X, seed=1, index=INDEX, epoch=3).equal(out)
        assert not augment.augment(name, X, seed=2, index=INDEX, epoch=2).equal(out)


@pytest.mark.parametrize("reflect", [False, True])
def test_crop_cuts_a_window_of_the_padded_image_and_reaches_every_place(reflect):
    pad = 2
    x = X[:1].expand(400, -1, -1, -1)
    out = augment.crop(x, pad=pad, seed=0, index=torch.arange(400), epoch=0, reflect=reflect)
    padded = torch.nn.functional.pad(X[:1].float(), (pad,) * 4, mode="reflect" if reflect else "constant")[0].byte()
    windows = [padded[:, i : i + 12, j : j + 12] for i in range(5) for j in range(5)]
    counts = torch.tensor([(out == w).flatten(1).all(1).sum().item() for w in windows])
    assert counts.sum() == 400
    # Each of 25 places is drawn 16 times on average; five standard deviations of a binomial.
    assert ((counts - 16).abs() <= 5 * math.sqrt(400 * 0.04 * 0.96)).all()


def test_flip_mirrors_half_of_the_images():
    n = 1000
    x = X[:1].expand(n, -1, -1, -1)
    out = augment.flip(x, seed=0, index=torch.arange(n), epoch=0)
    mirrored = (out == x.flip(-1)).flatten(1).all(1)
    assert ((out == x).flatten(1).all(1) ^ mirrored).all()
    assert abs(int(mirrored.sum()) - n / 2) <= 5 * math.sqrt(n) / 2


def test_shift_moves_by_a_pixel_at_most():
    x = torch.zeros(200, 1, 9, 9, dtype=torch.uint8)
    x[:, :, 4, 4] = 255
    out = augment.augment("shift", x, seed=0, index=torch.arange(200), epoch=0)
    places = {tuple((image[0] == 255).nonzero()[0].tolist()) for image in out}
    assert places == {(i, j) for i in (3, 4, 5) for j in (3, 4, 5)}


def test_autoaugment_for_digits_does_not_mirror():
    # A mirrored window would hold the ramp falling; the SVHN policy has no flip.
    ramp = torch.arange(32, dtype=torch.uint8).mul(7).expand(40, 3, 32, 32)
    key = {"seed": 0, "index": torch.arange(40), "epoch": 0}
    out = augment.augment("autoaugment_svhn", ramp, **key)
    assert not (out == ramp).all()
    cropped = augment.crop(ramp, pad=augment.CROP_PAD, **key)
    assert (augment.autoaugment(cropped, policy="svhn", **key) == out).all()


def test_faults_are_named():
    with pytest.raises(ValueError, match="nearest: crop_flip"):
        augment.augment("cropflip", X, seed=0, index=INDEX, epoch=0)
    with pytest.raises(ValueError, match="expected uint8"):
        augment.augment("none", X.float(), seed=0, index=INDEX, epoch=0)
