"""A judge of toy images, whose features and logits are known by hand, and sets of such images."""

import numpy as np
import torch
from torch import Tensor, nn

from helpers import data, extractors


class Toy(nn.Module):
    """Features are the flattened pixels less `shift`, logits the first K of them times `gain`."""

    def __init__(self, num_classes: int = 4, shift: float = 0.0, gain: float = 1.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))
        self.gain = nn.Parameter(torch.tensor(gain))
        self.num_classes = num_classes

    def embed(self, x: Tensor) -> Tensor:
        return x.flatten(1) - self.shift

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.embed(x)[:, : self.num_classes]


class Nested(nn.Module):
    """A Toy behind `body`, as `models.Network` holds its body."""

    def __init__(self, **of_toy: float) -> None:
        super().__init__()
        self.body = Toy(**of_toy)
        self.num_classes = self.body.num_classes

    def features(self, x: Tensor) -> Tensor:
        return self.body.embed(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def judge(**of_toy: float) -> extractors.Extractor:
    return extractors.of_network(Nested(**of_toy), name="judge")


def noise(n: int, *, seed: int, shape: tuple[int, int, int] = (1, 2, 3), top: int = 256) -> np.ndarray:
    """uint8 images of independent pixels below `top`."""
    return np.random.default_rng(seed).integers(0, top, (n, *shape)).astype(np.uint8)


def image_set(images: np.ndarray, labels: np.ndarray | None = None, *, split: str = "train") -> data.ImageSet:
    y = torch.zeros(len(images), dtype=torch.long) if labels is None else torch.from_numpy(labels)
    return data.from_tensors(torch.from_numpy(images), y, classes=list("abcd"), name="toy", split=split)
