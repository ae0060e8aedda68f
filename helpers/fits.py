"""Tensors that took a while (fits, features) on disk, each file with what it is of and its SHA-256: made once.

    tensors = fits.kept(folder, "class_pca-airplane", identity={"images": images.checksum, …}, make=fit)

A file that is damaged, altered or of other data is said, set aside and made again; nothing is deleted, nothing pickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from helpers import checkpoints, files, messages

SUFFIX = ".safetensors"


def kept(
    folder: Path | None, name: str, *, identity: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors of `make()`, or those that it made before for the same `identity`, on the CPU.

    They lie in `folder`/`name`.safetensors; None keeps nothing. `identity` is plain JSON. Two processes that want one
    fit make it once.
    """
    if folder is None:
        return dict(make())
    files.make_folder(folder)
    path = folder / f"{name}{SUFFIX}"
    with FileLock(folder / f"{name}.lock"):
        if path.exists():
            try:
                return _read(path, dict(identity))
            except ValueError as error:
                aside = checkpoints.set_aside(path)
                messages.say(f"{error}. Set aside as {aside.name if aside else path.name}; made again.")
        made = {key: tensor.cpu() for key, tensor in make().items()}
        checkpoints.save(path, made, {"identity": dict(identity), "sha256": digest(made)})
        return made


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names, 64 hexadecimal digits.

    >>> import torch
    >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(2, 1)})
    False
    """
    h = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        h.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        h.update(tensor.cpu().contiguous().numpy().data)
    return h.hexdigest()


def _read(path: Path, identity: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of `path`; ValueError that says what was expected and what the file is."""
    tensors, facts = checkpoints.load(path)
    if not isinstance(facts, dict) or facts.get("identity") != identity:
        of = facts.get("identity") if isinstance(facts, dict) else facts
        raise ValueError(f"{path}: expected a fit of {identity}, got one of {of}")
    found = digest(tensors)
    if found != facts.get("sha256"):
        raise ValueError(f"{path}: expected tensors with SHA-256 {facts.get('sha256')}, got {found}")
    return tensors
