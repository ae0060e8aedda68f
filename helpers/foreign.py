"""Weights that others trained: found, checked by SHA-256, loaded without ever running what a file says.

Sources of a recipe: `checkpoint` (a file in the folder CHECKPOINTS), `url` and `torchvision` (downloaded there once),
`robustbench` (through RobustBench's own package). Files are safetensors, or torch's own format read with
`weights_only=True`, which refuses code.
"""

from __future__ import annotations

import importlib
import os
import pickle
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers import data, files, models
from helpers.checkpoints import describe
from helpers.messages import say

NESTS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the weights
TORCHVISION_DIGITS = 8  # torchvision's file names hold so many digits of the SHA-256
ROBUSTBENCH = "RobustBench/robustbench"


def folder() -> Path:
    """Where foreign weights lie: the environment's CHECKPOINTS, else checkpoints/ in the data folder."""
    return Path(os.environ.get("CHECKPOINTS") or data.data_root() / "checkpoints")


def locate(entry: Mapping[str, Any]) -> Path:
    """The file of a recipe, checked by its SHA-256; `url` and `torchvision` are downloaded where it is missing.

    FileNotFoundError names the folder looked in; ValueError what was expected and what the file is.
    """
    name = entry.get("file") or str(entry["url"]).rsplit("/", 1)[-1].split("?")[0]
    path = folder() / name
    if not path.exists():
        if entry["source"] == "checkpoint":
            raise FileNotFoundError(
                f"expected the weights {name} in {folder()}, got no such file. Put it there, or set CHECKPOINTS to the "
                f"folder that holds it (SHA-256 {entry['sha256']})."
            )
        _download(entry["url"], path, expected=entry["sha256"], source=entry["source"])
    _check(path, expected=entry["sha256"], source=entry["source"])
    return path


def _check(path: Path, *, expected: str, source: str) -> None:
    got = files.sha256(path)
    short = source == "torchvision" and len(expected) >= TORCHVISION_DIGITS
    same = got.startswith(expected.lower()) if short else got == expected.lower()
    if not same:
        raise ValueError(f"expected {path} with SHA-256 {expected}, got {got}: {describe(path)}")


def _download(url: str, path: Path, *, expected: str, source: str) -> None:
    """Fetch `url` beside its place, look at it, and only then give it its name."""
    import pooch

    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"fetching {url} into {path.parent}")
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it would advise to pin the hash of whatever arrived
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as place:
        try:
            pooch.retrieve(url, known_hash=None, fname=path.name, path=place, downloader=pooch.HTTPDownloader())
        except Exception as error:  # requests, urllib3 and the disk each have their own
            raise OSError(f"{url} did not arrive in {path.parent}: {type(error).__name__}: {error}") from error
        finally:
            logger.setLevel(level)
        arrived = Path(place) / path.name
        try:
            _check(arrived, expected=expected, source=source)
        except ValueError as error:
            raise ValueError(f"{error}. It came from {url} and was not kept.") from error
        os.replace(arrived, path)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU; a common wrapping and a `module.` prefix are taken off.

    .safetensors, or torch's format (.pt, .pth …) read with weights_only. ValueError says what the file is where it
    is neither, and what it asked for where it is a pickle with code, of which nothing is run.
    """
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            with warnings.catch_warnings():  # torch warns of a pickle's protocol before it refuses the pickle
                warnings.simplefilter("ignore")
                found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0] if "GLOBAL" not in str(error) else _asked_for(str(error))
        raise ValueError(
            f"expected a file of tensors at {path}, got {describe(path)} that is more than tensors ({reason}). "
            f"It was refused and nothing in it was run."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"expected a file of tensors at {path}, got {describe(path)} ({error})") from error
    for nest in NESTS:
        if isinstance(found, dict) and isinstance(found.get(nest), dict):
            found = found[nest]
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ValueError(f"expected names with tensors in {path}, got {type(found).__name__} of other things")
    return {name.removeprefix("module."): t for name, t in found.items()}


def _asked_for(message: str) -> str:
    """The global that weights_only refused, out of torch's long message."""
    found = [line for line in message.splitlines() if "GLOBAL" in line]
    return found[0].strip()[:200]


def fill(network: models.Network, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Load weights into a network's body, every name and shape as expected; ValueError names the first that are not."""
    target = getattr(network.body, "net", network.body)
    expected = target.state_dict()
    # Weights from before batch norm counted its batches lack the counters; they play no part in eval mode.
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    missing, extra = sorted(needed - tensors.keys()), sorted(tensors.keys() - expected.keys())
    shapes = [n for n in sorted(needed & tensors.keys()) if expected[n].shape != tensors[n].shape]
    if missing or extra or shapes:
        parts = [f"missing {missing[:3]}"] * bool(missing) + [f"unknown {extra[:3]}"] * bool(extra)
        parts += [f"{n}: expected {tuple(expected[n].shape)}, got {tuple(tensors[n].shape)}" for n in shapes[:2]]
        raise ValueError(
            f"expected weights of {type(network.body).__name__} in {where}, got others: {'; '.join(parts)}"
        )
    target.load_state_dict({**{n: t for n, t in expected.items() if n not in needed}, **tensors}, strict=True)


def build(entry: Mapping[str, Any]) -> models.Network:
    """The network of a foreign recipe with its weights, on the CPU, in eval mode."""
    if entry["source"] == "robustbench":
        return _robustbench(entry).eval()
    shape, num_classes = input_of(entry)
    network = models.build(
        entry["architecture"],
        num_classes=num_classes,
        in_channels=shape[0],
        image_size=shape[1],
        width=entry.get("width"),
        depth=entry.get("depth"),
        norm=entry.get("norm") or ("none" if entry["architecture"] == "resnet2b" else "batch"),
        mean=entry.get("mean"),
        std=entry.get("std"),
    )
    path = locate(entry)
    fill(network, read(path), where=str(path))
    return network.eval()


def input_of(entry: Mapping[str, Any]) -> tuple[tuple[int, int, int], int]:
    """((C, H, W), number of classes) of a foreign recipe: what it says, else what its data set has."""
    if entry.get("dataset"):
        source = data.source(entry["dataset"])
        (channels, height, _), known = source.shape, source.num_classes
    else:
        (channels, height), known = (3, 224), None
    num_classes, size = entry.get("num_classes") or known, entry.get("image_size") or height
    if num_classes is None:
        raise ValueError("expected num_classes or dataset for a network of foreign weights, got neither")
    return (channels, size, size), num_classes


def _robustbench(entry: Mapping[str, Any]) -> models.Network:
    """One of RobustBench's networks, through its own package, which downloads and builds it."""
    try:
        load_model = importlib.import_module("robustbench.utils").load_model
    except ImportError as error:
        raise ImportError(
            f"expected RobustBench's package for {entry['model_id']}, got none that imports ({error}). Install it with "
            f"`pip install git+https://github.com/{ROBUSTBENCH}.git`, best in an environment of its own, "
            f"and start this one with COMPANION_PYTHON."
        ) from error
    where = folder() / "robustbench"
    module = load_model(
        model_name=entry["model_id"],
        model_dir=str(where),
        dataset=entry["dataset"],
        threat_model=entry.get("threat_model") or "Linf",
    )
    return wrap(module, num_classes=input_of(entry)[1])


def wrap(
    module: nn.Module, *, num_classes: int, mean: list[float] | None = None, std: list[float] | None = None
) -> models.Network:
    """A reader's own network as ours: f(x) = module((x − mean) / std) for x in [0, 1], in eval mode.

    `mean`, `std`: of each channel, as the network was trained; None for a network that normalises by itself. Give
    the module a method `embed(x) -> (B, d)` where features are wanted.

    >>> network = wrap(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), num_classes=3, mean=[0.5], std=[0.5])
    >>> network(torch.rand(2, 1, 2, 2)).shape, network.training
    (torch.Size([2, 3]), False)
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"expected a torch.nn.Module, got {type(module).__name__}")
    mean, std = mean if mean is not None else [0.0], std if std is not None else [1.0]
    return models.Network(module, num_classes=num_classes, mean=mean, std=std).eval()
