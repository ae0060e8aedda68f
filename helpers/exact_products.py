"""Matrix products that are the same bits for any batch, device and library: factors on a grid, sums in float64.

A product of matrices is rounded in an order that the library chooses by the matrices' size, so an image drawn in a
batch of 7 differs in its last bits from the same image drawn alone. Where every factor is a whole multiple of a power
of two and every partial sum stays below 2⁵³ of the products' units, float64 rounds nothing and no order matters:

    pixels                          whole numbers 0 … 255
    PCA's directions std_i U_i      multiples of 2⁻²⁴      (those of a pixel have Σ_i W_ij² = its variance ≤ ¼ n/(n−1))
    normal draws                    multiples of 2⁻¹⁸      (|z| ≤ 6.77, see `noise`)

With 5,000 images of a class the sums of pixels reach 2⁴¹, those of 3,072 directions 2⁵⁰ units. What the grids take
away is 2⁻¹⁹ of a standard deviation of a draw. Draws times pixels are multiplied in bytes where that is faster
(`byte_products`): with nothing rounded, it is the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helpers import byte_products

NOISE_BITS = byte_products.BITS
DIRECTION_BITS = 24
_ROWS = 1024  # of the right factor that are float64 at a time


def on_grid(values: Tensor, *, bits: int) -> Tensor:
    """The nearest multiples of 2^−`bits`, float64.

    >>> on_grid(torch.tensor([0.3]), bits=2)
    tensor([0.2500], dtype=torch.float64)
    """
    return values.double().mul(2.0**bits).round_().mul_(2.0**-bits)


def product(left: Tensor, right: Tensor) -> Tensor:
    """`left` (…, B, n), float64 on a grid, times `right` (…, n, d), of any type, on a grid: (…, B, d) float64, exact.

    >>> product(torch.tensor([[0.5, 0.25]], dtype=torch.float64), torch.tensor([[2], [255]], dtype=torch.uint8))
    tensor([[64.7500]], dtype=torch.float64)
    """
    if byte_products.fits(left, right):
        return byte_products.product(left, right)
    total = left.new_zeros(*left.shape[:-1], right.shape[-1])
    for first in range(0, right.shape[-2], _ROWS):
        total += left[..., first : first + _ROWS] @ right[..., first : first + _ROWS, :].double()
    return total


def mean_of(pixels: Tensor) -> Tensor:
    """Mean (…, d) float64 in [0, 1] of `pixels` (…, n, d) from 0 to 255: a sum of whole numbers, so exact, divided."""
    return pixels.sum(-2, dtype=torch.float64) / (255 * pixels.shape[-2])


def combination(weights: Tensor, pixels: Tensor, *, mean: Tensor) -> Tensor:
    """Xᵀz (…, B, d) in [0, 1] for each row z of `weights` (…, B, n): X are `pixels` (…, n, d) less their `mean` (…, d).

    Pixels go from 0 to 255, the mean is theirs in [0, 1]. With P the pixels themselves Xᵀz = Pᵀz / 255 − μ Σz, and
    both sums are exact.

    >>> z, pixels = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).double(), torch.tensor([[255], [0]], dtype=torch.uint8)
    >>> combination(z, pixels, mean=mean_of(pixels))
    tensor([[0.0000],
            [0.5000]], dtype=torch.float64)
    """
    return product(weights, pixels) / 255 - weights.sum(-1, keepdim=True) * mean[..., None, :]
