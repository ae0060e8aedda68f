"""Folders of official images, filled with made-up ones."""

from PIL import Image


def imagenet_c(root, n=4, severity=2):
    """ImageNet-C's glass blur with two classes of `n` plain images; returns `root`."""
    for k, wnid in enumerate(("n01", "n02")):
        folder = root / "ImageNet-C" / "glass_blur" / str(severity) / wnid
        folder.mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (224, 224), (100 * k, 10 * i, 0)).save(folder / f"{i}.JPEG", quality=95)
    return root
