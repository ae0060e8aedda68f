"""Where the foreign data and weights lie, for tests marked `foreign`; they skip where the two variables are unset."""

import os
from pathlib import Path

import pytest


def cifar10_root() -> Path:
    """DATA_ROOT, where it holds CIFAR-10."""
    root = os.environ.get("DATA_ROOT")
    if not root or not (Path(root) / "cifar-10-batches-py").is_dir():
        pytest.skip("DATA_ROOT with CIFAR-10 is not set")
    return Path(root)


def checkpoints_root() -> Path:
    """CHECKPOINTS, the folder of foreign weights."""
    root = os.environ.get("CHECKPOINTS")
    if not root or not (Path(root) / "cifar10_standard_resnet20.safetensors").is_file():
        pytest.skip("CHECKPOINTS with the foreign networks is not set")
    return Path(root)
