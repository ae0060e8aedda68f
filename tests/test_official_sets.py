"""Our corruptions beside official files: files made here stand in, what is absent is said with its command."""

import numpy as np
import pytest
import torch
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
    words = {"profile": "cifar", "seed": 0, "batch_size": 2}
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


def test_nothing_is_missing_where_the_files_are(files):
    assert official_sets.missing("cifar", root=files) == ""


def test_what_is_absent_is_said_with_its_command(tmp_path):
    said = official_sets.missing("cifar", root=tmp_path)
    assert "python -m helpers.corruption_sets download cifar10c" in said
    assert str(tmp_path) not in said
    assert "download imagenetc-noise" in official_sets.missing("imagenet", root=tmp_path)
    assert "ours" in official_sets.missing("digits")
    row = official_sets.summary(None, reason=said)[0]
    assert row["value"] is None
    assert row["reason"].startswith("not run: ")
    assert official_sets.table(None, reason=said)["official files"].iloc[0].startswith("not run: ")


def test_the_clean_images_of_cifar_are_its_first_ones(clean):
    assert official_sets.clean(clean, profile="cifar", n_images=2).index.tolist() == [0, 1]
