"""Named arrays in one `.npz` file: no pickle, the same bytes for the same content, damage always noticed."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from helpers import files

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip file can hold; a real one would change the hash at every run
KINDS = "biufcUS"  # bool, integers, floats, complex, unicode and bytes: what a `.npy` file holds without pickle


class DamagedFile(ValueError):
    """A file is not what was written: truncated, exchanged or altered."""


def checked(arrays: Mapping[str, object]) -> dict[str, np.ndarray]:
    """`arrays` as C-ordered NumPy arrays, refusing what could not be read back without pickle.

    >>> checked({"E": [1.0, 2.0]})["E"].dtype
    dtype('float64')
    """
    out = {}
    for name, value in arrays.items():
        if not isinstance(name, str) or not name or name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"arrays: expected names that are plain strings, got {name!r}")
        tensor = value.detach().cpu().numpy() if hasattr(value, "detach") else value
        array = np.asarray(tensor)
        if array.dtype.kind not in KINDS:
            raise ValueError(f"array {name!r}: expected numbers, booleans or strings, got dtype {array.dtype}")
        out[name] = np.array(array, order="C", copy=True)
    return out


def packed(arrays: Mapping[str, object]) -> bytes:
    """The bytes of a compressed `.npz` of `arrays`; the same arrays in the same order give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in checked(arrays).items():
            member = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
    return buffer.getvalue()


def write(path: Path, arrays: Mapping[str, object]) -> str:
    """Write `arrays` to `path` by rename; the file's SHA-256."""
    content = packed(arrays)
    with files.atomic(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read(path: Path, *, sha256: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of `path`; `DamagedFile` where they are missing, cut short, or not those with hash `sha256`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DamagedFile(f"{path}: expected a file of arrays, found none") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise DamagedFile(f"{path}: expected SHA-256 {sha256}, found {found} ({len(content)} bytes)")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # readers raise a dozen kinds of error on damage, struct.error to NotImplementedError
        raise DamagedFile(f"{path}: expected a whole .npz file of {len(content)} bytes, got: {error}") from error


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree in dtype, shape and every bit; NaN equals NaN, −0 does not equal 0.

    >>> identical(np.array([np.nan, 1.0]), np.array([np.nan, 1.0])), identical(np.array([0.0]), np.array([-0.0]))
    (True, False)
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind in "fc":
        same_nan = np.isnan(a) & np.isnan(b)
        a, b = np.where(same_nan, 0, a), np.where(same_nan, 0, b)
    return a.tobytes() == b.tobytes()
