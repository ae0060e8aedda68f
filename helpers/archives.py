"""Archives of official images that are no splits of a data set: CIFAR-10-C and ImageNet-C, by their addresses.

    python -m helpers.data download cifar10c

corruption_sets.py reads what they hold. Both are by Hendrycks & Dietterich (ICLR 2019), on Zenodo: records 2535967 and
2235448.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

from helpers.corruption_settings import GROUPS, names

__all__ = ["ARCHIVES", "Archive", "archive_of"]


@dataclass(frozen=True)
class Archive:
    """One archive: what it is, its address, MD5 and size, and what there is below DATA_ROOT once it is unpacked."""

    title: str
    size_mb: int
    url: str
    md5: str
    unpack: str  # the folder that it is unpacked into
    holds: tuple[str, ...]

    def there(self, root: Path) -> bool:
        """Whether all that it holds lies below `root`."""
        return all((root / one).exists() for one in self.holds)

    def fetch(self, root: Path) -> None:
        """Download (MD5 checked) and unpack below `root`."""
        import pooch

        name = self.url.rpartition("/")[2]
        packed = pooch.retrieve(self.url, known_hash=f"md5:{self.md5}", path=root, fname=name, progressbar=True)
        with tarfile.open(packed) as opened:
            opened.extractall(root / self.unpack, filter="data")


def _imagenet(group: str, md5: str, size_mb: int) -> Archive:
    holds = tuple(f"ImageNet-C/{name}" for name in GROUPS[group])
    url = f"https://zenodo.org/records/2235448/files/{group}.tar"
    return Archive(f"ImageNet-C, {group}", size_mb, url, md5, "ImageNet-C", holds)


_CIFAR = tuple(f"CIFAR-10-C/{name}.npy" for name in ("labels", *names(*GROUPS)))
ARCHIVES = {
    "cifar10c": Archive(
        "CIFAR-10-C", 2900, "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
        "56bf5dcef84df0e2308c6dcbcbbd8499", "", _CIFAR,
    ),
    "imagenetc-noise": _imagenet("noise", "e80562d7f6c3f8834afb1ecf27252745", 21_000),
    "imagenetc-blur": _imagenet("blur", "2d8e81fdd8e07fef67b9334fa635e45c", 7_000),
    "imagenetc-weather": _imagenet("weather", "33ffea4db4d93fe4a428c40a6ce0c25d", 12_000),
    "imagenetc-digital": _imagenet("digital", "89157860d7b10d5797849337ca2e5c03", 7_000),
    "imagenetc-extra": _imagenet("extra", "d492dfba5fc162d8ec2c3cd8ee672984", 15_000),
}  # fmt: skip


def archive_of(path: str) -> str:
    """The name of the archive that holds `path`.

    >>> archive_of("ImageNet-C/fog")
    'imagenetc-weather'
    """
    return next(name for name, archive in ARCHIVES.items() if path in archive.holds)
