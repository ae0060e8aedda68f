"""Data sets: the split that everything else rests on, batches, folders, and what is said when files are not there."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_files import cifar10_root
from PIL import Image
from sklearn.datasets import load_digits

from helpers import data, readers


def test_digits_split_is_disjoint_complete_and_stratified():
    parts = {s: data.load("digits", s, validation_fraction=0.125) for s in data.SPLITS}
    assert [len(p) for p in parts.values()] == [1257, 180, 360]
    index = torch.cat([p.index for p in parts.values()])
    assert index.sort().values.equal(torch.arange(1797))
    share = torch.from_numpy(load_digits().target).bincount() / 1797
    for part in parts.values():
        # Stratified: no class is off by more than the one image that rounding may cost.
        assert ((part.labels.bincount() - share * len(part)).abs() <= 1).all()


def test_digits_are_the_scans_of_scikit_learn():
    part = data.load("digits", "test")
    scans = torch.from_numpy(load_digits().images[part.index.numpy()] / 16 * 255)
    assert part.labels.equal(torch.from_numpy(load_digits().target)[part.index])
    # Bilinear doubling keeps each image's mean but for the rounding to 1/255 and the weight of the border.
    small = part.pixels[:, 0].double().reshape(-1, 8, 2, 8, 2).mean((2, 4))
    inner = slice(1, -1)
    smoothed = torch.nn.functional.conv2d(
        scans[:, None],
        torch.tensor([0.125, 0.75, 0.125]).double().outer(torch.tensor([0.125, 0.75, 0.125]).double())[None, None],
    )
    assert (small[:, inner, inner] - smoothed[:, 0]).abs().max() <= 0.5


def test_test_split_depends_on_no_parameter():
    plain = data.load("digits", "test")
    assert plain.checksum == data.load("digits", "test", validation_fraction=0.3, split_seed=5).checksum


def test_validation_is_cut_by_the_seed_and_never_overlaps():
    a, b = (data.load("digits", "validation", validation_fraction=0.2, split_seed=s) for s in (0, 1))
    train = data.load("digits", "train", validation_fraction=0.2, split_seed=0)
    assert a.checksum != b.checksum
    assert not set(a.index.tolist()) & set(train.index.tolist())
    again = data.load("digits", "validation", validation_fraction=0.2, split_seed=0)
    assert a.checksum == again.checksum


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_wrong_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=r"validation_fraction in \[0, 1\)"):
        data.load("digits", "train", validation_fraction=fraction)


def test_validation_without_a_fraction_is_refused():
    with pytest.raises(ValueError, match="validation_fraction > 0"):
        data.load("digits", "validation")


def test_images_are_float32_in_unit_range_and_rows_keep_their_order():
    part = data.load("digits", "test")
    x = part.images(torch.tensor([5, 2]))
    assert x.dtype == torch.float32
    assert x.shape == (2, 1, 16, 16)
    assert x[0].equal(part.pixels[5].float() / 255)
    assert part.images().min() >= 0
    assert part.images().max() <= 1


def test_subsets_carry_their_index_along():
    part = data.load("digits", "test")
    assert part.subset([7, 3]).index.tolist() == part.index[[7, 3]].tolist()
    assert len(part.first(10_000)) == 360
    few = part.per_class(2)
    assert few.labels.tolist() == [k for k in range(10) for _ in range(2)]
    with pytest.raises(ValueError, match="expected 1000 images of class '0'"):
        part.per_class(1000)


def test_checksum_sees_pixels_labels_and_order():
    part = data.load("digits", "test").first(20)
    pixels = part.pixels.clone()
    pixels[3, 0, 0, 0] += 1
    others = [
        data.from_tensors(pixels, part.labels, index=part.index),
        data.from_tensors(part.pixels, part.labels.roll(1), index=part.index),
        part.subset(torch.arange(19, -1, -1)),
    ]
    assert len({part.checksum, *(o.checksum for o in others)}) == 4


def test_batches_visit_every_image_once_in_the_generators_order():
    part = data.load("digits", "test")
    rows = [list(data.batches(part, batch_size=100, generator=torch.Generator().manual_seed(3))) for _ in range(2)]
    assert [len(r) for r in rows[0]] == [100, 100, 100, 60]
    assert torch.cat(rows[0]).sort().values.equal(torch.arange(360))
    assert torch.cat(rows[0]).equal(torch.cat(rows[1]))
    assert not torch.cat(rows[0]).equal(torch.arange(360))
    with pytest.raises(ValueError, match="batch_size >= 1"):
        next(data.batches(part, batch_size=0, generator=None))


def test_own_tensors_are_checked():
    y = torch.tensor([0, 1])
    own = data.from_tensors(torch.rand(2, 3, 4, 4), y, classes=["a", "b"])
    assert own.pixels.dtype == torch.uint8
    for images, labels, message in [
        (torch.rand(2, 4, 4), y, r"\(N, C, H, W\)"),
        (torch.rand(2, 1, 4, 4) * 2, y, r"in \[0, 1\]"),
        (torch.full((2, 1, 4, 4), torch.nan), y, r"in \[0, 1\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), y, "uint8 or floating"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0, 2]), "expected labels 0 … 1, got 0 … 2"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0.0, 1.0]), "integer labels"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0]), "2 integer labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            data.from_tensors(images, labels, classes=["a", "b"])


def test_resize_is_exact_on_constants_and_keeps_the_type():
    pixels = torch.full((3, 1, 8, 8), 200, dtype=torch.uint8)
    for size in (4, 8, 20):
        out = readers.resize(pixels, size)
        assert out.shape == (3, 1, size, size)
        assert (out == 200).all()


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="nearest: cifar10"):
        data.load("cifar-10", "test")
    with pytest.raises(ValueError, match="expected split among train, validation, test"):
        data.load("digits", "dev")


@pytest.mark.parametrize("name", sorted(name for name, one in readers.SOURCES.items() if one.fetch is not None))
def test_missing_data_name_folder_command_and_size(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, "test")
    text = str(caught.value)
    assert str(tmp_path) in text
    assert f"python -m helpers.data download {name}" in text
    assert f"{readers.SOURCES[name].size_mb} MB" in text


# ---- folders of images ----


def picture(path: Path, value: int, size: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(path)


def test_a_folder_with_train_and_test_is_read_by_class(tmp_path):
    for split, value in (("train", 10), ("test", 90)):
        for k, name in enumerate(("cat", "dog")):
            for i in range(3):
                picture(tmp_path / "pets" / split / name / f"{i}.png", value + k)
    (tmp_path / "pets" / "train" / "cat" / ".hidden.png").write_text("not an image")
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("not an image")
    part = data.load("folder:pets", "test", image_size=6, root=tmp_path)
    assert part.classes == ("cat", "dog")
    assert part.pixels.shape == (6, 3, 6, 6)
    assert part.pixels[:, 0, 0, 0].tolist() == [90] * 3 + [91] * 3
    assert len(data.load("folder:pets", "train", image_size=6, root=tmp_path)) == 6


def test_a_folder_in_one_piece_is_split_without_overlap(tmp_path):
    for k in range(2):
        for i in range(10):
            picture(tmp_path / "own" / f"class{k}" / f"{i}.png", 20 * k + i)
    kwargs = {"image_size": 10, "root": tmp_path, "validation_fraction": 0.25}
    parts = {s: data.load("folder:own", s, **kwargs) for s in data.SPLITS}
    assert [len(p) for p in parts.values()] == [12, 4, 4]
    assert sorted(torch.cat([p.index for p in parts.values()]).tolist()) == list(range(20))


def test_a_folders_faults_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="one sub-folder for each class"):
        data.load("folder:none", "train", image_size=8, root=tmp_path)
    with pytest.raises(ValueError, match="expected image_size"):
        data.load("folder:none", "train", root=tmp_path)
    picture(tmp_path / "bad" / "a" / "0.png", 1)
    with pytest.raises(ValueError, match="at least two class folders"):
        data.load("folder:bad", "train", image_size=8, root=tmp_path)
    (tmp_path / "bad" / "b").mkdir()
    with pytest.raises(ValueError, match="expected images"):
        data.load("folder:bad", "train", image_size=8, root=tmp_path)
    (tmp_path / "bad" / "b" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    with pytest.raises(ValueError, match=r"b/0\.png, got a file that does not decode"):
        data.load("folder:bad", "train", image_size=8, root=tmp_path)


# ---- official files, made small ----


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_mnist_files_are_read_and_a_truncated_one_is_refused(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
    raw = tmp_path / "MNIST" / "raw"
    for stem in ("train", "t10k"):
        idx(raw / f"{stem}-images-idx3-ubyte", images)
        idx(raw / f"{stem}-labels-idx1-ubyte", np.arange(20, dtype=np.uint8) % 10)
    part = data.load("mnist", "test", root=tmp_path)
    assert part.pixels[:, 0].equal(torch.from_numpy(images))
    assert part.labels.tolist() == [k % 10 for k in range(20)]
    whole = raw / "t10k-images-idx3-ubyte"
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or altered") as caught:
        data.load("mnist", "test", root=tmp_path)
    assert "python -m helpers.data download mnist" in str(caught.value)


def test_tiny_imagenet_counts_its_images(tmp_path):
    base = tmp_path / "tiny-imagenet-200"
    picture(base / "val" / "images" / "val_0.JPEG", 3, size=64)
    (base / "wnids.txt").write_text("n01\nn02\n")
    (base / "words.txt").write_text("n01\tgoldfish, Carassius\nn02\tboa\n")
    (base / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t62\t62\n")
    with pytest.raises(ValueError, match="expected 10000 images of the test split"):
        data.load("tiny-imagenet", "test", root=tmp_path)


def test_the_download_command_says_what_went_wrong(tmp_path, monkeypatch, capsys):
    def offline(root: Path) -> None:
        raise OSError("no route to host")

    source = readers.SOURCES["cifar10"]
    monkeypatch.setitem(readers.SOURCES, "cifar10", readers.Source(**{**vars(source), "fetch": offline}))
    assert data.main(["download", "cifar10", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "no route to host" in said
    assert "170 MB" in said
    assert data.main(["download", "cifar"]) == 1
    assert "nearest" in capsys.readouterr().err
    assert data.main(["list"]) == 0
    assert "cifar100" in capsys.readouterr().out


def test_from_the_official_bytes_nothing_is_unpickled_unless_the_md5_fits(tmp_path):
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    evil = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        (batches / name).write_bytes(evil)
    with pytest.raises(ValueError, match="damaged or altered"):
        data.load("cifar10", "test", root=tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.foreign
def test_cifar10_is_the_official_one():
    root = cifar10_root()
    part = data.load("cifar10", "test", root=root)
    assert part.pixels.shape == (10_000, 3, 32, 32)
    assert part.labels.bincount().tolist() == [1000] * 10
    assert part.classes[3] == "cat"
    # The pixels stand as one string in the official pickle: found by its length, without unpickling.
    blob = (root / "cifar-10-batches-py" / "test_batch").read_bytes()
    start = blob.index(b"T" + struct.pack("<i", 10_000 * 3072)) + 5
    assert blob[start : start + 10_000 * 3072] == part.pixels.numpy().tobytes()
