"""Our corruptions beside official files: files made here stand in, what is absent is said with its command."""

import numpy as np
import pytest
import stored
import torch
from PIL import Image
from torch import nn

from helpers import corruption_sets, corruptions, data, official_sets
from helpers.corruption_settings import SEVERITIES, names

N = 3


@pytest.fixture(scope="module")
def clean():
    pixels = torch.randint(0, 256, (N, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return data.from_tensors(pixels, torch.tensor([1, 0, 1]), classes=corruption_sets.CIFAR_CLASSES, name="cifar10")


@pytest.fixture
def files(clean, tmp_path, monkeypatch):
    """CIFAR-10-C of three images, made with another seed than ours will be."""
    monkeypatch.setattr(corruption_sets, "CIFAR_TEST", N)
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    for name in names():
        words = {"profile": "cifar", "seed": 9, "index": clean.index}
        made = [corruptions.corrupt(name, clean.images(), severity=severity, **words) for severity in SEVERITIES]
        rows = (torch.cat(made) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        np.save(folder / f"{name}.npy", rows.numpy())
    np.save(folder / "labels.npy", clean.labels.repeat(5).numpy())
    return tmp_path


def test_distances_and_errors_stand_beside_each_other(clean, files):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    words = {"corruption_names": names(), "profile": "cifar", "seed": 0, "batch_size": 2}
    found = official_sets.compared({"net 0": network}, clean, root=files, **words)
    assert len(found) == 75
    deterministic = found[found["corruption"].isin(["contrast", "brightness", "jpeg_compression"])]
    assert deterministic["ratio"].tolist() == pytest.approx([1.0] * 15, abs=1e-5)
    assert (deterministic["ours net 0"] == deterministic["theirs net 0"]).all()
    noise = found[found["corruption"] == "gaussian_noise"]
    assert noise["ratio"].between(0.95, 1.05).all()
    table = official_sets.table(found, reason="")
    assert len(table) == 15
    assert "error (%), theirs net 0" in table
    rows = official_sets.summary(found, reason="")
    assert [row["corruption"] for row in rows] == list(names())


class Watching(nn.Module):
    """Keeps the images that it is shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, x):
        self.shown.append(x.clone())
        return torch.zeros(len(x), 10)


def test_a_network_is_shown_ours_and_then_theirs(clean, files):
    network, words = Watching(), {"profile": "cifar", "seed": 0, "batch_size": N, "root": files}
    official_sets.compared({"net 0": network}, clean, corruption_names=["gaussian_noise"], **words)
    ours, theirs = (
        corruptions.corrupt("gaussian_noise", clean.images(), severity=1, profile="cifar", seed=seed, index=clean.index)
        for seed in (0, 9)
    )
    assert torch.allclose(network.shown[0], ours)
    assert torch.allclose(network.shown[1], theirs)
    assert len(network.shown) == 10


def test_nothing_is_missing_where_the_files_are(files):
    assert official_sets.missing("cifar", root=files) == ""


def test_what_is_absent_is_said_with_its_command(tmp_path):
    said = official_sets.missing("cifar", root=tmp_path)
    assert "python -m helpers.data download cifar10c" in said
    assert str(tmp_path) not in said
    assert "download imagenetc-noise" in official_sets.missing("imagenet", root=tmp_path)
    assert "ours" in official_sets.missing("digits")
    row = official_sets.summary(None, reason=said)[0]
    assert row["value"] is None
    assert row["reason"].startswith("not run: ")
    assert official_sets.table(None, reason=said)["official files"].iloc[0].startswith("not run: ")


def test_the_clean_images_of_cifar_are_its_first_ones(clean):
    assert official_sets.clean(clean, profile="cifar", n_images=2).index.tolist() == [0, 1]


def test_imagenet_c_without_the_clean_photographs_has_nothing_to_stand_beside(tmp_path):
    for name in names():
        folder = tmp_path / "ImageNet-C" / name / "1" / "n01"
        folder.mkdir(parents=True)
        Image.new("RGB", (224, 224)).save(folder / "a.JPEG")
    assert "imagenet/val" in official_sets.missing("imagenet", root=tmp_path).replace("\\", "/")
    (tmp_path / "imagenet" / "val").mkdir(parents=True)
    assert official_sets.missing("imagenet", root=tmp_path) == ""


def test_ours_are_laid_beside_the_official_ones(tmp_path):
    n = 20
    x = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)).mul(200).round().div(255)
    clean = data.from_tensors(x, torch.arange(n) % 10, classes=corruption_sets.CIFAR_CLASSES)
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    pages = np.zeros((50_000, 32, 32, 3), np.uint8)
    for severity in range(1, 6):
        theirs = corruptions.corrupt(
            "gaussian_noise", x, severity=severity, profile="cifar", seed=99, index=torch.arange(n)
        )
        start = (severity - 1) * 10_000
        pages[start : start + n] = theirs.mul(255).round().permute(0, 2, 3, 1).numpy()
    np.save(folder / "gaussian_noise.npy", pages)
    np.save(folder / "labels.npy", np.tile(np.arange(10_000) % 10, 5))
    words = {"corruption_names": ["gaussian_noise"], "profile": "cifar", "seed": 0, "batch_size": 9, "root": tmp_path}
    found = official_sets.compared({}, clean, **words)
    assert found["severity"].tolist() == [1, 2, 3, 4, 5]
    assert found["ratio"].tolist() == pytest.approx([1] * 5, abs=0.02)
    assert found["psnr_difference"].abs().max() < 0.2
    assert found["mean_shift"].abs().max() < 2e-3
    other = data.from_tensors(x, torch.arange(n) // 2 % 10, classes=corruption_sets.CIFAR_CLASSES)
    with pytest.raises(ValueError, match="other labels"):
        official_sets.compared({}, other, **words)


def test_imagenet_c_is_compared_on_the_same_photographs(tmp_path):
    for severity in range(1, 6):
        stored.imagenet_c(tmp_path, n=2, severity=severity)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    words = {"classes": ("n01", "n02"), "index": torch.tensor([0, 2])}
    clean = data.from_tensors(pixels, torch.tensor([0, 1]), **words)
    named = {"corruption_names": ["glass_blur"], "profile": "imagenet", "seed": 0, "batch_size": 9, "root": tmp_path}
    found = official_sets.compared({}, clean, **named)
    assert len(found) == 5
    assert found["distance_theirs"].min() > found["distance_ours"].max()
    with pytest.raises(ValueError, match="other places"):
        official_sets.compared({}, data.from_tensors(pixels, torch.tensor([0, 1])), **named)


def test_corruptions_that_do_nothing_are_not_compared():
    x = torch.rand(3, 1, 4, 4)
    with pytest.raises(ValueError, match="one that does not"):
        official_sets.nearness(x, x, x)
