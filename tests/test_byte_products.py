"""Products in bytes: the bits of whole numbers and of float64, at all ends, and what is left to float64."""

import pytest
import torch

from helpers import byte_products, exact_products, noise

needs_bytes = pytest.mark.skipif(not byte_products.available(), reason="no fast products of bytes on this processor")
UNIT = 2**byte_products.BITS


def pixels(n, d):
    return noise.integers(256, seed=1, purpose="test", index=torch.arange(n), shape=(d,)).to(torch.uint8)


def draws(n_rows, n):
    return noise.Key(0, "test", torch.arange(n_rows)).tabled().normal((n,), dtype=torch.float64)


def in_whole_numbers(left, right):
    return (left * UNIT).long() @ right.long()


@needs_bytes
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 5), (3, 1025, 48), (130, 2000, 96)])
def test_products_are_those_of_whole_numbers(shape):
    left, right = draws(shape[0], shape[1]), pixels(*shape[1:])
    assert byte_products.fits(left, right)
    found = byte_products.product(left, right)
    assert found.dtype == torch.float64
    assert torch.equal((found * UNIT).long(), in_whole_numbers(left, right))
    assert torch.equal(found, left @ right.double())


@needs_bytes
@pytest.mark.parametrize("pixel", [0, 1, 127, 128, 255])
@pytest.mark.parametrize(
    "draw", [7.9, -7.9, 6.77, 64 / UNIT, 63 / UNIT, -64 / UNIT, -65 / UNIT, 8191 / UNIT, 8192 / UNIT]
)
def test_the_ends_of_all_pieces_are_exact(draw, pixel):
    left = exact_products.on_grid(torch.full((4, 5000), draw), bits=byte_products.BITS)
    right = torch.full((5000, 48), pixel, dtype=torch.uint8)
    assert torch.equal((byte_products.product(left, right) * UNIT).long(), in_whole_numbers(left, right))


@needs_bytes
def test_rows_do_not_depend_on_their_batch_and_inputs_are_left_alone():
    left, right = draws(20, 700), pixels(700, 96)
    before = left.clone(), right.clone()
    whole = byte_products.product(left, right)
    for rows in (slice(3, 4), slice(5, 18)):
        assert torch.equal(byte_products.product(left[rows], right), whole[rows])
    assert torch.equal(left, before[0])
    assert torch.equal(right, before[1])


def test_exact_products_are_the_same_bits_without_bytes(monkeypatch):
    left, right = draws(7, 2100), pixels(2100, 48)
    found = exact_products.product(left, right)
    monkeypatch.setattr(byte_products, "available", lambda: False)
    assert torch.equal(exact_products.product(left, right), found)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (draws(2, 3).add(8), pixels(3, 4)),
        (draws(2, 3).add(2**-20), pixels(3, 4)),
        (draws(2, 3), pixels(3, 4).double()),
        (draws(2, 3)[:, None], pixels(3, 4).expand(2, 3, 4)),
        (draws(0, 3), pixels(3, 4)),
    ],
    ids=["large", "off the grid", "no pixels", "many products", "empty"],
)
def test_what_bytes_cannot_hold_is_left_to_float64(left, right):
    assert not byte_products.fits(left, right)
    assert torch.equal(exact_products.product(left, right), left @ right.double())
