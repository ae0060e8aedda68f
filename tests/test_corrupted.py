"""Verdicts under corruption, attack and natural photographs: one network beside many, known answers, what is absent."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers import corrupted, corruption_errors, data, parameters, photographs
from helpers.corruption_settings import names

SIZE = {"seed": 3, "batch_size": 4}


def linear(seed, n_in=256, n_out=10):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, n_out))


@pytest.fixture(scope="module")
def images():
    return data.load("digits", "test").first(7)


def test_one_network_gets_the_verdicts_that_it_gets_among_others(images):
    words = {"name": "shot_noise", "profile": "digits", **SIZE}
    both = corrupted.by_corruption({"a 0": linear(0), "b 0": linear(1)}, images, **words)
    alone = corrupted.by_corruption({"b 0": linear(1)}, images, **words)
    assert both["b 0"].shape == (5, 7)
    assert np.array_equal(both["b 0"], alone["b 0"])
    assert not np.array_equal(both["a 0"], both["b 0"])


def test_verdicts_are_errors_of_the_logits_by_severity(images):
    words = {"name": "fog", "profile": "digits", **SIZE}
    found = corrupted.by_corruption({"a 0": linear(0)}, images, **words)["a 0"]
    for row, severity in enumerate((1, 2, 3, 4, 5)):
        logits = corruption_errors.predictions({"a": linear(0)}, images, severity=severity, **words)["a"]
        assert np.array_equal(found[row], (logits.argmax(1) != images.labels).numpy())


def test_clean_images_are_left_as_they_are(images):
    found = corrupted.by_corruption({"a 0": linear(0)}, images, name="clean", profile="digits", **SIZE)["a 0"]
    assert np.array_equal(found, (linear(0)(images.images()).argmax(1) != images.labels).numpy())


class Brightness(nn.Module):
    """Class 1 for images brighter than a half on average: a margin that is known."""

    def forward(self, x):
        level = x.mean((1, 2, 3))
        return 100 * torch.stack([0.5 - level, level - 0.5], 1)


def test_the_attack_crosses_a_known_margin_and_no_more():
    pixels = torch.tensor([115, 50], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4).contiguous()
    images = data.from_tensors(pixels, torch.tensor([0, 0]), classes=("dark", "bright"), name="grey")
    words = {"step_radii": 0.5, "n_steps": 4, **SIZE}
    near = corrupted.attacked(Brightness(), images, epsilons={"linf": 0.06, "l2": 0.24}, **words)
    assert near["pgd_linf"].tolist() == [True, False]  # margins of 0.049 and 0.304 in each of 16 pixels
    assert near["pgd_l2"].tolist() == [True, False]  # of 0.196 and 1.216 in L2
    none = corrupted.attacked(Brightness(), images, epsilons={"linf": 0.04, "l2": 0.18}, **words)
    assert not none["pgd_linf"].any()
    assert not none["pgd_l2"].any()


def test_pieces_are_by_network_and_seed():
    found = {"clean": {"ceb@rho=2 0": np.zeros(3, bool), "ceb@rho=2 1": np.ones(3, bool)}}
    turned = corrupted.pieces(found | {"fog": {"ceb@rho=2 1": np.ones((5, 3), bool)}})
    assert list(turned) == [("ceb@rho=2", 0), ("ceb@rho=2", 1)]
    assert set(turned["ceb@rho=2", 1]) == {"clean", "fog"}


def test_shown_images_begin_with_clean_ones(images):
    found = corrupted.shown(images.first(2), profile="digits", seed=0)
    assert list(found) == list(names())
    for one in found.values():
        assert one.shape == (12, 1, 16, 16)
        assert np.array_equal(one[:2], images.first(2).images().numpy())
        assert not np.array_equal(one[2:4], one[:2])


def photographs_below(root, wnids):
    for k, wnid in enumerate(wnids):
        (root / wnid).mkdir(parents=True)
        Image.fromarray(np.full((256, 256, 3), 60 * k, np.uint8)).save(root / wnid / "0.png")


class Grey(nn.Module):
    """1000 classes; class k is sure of grey level 60 k, and class 999 is surest of all."""

    def forward(self, x):
        level = x.mean((1, 2, 3))[:, None] * 255
        logits = -(level - 60 * torch.arange(1000.0)).abs()
        return logits.index_fill(1, torch.tensor([999]), 1.0)


def test_imagenet_a_by_both_conventions(tmp_path):
    outputs = [f"n{k:04d}" for k in range(1000)]
    for wnid in outputs:
        (tmp_path / "imagenet" / "val" / wnid).mkdir(parents=True)
    photographs_below(tmp_path / "imagenet-a", outputs[:3])
    assert corrupted.natural_missing(1000, root=tmp_path) == ""
    found = corrupted.natural({"grey 0": Grey()}, n_images=3, batch_size=2, root=tmp_path)
    merged = corrupted.with_natural({("grey", 0): {"clean": np.zeros(1, bool)}}, found)["grey", 0]
    assert not merged["imagenet_a_sliced"].any()
    assert merged["imagenet_a_whole"].all()
    assert set(merged) == {"clean", "imagenet_a_sliced", "imagenet_a_whole"}


def test_why_imagenet_a_is_not_run_is_said_with_the_command_and_without_a_folder_of_this_machine(tmp_path):
    said = corrupted.natural_missing(10, root=tmp_path)
    assert "1000 classes is needed, got 10" in said
    assert "curl -L" in said
    assert "DATA_ROOT/imagenet/val" in said
    assert str(tmp_path) not in said
    with pytest.raises(FileNotFoundError, match="imagenet-a"):
        corrupted.natural({}, n_images=1, batch_size=1, root=tmp_path)


def test_the_table_runs_on_real_photographs_with_imagenets_constants():
    photos = photographs.samples()
    network = nn.Sequential(nn.AvgPool2d(32), linear(0, 147, 1000))
    words = {"name": "gaussian_noise", "profile": "imagenet", "seed": 0, "batch_size": 2}
    found = corrupted.by_corruption({"untrained 0": network}, photos, **words)["untrained 0"]
    assert found.shape == (5, 2)
    assert found.all()


@pytest.mark.parametrize("profile", ["digits", "cifar10", "paper"])
def test_the_tables_attacks_have_the_radii_of_the_sweep(profile):
    sweep, table = (parameters.read(name, profile) for name in ("08_ceb_robustness", "09_ceb_corruptions"))
    for radius in ("epsilon_255", "epsilon_l2"):
        assert sweep[radius] == table[radius]
