"""A profile whose networks train in a second, in a folder of its own, for tests of training and of the zoo."""

import shutil
import textwrap
from pathlib import Path

import torch

from helpers import data, parameters, train

ENTRY = {
    "source": "train",
    "dataset": "digits",
    "validation_fraction": 0.125,
    "split_seed": 0,
    "architecture": "smallcnn",
    "width": 2,
    "norm": "batch",
    "objective": "madry",
    "attack_norm": "linf",
    "epsilon_255": 51.0,
    "step_size_255": 25.5,
    "n_steps": 2,
    "start": "uniform",
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": None,
    "weight_decay": 5e-4,
    "schedule": "one_cycle",
    "pct_start": 0.25,
    "epochs": 3,
    "batch_size": 32,
    "augment": "shift",
    "ema": 0.9,
    "precision": "float32",
    "checkpoint_every": 2,
    "monitor_n_images": 10,
    "monitor_n_steps": 2,
}

NETWORKS = """
.tiny: &tiny
  dataset: digits
  validation_fraction: 0.125
  architecture: smallcnn
  width: 2
  optimizer: sgd
  learning_rate: 0.1
  schedule: one_cycle
  pct_start: 0.25
  epochs: 2
  batch_size: 128
  ema: 0.9
  checkpoint_every: 1
  attack_norm: linf
  epsilon_255: 51
  step_size_255: 25.5
  monitor_n_images: 10
  monitor_n_steps: 2
  evaluation_n_images: 40
  seeds: [0, 1]

standard:
  <<: *tiny
  objective: standard

madry:
  <<: *tiny
  objective: madry
  n_steps: 2
  start: uniform
"""


def recipe(**changes: object) -> parameters.Recipe:
    """A recipe that trains 96 digits for a few steps."""
    return parameters.Recipe("tiny", "tiny", {**ENTRY, **changes}, (0, 1))


def sets() -> train.Datasets:
    """96 training and 40 test digits: three steps an epoch at batch 32."""
    return train.Datasets(data.load("digits", "train").first(96), data.load("digits", "test").first(40))


def profile(root: Path, *, networks: str = NETWORKS) -> Path:
    """A repository with nothing but the glossary and one profile, `tiny`; returns it."""
    folder = root / "params" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).resolve().parent.parent / "params"
    shutil.copy(here / "schema.yaml", root / "params" / "schema.yaml")
    shutil.copy(here / "digits" / "profile.yaml", folder / "profile.yaml")
    (folder / "networks.yaml").write_text(textwrap.dedent(networks), encoding="utf-8")
    return root


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Whether two networks hold the same bits."""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)
