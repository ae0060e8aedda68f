"""Noise: Random123's known answers, keys that matter and batches that do not, and the statistics of the draws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import noise

ONES = 0xFFFFFFFF
# Random123, examples/kat_vectors: philox4x32, 10 rounds; the last is the digits of π.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
N = 200_000
DRAWS = {
    "uniform": lambda shape, **key: noise.uniform(shape, **key),
    "normal": lambda shape, **key: noise.normal(shape, **key),
    "integers": lambda shape, **key: noise.integers(1000, shape=shape, **key),
}


def base(**changes):
    return {"seed": 0, "purpose": "test", "index": torch.arange(4), "step": 0} | changes


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter, key, words):
    got = noise.philox(tuple(torch.tensor([c]) for c in counter), key)
    assert tuple(int(w) for w in got) == words


@given(st.tuples(*[st.integers(0, ONES)] * 6))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_philox_equals_its_definition_in_whole_numbers(words):
    c, (k0, k1) = list(words[:4]), words[4:]
    got = noise.philox(tuple(torch.tensor([w]) for w in c), (k0, k1))
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & ONES, (p0 >> 32) ^ c[3] ^ k1, p0 & ONES]
        k0, k1 = (k0 + 0x9E3779B9) & ONES, (k1 + 0xBB67AE85) & ONES
    assert [int(w) for w in got] == c


def test_counter_and_key_words_stand_where_the_docstring_says():
    index = torch.tensor([5 + (7 << 32)])
    got = noise.Key(3, "test", index, step=11).integers(2**31, (8,))
    for block in (0, 1):
        counter = tuple(torch.tensor([w]) for w in (block, 5, 7, 11))
        words = noise.philox(counter, (3, noise._digest("test")))
        assert [int(w) >> 1 for w in words] == got[0, 4 * block : 4 * block + 4].tolist()


def test_golden_draws():
    """Any change of these numbers changes every record: give it a new major version."""
    key = {"seed": 0, "purpose": "attack", "index": torch.tensor([0, 7])}
    assert noise.integers(10**6, **key, shape=(2,)).tolist() == [[625920, 565494], [405476, 460867]]
    normal = noise.normal((2,), **key, dtype=torch.float64)
    assert [v.hex() for v in normal.flatten().tolist()] == [
        "-0x1.c63ff62353a55p-1",
        "-0x1.8c7f5c3d10e70p-2",
        "-0x1.4da0c96b10b68p+0",
        "0x1.4ee7bdc35ddb0p-2",
    ]


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@given(order=st.permutations(range(9)), cut=st.integers(1, 8))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_batch_and_order_change_no_draw(draw, order, cut):
    index = torch.tensor([0, 1, 2, 3, 100, 101, 2**31, 2**32, 2**40])
    whole = draw((3, 5, 2), **base(index=index))
    parts = torch.cat([draw((3, 5, 2), **base(index=index[order][rows])) for rows in (slice(cut), slice(cut, None))])
    assert torch.equal(parts, whole[order])


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_chunks_change_no_draw(draw, monkeypatch):
    whole = draw((5, 7), **base())
    for limit in (1, 3, 9, 20):
        monkeypatch.setitem(noise._CHUNK, "cpu", limit)
        assert torch.equal(draw((5, 7), **base()), whole)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"purpose": "test2"},
        {"step": 1},
        {"index": torch.arange(4) + 4},
        {"index": torch.arange(4) + 2**32},
    ],
    ids=["seed", "purpose", "step", "index", "high index"],
)
def test_every_part_of_the_key_matters(draw, change):
    same = draw((50,), **base()) == draw((50,), **base(**change))
    # 200 independent draws of at least 1000 values: more than 5 equal ones has a chance below 1e-4
    assert int(same.sum()) <= 5


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_shape_only_folds_the_draws(draw):
    flat = draw((24,), **base())
    assert torch.equal(draw((2, 3, 4), **base()).flatten(1), flat)
    assert torch.equal(draw((7,), **base()), flat[:, :7])


def test_uniform_moments():
    u = noise.uniform((N // 4,), **base(), dtype=torch.float64).flatten()
    assert u.min() >= 0
    assert u.max() < 1
    assert u.mean().item() == pytest.approx(1 / 2, abs=4 * math.sqrt(1 / 12 / N))
    # the variance of (u − ½)² is 1/80 − 1/144
    assert (u - 0.5).square().mean().item() == pytest.approx(1 / 12, abs=4 * math.sqrt((1 / 80 - 1 / 144) / N))


def test_uniform_is_below_one_in_float32_and_equal_in_float64():
    single, double = (noise.uniform((N // 4,), **base(), dtype=t) for t in (torch.float32, torch.float64))
    assert torch.equal(single.double(), double)


def test_uniform_of_the_largest_word_is_below_one(monkeypatch):
    monkeypatch.setattr(noise, "philox", lambda counter, key: (torch.full_like(counter[0] + counter[1], ONES),) * 4)
    assert (noise.uniform((5,), **base()) == 1 - 2.0**-24).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_moments(dtype):
    z = noise.normal((N // 4,), **base(), dtype=dtype).flatten().double()
    assert z.mean().item() == pytest.approx(0, abs=4 / math.sqrt(N))
    assert z.square().mean().item() == pytest.approx(1, abs=4 * math.sqrt(2 / N))
    assert z.pow(3).mean().item() == pytest.approx(0, abs=4 * math.sqrt(15 / N))
    assert z.pow(4).mean().item() == pytest.approx(3, abs=4 * math.sqrt(96 / N))
    within = (z.abs() < 1.959963985).double().mean().item()
    assert within == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / N))


def test_box_muller_is_accurate_in_every_octant():
    v = torch.arange(0, 2**32, 2**32 // 4096 - 1, dtype=torch.int64)
    u = (v * 7919 + 1) & ONES
    c, s = noise._box_muller(u, v)
    radius = (-2 * ((u.double() + 0.5) / 2**32).log()).sqrt()
    angle = v.double() * (math.tau / 2**32)
    # radius < 6.8: the series and libm each err by a few 1e-16 of it, and by 4e-16 in the angle
    assert (c - radius * angle.cos()).abs().max() < 2e-14
    assert (s - radius * angle.sin()).abs().max() < 2e-14


@pytest.mark.parametrize("word", [0, 1, 2**31, ONES])
def test_normal_is_finite_at_the_ends_of_the_words(word):
    c, s = noise._box_muller(torch.tensor([word]), torch.tensor([0, 2**29, 2**30, 2**31, ONES]))
    assert torch.isfinite(c).all()
    assert torch.isfinite(s).all()
    assert c.square().add(s.square()).max() < 6.77**2


@pytest.mark.parametrize(
    "change",
    [{"purpose": "other"}, {"step": 1}, {"seed": 1}, {"index": torch.arange(4, 8)}],
    ids=["purposes", "steps", "seeds", "indices"],
)
def test_streams_are_uncorrelated(change):
    a, b = (noise.normal((N // 4,), **base(**c)).flatten().double() for c in ({}, change))
    assert (a * b).mean().item() == pytest.approx(0, abs=4 / math.sqrt(N))
    assert (a.square() * b.square()).mean().item() == pytest.approx(1, abs=4 * math.sqrt(8 / N))


@pytest.mark.parametrize("lag", [1, 2, 3, 4])
def test_draws_within_an_image_are_uncorrelated(lag):
    z = noise.normal((N // 4,), **base()).double()
    product = z[:, lag:] * z[:, :-lag]
    assert product.mean().item() == pytest.approx(0, abs=4 / math.sqrt(product.numel()))


@pytest.mark.parametrize("high", [1, 2, 7, 10])
def test_integers_are_even(high):
    draws = noise.integers(high, **base(index=torch.arange(20_000)))
    assert draws.shape == (20_000,)
    counts = torch.bincount(draws, minlength=high)
    assert len(counts) == high
    four_sigma = 4 * math.sqrt(20_000 * (1 / high) * (1 - 1 / high))
    assert (counts - 20_000 / high).abs().max() <= four_sigma


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    for draw in DRAWS.values():
        draw((3,), **base())
    assert torch.equal(torch.get_rng_state(), before)


def test_empty_batch_and_scalar_shape():
    assert noise.normal((2, 3), **base(index=torch.empty(0, dtype=torch.int64))).shape == (0, 2, 3)
    assert noise.uniform((), **base()).shape == (4,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed to be a whole number >= 0"),
        ({"seed": 2**32}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"step": -1}, "step"),
        ({"purpose": ""}, "purpose to be a non-empty string"),
        ({"index": torch.tensor([-1])}, "index to be at least 0"),
        ({"index": torch.tensor([0.0])}, "index to be int64"),
    ],
)
def test_bad_keys_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        noise.uniform((2,), **base(**change))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"dtype to be torch.float32 or torch.float64, got torch.float16"):
        noise.normal((2,), **base(), dtype=torch.float16)
    with pytest.raises(ValueError, match=r"high to be a whole number >= 1 and <= 2147483648, got 0"):
        noise.integers(0, **base())
    with pytest.raises(ValueError, match=r"shape to be a whole number >= 1, got 0"):
        noise.uniform((2, 0), **base())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_cuda_draws_the_same_numbers(draw):
    index = torch.tensor([0, 1, 2**33, 9999])
    here = draw((3, 64, 65), **base(index=index))
    there = draw((3, 64, 65), **base(index=index), device="cuda")
    assert there.device.type == "cuda"
    assert torch.equal(there.cpu(), here)
