"""The folder of a long run (an attack ensemble, a generation): what it is of, and its finished parts, so that a
killed one goes on.

    config.json       what defines the run: digests of weights, images and labels, radius, step size …
    003-0001.npz      what the second batch of the fourth stage came to; written whole or not at all

A folder of another run is refused with the difference named. No generator state is kept
because there is none: draws are keyed by image (noise.py), and a part that is missing or damaged
is computed again with the same result.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from torch import Tensor, nn

from helpers import arrays, distributed, files

__all__ = ["Parts", "digest", "network_digest", "opened", "shared"]

CONFIG, LOCK = "config.json", "lock"
Value = str | int | float | list[str] | list[float] | None


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and values, 16 hexadecimal digits."""
    array = np.ascontiguousarray(tensor.detach().cpu().numpy())
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()[:16]


def network_digest(network: nn.Module) -> str:
    """SHA-256 of a network's structure, as torch prints it, and of its parameters and buffers, 16 digits.

    What `forward` does beyond that is not seen: two networks that differ in code alone are the same here.
    """
    whole = hashlib.sha256(repr(network).encode())
    for name, tensor in sorted(network.state_dict().items()):
        whole.update(f"{name} {digest(tensor)}".encode())
    return whole.hexdigest()[:16]


class Parts:
    """The parts in a folder, by stage and batch. Make it with `opened`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, stage: int, batch: int) -> Path:
        return self._folder / f"{stage:03d}-{batch:04d}.npz"

    def write(self, stage: int, batch: int, part: Mapping[str, object]) -> None:
        """Keep a part."""
        arrays.write(self._path(stage, batch), part)

    def read(self, stage: int, batch: int, rows: np.ndarray) -> dict[str, np.ndarray] | None:
        """The part of these `rows`, or None where there is none, or one that is damaged or of other rows (said)."""
        path = self._path(stage, batch)
        if not path.exists():
            return None
        try:
            part = arrays.read(path)
            if np.array_equal(part["rows"], rows):
                return part
            reason = "it is of other images"
        except (arrays.DamagedFile, KeyError) as error:
            reason = str(error)
        print(f"{path.name} is computed again: {reason}", file=sys.stderr)
        return None


@contextmanager
def shared(folder: Path | str, config: Mapping[str, Value]) -> Iterator[Parts]:
    """`opened` for all processes that torchrun started with this one: the first opens it, the others wait until it has.

    They must meet before they leave, since the first takes the folder's lock away with it.
    """
    with opened(folder, config) if distributed.world().first else contextlib.nullcontext(Parts(Path(folder))) as parts:
        distributed.meet()
        yield parts


@contextmanager
def opened(folder: Path | str, config: Mapping[str, Value]) -> Iterator[Parts]:
    """The parts of the run `config` in `folder`, for this process alone.

    ValueError for a folder of another run, naming every difference; RuntimeError while
    another process uses it.
    """
    folder = Path(folder)
    files.make_folder(folder)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(f"expected {folder} for this run alone, but another process is using it") from None
    try:
        _compare(folder / CONFIG, config)
        files.sweep(folder)
        yield Parts(folder)
    finally:
        with contextlib.suppress(OSError):
            lock.release()


def _compare(path: Path, config: Mapping[str, Value]) -> None:
    known = files.read_json(path)
    if known is None and any(path.parent.glob("*.npz")):
        raise ValueError(f"expected {path} to say what the parts beside it are of, got no such file or a damaged one")
    if known is None:
        files.write_json(path, dict(config))
        return
    different = [k for k in {**known, **config} if known.get(k) != config.get(k)]
    if different:
        pairs = "; ".join(f"{k}: {known.get(k)!r} there, {config.get(k)!r} here" for k in different)
        raise ValueError(f"expected {path.parent} to hold the state of this run, got that of another ({pairs})")
