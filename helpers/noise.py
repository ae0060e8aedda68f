"""Noise keyed by (seed, purpose, image index, step): the same draws on any device and for any batch.

A counter-based generator (Philox 4x32-10; Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", SC 2011) maps a 128-bit counter under a 64-bit key to four 32-bit words:

    counter = (block, index low, index high, step)      key = (seed, digest of the purpose)

and draw j of an image is word j mod 4 of block j div 4. So an image meets the same noise
whatever batch it stands in, and a new purpose shifts nobody else's draws.

Philox runs on integer tensor operations. Normal draws use Box and Muller's transform with
logarithm, sine and cosine written in +, ×, ÷ and √ of float64, which IEEE 754 rounds in one
way only; the libraries' own differ in the last bit between CPU, CUDA and vector lengths.
Every draw is therefore equal bit for bit on every device and under every split of a batch.

`Key.tabled` is the same key with normal draws of another make, equal in that too, at a seventh of the cost
(`tabled_normal`): chains and their starts take them. Trained networks hang on the draws of Box and Muller.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from helpers import checks, tabled_normal

_MASK = 0xFFFFFFFF
# Multipliers of Philox 4x32, less 2³²: |a · m| then stays below 2⁶³ for every 32-bit a, and
# the high word of the full product is that of a · m plus a.
_M0, _M1 = 0xD2511F53 - 2**32, 0xCD9E8D57 - 2**32
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # golden ratio and √3 − 1: the key's increments in each round
_ROUNDS = 10
_CHUNK = {"cpu": 1 << 15, "cuda": 1 << 22}  # blocks at a time: on a CPU the words stay in cache
# ln m = 2 artanh s and the circle as their series; the first term left out is below 1e-16.
_ARTANH = tuple(1 / (2 * k + 1) for k in range(10))
_SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(8))
_COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(9))

NORMALS = ("box_muller", "table")
Normals = Literal["box_muller", "table"]
Words = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Key:
    """Whose noise it is: `seed` < 2³², a `purpose` in words, and `index` (B,), the images' places in their data set.

    `step` < 2³² tells apart the draws of one image for one purpose: a restart, an epoch, a step of a chain. `normals`
    says how `normal` makes its draws, see the module: "box_muller" or, much faster, "table".

    >>> key = Key(seed=0, purpose="doc", index=torch.tensor([3, 5]))
    >>> key.uniform((2,)).shape
    torch.Size([2, 2])
    >>> bool((key.uniform((2,))[1] == key.rows([1]).uniform((2,))).all())
    True
    >>> bool((key.uniform((2,)) == key.at(1).uniform((2,))).any())
    False
    """

    seed: int
    purpose: str
    index: Tensor
    step: int = 0
    normals: Normals = "box_muller"

    def __post_init__(self) -> None:
        checks.count(self.seed, "seed", maximum=_MASK)
        checks.count(self.step, "step", maximum=_MASK)
        checks.index(self.index)
        if not isinstance(self.purpose, str) or not self.purpose:
            raise ValueError(f"expected purpose to be a non-empty string, got {self.purpose!r}")
        checks.choice(self.normals, NORMALS, "normals")

    def at(self, step: int) -> Key:
        """The same images and purpose at another step."""
        return replace(self, step=step)

    def rows(self, rows: Tensor | Sequence[int] | slice) -> Key:
        """The key of some of the images."""
        return replace(self, index=self.index[rows])

    def tabled(self) -> Key:
        """The same key with normal draws from tables (`tabled_normal`): other bits, a seventh of the time."""
        return replace(self, normals="table")

    def uniform(self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform draws (B, *shape) in [0, 1); see `uniform`."""
        _float(dtype)
        return _draw(self, shape, dtype, lambda w: tuple((v >> 8).to(dtype).mul_(2.0**-24) for v in w))

    def normal(self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normal draws (B, *shape), of the make that `normals` says; see `normal` and `tabled_normal`."""
        _float(dtype)
        if self.normals == "table":
            size = [checks.count(n, "shape", minimum=1) for n in shape]
            found = tabled_normal.draws(size, seed=self.seed, purpose=self.purpose, index=self.index, step=self.step)
            return found.to(dtype)
        return _draw(self, shape, dtype, lambda w: (*_box_muller(w[0], w[1]), *_box_muller(w[2], w[3])))

    def integers(self, high: int, shape: Sequence[int] = ()) -> Tensor:
        """Whole draws (B, *shape) in [0, high); see `integers`."""
        checks.count(high, "high", minimum=1, maximum=2**31)
        return _draw(self, shape, torch.int64, lambda w: tuple((v * high) >> 32 for v in w))


def uniform(
    shape: Sequence[int],
    *,
    seed: int,
    purpose: str,
    index: Tensor,
    step: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniform draws in [0, 1), shape (B, *shape): multiples of 2⁻²⁴, the same numbers in float32 and float64.

    `index` (B,) int64 names the images; `device` defaults to its device.

    >>> a = uniform((3,), seed=0, purpose="doc", index=torch.tensor([0, 1]))
    >>> b = uniform((3,), seed=0, purpose="doc", index=torch.tensor([1]))
    >>> bool((a[1] == b[0]).all())
    True
    """
    return Key(seed, purpose, _moved(index, device), step).uniform(shape, dtype=dtype)


def normal(
    shape: Sequence[int],
    *,
    seed: int,
    purpose: str,
    index: Tensor,
    step: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal draws, shape (B, *shape), by Box and Muller in float64, rounded to `dtype`; |z| ≤ 6.77.

    z = √(−2 ln u) (cos 2πv, sin 2πv),   u = (w + ½) / 2³²,   v = w' / 2³²
    """
    return Key(seed, purpose, _moved(index, device), step).normal(shape, dtype=dtype)


def integers(
    high: int,
    *,
    seed: int,
    purpose: str,
    index: Tensor,
    step: int = 0,
    shape: Sequence[int] = (),
    device: torch.device | str | None = None,
) -> Tensor:
    """Whole draws in [0, high), int64 of shape (B, *shape); each value's chance is 1/high within 2⁻³²; high ≤ 2³¹."""
    return Key(seed, purpose, _moved(index, device), step).integers(high, shape)


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox 4x32-10: four counter words and two key words to four random words.

    Words are int64 tensors that hold unsigned 32-bit values and broadcast against each other.

    >>> [f"{int(w):08x}" for w in philox((torch.tensor(0),) * 4, (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c2 = (p1 >> 32) + c2 ^ (c1 ^ k0), (p0 >> 32) + c0 ^ (c3 ^ k1)
        c1, c3 = p1.bitwise_and_(_MASK), p0.bitwise_and_(_MASK)
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@lru_cache(maxsize=256)
def _digest(purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "little")


def _moved(index: Tensor, device: torch.device | str | None) -> Tensor:
    return index if device is None else checks.tensor(index, "index").to(device)


def _float(dtype: torch.dtype) -> None:
    if dtype not in checks.FLOATS:
        raise ValueError(f"expected dtype to be torch.float32 or torch.float64, got {dtype}")


def _draw(key: Key, shape: Sequence[int], dtype: torch.dtype, turn: Callable[[Words], tuple[Tensor, ...]]) -> Tensor:
    size = [checks.count(n, "shape", minimum=1) for n in shape]
    per_image = math.prod(size)
    blocks = -(-per_image // 4)
    out = torch.empty(len(key.index), blocks, 4, dtype=dtype, device=key.index.device)
    for rows, columns in _tiles(len(key.index), blocks, _CHUNK.get(key.index.device.type, 1 << 22)):
        part = out[rows, columns]
        for j, draw in enumerate(turn(_words(key, rows, columns))):
            part[..., j] = draw
    return out.flatten(1)[:, :per_image].reshape(len(key.index), *size)


def _words(key: Key, rows: slice, columns: slice) -> Words:
    index = key.index[rows, None]
    block = torch.arange(columns.start, columns.stop, device=index.device)[None]
    step = torch.full_like(block, key.step)
    return philox((block, index & _MASK, index >> 32, step), (key.seed, _digest(key.purpose)))


def _tiles(rows: int, columns: int, limit: int) -> Iterator[tuple[slice, slice]]:
    """Cut a (rows, columns) table into pieces of at most `limit` entries."""
    width = min(columns, limit)
    height = max(1, limit // width)
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            yield slice(top, min(top + height, rows)), slice(left, min(left + width, columns))


def _box_muller(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    radius = _log(u.to(torch.float64).add_(0.5).mul_(2.0**-32)).mul_(-2.0).sqrt_()
    # The angle's nearest quarter turn is cut off in integers, so the series see |t| ≤ π/4 only.
    quarter = (v + 2**29) >> 30
    t = (v - (quarter << 30)).to(torch.float64).mul_(math.tau * 2.0**-32)
    square = t * t
    sin, cos = _series(_SIN, square).mul_(t), _series(_COS, square)
    odd = (quarter & 1).bool()
    c, s = torch.where(odd, sin, cos), torch.where(odd, cos, sin)
    c = torch.where(((quarter + 1) & 2).bool(), -c, c)
    s = torch.where((quarter & 2).bool(), -s, s)
    return c.mul_(radius), s.mul_(radius)


def _log(u: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(u)
    # Mantissas lie in [½, 1); those below √½ are doubled so that |s| ≤ 0.172.
    small = mantissa < math.sqrt(0.5)
    mantissa = torch.where(small, mantissa * 2, mantissa)
    exponent = exponent.to(torch.float64) - small.to(torch.float64)
    s = (mantissa - 1) / (mantissa + 1)
    return _series(_ARTANH, s * s).mul_(s).mul_(2.0).add_(exponent.mul_(math.log(2)))


def _series(coefficients: Sequence[float], x: Tensor) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total.mul_(x).add_(c)
    return total
