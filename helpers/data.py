"""Data sets by name as uint8 tensors in memory: `load`, `from_tensors`, and batches of them.

    python -m helpers.data list
    python -m helpers.data download cifar10        # into DATA_ROOT, or data/ where that is unset
    python -m helpers.data download cifar10c       # an archive of archives.py, which `load` does not read

Images leave this module as float32 `(B, C, H, W)` in [0, 1]; normalisation is the model's affair.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from helpers import archives, readers

Known = TypeVar("Known")
SPLITS = ("train", "validation", "test")
FOLDER_PREFIX = "folder:"
FOLDER_TEST_FRACTION = 0.2  # of a folder that has no train/ and test/ of its own
OFFICIAL_SEED = 0  # cuts the test part of data that come in one piece; never a parameter, so that "test" is one thing


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of one split, kept as uint8.

    pixels: (N, C, H, W) uint8; labels: (N,) int64; index: (N,) int64, the place in the official split, which is
    the key of every draw that touches an image (`helpers.noise`), so that a subset attacks as the whole does.
    """

    pixels: Tensor
    labels: Tensor
    index: Tensor
    classes: tuple[str, ...]
    name: str
    split: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        c, h, w = self.pixels.shape[1:]
        return c, h, w

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def images(self, rows: Tensor | slice | None = None) -> Tensor:
        """float32 images in [0, 1], (B, C, H, W); `rows` picks some of them, in that order."""
        pixels = self.pixels if rows is None else self.pixels[rows]
        return pixels.float() / 255

    def subset(self, rows: Tensor | Sequence[int] | slice) -> ImageSet:
        """The images at these rows, in that order; their `index` goes along."""
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows, device=self.labels.device)
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows], index=self.index[rows])

    def first(self, n: int) -> ImageSet:
        """The first `n` images in the official order (all of them where there are fewer)."""
        return self.subset(slice(0, n))

    def per_class(self, n: int) -> ImageSet:
        """The first `n` images of each class, class after class; ValueError where a class has fewer."""
        rows = []
        for k, name in enumerate(self.classes):
            found = (self.labels == k).nonzero().flatten()
            if len(found) < n:
                raise ValueError(f"expected {n} images of class {name!r} in {self.name}/{self.split}, got {len(found)}")
            rows.append(found[:n])
        return self.subset(torch.cat(rows))

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set with its tensors on `device`."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device), index=self.index.to(device))

    @property
    def checksum(self) -> str:
        """SHA-256 over shape, pixels, labels and index: two sets with the same checksum are the same data."""
        h = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        for tensor in (self.pixels, self.labels, self.index):
            h.update(tensor.cpu().contiguous().numpy().tobytes())
        return h.hexdigest()


def from_tensors(
    images: Tensor,
    labels: Tensor,
    *,
    classes: Sequence[str] | None = None,
    name: str = "own",
    split: str = "test",
    index: Tensor | None = None,
) -> ImageSet:
    """A reader's own tensors as an ImageSet.

    images: (N, C, H, W), uint8, or floating in [0, 1] (rounded to the nearest 1/255, since pixels are kept as
    uint8). labels: (N,) integers from 0. Raises ValueError for any other shape, type or range.

    >>> s = from_tensors(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), torch.tensor([0, 1]), classes=["dark", "bright"])
    >>> s.images().flatten(), s.num_classes
    (tensor([0., 1.]), 2)
    """
    if images.ndim != 4:
        raise ValueError(f"expected images of shape (N, C, H, W), got {tuple(images.shape)}")
    if images.is_floating_point():
        if not (bool(torch.isfinite(images).all()) and images.min() >= 0 and images.max() <= 1):
            raise ValueError(f"expected images in [0, 1], got [{images.min():g}, {images.max():g}]")
        images = (images * 255).round().to(torch.uint8)
    if images.dtype != torch.uint8:
        raise ValueError(f"expected uint8 or floating images, got {images.dtype}")
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"expected {len(images)} integer labels, got {labels.dtype} of shape {tuple(labels.shape)}")
    labels = labels.long()
    known = tuple(classes) if classes is not None else tuple(str(k) for k in range(int(labels.max()) + 1))
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(known)):
        raise ValueError(f"expected labels 0 … {len(known) - 1}, got {int(labels.min())} … {int(labels.max())}")
    index = torch.arange(len(labels), device=labels.device) if index is None else index.long()
    return ImageSet(images, labels, index, known, name, split)


# ---- splits ----


def _stratified(labels: Tensor, rows: Tensor, *, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cut `n` of `rows` off, class shares kept: (rest, cut), both in ascending order."""
    from sklearn.model_selection import train_test_split

    rest, cut = train_test_split(rows.numpy(), test_size=n, stratify=labels[rows].numpy(), random_state=seed)
    return torch.from_numpy(np.sort(rest)), torch.from_numpy(np.sort(cut))


def _validation(labels: Tensor, rows: Tensor, *, split: str, fraction: float, seed: int) -> Tensor:
    """Rows of "train" or "validation": a stratified, seeded `fraction` of the training rows is for validation."""
    if not 0 <= fraction < 1:
        raise ValueError(f"expected validation_fraction in [0, 1), got {fraction}")
    n = round(fraction * len(rows))
    if n == 0:
        if split == "validation":
            raise ValueError("expected validation_fraction > 0 for the validation split, got a split without images")
        return rows
    train, validation = _stratified(labels, rows, n=n, seed=seed)
    return train if split == "train" else validation


# ---- by name ----


def data_root(root: Path | str | None = None) -> Path:
    """Where data sets lie: `root`, else the environment's DATA_ROOT, else data/ in the repository."""
    if root is not None:
        return Path(root)
    return Path(os.environ.get("DATA_ROOT") or Path(__file__).resolve().parent.parent / "data")


def placeless(error: FileNotFoundError, *, root: Path | str | None = None) -> str:
    """What an error about missing data says, with DATA_ROOT for the folder: for records, which are no machine's."""
    return str(error).replace(str(data_root(root)), "DATA_ROOT")


def names() -> list[str]:
    """The data sets `load` knows by name (and besides them `folder:<name>`)."""
    return sorted(readers.SOURCES)


def source(name: str) -> readers.Source:
    """What is known of a data set by name: title, size, files, shape; ValueError with the nearest name."""
    return _known(name, readers.SOURCES, "or folder:<name>, ")


def _known(name: str, among: Mapping[str, Known], also: str = "") -> Known:
    if name not in among:
        near = difflib.get_close_matches(name, among, n=1, cutoff=0.4)
        hint = f" (nearest: {near[0]})" if near else ""
        raise ValueError(f"expected a data set among {', '.join(sorted(among))} {also}got {name!r}{hint}")
    return among[name]


def _read_official(name: str, split: str, root: Path) -> readers.Raw:
    """One official split, or an error that says what is missing or damaged and what to do."""
    known = source(name)
    missing = [f for f in known.files[split] if not (root / f).exists()]
    command = f"python -m helpers.data download {name}"
    if missing:
        raise FileNotFoundError(
            f"{known.title} is not in {root} (missing {missing[0]}). Fetch it with `{command}` "
            f"({known.size_mb} MB), or set DATA_ROOT to the folder that holds it."
        )
    try:
        return known.read(root, split)
    except Exception as error:  # whatever a truncated file makes of pickle, zlib, scipy or Pillow
        raise ValueError(
            f"expected the official files of {known.title} in {root}, got damaged or altered ones "
            f"({type(error).__name__}: {error}). Remove {known.files[split][0] if known.files[split] else root} "
            f"and fetch it again with `{command}`."
        ) from error


def _read_folder(name: str, split: str, root: Path, size: int | None) -> tuple[readers.Raw, bool]:
    """A folder of images by class below `root`, and whether it brought its own train/ and test/."""
    folder = root / name.removeprefix(FOLDER_PREFIX)
    if size is None:
        raise ValueError(f"expected image_size for {name}, got none: images of a folder are resized to one size")
    if not folder.is_dir():
        raise FileNotFoundError(
            f"expected a folder with one sub-folder for each class at {folder}, got nothing there. "
            f"Put it there, or set DATA_ROOT to its parent folder."
        )
    own = (folder / "train").is_dir() and (folder / "test").is_dir()
    return readers.read_classes(folder / split if own else folder, channels=3, size=size), own


def load(
    name: str,
    split: str,
    *,
    image_size: int | None = None,
    validation_fraction: float = 0.0,
    split_seed: int = 0,
    root: Path | str | None = None,
) -> ImageSet:
    """Load one split of a data set by name as uint8 tensors.

    `name`: see `names()`, or `folder:<name>` for DATA_ROOT/<name>/[train|test/]<class>/*.png. `split`: "train",
    "validation" or "test". Validation is a stratified `validation_fraction` of the official training images, cut
    with `split_seed`; the test split never depends on either. Data in one piece (digits, a folder without train/
    and test/) get a fixed stratified test part: 360 of the 1,797 digits, a fifth of a folder. With
    `validation_fraction=0.125` the digits are 1,257 / 180 / 360.

    `image_size` resizes (bilinear) to a square; None keeps the published size, for digits 16×16.
    Missing data raise FileNotFoundError with the folder looked in, the download command and its size; damaged
    files raise ValueError.

    >>> digits = load("digits", "train", validation_fraction=0.125)
    >>> len(digits), digits.shape, digits.pixels.dtype
    (1257, (1, 16, 16), torch.uint8)
    """
    if split not in SPLITS:
        raise ValueError(f"expected split among {', '.join(SPLITS)}, got {split!r}")
    folder = data_root(root)
    official = "test" if split == "test" else "train"
    one_piece = name == "digits"
    if name.startswith(FOLDER_PREFIX):
        (pixels, labels, classes), own = _read_folder(name, official, folder, image_size)
        one_piece = not own
    else:
        pixels, labels, classes = _read_official(name, official, folder)
    rows = torch.arange(len(labels))
    if one_piece:
        n_test = readers.DIGITS_TEST if name == "digits" else round(FOLDER_TEST_FRACTION * len(labels))
        train, test = _stratified(labels, rows, n=n_test, seed=OFFICIAL_SEED)
        rows = test if split == "test" else train
    if split != "test":
        rows = _validation(labels, rows, split=split, fraction=validation_fraction, seed=split_seed)
    if len(rows) != len(labels):
        pixels, labels = pixels[rows], labels[rows]
    if image_size is not None:
        pixels = readers.resize(pixels, image_size)
    return ImageSet(pixels, labels, rows, classes, name, split)


# ---- batches ----


def batches(images: ImageSet, *, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Rows of each batch, (B,) int64 on the set's device: a permutation of all rows drawn from `generator`
    (a CPU generator), or the official order where it is None. The last batch may be smaller; none is dropped.

    >>> s = from_tensors(torch.zeros(5, 1, 1, 1), torch.zeros(5, dtype=torch.long))
    >>> [len(rows) for rows in batches(s, batch_size=2, generator=None)]
    [2, 2, 1]
    """
    if batch_size < 1:
        raise ValueError(f"expected batch_size >= 1, got {batch_size}")
    n = len(images)
    order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
    yield from order.to(images.labels.device).split(batch_size)


# ---- command line ----


def _fetched() -> dict[str, readers.Source | archives.Archive]:
    """All that `download` knows, by name."""
    return {**readers.SOURCES, **archives.ARCHIVES}


def download(name: str, *, root: Path | str | None = None) -> Path:
    """Fetch a data set or an archive below `root` (default as in `load`); what is there and intact is left alone."""
    known, folder = _known(name, _fetched()), data_root(root)
    if known.fetch is None:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        known.fetch(folder)
    except Exception as error:  # URLError, a wrong checksum, a full disk: the reader needs the same three facts
        raise RuntimeError(
            f"{known.title} ({known.size_mb} MB) did not arrive in {folder}: {type(error).__name__}: {error}. "
            f"A partial file is fetched again by the same command."
        ) from error
    return folder


def main(arguments: list[str] | None = None) -> int:
    """`list` the data sets or `download` one; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.data", description="Data sets by name.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names, sizes, and whether they are there")
    get = commands.add_parser("download", help="fetch one into DATA_ROOT (default data/)")
    get.add_argument("name")
    get.add_argument("--root", type=Path, default=None)
    options = parser.parse_args(arguments)
    try:
        if options.command == "download":
            print(f"{options.name}: in {download(options.name, root=options.root)}")
        else:
            for name, one in sorted(_fetched().items()):
                there = "there" if one.there(data_root()) else "not there"
                print(f"{name:17} {one.size_mb:5d} MB  {there:9}  {one.title}")
    except (ValueError, RuntimeError) as error:
        print(f"helpers.data: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
