"""The official corrupted images, CIFAR-10-C and ImageNet-C, read; official_sets.py lays ours beside them.

Reported numbers of the benchmarks come from these files; ours serve images that they do not hold. archives.py says
where they come from.

    CIFAR-10-C/<corruption>.npy     uint8 (50000, 32, 32, 3): severity s in rows (s − 1)·10⁴ … s·10⁴ − 1
    CIFAR-10-C/labels.npy           (50000,)
    ImageNet-C/<corruption>/<severity>/<class>/*.JPEG     224×224, of quality 85
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from helpers import checks, data, readers
from helpers.archives import ARCHIVES, archive_of
from helpers.corruption_settings import GROUPS, SEVERITIES, Profile, names

__all__ = ["cifar10_c", "imagenet_c", "same_images"]

CIFAR_TEST = 10_000
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENET_SIZE = 224


def _missing(root: Path, path: str) -> FileNotFoundError:
    name = archive_of(path)
    folder = Path(path).parts[0]
    return FileNotFoundError(
        f"{root / path} is not there. Fetch it with `python -m helpers.data download {name}` "
        f"({ARCHIVES[name].size_mb} MB), or set DATA_ROOT to the folder that holds {folder}/."
    )


# Readers --------------------------------------------------------------------------------------------------------------


def cifar10_c(name: str, *, severity: int, root: Path | str | None = None) -> data.ImageSet:
    """The 10,000 official test images of CIFAR-10-C for one corruption and severity, in CIFAR-10's order.

    `root` as in `data.load`. Only the asked rows of the file are read. Raises FileNotFoundError with folder,
    command and size where the files are absent, ValueError where they are not what they should be.
    """
    checks.choice(name, names(*GROUPS), "name")
    checks.count(severity, "severity", minimum=SEVERITIES[0], maximum=SEVERITIES[-1])
    rows = slice((severity - 1) * CIFAR_TEST, severity * CIFAR_TEST)
    pixels = _rows(data.data_root(root), f"CIFAR-10-C/{name}.npy", rows, (32, 32, 3))
    labels = _rows(data.data_root(root), "CIFAR-10-C/labels.npy", rows, ())
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return data.from_tensors(
        tensor, torch.from_numpy(labels.astype(np.int64)), classes=CIFAR_CLASSES, name=f"cifar10c/{name}/{severity}"
    )


def _rows(root: Path, name: str, rows: slice, shape: tuple[int, ...]) -> np.ndarray:
    path = root / name
    if not path.is_file():
        raise _missing(root, name)
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
    checks.choice(name, names(*GROUPS), "name")
    checks.count(severity, "severity", minimum=SEVERITIES[0], maximum=SEVERITIES[-1])
    checks.count(n_images, "n_images", minimum=1)
    folder = data.data_root(root) / "ImageNet-C" / name / str(severity)
    if not folder.is_dir():
        raise _missing(data.data_root(root), f"ImageNet-C/{name}")
    files = readers.images_below(folder)
    if len(files) < n_images:
        raise ValueError(f"expected at least {n_images} images below {folder}, got {len(files)}")
    place = torch.arange(n_images) * len(files) // n_images
    chosen = [files[i] for i in place.tolist()]
    classes = sorted({file.parent.name for file in files})
    labels = torch.tensor([classes.index(file.parent.name) for file in chosen])
    pixels = readers.decode(chosen, channels=3, size=IMAGENET_SIZE)
    return data.from_tensors(pixels, labels, classes=classes, name=f"imagenetc/{name}/{severity}", index=place)


# The same images ------------------------------------------------------------------------------------------------------


def same_images(
    clean: data.ImageSet, name: str, severity: int, *, profile: Profile, root: Path | str | None
) -> data.ImageSet:
    """The official corruption of the images in `clean`.

    With profile "cifar", `clean` is (part of) CIFAR-10's test split, whose `index` finds the rows of CIFAR-10-C. With
    "imagenet" it is `photographs.by_class(photographs.imagenet_validation(), n_images=n)`, since ImageNet-C keeps the
    validation images' paths and so their order. ValueError where labels or places do not agree.
    """
    checks.choice(profile, ("cifar", "imagenet"), "profile (with official files)")
    clean = clean.to("cpu")
    if profile == "cifar":
        theirs = cifar10_c(name, severity=severity, root=root).subset(clean.index)
    else:
        theirs = imagenet_c(name, severity=severity, n_images=len(clean), root=root)
        if not torch.equal(theirs.index, clean.index):
            raise ValueError("expected `clean` to be evenly spaced as `imagenet_c`'s images, got other places")
    if not torch.equal(theirs.labels, clean.labels):
        raise ValueError(f"expected `clean` to be the images behind {theirs.name}, got other labels")
    return theirs
