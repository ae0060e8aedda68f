"""Draws times pixels in whole numbers of 8 bits, where the processor has instructions for them: exact and faster.

    k = 2¹⁸ z = k₀ + 2⁷ k₁ + 2¹⁴ k₂,    P = Q + 128        zᵀP = 2⁻¹⁸ Σᵢ 2⁷ⁱ kᵢᵀQ + 2⁻¹¹ Σz

with kᵢ and Q from −128 to 127. Sums of such products are kept in 32 bits, which 131,000 of them cannot fill, so the
result has the bits of `exact_products.product` in float64.

Processors with AVX-512 alone add pairs of products in 16 bits and saturate; `available` tries the largest ones.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["BITS", "available", "fits", "product"]

BITS = 18  # of the draws' grid
_PIECE = 7  # bits of k₀ and of k₁
_LARGEST = 127 * 2.0 ** (2 * _PIECE - BITS)
_ROWS = 128  # at a time: they stay in cache with their pieces
_LONGEST = (2**31 - 1) // 128**2


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether this processor multiplies bytes fast, and the largest ones without an error."""
    fast = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if not fast or not hasattr(torch, "_int_mm"):
        return False
    ends = torch.tensor([-128, 127], dtype=torch.int8)
    left, right = ends.repeat_interleave(32)[:, None].repeat(1, 512), ends.repeat_interleave(32).repeat(512, 1)
    return torch.equal(torch._int_mm(left, right).long(), left.long() @ right.long())


def fits(left: Tensor, right: Tensor) -> bool:
    """Whether `product` takes these: on a CPU, `left` (B, n) draws on the grid and below 7.9, `right` (n, d) pixels."""
    if left.device.type != "cpu" or left.ndim != 2 or right.dtype != torch.uint8 or len(right) > _LONGEST:
        return False
    if not left.numel() or not right.numel() or not available():
        return False
    return all(_in_range_on_grid(rows) for rows in left.split(_ROWS))


def _in_range_on_grid(rows: Tensor) -> bool:
    low, high = (end.item() for end in rows.aminmax())
    if not -_LARGEST < low <= high < _LARGEST:  # a NaN is not
        return False
    return torch.equal((rows * 2.0**BITS).to(torch.int32).double() * 2.0**-BITS, rows)


def product(left: Tensor, right: Tensor) -> Tensor:
    """zᵀP (B, d) float64 of draws `left` (B, n) float64 and pixels `right` (n, d) uint8; see the module and `fits`.

    >>> product(torch.tensor([[0.5, 0.25]], dtype=torch.float64), torch.tensor([[2], [255]], dtype=torch.uint8))
    tensor([[64.7500]], dtype=torch.float64)
    """
    bytes_of_right = right.bitwise_xor(128).view(torch.int8)
    out = left.new_empty(len(left), right.shape[1])
    for found, rows in zip(out.split(_ROWS), left.split(_ROWS), strict=True):
        found.copy_(_product(rows, bytes_of_right))
    return out


def _product(left: Tensor, right: Tensor) -> Tensor:
    """zᵀP of some rows; `right` holds Q (n, d) int8."""
    k = (left * 2.0**BITS).to(torch.int32)
    pieces = []
    for _ in range(2):
        low = ((k + 64) & 127) - 64
        pieces.append(low.to(torch.int8))
        k = (k - low) >> _PIECE
    pieces.append(k.to(torch.int8))
    found = torch._int_mm(torch.cat(pieces), right)
    low, middle, high = found.view(3, len(left), -1).unbind()
    total = high.double().mul_(2.0**_PIECE).add_(middle).mul_(2.0**_PIECE).add_(low)
    return total.mul_(2.0**-BITS).add_(left.sum(1, keepdim=True), alpha=128)
