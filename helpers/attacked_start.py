"""A start that is attacked first: class Gaussian, then targeted PGD, then a decrease of contrast (rjem, combined).

    x_0 ~ inner start of class y
    x_a = targeted PGD from x_0 towards y within ‖x − x_0‖ ≤ ε          (`attacks.pgd`, lowering the cross-entropy of y)
    x   = clip(½ + c (x_a − ½))                                        c ≤ 1: `contrast`

The chain of Robust JEM begins there; the single robust classifier ends at x_a, its chain without steps. Lengths are in
[0, 1], the images' range: what is published for [−1, 1] halves (`proximal.in_unit_range`), so ε = 0.5 there is
63.75/255 here, and contrast c keeps its value, since ½ is the 0 of [−1, 1].

Start noise is the inner start's alone: with one seed and index every method begins at the same x_0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from helpers import attack_losses, balls, checks, context, noise
from helpers.attack_losses import LossValue
from helpers.balls import Norm
from helpers.pgd import pgd
from helpers.starts import Start

__all__ = ["Attacked", "decreased_contrast", "linf_step_size"]

# Watch(phase, step, x (B, C, H, W)): "attack" from 0, the inner start, to n_steps; then "contrast", where it has one.
Watch = Callable[[str, int, Tensor], None]


def linf_step_size(epsilon: float, n_steps: int) -> float:
    """2.5 ε / n, the L∞ step where a source gives ε and n alone, as Korst & Asadulaev (2022) do; 0 for n = 0.

    >>> linf_step_size(0.25, 10)
    0.0625
    """
    checks.radius(epsilon)
    return 2.5 * epsilon / n_steps if checks.count(n_steps, "n_steps") else 0.0


def decreased_contrast(x: Tensor, contrast: float) -> Tensor:
    """clip(½ + c (x − ½)), images in [0, 1]: nearer to grey by c = `contrast` in (0, 1]; 1 is x itself, bit for bit.

    >>> import torch
    >>> decreased_contrast(torch.tensor([0.0, 0.5, 1.0]), 0.5)
    tensor([0.2500, 0.5000, 0.7500])
    """
    checks.number(contrast, "contrast", above=0.0, maximum=1.0)
    return x.clone() if contrast == 1 else (0.5 + contrast * (x - 0.5)).clamp(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Attacked:
    """`start` attacked towards its class, then with less contrast; see the module.

    `epsilon` and `step_size` in [0, 1] in the `norm`, L∞ or L2; `n_steps` 0 and `contrast` 1 is the inner start, bit
    for bit. The attack starts at x_0 itself and returns its last point; `network` is in eval mode with frozen weights.
    Images do not depend on their batch but for the rounding of the network's sums, of which an L∞ step takes the sign.

    >>> import torch
    >>> from helpers.starts import Uniform
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> key = noise.Key(seed=0, purpose="doc", index=torch.arange(3))
    >>> start = Attacked(Uniform((1, 2, 2), 2), network, norm="linf", epsilon=0.25, step_size=0.125, n_steps=2,
    ...     contrast=0.5)
    >>> start.name, start.draw(torch.tensor([0, 1, 1]), key).shape
    ('uniform_attacked', torch.Size([3, 1, 2, 2]))
    """

    start: Start
    network: nn.Module
    norm: Norm
    epsilon: float
    step_size: float
    n_steps: int
    contrast: float

    def __post_init__(self) -> None:
        checks.module(self.network)
        checks.choice(self.norm, balls.NORMS, "norm")
        checks.radius(self.epsilon)
        if checks.count(self.n_steps, "n_steps"):
            checks.number(self.step_size, "step_size (with n_steps > 0)", above=0.0)
        checks.number(self.contrast, "contrast", above=0.0, maximum=1.0)

    @property
    def name(self) -> str:
        """The inner start's name, and that it was attacked."""
        return f"{self.start.name}_attacked"

    def draw(self, y: Tensor, key: noise.Key) -> Tensor:
        """First images (B, C, H, W) float32 in [0, 1] on y's device; see `starts.Start.draw`."""
        return self.watched(y, key, None)

    def watched(self, y: Tensor, key: noise.Key, watch: Watch | None) -> Tensor:
        """`draw`, while `watch(phase, step, x)` sees every point on the way, on the network's device."""
        x = self.start.draw(y, key)
        if self.n_steps and len(y):
            x = self._attack(x.to(context.device_of(self.network)), y, key, watch)
        elif watch is not None:
            watch("attack", 0, x)
        x = decreased_contrast(x, self.contrast)
        if watch is not None and self.contrast < 1:
            watch("contrast", self.n_steps + 1, x)
        return x.to(y.device)

    def _attack(self, x: Tensor, y: Tensor, key: noise.Key, watch: Watch | None) -> Tensor:
        def tell(k: int, x_k: Tensor, said: LossValue) -> None:
            if watch is not None:
                watch("attack", k, x_k)

        return pgd(
            attack_losses.targeted_cross_entropy(self.network), x, y.to(x.device), norm=self.norm,
            epsilon=self.epsilon, step_size=self.step_size, n_steps=self.n_steps, start="none", n_restarts=1,
            returns="last", seed=key.seed, index=key.index.to(x.device), callback=None if watch is None else tell,
        )  # fmt: skip
