"""The replay buffer of JEM and JEM++: images that chains left, from which the next chains go on.

A buffer holds n slots for each of K classes, in class order: slot s is of class s div n. A chain starts at the image
of a slot, or, with chance `reinit_freq`, at a fresh draw of the slot's own class, and its end is written back to the
slot. Which slots, which of them anew and what the fresh images are is keyed by (seed, slot, number of the draw), not by
a generator, so that images and one number are all that a checkpoint needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers import checks, noise
from helpers.starts import Start

# The fill is step `_FIRST` of the start's noise and draw k step _FIRST + 1 + k: generation from the same start with the
# same seed has step 0, and would otherwise begin at the images that filled the buffer.
_FIRST = 2**31


@dataclass(frozen=True, eq=False)
class Draw:
    """Starts of B chains: `slots` (B,) int64, all different; `x` (B, C, H, W) float32 in [0, 1]; `y` (B,) int64, the
    slots' classes; `fresh` (B,) bool, which of x are new draws and not what the slots hold."""

    slots: Tensor
    x: Tensor
    y: Tensor
    fresh: Tensor


class ReplayBuffer:
    """Images (K·n, C, H, W) float32 in [0, 1] on their device, in class order; see the module.

    Departs from the papers: slots of one draw are all different (drawn with replacement there, where of two chains
    from one slot the later written wins), fresh images are of the slot's class and drawn for the chosen slots only
    (JEM++ draws of any class for all of them, which mixes the classes of slots), and the buffer stays on its device.

    >>> from helpers.starts import Uniform
    >>> buffer = ReplayBuffer.filled(Uniform(shape=(1, 2, 2), num_classes=3), num_classes=3, n_per_class=4,
    ...     reinit_freq=0.05, seed=0, device="cpu", batch_size=8)
    >>> drawn = buffer.draw_of(torch.tensor([2, 0, 2]))
    >>> [slot // 4 for slot in drawn.slots.tolist()]
    [2, 0, 2]
    >>> buffer.write(drawn.slots, torch.ones_like(drawn.x))
    >>> (buffer.images == 1).flatten(1).all(1).sum().item()
    3
    """

    def __init__(
        self, images: Tensor, *, start: Start, num_classes: int, reinit_freq: float, seed: int, n_draws: int = 0
    ) -> None:
        checks.count(num_classes, "num_classes", minimum=1)
        if checks.images(images, "images").dtype != torch.float32:
            raise ValueError(f"expected images to be float32, got {images.dtype}")
        if not len(images) or len(images) % num_classes:
            raise ValueError(
                f"expected as many images for each of {num_classes} classes, at least one, got {len(images)} in all"
            )
        self.images = images.detach().clone()
        self.start = start
        self.num_classes = num_classes
        self.reinit_freq = checks.probability(reinit_freq, "reinit_freq")
        self.seed = checks.count(seed, "seed", maximum=2**32 - 1)
        self.n_draws = checks.count(n_draws, "n_draws", maximum=2**31 - 2)

    @classmethod
    def filled(
        cls,
        start: Start,
        *,
        num_classes: int,
        n_per_class: int,
        reinit_freq: float,
        seed: int,
        device: torch.device | str,
        batch_size: int,
    ) -> ReplayBuffer:
        """A new buffer, each slot a draw of its class from `start`, `batch_size` at a time; `seed` is the buffer's."""
        checks.count(num_classes, "num_classes", minimum=1)
        checks.count(n_per_class, "n_per_class", minimum=1)
        checks.count(batch_size, "batch_size", minimum=1)
        slots = torch.arange(num_classes * n_per_class, device=device)
        images = [
            start.draw(part // n_per_class, noise.Key(seed, "replay buffer", part, _FIRST))
            for part in slots.split(batch_size)
        ]
        return cls(torch.cat(images), start=start, num_classes=num_classes, reinit_freq=reinit_freq, seed=seed)

    @classmethod
    def restored(
        cls,
        state: Mapping[str, Tensor],
        *,
        start: Start,
        num_classes: int,
        reinit_freq: float,
        seed: int,
        device: torch.device | str,
    ) -> ReplayBuffer:
        """The buffer of a `state`: with the same keywords its draws go on bit for bit, with another seed elsewhere."""
        if set(state) != {"images", "n_draws"}:
            raise ValueError(f"expected a state with images and n_draws, got {', '.join(sorted(state)) or 'none'}")
        return cls(
            state["images"].to(device), start=start, num_classes=num_classes, reinit_freq=reinit_freq, seed=seed,
            n_draws=int(state["n_draws"]),
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """All that changes, for a checkpoint: `images`, a copy on the CPU, and `n_draws` () int64."""
        return {"images": self.images.detach().to("cpu", copy=True), "n_draws": torch.tensor(self.n_draws)}

    def __len__(self) -> int:
        """The number of slots, K·n."""
        return len(self.images)

    @property
    def n_per_class(self) -> int:
        """Slots of each class, n."""
        return len(self.images) // self.num_classes

    def draw(self, n: int) -> Draw:
        """Starts of `n` chains from slots of any class, each as likely."""
        checks.count(n, "n", minimum=1, maximum=len(self))
        return self._drawn(self._priority().argsort(stable=True)[:n])

    def draw_of(self, y: Tensor) -> Draw:
        """Starts of chains of the classes `y` (B,) int64, row by row, from slots of these classes."""
        y = checks.labels(y, num_classes=self.num_classes).to(self.images.device)
        rank = (y[:, None] == y[None, :]).tril(-1).sum(1)  # (B,): how many rows before have the same class
        if len(y) == 0 or int(rank.max()) >= self.n_per_class:
            most = 0 if len(y) == 0 else int(rank.max()) + 1
            raise ValueError(f"expected 1 to {self.n_per_class} rows of a class (its slots), got up to {most}")
        order = self._priority().view(self.num_classes, -1).argsort(dim=1, stable=True)
        return self._drawn(y * self.n_per_class + order[y, rank])

    def write(self, slots: Tensor, x: Tensor) -> None:
        """Put `x` (B, C, H, W) float32 in [0, 1], where chains ended, into the `slots` (B,) they came from.

        Raises FloatingPointError for images that are not finite, ValueError for others that do not fit; the buffer
        is then as it was.
        """
        checks.index(slots, x, "slots")
        if slots.numel() and (int(slots.max()) >= len(self) or len(slots.unique()) < len(slots)):
            raise ValueError(f"expected different slots below {len(self)}, got {slots.tolist()}")
        if checks.tensor(x, "x").shape[1:] != self.images.shape[1:] or x.dtype != torch.float32:
            raise ValueError(
                f"expected x to be float32 of shape (B, {', '.join(map(str, self.images.shape[1:]))}), "
                f"got {x.dtype} of {tuple(x.shape)}"
            )
        checks.images(checks.finite(x, "x", step=self.n_draws, index=slots))
        self.images[slots.to(self.images.device)] = x.detach().to(self.images.device)

    def _key(self, purpose: str, slots: Tensor) -> noise.Key:
        return noise.Key(self.seed, purpose, slots, _FIRST + 1 + self.n_draws)

    def _priority(self) -> Tensor:
        """A number for each slot, (K·n,); those with the smallest come first, and of equal ones the earlier slot."""
        slots = torch.arange(len(self), device=self.images.device)
        return self._key("replay buffer: slots", slots).integers(2**31)

    def _drawn(self, slots: Tensor) -> Draw:
        x, y = self.images[slots], slots // self.n_per_class
        fresh = self._key("replay buffer: reinit", slots).uniform(()) < self.reinit_freq
        if bool(fresh.any()):
            x[fresh] = self.start.draw(y[fresh], self._key("replay buffer", slots[fresh]))
        self.n_draws += 1
        return Draw(slots, x, y, fresh)
