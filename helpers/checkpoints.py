"""A training run on disk: one safetensors file, tensors in its body and the rest as JSON in its header. No pickle.

One file, written to a temporary name and renamed, is either the old state or the new one, whatever kills the process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from helpers import files

HEADER = "companion"


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts to `path`, whole or not at all. Floats of `facts` survive exactly."""
    ready = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    files.write_bytes(path, to_bytes(ready, metadata={HEADER: json.dumps(facts, allow_nan=False)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and facts of `path`; ValueError that says what was expected and what the file is."""
    try:
        with safe_open(path, framework="pt") as opened:
            facts = (opened.metadata() or {}).get(HEADER)
            return {name: opened.get_tensor(name) for name in opened.keys()}, json.loads(facts) if facts else {}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a whole safetensors file at {path}, got {describe(path)} ({error})") from error


def describe(path: Path) -> str:
    """What a file that is not safetensors looks like, in words for an error message.

    >>> import tempfile
    >>> page = Path(tempfile.mkdtemp()) / "weights"
    >>> _ = page.write_text("<!DOCTYPE html><title>404</title>")
    >>> describe(page)
    'an HTML page (a download that went to a web page) of 33 bytes'
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(512)
    kind = "a damaged or truncated file"
    if size == 0:
        kind = "an empty file"
    elif head.lstrip()[:1] == b"<" and (b"<html" in head.lower() or b"<!doctype" in head.lower()):
        kind = "an HTML page (a download that went to a web page)"
    elif head.startswith(b"version https://git-lfs"):
        kind = "a Git LFS pointer instead of the file"
    elif head.startswith(b"PK"):
        kind = "a zip archive, perhaps of torch.save"
    elif head[:1] == b"\x80":
        kind = "a pickle"
    return f"{kind} of {size:,} bytes"


def set_aside(path: Path, *, suffix: str = "damaged") -> Path | None:
    """Rename `path` to the first free `<name>.<suffix>-<k>`; None where there is no such file. Nothing is deleted."""
    if not path.exists():
        return None
    k = 1
    while (there := path.with_name(f"{path.name}.{suffix}-{k}")).exists():
        k += 1
    path.rename(there)
    return there


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under `<prefix>/<name>`."""
    return {f"{prefix}/{name}": t for name, t in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `<prefix>/`, without it.

    >>> import torch
    >>> below("a", {"a/x": torch.zeros(1), "b/x": torch.ones(1)})
    {'x': tensor([0.])}
    """
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}
