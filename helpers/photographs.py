"""Photographs of any size as ImageNet's 224-pixel test images: shorter side to 256, middle 224 (He et al. 2016).

    clean = photographs.by_class(photographs.imagenet_validation(), n_images=1000)

Folders hold one sub-folder a class, named by its WordNet id, as ImageNet's validation images and ImageNet-A are
distributed. ImageNet-C's files are stored at 224 pixels already: corruption_sets.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import checks, data, readers

__all__ = ["SHORTER", "SIZE", "by_class", "imagenet_a", "imagenet_validation", "middle", "samples"]

SHORTER, SIZE = 256, 224


def middle(pixels: Tensor, *, shorter: int = SHORTER, size: int = SIZE) -> Tensor:
    """The middle `size`² pixels of one uint8 photograph (C, H, W), its shorter side resized to `shorter` first.

    Bilinear and antialiased, the aspect ratio kept; rounded to 8 bits.

    >>> middle(torch.zeros(3, 300, 400, dtype=torch.uint8)).shape
    torch.Size([3, 224, 224])
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 3:
        raise ValueError(f"expected a uint8 photograph (C, H, W), got {pixels.dtype} of {tuple(pixels.shape)}")
    checks.count(shorter, "shorter", minimum=checks.count(size, "size", minimum=1))
    h, w = pixels.shape[1:]
    wanted = (shorter, int(shorter * w / h)) if h <= w else (int(shorter * h / w), shorter)
    x = F.interpolate(pixels[None].float(), wanted, mode="bilinear", antialias=True)[0]
    top, left = round((wanted[0] - size) / 2), round((wanted[1] - size) / 2)
    return x[:, top : top + size, left : left + size].round().clamp(0, 255).to(torch.uint8)


def by_class(folder: Path, *, n_images: int) -> data.ImageSet:
    """`n_images` photographs below a folder of classes, evenly spaced in the order of paths, as 224-pixel images.

    Labels are the places of the class folders in sorted order, also where no image of a class was taken; `index` is
    the place among all files.
    """
    checks.count(n_images, "n_images", minimum=1)
    files = readers.images_below(folder)
    if len(files) < n_images:
        raise ValueError(f"expected at least {n_images} images below {folder}, got {len(files)}")
    classes = sorted({file.parent.name for file in files})
    place = torch.arange(n_images) * len(files) // n_images
    chosen = [files[i] for i in place.tolist()]
    labels = torch.tensor([classes.index(file.parent.name) for file in chosen])
    pixels = torch.stack([middle(_read(file)) for file in chosen])
    return data.from_tensors(pixels, labels, classes=classes, name=folder.name, index=place)


def imagenet_validation(root: Path | str | None = None) -> Path:
    """DATA_ROOT/imagenet/val, or FileNotFoundError with the folder, where to get it, and its size."""
    return _there(
        data.data_root(root) / "imagenet" / "val",
        "ImageNet's validation images (6.3 GB) are given out at https://image-net.org after registration; "
        "sort ILSVRC2012_img_val.tar into one sub-folder a class there",
    )


def imagenet_a(root: Path | str | None = None) -> Path:
    """DATA_ROOT/imagenet-a, or FileNotFoundError with the folder, the command and its size."""
    url = "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar"
    folder = data.data_root(root) / "imagenet-a"
    return _there(folder, f"Fetch it with `curl -L {url} | tar -x -C {folder.parent}` (0.7 GB)")


def samples() -> data.ImageSet:
    """Two real photographs that come with scikit-learn, a palace and a flower, (2, 3, 224, 224); labels 0 and 1.

    >>> samples().shape
    (3, 224, 224)
    """
    from sklearn.datasets import load_sample_images

    loaded = load_sample_images()
    pixels = torch.stack([middle(torch.from_numpy(image.copy()).permute(2, 0, 1)) for image in loaded.images])
    return data.from_tensors(pixels, torch.arange(2), classes=("palace", "flower"), name="photographs")


def _there(folder: Path, what_to_do: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not there. {what_to_do}, or set DATA_ROOT to the folder that holds {folder.name}."
        )
    return folder


def _read(file: Path) -> Tensor:
    from PIL import Image

    try:
        with Image.open(file) as opened:
            array = np.asarray(opened.convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"expected an image at {file}, got a file that does not decode ({error})") from error
    return torch.from_numpy(array.copy()).permute(2, 0, 1)
