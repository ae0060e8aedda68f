"""Official files: rows found, errors that say what to do, and the comparison with ours."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import corruption_sets, corruptions, data
from helpers.corruption_settings import GROUPS, names


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A CIFAR-10-C whose images are the severity (red) and the image's place mod 251 (green); fog only."""
    root = tmp_path_factory.mktemp("official")
    folder = root / "CIFAR-10-C"
    folder.mkdir()
    pixels = np.zeros((50_000, 32, 32, 3), np.uint8)
    rows = np.arange(50_000)
    pixels[..., 0], pixels[..., 1] = (rows // 10_000 + 1)[:, None, None], (rows % 10_000 % 251)[:, None, None]
    np.save(folder / "fog.npy", pixels)
    np.save(folder / "labels.npy", np.tile(np.arange(10_000) % 10, 5).astype(np.uint8))
    return root


def test_a_severity_is_ten_thousand_rows_in_order(official):
    found = corruption_sets.cifar10_c("fog", severity=4, root=official)
    assert found.pixels.shape == (10_000, 3, 32, 32)
    assert found.pixels[:, 0].unique().tolist() == [4]
    assert found.pixels[[0, 250, 251, 9_999], 1, 5, 7].tolist() == [0, 250, 0, 9_999 % 251]
    assert found.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert found.index.tolist() == list(range(10_000))


def test_a_missing_file_is_named_with_command_and_size(official):
    with pytest.raises(FileNotFoundError, match=r"snow\.npy") as raised:
        corruption_sets.cifar10_c("snow", severity=1, root=official)
    for said in (str(official), "python -m helpers.corruption_sets download cifar10c", "2.9 GB", "DATA_ROOT"):
        assert said in str(raised.value)


@pytest.mark.parametrize(
    ("array", "said"), [(np.zeros((5, 32, 32, 3), np.uint8), r"\(5, 32, 32, 3\)"), (None, "does not load")]
)
def test_a_damaged_file_is_named(tmp_path, array, said):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    if array is None:
        (folder / "fog.npy").write_bytes(b"\x93NUMPY no")
    else:
        np.save(folder / "fog.npy", array)
    with pytest.raises(ValueError, match=said):
        corruption_sets.cifar10_c("fog", severity=1, root=tmp_path)


def imagenet_c(root, n=4, severity=2):
    for k, wnid in enumerate(("n01", "n02")):
        folder = root / "ImageNet-C" / "glass_blur" / str(severity) / wnid
        folder.mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (224, 224), (100 * k, 10 * i, 0)).save(folder / f"{i}.JPEG", quality=95)
    return root


def test_imagenet_c_is_read_evenly_by_class(tmp_path):
    found = corruption_sets.imagenet_c("glass_blur", severity=2, n_images=4, root=imagenet_c(tmp_path))
    assert found.classes == ("n01", "n02")
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.index.tolist() == [0, 2, 4, 6]
    assert found.pixels.shape == (4, 3, 224, 224)
    assert found.pixels[:, 0].float().mean((1, 2)).tolist() == pytest.approx([0, 0, 100, 100], abs=2)


def test_a_missing_folder_of_imagenet_c_names_its_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"download imagenetc-weather. \(12 GB\)"):
        corruption_sets.imagenet_c("frost", severity=1, n_images=1, root=tmp_path)
    with pytest.raises(ValueError, match="at least 9 images"):
        corruption_sets.imagenet_c("glass_blur", severity=2, n_images=9, root=imagenet_c(tmp_path))


def test_each_corruption_has_an_archive():
    groups = {key.removeprefix("imagenetc-") for key in corruption_sets.ARCHIVES if key.startswith("imagenetc")}
    assert groups == set(GROUPS)
    assert len(names(*GROUPS)) == 19


def test_ours_are_laid_beside_the_official_ones(tmp_path):
    n = 20
    x = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)).mul(200).round().div(255)
    clean = data.from_tensors(x, torch.arange(n) % 10, classes=corruption_sets.CIFAR_CLASSES)
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    stored = np.zeros((50_000, 32, 32, 3), np.uint8)
    for severity in range(1, 6):
        theirs = corruptions.corrupt(
            "gaussian_noise", x, severity=severity, profile="cifar", seed=99, index=torch.arange(n)
        )
        start = (severity - 1) * 10_000
        stored[start : start + n] = theirs.mul(255).round().permute(0, 2, 3, 1).numpy()
    np.save(folder / "gaussian_noise.npy", stored)
    np.save(folder / "labels.npy", np.tile(np.arange(10_000) % 10, 5))
    words = {"corruptions_named": ["gaussian_noise"], "profile": "cifar", "seed": 0, "root": tmp_path}
    found = corruption_sets.against_official(clean, **words)
    assert found["severity"].tolist() == [1, 2, 3, 4, 5]
    assert found["ratio"].tolist() == pytest.approx([1] * 5, abs=0.02)
    assert found["psnr_difference"].abs().max() < 0.2
    assert found["mean_shift"].abs().max() < 2e-3
    other = data.from_tensors(x, torch.arange(n) // 2 % 10, classes=corruption_sets.CIFAR_CLASSES)
    with pytest.raises(ValueError, match="other labels"):
        corruption_sets.against_official(other, **words)


def test_imagenet_c_is_compared_on_the_same_photographs(tmp_path):
    for severity in range(1, 6):
        imagenet_c(tmp_path, n=2, severity=severity)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    words = {"classes": ("n01", "n02"), "index": torch.tensor([0, 2])}
    clean = data.from_tensors(pixels, torch.tensor([0, 1]), **words)
    named = {"corruptions_named": ["glass_blur"], "profile": "imagenet", "seed": 0, "root": tmp_path}
    found = corruption_sets.against_official(clean, **named)
    assert len(found) == 5
    assert found["distance_theirs"].min() > found["distance_ours"].max()
    with pytest.raises(ValueError, match="other places"):
        corruption_sets.against_official(data.from_tensors(pixels, torch.tensor([0, 1])), **named)


def test_corruptions_that_do_nothing_are_not_compared():
    x = torch.rand(3, 1, 4, 4)
    with pytest.raises(ValueError, match="one that does not"):
        corruption_sets.nearness(x, x, x)


def test_an_archive_is_fetched_checked_and_unpacked(tmp_path, monkeypatch):
    import pooch

    packed = tmp_path / "noise.tar"
    with tarfile.open(packed, "w") as archive:
        info = tarfile.TarInfo("gaussian_noise/1/n01/a.JPEG")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    asked = {}

    def retrieve(url, **words):
        asked.update(words, url=url)
        return str(packed)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert corruption_sets.main(["download", "imagenetc-noise", "--root", str(tmp_path / "data")]) == 0
    assert (tmp_path / "data" / "ImageNet-C" / "gaussian_noise" / "1" / "n01" / "a.JPEG").read_bytes() == b"abc"
    assert asked["url"].endswith("/2235448/files/noise.tar")
    assert asked["known_hash"] == "md5:e80562d7f6c3f8834afb1ecf27252745"


def test_a_failed_download_says_what_and_where(tmp_path, monkeypatch, capsys):
    import pooch

    def retrieve(*_arguments, **_words):
        raise OSError("no route")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert corruption_sets.main(["download", "cifar10c", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "cifar10c (2.9 GB)" in said
    assert str(tmp_path) in said
    assert "no route" in said
    assert corruption_sets.main(["list"]) == 0
    assert "cifar10c" in capsys.readouterr().out
