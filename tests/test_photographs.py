"""Photographs: torchvision's own transform as the judge, folders by class, and what is said of missing ones."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from helpers import corruption_errors, corruption_settings, imagenet_a, photographs


@pytest.mark.parametrize("shape", [(300, 420), (420, 300), (256, 256), (100, 180)])
def test_the_middle_is_torchvisions_resize_and_crop(shape):
    pixels = torch.randint(0, 256, (3, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    resized = transforms.resize(pixels, [256], antialias=True)
    expected = transforms.center_crop(resized, [224, 224])
    assert (photographs.middle(pixels).int() - expected.int()).abs().max() <= 1


def test_the_two_samples_are_photographs():
    found = photographs.samples()
    assert found.pixels.shape == (2, 3, 224, 224)
    assert found.images().flatten(1).std(1).min() > 0.2


def test_the_imagenet_path_runs_from_photographs_to_mce_and_imagenet_a():
    """Real photographs, ImageNet-C's corruptions, a network of 1000 classes without training, both summaries."""
    torch.manual_seed(0)
    photos = photographs.samples()
    network = torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten(), torch.nn.Linear(147, 1000))
    errors = {name: [] for name in corruption_settings.names()}
    for name, found in errors.items():
        for severity in corruption_settings.SEVERITIES:
            words = {"name": name, "severity": severity, "profile": "imagenet", "seed": 0, "batch_size": 2}
            logits = corruption_errors.predictions({"untrained": network}, photos, **words)["untrained"]
            found.append(100 * float((logits.argmax(1) != photos.labels).float().mean()))
    ce = corruption_errors.over_severities(errors)
    reference = corruption_errors.over_severities(corruption_errors.alexnet())
    assert corruption_errors.average_ce(ce) == 100
    expected = 100 * sum(100 / reference[name] for name in ce) / 15
    assert corruption_errors.mce(ce, reference=reference) == pytest.approx(expected)
    columns = torch.arange(0, 1000, 5)
    sliced = imagenet_a.correct(logits, photos.labels, columns=columns, convention="sliced")
    assert sliced.shape == (2,)


def folder(root, n=3):
    generator = np.random.default_rng(0)
    for k, wnid in enumerate(("n02", "n01", "n03")):
        (root / wnid).mkdir(parents=True)
        for i in range(n):
            pixels = np.full((260, 300, 3), 40 * k + i, np.uint8) + generator.integers(0, 2, (260, 300, 3), np.uint8)
            Image.fromarray(pixels).save(root / wnid / f"{i}.png")
    return root


def test_a_folder_is_read_evenly_with_labels_in_sorted_order(tmp_path):
    found = photographs.by_class(folder(tmp_path / "val"), n_images=3)
    assert found.classes == ("n01", "n02", "n03")
    assert found.labels.tolist() == [0, 1, 2]
    assert found.index.tolist() == [0, 3, 6]
    assert found.pixels.shape == (3, 3, 224, 224)
    assert [round(float(p.float().mean())) // 40 for p in found.pixels] == [1, 0, 2]


def test_a_folder_with_too_few_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected at least 10 images"):
        photographs.by_class(folder(tmp_path / "val"), n_images=10)


def test_a_damaged_photograph_is_named(tmp_path):
    (folder(tmp_path / "val") / "n01" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"n01.0\.png"):
        photographs.by_class(tmp_path / "val", n_images=9)


@pytest.mark.parametrize(("find", "said"), [("imagenet_validation", "6.3 GB"), ("imagenet_a", "curl -L")])
def test_missing_folders_are_named_with_what_to_do(find, said, tmp_path):
    with pytest.raises(FileNotFoundError, match=said) as raised:
        getattr(photographs, find)(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "DATA_ROOT" in str(raised.value)


def test_present_folders_are_found(tmp_path):
    folder(tmp_path / "imagenet" / "val")
    assert photographs.imagenet_validation(tmp_path) == tmp_path / "imagenet" / "val"


@pytest.mark.parametrize("pixels", [torch.zeros(3, 9, 9), torch.zeros(1, 3, 9, 9, dtype=torch.uint8)])
def test_what_is_no_photograph_is_refused(pixels):
    with pytest.raises(ValueError, match="uint8 photograph"):
        photographs.middle(pixels)
