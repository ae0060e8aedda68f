"""ImageNet-A, natural adversarial photographs of 200 of ImageNet's 1000 classes (Hendrycks et al. 2021): its protocol.

Two conventions give two numbers, and which one a paper used must be said:

    sliced    the largest of the 200 classes' logits decides, as in the data set's public evaluation
    whole     the largest of all 1000 logits decides: an answer outside the 200 is wrong

Sliced errors are never above whole ones. Classes are named by WordNet ids ("n01498041"), as their folders are, and
labels count the 200 classes in sorted order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from helpers import checks

__all__ = ["CONVENTIONS", "Convention", "columns", "correct"]

Convention = Literal["sliced", "whole"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


def columns(subset: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Which of the network's outputs are the classes of `subset`: (len(subset),) int64, in the order of `subset`.

    `classes` are the ids of all outputs in order: ImageNet's are its 1000 folder names, sorted. Raises ValueError for
    ids that are missing or twice there.

    >>> columns(["n02", "n07"], ["n01", "n02", "n05", "n07"])
    tensor([1, 3])
    """
    for name, ids in (("subset", subset), ("classes", classes)):
        twice = sorted({wnid for wnid in ids if list(ids).count(wnid) > 1}) if len(set(ids)) < len(ids) else []
        if twice:
            raise ValueError(f"expected {name} to name each class once, got {twice[0]!r} more than once")
    place = {wnid: k for k, wnid in enumerate(classes)}
    missing = [wnid for wnid in subset if wnid not in place]
    if missing:
        raise ValueError(f"expected classes to hold the {len(subset)} of the subset, got none for {missing[:3]}")
    return torch.tensor([place[wnid] for wnid in subset], dtype=torch.int64)


def correct(logits: Tensor, y: Tensor, *, columns: Tensor, convention: Convention) -> Tensor:
    """Whether each image is classified right, bool (N,), under one convention.

    logits (N, 1000); y (N,) labels among the subset, 0 … 199; columns (200,) as from `columns`.

    >>> logits, y = torch.tensor([[5.0, 1.0, 2.0], [0.0, 1.0, 2.0]]), torch.tensor([1, 1])
    >>> correct(logits, y, columns=torch.tensor([1, 2]), convention="sliced")
    tensor([True, True])
    >>> correct(logits, y, columns=torch.tensor([1, 2]), convention="whole")
    tensor([False,  True])
    """
    checks.labels(y, checks.logits(logits), num_classes=len(columns))
    if len(columns) == 0 or int(columns.min()) < 0 or int(columns.max()) >= logits.shape[1]:
        raise ValueError(f"expected columns among the {logits.shape[1]} logits, got {columns.tolist()[:5]} …")
    columns = columns.to(logits.device)
    if checks.choice(convention, CONVENTIONS, "convention") == "sliced":
        return logits[:, columns].argmax(1) == y
    return logits.argmax(1) == columns[y]
