"""Training on several devices or machines: processes that `torchrun` started, each with its share of every batch.

    torchrun --nproc_per_node 4 -m helpers.zoo train cifar10 madry --seed 0

Every process draws the same orders and the same first weights, takes each `size`-th row of a batch from its rank on,
and adds its gradients to the others': ∇ Σ_i L_i / B is the gradient of one process with the whole batch, up to the
order of the sums. Noise is keyed by image, so an image is augmented and attacked alike whoever holds it. Rank 0
measures and writes; a checkpoint does not know how many processes there were. Batch norm sees a process's own share, as
is usual.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as processes
from torch import Tensor, nn

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # that torchrun sets


@dataclass(frozen=True)
class World:
    """This process's number among `size` of them."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that measures and writes."""
        return self.rank == 0


def world() -> World:
    """The processes of this training; one alone where none were joined."""
    if not (processes.is_available() and processes.is_initialized()):
        return World()
    return World(processes.get_rank(), processes.get_world_size())


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started with this one, and leave them at the end.

    Alone it does nothing, and inside another `joined` too: torchrun's processes meet once.

    Gradients go through NCCL where there is CUDA (a device for each process of a machine), else through Gloo.
    """
    if not all(os.environ.get(name) for name in VARIABLES):
        yield World()
        return
    if processes.is_initialized():
        yield world()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    processes.init_process_group("nccl" if cuda else "gloo")
    try:
        yield world()
    finally:
        processes.destroy_process_group()


def share(rows: Tensor) -> Tensor:
    """This process's rows of a batch (B,): each `size`-th, from its rank on; perhaps none.

    >>> share(torch.tensor([4, 2, 7])).tolist()
    [4, 2, 7]
    """
    here = world()
    return rows[here.rank :: here.size]


@torch.no_grad()
def add_gradients(network: nn.Module) -> None:
    """Add up each parameter's gradient over the processes, in place; none counts as zero."""
    if world().size == 1:
        return
    parameters = [p for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    flat = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
    processes.all_reduce(flat)
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        assert p.grad is not None
        p.grad.copy_(part.view_as(p))


def _device() -> torch.device:
    """Where the processes' messages lie."""
    return torch.device("cuda" if processes.get_backend() == "nccl" else "cpu")


def added(values: Mapping[str, float]) -> dict[str, float]:
    """Each number added up over the processes, in float64; all have the same names."""
    if world().size == 1:
        return dict(values)
    sums = torch.tensor([float(value) for value in values.values()], dtype=torch.float64, device=_device())
    processes.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


def told(flag: bool) -> bool:
    """What rank 0 says; the others wait for it."""
    if world().size == 1:
        return flag
    said = torch.tensor(int(flag), device=_device())
    processes.broadcast(said, src=0)
    return bool(said)
