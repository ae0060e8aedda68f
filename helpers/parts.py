"""Finished pieces of a long computation, kept until the notebook ends, so that a killed run goes on where it was.

    pairs = parts.compute(p, "standard-pgd_ce", attack_pairs, network=network, images=images, …)

A piece is used again only where nothing that made it has changed: the notebook's parameters, the sources of
the notebook and of the helpers it imports, and every input (weights and images by their bytes). A piece that takes
long by itself may keep a state of its own in a folder, `compute_in_folder`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import arrays as npz
from helpers import files, sources
from helpers.parameters import ROOT

if TYPE_CHECKING:
    from helpers.parameters import Parameters

MARK = "fingerprint"  # array in each part: which computation it belongs to


def compute(
    p: Parameters, key: str, function: Callable[..., Mapping[str, Any]], /, **inputs: Any
) -> dict[str, np.ndarray]:
    """`function(**inputs)`, or what it returned before the run was interrupted: arrays by name.

    `key` names the piece within the notebook. `function` is a named function of a module that returns arrays;
    the same `key` with other inputs is another piece. Inputs may be plain values, arrays, tensors, frames,
    networks (their state), dataclasses, paths (their content), named functions, and lists and dicts of these.
    """
    return _piece(p, key, function, inputs, state=False)


def compute_in_folder(
    p: Parameters, key: str, function: Callable[..., Mapping[str, Any]], /, **inputs: Any
) -> dict[str, np.ndarray]:
    """`compute` for `function(**inputs, folder=…)`, which keeps its state there and goes on from it after a kill.

    The folder belongs to this piece, inputs and sources included, and is removed once the piece is finished.
    """
    return _piece(p, key, function, inputs, state=True)


def _piece(
    p: Parameters, key: str, function: Callable[..., Mapping[str, Any]], inputs: Mapping[str, Any], *, state: bool
) -> dict[str, np.ndarray]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.@=-]*", key):
        raise ValueError(f"key: expected letters, digits and _ . @ = -, got {key!r}")
    mark = fingerprint(p, function, inputs)
    path = p.folder / "parts" / f"{key}-{mark[:16]}.npz"
    if path.exists():
        try:
            stored = npz.read(path)
            if str(stored.pop(MARK, "")) != mark:
                raise npz.DamagedFile(f"{path}: expected the part with fingerprint {mark}, got another")
            print(f"{key}: taken from the interrupted run")
            return stored
        except npz.DamagedFile as error:
            print(f"{key}: computed again, {error}")
    folder = path.with_suffix("")
    result = npz.checked(function(**inputs, folder=folder) if state else function(**inputs))
    if MARK in result:
        raise ValueError(f"{key}: expected arrays by other names than {MARK!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    npz.write(path, {**result, MARK: np.array(mark)})
    if state:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def clear(p: Parameters) -> None:
    """Remove the parts of the notebook of `p`; `records.finish` calls it."""
    shutil.rmtree(p.folder / "parts", ignore_errors=True)


def fingerprint(p: Parameters, function: Callable[..., object], inputs: Mapping[str, Any]) -> str:
    """SHA-256 over parameters, sources, the function's name and its inputs, 64 hexadecimal digits."""
    plain = function.func if isinstance(function, functools.partial) else function
    digest = hashlib.sha256()
    _feed(digest, [p.profile, p.notebook, p.digest, _sources(p.notebook, plain)], "run")
    _feed(digest, function, "function")
    _feed(digest, dict(inputs), "inputs")
    return digest.hexdigest()


def digest(value: Any, name: str) -> str:
    """SHA-256 of one input by its content, 16 hexadecimal digits; `name` stands in the error for what has none.

    >>> digest([1, 2.0], "pair") == digest([1, 2.0], "pair") != digest([1.0, 2.0], "pair")
    True
    """
    content = hashlib.sha256()
    _feed(content, value, name)
    return content.hexdigest()[:16]


@functools.lru_cache(maxsize=64)  # once a process: the code that runs is the code that was imported
def _sources(notebook: str, function: Callable[..., object]) -> str:
    """Digest of the notebook and all it imports, and of the function's own module, which may be a reader's."""
    paths = [ROOT / "notebooks" / f"{notebook}.ipynb"]
    with contextlib.suppress(TypeError):  # a function that is part of Python has no source
        paths.append(Path(inspect.getsourcefile(function) or ""))
    found = [path for path in paths if path.is_file()]
    return sources.digest(sorted({source for path in found for source in sources.of(path)}))


def _feed(digest: hashlib._Hash, value: Any, name: str) -> None:
    """Add `value` to `digest`, each with its type and length, so that no two inputs share their bytes."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        _tagged(digest, f"tensor {value.dtype} {tuple(value.shape)}", flat.numpy().tobytes())
    elif torch is not None and isinstance(value, torch.nn.Module):
        _feed(digest, [_name(type(value), name), *sorted(value.state_dict().items())], name)
    elif isinstance(value, np.ndarray):
        _tagged(digest, f"array {value.dtype} {value.shape}", npz.checked({name: value})[name].tobytes())
    elif isinstance(value, pd.DataFrame):
        _feed(digest, {str(key): list(column) for key, column in value.items()}, name)
    elif isinstance(value, os.PathLike):
        _tagged(digest, "file", files.sha256(Path(value)).encode())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        entries = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        _feed(digest, [_name(type(value), name), entries], name)
    elif isinstance(value, Mapping):
        _tagged(digest, f"mapping {len(value)}")
        for key, entry in value.items():
            _feed(digest, key, name)
            _feed(digest, entry, f"{name}, {key}")
    elif isinstance(value, list | tuple):
        _tagged(digest, f"sequence {len(value)}")
        for entry in value:
            _feed(digest, entry, name)
    elif isinstance(value, functools.partial):
        _feed(digest, [value.func, list(value.args), dict(value.keywords)], name)
    else:
        _feed_plain(digest, value, name)


def _feed_plain(digest: hashlib._Hash, value: Any, name: str) -> None:
    if isinstance(value, np.generic):
        value = value.item()
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.device | torch.dtype):
        value = str(value)
    if value is None or isinstance(value, bool | int | str):
        _tagged(digest, type(value).__name__, str(value).encode())
    elif isinstance(value, float):
        _tagged(digest, "float", struct.pack("<d", value))
    elif isinstance(value, bytes):
        _tagged(digest, "bytes", value)
    elif callable(value):
        _tagged(digest, "callable", _name(value, name).encode())
    else:
        raise ValueError(f"{name}: expected an input that can be hashed by content, got {type(value).__name__}")


def _name(value: Any, name: str) -> str:
    place = f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', None)}"
    if "<" in place or place.endswith(".None"):
        raise ValueError(f"{name}: expected a function or class of a module, got {value!r}, which has no lasting name")
    return place


def _tagged(digest: hashlib._Hash, tag: str, content: bytes = b"") -> None:
    digest.update(struct.pack("<QQ", len(tag.encode()), len(content)))
    digest.update(tag.encode())
    digest.update(content)
