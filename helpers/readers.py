"""Official files of data sets, read into uint8 tensors; nothing here draws, splits or normalises.

Each reader returns `(pixels (N, C, H, W) uint8, labels (N,) int64, class names)` of one official split.
`helpers.data` is the door for everyone else.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import bundled

Raw = tuple[Tensor, Tensor, tuple[str, ...]]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
TEN = tuple(str(k) for k in range(10))
DIGITS_TEST = 360  # of the 1,797 scans; the rest is for training and validation
DIGITS_SIZE = 16
SCAN_SIZE, SCAN_TOP = 8, 16.0  # of scikit-learn's scans: side in pixels, and the highest value


@dataclass(frozen=True)
class Source:
    """Where a data set lies below the data folder, how to read and to fetch it, and what it costs."""

    title: str
    size_mb: int  # to download
    files: dict[str, tuple[str, ...]]  # official split -> files that must be there
    read: Callable[[Path, str], Raw]
    fetch: Callable[[Path], None] | None
    shape: tuple[int, int, int]  # (C, H, W) as published
    num_classes: int = 10

    def there(self, root: Path) -> bool:
        """Whether all its files lie below `root`."""
        return all((root / one).exists() for files in self.files.values() for one in files)


def resize(pixels: Tensor, size: int) -> Tensor:
    """Resize (N, C, H, W) uint8 images to (N, C, size, size), bilinear, antialiased when shrinking.

    >>> resize(torch.tensor([[[[0, 200]]]], dtype=torch.uint8).expand(1, 1, 2, 2), 4)[0, 0, 0]
    tensor([  0,  50, 150, 200], dtype=torch.uint8)
    """
    if pixels.shape[-2:] == (size, size):
        return pixels
    pieces = []
    for part in pixels.split(4096):  # float32 copies of all of Tiny-ImageNet at once would take gigabytes
        x = F.interpolate(part.float(), (size, size), mode="bilinear", align_corners=False, antialias=True)
        pieces.append(x.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(pieces)


# ---- scikit-learn's digits ----


def read_digits(_root: Path, split: str) -> Raw:
    """scikit-learn's 1,797 scans, 8×8 values 0…16, as 16×16 images 0…255 (bilinear).

    Both official splits ("train", "test") hold all scans in scikit-learn's order: `helpers.data` cuts them,
    stratified, with a seed that never changes.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    values = torch.from_numpy(bunch.images.astype(np.float32))[:, None]
    return _enlarged(values), torch.from_numpy(bunch.target.astype(np.int64)), TEN


def _enlarged(values: Tensor) -> Tensor:
    """Scans (N, 1, 8, 8) of values 0…16 as (N, 1, 16, 16) uint8, bilinear."""
    x = F.interpolate(values * (255.0 / SCAN_TOP), (DIGITS_SIZE, DIGITS_SIZE), mode="bilinear", align_corners=False)
    return x.round().clamp(0, 255).to(torch.uint8)


def as_scans(pixels: Tensor) -> Tensor:
    """Grey images (N, 1, H, W) uint8 as coarse as the digits are: 8×8 of 17 values, then enlarged as those are.

    >>> as_scans(torch.full((1, 1, 32, 32), 128, dtype=torch.uint8)).unique()
    tensor([128], dtype=torch.uint8)
    """
    small = resize(pixels, SCAN_SIZE).float() * (SCAN_TOP / 255)
    return _enlarged(small.round())


# ---- through torchvision ----


def _vision(name: str, root: Path, *, download: bool, **split: object) -> object:
    """One of torchvision's data sets; its pickles trip over NumPy's deprecations, which are not ours to fix."""
    from torchvision import datasets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(datasets, name)(root=str(root), download=download, **split)


def read_cifar(root: Path, split: str, *, name: str) -> Raw:
    """CIFAR-10 or CIFAR-100; torchvision compares every file with its MD5."""
    d = _vision(name, root, download=False, train=split == "train")
    pixels = torch.from_numpy(d.data).permute(0, 3, 1, 2).contiguous()  # type: ignore[attr-defined]
    return pixels, torch.tensor(d.targets), tuple(d.classes)  # type: ignore[attr-defined]


def read_svhn(root: Path, split: str) -> Raw:
    """SVHN, cropped digits; torchvision compares each file with its MD5."""
    d = _vision("SVHN", root / "svhn", download=False, split=split)
    return torch.from_numpy(d.data), torch.from_numpy(d.labels).long(), TEN  # type: ignore[attr-defined]


def read_mnist(root: Path, split: str, *, name: str) -> Raw:
    """MNIST or Fashion-MNIST, 28×28, one channel."""
    d = _vision(name, root, download=False, train=split == "train")
    return d.data[:, None].contiguous(), d.targets.long(), tuple(d.classes)  # type: ignore[attr-defined]


def _fetch(name: str, *splits: dict[str, object], folder: str = "") -> Callable[[Path], None]:
    def fetch(root: Path) -> None:
        for split in splits:
            _vision(name, root / folder, download=True, **split)

    return fetch


# ---- folders of images ----


def decode(files: list[Path], *, channels: int, size: int) -> Tensor:
    """Decode image files to (N, channels, size, size) uint8, in the order given.

    Resized bilinear (Pillow, antialiased), the aspect ratio not kept. Raises ValueError naming a file that
    does not decode.
    """
    from PIL import Image

    def one(file: Path) -> Tensor:
        try:
            with Image.open(file) as opened:
                image = opened.convert("RGB" if channels == 3 else "L")
                if image.size != (size, size):
                    image = image.resize((size, size), Image.Resampling.BILINEAR)
                array = np.asarray(image, dtype=np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"expected an image at {file}, got a file that does not decode ({error})") from error
        return torch.from_numpy(array.copy()).reshape(size, size, channels).permute(2, 0, 1)

    with ThreadPoolExecutor(8) as pool:
        return torch.stack(list(pool.map(one, files)))


def images_below(folder: Path) -> list[Path]:
    """Image files anywhere below `folder`, sorted by path; hidden ones left out."""
    found = (f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))
    return sorted(f for f in found if f.is_file())


def read_classes(folder: Path, *, channels: int, size: int) -> Raw:
    """One sub-folder a class, sorted by name: (pixels, labels, class names)."""
    names = sorted(d.name for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))
    if len(names) < 2:
        raise ValueError(f"expected at least two class folders in {folder}, got {names or 'none'}")
    files, labels = [], []
    for label, name in enumerate(names):
        here = images_below(folder / name)
        if not here:
            raise ValueError(f"expected images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {folder / name}, got none")
        files += here
        labels += [label] * len(here)
    return decode(files, channels=channels, size=size), torch.tensor(labels), tuple(names)


def read_tiny_imagenet(root: Path, split: str) -> Raw:
    """Tiny-ImageNet, 64×64; the labelled validation images serve as the test split (the test labels are not public)."""
    base = root / "tiny-imagenet-200"
    ids = (base / "wnids.txt").read_text().split()
    words = dict(line.split("\t", 1) for line in (base / "words.txt").read_text().splitlines() if "\t" in line)
    number = {wnid: k for k, wnid in enumerate(ids)}
    if split == "train":
        pairs = [(f, number[wnid]) for wnid in ids for f in images_below(base / "train" / wnid)]
    else:
        lines = (base / "val" / "val_annotations.txt").read_text().splitlines()
        pairs = [(base / "val" / "images" / (c := line.split("\t"))[0], number[c[1]]) for line in lines if line]
    expected = 100_000 if split == "train" else 10_000
    if len(pairs) != expected:
        raise ValueError(f"expected {expected} images of the {split} split below {base}, got {len(pairs)}")
    classes = tuple(words.get(wnid, wnid).split(",")[0] for wnid in ids)
    return decode([f for f, _ in pairs], channels=3, size=64), torch.tensor([y for _, y in pairs]), classes


def fetch_tiny_imagenet(root: Path) -> None:
    """Download (MD5 checked, resumable by starting again) and unpack below `root`."""
    import pooch

    archive = pooch.retrieve(
        TINY_IMAGENET_URL, known_hash=f"md5:{TINY_IMAGENET_MD5}", path=root, fname="tiny-imagenet-200.zip"
    )
    with zipfile.ZipFile(archive) as z:
        z.extractall(root)


def _mnist_files(folder: str, split: str) -> tuple[str, ...]:
    stem = "train" if split == "train" else "t10k"
    return tuple(f"{folder}/raw/{stem}-{what}" for what in ("images-idx3-ubyte", "labels-idx1-ubyte"))


def _sources() -> dict[str, Source]:
    both: tuple[dict[str, object], ...] = ({"train": True}, {"train": False})
    cifar10 = tuple(f"cifar-10-batches-py/data_batch_{k}" for k in range(1, 6))
    found = {
        "digits": Source("scikit-learn's digits", 0, {"train": (), "test": ()}, read_digits, None, (1, 16, 16)),
        "letters": Source(
            "letters of Matplotlib's fonts",
            0,
            {"train": (), "test": ()},
            bundled.read_letters,
            None,
            (1, bundled.SIDE, bundled.SIDE),
            num_classes=len(bundled.LETTERS),
        ),
        "photographs": Source(
            "patches of scikit-learn's two photographs",
            0,
            {"train": (), "test": ()},
            bundled.read_photographs,
            None,
            (3, bundled.SIDE, bundled.SIDE),
            num_classes=len(bundled.PHOTOGRAPHS),
        ),
        "cifar10": Source(
            "CIFAR-10",
            170,
            {"train": cifar10, "test": ("cifar-10-batches-py/test_batch",)},
            lambda root, split: read_cifar(root, split, name="CIFAR10"),
            _fetch("CIFAR10", both[0]),
            (3, 32, 32),
        ),
        "cifar100": Source(
            "CIFAR-100",
            169,
            {"train": ("cifar-100-python/train",), "test": ("cifar-100-python/test",)},
            lambda root, split: read_cifar(root, split, name="CIFAR100"),
            _fetch("CIFAR100", both[0]),
            (3, 32, 32),
            num_classes=100,
        ),
        "svhn": Source(
            "SVHN (cropped digits)",
            246,
            {"train": ("svhn/train_32x32.mat",), "test": ("svhn/test_32x32.mat",)},
            read_svhn,
            _fetch("SVHN", {"split": "train"}, {"split": "test"}, folder="svhn"),
            (3, 32, 32),
        ),
        "tiny-imagenet": Source(
            "Tiny-ImageNet",
            248,
            {
                "train": ("tiny-imagenet-200/wnids.txt", "tiny-imagenet-200/train"),
                "test": ("tiny-imagenet-200/wnids.txt", "tiny-imagenet-200/val/val_annotations.txt"),
            },
            read_tiny_imagenet,
            fetch_tiny_imagenet,
            (3, 64, 64),
            num_classes=200,
        ),
    }
    for name, kind, title, size in (
        ("mnist", "MNIST", "MNIST", 12),
        ("fashion-mnist", "FashionMNIST", "Fashion-MNIST", 31),
    ):
        found[name] = Source(
            title,
            size,
            {split: _mnist_files(kind, split) for split in ("train", "test")},
            lambda root, split, kind=kind: read_mnist(root, split, name=kind),  # type: ignore[misc]
            _fetch(kind, both[0]),
            (1, 28, 28),
        )
    return found


SOURCES: dict[str, Source] = _sources()
