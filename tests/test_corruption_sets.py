"""Official files: rows found, errors that say what to do, and the comparison with ours."""

import numpy as np
import pytest
import stored

from helpers import corruption_sets


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
    for said in (str(official), "python -m helpers.data download cifar10c", "2900 MB", "DATA_ROOT"):
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


def test_imagenet_c_is_read_evenly_by_class(tmp_path):
    found = corruption_sets.imagenet_c("glass_blur", severity=2, n_images=4, root=stored.imagenet_c(tmp_path))
    assert found.classes == ("n01", "n02")
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.index.tolist() == [0, 2, 4, 6]
    assert found.pixels.shape == (4, 3, 224, 224)
    assert found.pixels[:, 0].float().mean((1, 2)).tolist() == pytest.approx([0, 0, 100, 100], abs=2)


def test_a_missing_folder_of_imagenet_c_names_its_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"download imagenetc-weather. \(12000 MB\)"):
        corruption_sets.imagenet_c("frost", severity=1, n_images=1, root=tmp_path)
    with pytest.raises(ValueError, match="at least 9 images"):
        corruption_sets.imagenet_c("glass_blur", severity=2, n_images=9, root=stored.imagenet_c(tmp_path))
