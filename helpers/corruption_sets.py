"""The official corrupted images, CIFAR-10-C and ImageNet-C, and how near ours come to them.

    python -m helpers.corruption_sets list
    python -m helpers.corruption_sets download cifar10c          # into DATA_ROOT, or data/ where that is unset

Reported numbers of the benchmarks come from these files; ours serve images that they do not hold. Both are by
Hendrycks & Dietterich (ICLR 2019), on Zenodo: records 2535967 and 2235448.

    CIFAR-10-C/<corruption>.npy     uint8 (50000, 32, 32, 3): severity s in rows (s − 1)·10⁴ … s·10⁴ − 1
    CIFAR-10-C/labels.npy           (50000,)
    ImageNet-C/<corruption>/<severity>/<class>/*.JPEG     224×224, of quality 85
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers import checks, corruptions, data, readers
from helpers.corruption_settings import GROUPS, SEVERITIES, Profile, names

__all__ = ["ARCHIVES", "Archive", "Nearness", "against_official", "cifar10_c", "imagenet_c", "nearness", "same_images"]

CIFAR_TEST = 10_000
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENET_SIZE = 224


@dataclass(frozen=True)
class Archive:
    """One archive of official images: its address, MD5 and size, and the folder below DATA_ROOT that it fills."""

    url: str
    md5: str
    size_gb: float
    folder: str  # the archive is unpacked into `unpack`, and its files then lie in `folder`
    unpack: str


def _imagenet(group: str, md5: str, size_gb: float) -> Archive:
    url = f"https://zenodo.org/records/2235448/files/{group}.tar"
    return Archive(url, md5, size_gb, "ImageNet-C", "ImageNet-C")


ARCHIVES = {
    "cifar10c": Archive(
        "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
        "56bf5dcef84df0e2308c6dcbcbbd8499", 2.9, "CIFAR-10-C", "",
    ),
    "imagenetc-noise": _imagenet("noise", "e80562d7f6c3f8834afb1ecf27252745", 21),
    "imagenetc-blur": _imagenet("blur", "2d8e81fdd8e07fef67b9334fa635e45c", 7),
    "imagenetc-weather": _imagenet("weather", "33ffea4db4d93fe4a428c40a6ce0c25d", 12),
    "imagenetc-digital": _imagenet("digital", "89157860d7b10d5797849337ca2e5c03", 7),
    "imagenetc-extra": _imagenet("extra", "d492dfba5fc162d8ec2c3cd8ee672984", 15),
}  # fmt: skip


def _missing(key: str, path: Path) -> FileNotFoundError:
    archive = ARCHIVES[key]
    return FileNotFoundError(
        f"{path} is not there. Fetch it with `python -m helpers.corruption_sets download {key}` "
        f"({archive.size_gb:g} GB), or set DATA_ROOT to the folder that holds {archive.folder}/."
    )


# Readers --------------------------------------------------------------------------------------------------------------


def cifar10_c(name: str, *, severity: int, root: Path | str | None = None) -> data.ImageSet:
    """The 10,000 official test images of CIFAR-10-C for one corruption and severity, in CIFAR-10's order.

    `root` as in `data.load`. Only the asked rows of the file are read. Raises FileNotFoundError with folder,
    command and size where the files are absent, ValueError where they are not what they should be.
    """
    checks.choice(name, names(*GROUPS), "name")
    checks.count(severity, "severity", minimum=SEVERITIES[0], maximum=SEVERITIES[-1])
    folder = data.data_root(root) / "CIFAR-10-C"
    rows = slice((severity - 1) * CIFAR_TEST, severity * CIFAR_TEST)
    pixels = _rows(folder / f"{name}.npy", rows, (32, 32, 3))
    labels = _rows(folder / "labels.npy", rows, ())
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return data.from_tensors(
        tensor, torch.from_numpy(labels.astype(np.int64)), classes=CIFAR_CLASSES, name=f"cifar10c/{name}/{severity}"
    )


def _rows(path: Path, rows: slice, shape: tuple[int, ...]) -> np.ndarray:
    if not path.is_file():
        raise _missing("cifar10c", path)
    expected = (len(SEVERITIES) * CIFAR_TEST, *shape)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"expected {path} to be a NumPy array, got a file that does not load ({error})") from error
    if array.shape != expected or (shape and array.dtype != np.uint8):
        kind = "uint8" if shape else "integers"
        raise ValueError(f"expected {path} to be {kind} of shape {expected}, got {array.dtype} of {array.shape}")
    return np.array(array[rows])


def imagenet_c(name: str, *, severity: int, n_images: int, root: Path | str | None = None) -> data.ImageSet:
    """`n_images` official images of ImageNet-C for one corruption and severity, evenly spaced in the order of paths.

    Labels are the places of the class folders in sorted order, which is the order of ImageNet's 1000 classes where
    all are there; `index` is the place among all files. Images are taken as stored, 224×224. Errors as in
    `cifar10_c`; a folder that holds fewer images is a ValueError.
    """
    group = next((group for group, members in GROUPS.items() if name in members), None)
    checks.choice(name, names(*GROUPS), "name")
    checks.count(severity, "severity", minimum=SEVERITIES[0], maximum=SEVERITIES[-1])
    checks.count(n_images, "n_images", minimum=1)
    folder = data.data_root(root) / "ImageNet-C" / name / str(severity)
    if not folder.is_dir():
        raise _missing(f"imagenetc-{group}", folder)
    files = readers.images_below(folder)
    if len(files) < n_images:
        raise ValueError(f"expected at least {n_images} images below {folder}, got {len(files)}")
    place = torch.arange(n_images) * len(files) // n_images
    chosen = [files[i] for i in place.tolist()]
    classes = sorted({file.parent.name for file in files})
    labels = torch.tensor([classes.index(file.parent.name) for file in chosen])
    pixels = readers.decode(chosen, channels=3, size=IMAGENET_SIZE)
    return data.from_tensors(pixels, labels, classes=classes, name=f"imagenetc/{name}/{severity}", index=place)


# Ours against theirs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Nearness:
    """How two corruptions of the same images compare: root mean square distances to the clean images, and more.

    `ratio` ours / theirs of the mean distances; `psnr_difference` −20 log₁₀ ratio, in dB; `spread_ratio` of the
    standard deviations of the distances over images; `mean_shift` ours − theirs of the mean brightness.
    """

    distance_ours: float
    distance_theirs: float
    ratio: float
    psnr_difference: float
    spread_ratio: float
    mean_shift: float


def nearness(clean: Tensor, ours: Tensor, theirs: Tensor) -> Nearness:
    """Compare two corruptions of the clean images, all (B, C, H, W) in [0, 1], at least two images.

    >>> x, theirs = torch.zeros(2, 1, 4, 4), torch.tensor([0.1, 0.2]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    >>> found = nearness(x, 2 * theirs, theirs)
    >>> round(found.ratio, 3), round(found.psnr_difference, 2), round(found.mean_shift, 2)
    (2.0, -6.02, 0.15)
    """
    a, b = corruptions.distance(clean, ours).double(), corruptions.distance(clean, theirs).double()
    if len(a) < 2:
        raise ValueError(f"expected at least two images, got {len(a)}")
    if not bool(b.mean() > 0) or not bool(a.mean() > 0):
        raise ValueError("expected corruptions that change the images, got one that does not")
    ratio = a.mean() / b.mean()
    return Nearness(
        distance_ours=float(a.mean()),
        distance_theirs=float(b.mean()),
        ratio=float(ratio),
        psnr_difference=float(-20 * ratio.log10()),
        spread_ratio=float(a.std() / b.std()),
        mean_shift=float(ours.double().mean() - theirs.double().mean()),
    )


def against_official(
    clean: data.ImageSet,
    *,
    corruptions_named: Iterable[str],
    profile: Profile,
    seed: int,
    root: Path | str | None = None,
) -> pd.DataFrame:
    """Ours beside the official files on the same test images: a row of `Nearness` for each corruption and severity.

    With profile "cifar", `clean` is (part of) CIFAR-10's test split, whose `index` finds the rows of CIFAR-10-C. With
    "imagenet" it is `photographs.by_class(photographs.imagenet_validation(), n_images=n)`, since ImageNet-C keeps the
    validation images' paths and so their order. ValueError where labels or places do not agree.
    """
    rows = []
    x = clean.images()
    for name in corruptions_named:
        for severity in SEVERITIES:
            theirs = same_images(clean, name, severity, profile=profile, root=root)
            ours = corruptions.corrupt(name, x, severity=severity, profile=profile, seed=seed, index=clean.index)
            rows.append({"corruption": name, "severity": severity} | asdict(nearness(x, ours, theirs.images())))
    return pd.DataFrame(rows)


def same_images(
    clean: data.ImageSet, name: str, severity: int, *, profile: Profile, root: Path | str | None
) -> data.ImageSet:
    """The official corruption of the images in `clean`, which are as `against_official` wants them."""
    checks.choice(profile, ("cifar", "imagenet"), "profile (with official files)")
    if profile == "cifar":
        theirs = cifar10_c(name, severity=severity, root=root).subset(clean.index)
    else:
        theirs = imagenet_c(name, severity=severity, n_images=len(clean), root=root)
        if not torch.equal(theirs.index, clean.index):
            raise ValueError("expected `clean` to be evenly spaced as `imagenet_c`'s images, got other places")
    if not torch.equal(theirs.labels, clean.labels):
        raise ValueError(f"expected `clean` to be the images behind {theirs.name}, got other labels")
    return theirs


# Command line ---------------------------------------------------------------------------------------------------------


def download(key: str, *, root: Path | str | None = None) -> Path:
    """Fetch one archive (MD5 checked) and unpack it below `root`; returns the folder of its files."""
    import pooch

    archive = ARCHIVES[checks.choice(key, ARCHIVES, "the archive")]
    folder = data.data_root(root)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        packed = pooch.retrieve(
            archive.url, known_hash=f"md5:{archive.md5}", path=folder, fname=f"{key}.tar", progressbar=True
        )
        with tarfile.open(packed) as opened:
            opened.extractall(folder / archive.unpack, filter="data")
    except Exception as error:  # URLError, a wrong checksum, a full disk: the reader needs the same three facts
        raise RuntimeError(
            f"{key} ({archive.size_gb:g} GB) did not arrive in {folder}: {type(error).__name__}: {error}. "
            f"The same command tries again."
        ) from error
    return folder / archive.folder


def main(arguments: list[str] | None = None) -> int:
    """`list` the archives or `download` one; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.corruption_sets", description="Official corrupted images.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names, sizes and folders")
    get = commands.add_parser("download", help="fetch one into DATA_ROOT (default data/)")
    get.add_argument("name")
    get.add_argument("--root", type=Path, default=None)
    options = parser.parse_args(arguments)
    try:
        if options.command == "download":
            print(f"{options.name}: in {download(options.name, root=options.root)}")
        else:
            for key, archive in ARCHIVES.items():
                print(f"{key:18} {archive.size_gb:4g} GB  {archive.folder}/")
    except (ValueError, RuntimeError) as error:
        print(f"helpers.corruption_sets: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
