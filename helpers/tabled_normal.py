"""Normal draws from two tables and whole numbers: for chains and their starts, which need them by the billion.

    z = A[u] + B[v],    u, v two 16-bit halves of a random 32-bit number

A and B hold the means of N(0, 1) in 65,536 cells of equal chance, times 0.72 and √(1 − 0.72²), on the grid of 2⁻¹⁸
(`exact_products.NOISE_BITS`). So a sum is exact in float32, and a draw is the same bits on every device and in every
batch, without a logarithm or a cosine. What differs from N(0, 1) is known exactly, from all 2³² sums (the tests
count them): mean 0, variance 1 + 1.2·10⁻⁸, kurtosis 3 − 8.4·10⁻⁵, |z| ≤ 6.2038, and no value of the distribution
function is off by more than 9·10⁻⁷. Beyond |z| = 4 lie 0.5 % too few, beyond 5 (one draw in 1.7 million) 10 %.

The random numbers are SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA
2014), word j of the stream of a seed s, in wrapping 64-bit integers:

    word(s, j) = mix(s + (j + 1) γ),    γ = 0x9E3779B97F4A7C15

A stream's words seed streams in their turn: those of (seed, purpose) the images by their index, an image's its steps,
a step's are its draws, two from each word. Of n (image, step) pairs of L words each some two overlap somewhere with a
chance of about n² L / 2⁶⁴: 10⁷ of CIFAR-10's size 1 %, and then two images share some noise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from helpers import exact_products

__all__ = ["GAMMA", "LARGEST", "draws", "tables", "words"]

LARGEST = 6.204  # of any |z|
_CELLS = 1 << 16
_SHARE = 0.72  # of the first table; equal shares would leave 2⁻¹⁶ of all draws at 0
_AT_ONCE = {"cpu": 1 << 15}  # words: on a CPU they stay in cache with all that is made of them
_AT_ONCE_ELSEWHERE = 1 << 22


def _signed(word: int) -> int:
    """A 64-bit word as int64 holds it."""
    return word - (word >> 63 << 64)


GAMMA = _signed(0x9E3779B97F4A7C15)  # 2⁶⁴ divided by the golden ratio
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def draws(shape: Sequence[int], *, seed: int, purpose: str, index: Tensor, step: int) -> Tensor:
    """Normal draws (B, *`shape`) float32, multiples of 2⁻¹⁸, of images `index` (B,) int64 at a step; see the module.

    The first draws of an image do not depend on how many are asked for. Arguments are those of a checked `noise.Key`.
    """
    per_image, device = math.prod(shape), index.device
    n_words = -(-per_image // 2)
    streams = _word(_word(_root(seed, purpose) + GAMMA * (index + 1)) + _signed((GAMMA * (step + 1)) & (1 << 64) - 1))
    counter = torch.arange(1, n_words + 1, device=device).mul_(GAMMA)
    out = torch.empty(len(index), 2 * n_words, device=device)
    limit = _AT_ONCE.get(device.type, _AT_ONCE_ELSEWHERE)
    width = min(n_words, limit)
    height = max(1, limit // width)
    for top in range(0, len(index), height):
        for left in range(0, n_words, width):
            found = _word(streams[top : top + height, None] + counter[left : left + width])
            _normal(found, out[top : top + height, 2 * left : 2 * (left + width)])
    return out[:, :per_image].reshape(len(index), *shape)


def words(seed: Tensor, n: int) -> Tensor:
    """The first n words (B, n) of SplitMix64 from seeds (B,), 64-bit words as int64 holds them.

    >>> [int(word) % 2**64 for word in words(torch.tensor([1234567]), 2)[0]]
    [6457827717110365317, 3203168211198807973]
    """
    return _word(seed[:, None] + torch.arange(1, n + 1, device=seed.device).mul_(GAMMA))


@lru_cache(maxsize=8)
def tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """A and B, (65,536,) float32 each, ascending."""
    edges = torch.special.ndtri(torch.arange(_CELLS + 1, dtype=torch.float64) / _CELLS)
    # The mean of N(0, 1) between two edges is the density's fall from one to the other, divided by the chance.
    cells = -(torch.exp(-edges.square() / 2).diff()) * (_CELLS / math.sqrt(math.tau))
    cells = cells / cells.square().mean().sqrt()
    both = (exact_products.on_grid(cells * share, bits=exact_products.NOISE_BITS) for share in _shares())
    first, second = (one.float().to(device) for one in both)
    return first, second


def _shares() -> tuple[float, float]:
    return _SHARE, math.sqrt(1 - _SHARE**2)


@lru_cache(maxsize=256)
def _root(seed: int, purpose: str) -> int:
    """Seed of the streams of (seed, purpose)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "little", signed=True)


def _word(z: Tensor) -> Tensor:
    """SplitMix64's mix of z, in place; int64 shifts drag the sign along, which a mask takes off."""
    shifted = z >> 30
    z.bitwise_xor_(shifted.bitwise_and_((1 << 34) - 1)).mul_(_FIRST)
    torch.bitwise_right_shift(z, 27, out=shifted)
    z.bitwise_xor_(shifted.bitwise_and_((1 << 37) - 1)).mul_(_SECOND)
    torch.bitwise_right_shift(z, 31, out=shifted)
    return z.bitwise_xor_(shifted.bitwise_and_((1 << 33) - 1))


def _normal(word: Tensor, out: Tensor) -> None:
    """Two draws from each word (h, w) into `out` (h, 2w), from its low half and then its high half."""
    half = word.view(torch.int32)
    first, second = tables(word.device)
    low, high = half & (_CELLS - 1), half.bitwise_right_shift_(16).bitwise_and_(_CELLS - 1)
    u, v = first.index_select(0, low.flatten()), second.index_select(0, high.flatten())
    torch.add(u.view(half.shape), v.view(half.shape), out=out)
