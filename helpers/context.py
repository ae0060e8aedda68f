"""Settings that a computation needs and the caller gets back: network modes, flags, threads, determinism.

Each context manager restores what it found, also when its body raises.
`setup` is the one call that stays: a notebook's setup cell chooses the device with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn

from helpers import checks, parameters

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS is deterministic only with this set before its first use


class HasProfile(Protocol):
    """What `setup` needs of a notebook's parameters."""

    profile: str


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Put modules into eval mode (batch norm uses its running statistics, dropout is off), then back.

    Each submodule gets its own mode back, so a network whose batch norm was frozen by
    hand stays so.

    >>> net = nn.Dropout()
    >>> with eval_mode(net):
    ...     net.training
    False
    >>> net.training
    True
    """
    training = [m for root in modules for m in checks.module(root).modules() if m.training]
    try:
        for m in training:
            m.training = False
        yield
    finally:
        for m in training:
            m.training = True


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Switch `requires_grad` off for all parameters, then back on for those that had it."""
    thawed = [p for root in modules for p in checks.module(root).parameters() if p.requires_grad]
    try:
        for p in thawed:
            p.requires_grad_(False)
        yield
    finally:
        for p in thawed:
            p.requires_grad_(True)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Compute with `n` CPU threads (n ≥ 1), then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(checks.count(n, "threads", minimum=1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic() -> Iterator[None]:
    """Refuse operations whose result depends on the order of a race, then allow them as before.

    An operation that has no deterministic form raises RuntimeError and names itself.
    On CUDA cuBLAS reads its workspace setting at its first use; `setup` sets it early enough.
    """
    mode = torch.get_deterministic_debug_mode()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    workspace = os.environ.get(CUBLAS)
    try:
        os.environ.setdefault(CUBLAS, ":4096:8")
        torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would import Inductor, 1.2 s
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        if workspace is None:
            os.environ.pop(CUBLAS, None)


def setup(p: HasProfile, *, device: str | torch.device | None = None) -> torch.device:
    """Choose device, threads and float32 precision for this process; the setup cell's one call.

    `p` are the notebook's parameters, of which only `p.profile` is read. Device: `device` if
    given, else CUDA where there is one, else the CPU. Threads: the environment's
    `COMPANION_THREADS` (the runner sets it), else `threads` of the profile's `profile.yaml`, so
    that a notebook opened by hand rounds as the runner's does.
    TF32 is off: an attack's verdict is decided in full float32, on every device.
    cuDNN picks its deterministic kernels and does not time them against each other.
    Nothing is printed and nothing is seeded.
    """
    torch.set_num_threads(
        _threads(os.environ.get("COMPANION_THREADS") or parameters.profile_facts(p.profile)["threads"])
    )
    os.environ.setdefault(CUBLAS, ":4096:8")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return _device(device)


def device_of(network: nn.Module) -> torch.device:
    """Where a network's first parameter lies; the CPU where it has none."""
    parameter = next(checks.module(network).parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _threads(wanted: object) -> int:
    text = str(wanted).strip()
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"expected COMPANION_THREADS (or threads) to be a whole number >= 1, got {wanted!r}")
    return int(text)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"expected a device of this machine, got {str(device)!r}, but torch sees no CUDA device")
    return chosen
