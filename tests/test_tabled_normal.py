"""Normal draws from tables: SplitMix64's known answers, the law counted out exactly, and keys that matter."""

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtr

from helpers import exact_products, noise, tabled_normal

# Of the generator seeded with 1234567; published with several implementations (Rosetta Code, "Pseudo-random
# numbers/Splitmix64").
KNOWN_ANSWERS = [
    6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
]  # fmt: skip
WORD = 2**64
UNIT = 2**exact_products.NOISE_BITS
N = 200_000
VARIANCE, KURTOSIS, LARGEST, OFF = 1 + 1.2e-8, 3 - 8.4e-5, 6.2038, 9e-7  # as the module says them


def key(**changes):
    return noise.Key(**({"seed": 0, "purpose": "test", "index": torch.arange(4), "step": 0} | changes)).tabled()


def steps_of(table):
    """A table in whole units of its grid."""
    found = (table.double() * UNIT).numpy()
    assert (found == np.rint(found)).all()
    return found.astype(np.int64)


@pytest.fixture(scope="module")
def law():
    """Every sum of a value of A and one of B, and how many of the 2³² pairs have it."""
    first, second = (steps_of(one) for one in tabled_normal.tables(torch.device("cpu")))
    lowest = first.min() + second.min()
    size = next_fast_len(int(first.max() + second.max() - lowest) + 1)
    spectra = [rfft(np.bincount(one - one.min(), minlength=size).astype(float)) for one in (first, second)]
    count = np.rint(irfft(spectra[0] * spectra[1], size))
    assert count.sum() == 2**32
    return (np.arange(size) + lowest) / UNIT, count / 2**32


def splitmix(seed, j):
    """Word j of the stream of a seed, in Python's whole numbers."""
    z = (seed + (j + 1) * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB % WORD
    return z ^ z >> 31


# Words and tables


def test_splitmix_gives_the_known_answers():
    assert [int(word) % WORD for word in tabled_normal.words(torch.tensor([1234567]), 5)[0]] == KNOWN_ANSWERS


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 2**63, WORD - 1, 0x9E3779B97F4A7C15])
def test_splitmix_equals_its_definition_in_whole_numbers(seed):
    stored = torch.tensor([seed - (seed >> 63 << 64)])
    assert [int(word) % WORD for word in tabled_normal.words(stored, 9)[0]] == [splitmix(seed, j) for j in range(9)]


def test_the_tables_are_these():
    found = b"".join(steps_of(one).astype("<i4").tobytes() for one in tabled_normal.tables(torch.device("cpu")))
    assert hashlib.sha256(found).hexdigest() == "07302bacad61fe31165a4864b2144820be646599045df0b145d134c79f0d46a0"


def test_draws_are_sums_of_two_entries_by_the_words_of_the_streams():
    first, second = tabled_normal.tables(torch.device("cpu"))
    seed, purpose, image, step = 3, "chains", 2**40 + 5, 2**31
    root = int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "little")
    stream = splitmix(splitmix(root, image), step)
    halves = [splitmix(stream, j // 2) >> (32 * (j % 2)) & 0xFFFFFFFF for j in range(7)]
    expected = [first[half & 0xFFFF] + second[half >> 16] for half in halves]
    found = key(seed=seed, purpose=purpose, index=torch.tensor([image]), step=step).normal((7,))
    assert found[0].tolist() == [one.item() for one in expected]


# The law


def test_the_law_is_normal_as_nearly_as_the_module_says(law):
    z, chance = law
    seen = chance > 0
    assert np.abs(z[seen]).max() == pytest.approx(LARGEST, abs=5e-5)
    assert np.abs(z[seen]).max() < tabled_normal.LARGEST < 6.77  # what the grids of exact_products allow
    assert (chance * z).sum() == pytest.approx(0, abs=1e-12)
    assert (chance * z**2).sum() == pytest.approx(VARIANCE, abs=1e-9)
    assert (chance * z**4).sum() / (chance * z**2).sum() ** 2 == pytest.approx(KURTOSIS, abs=1e-6)
    below = chance.cumsum()
    off = max(np.abs(below - ndtr(z)).max(), np.abs(below - chance - ndtr(z)).max())  # from either side of each step
    assert 0.9 * OFF < off < OFF


@pytest.mark.parametrize(("limit", "too_few"), [(4, 0.005), (5, 0.10)])
def test_the_tails_are_as_thin_as_the_module_says(law, limit, too_few):
    z, chance = law
    assert chance[z >= limit].sum() / ndtr(-limit) == pytest.approx(1 - too_few, rel=0.002)
    assert chance[z <= -limit].sum() == pytest.approx(chance[z >= limit].sum(), rel=1e-12)


def test_moments_of_draws():
    z = key().normal((N // 4,)).flatten().double()
    assert z.mean().item() == pytest.approx(0, abs=4 / math.sqrt(N))
    assert z.square().mean().item() == pytest.approx(1, abs=4 * math.sqrt(2 / N))
    assert z.pow(3).mean().item() == pytest.approx(0, abs=4 * math.sqrt(15 / N))
    assert z.pow(4).mean().item() == pytest.approx(3, abs=4 * math.sqrt(96 / N))


def test_draws_are_spread_as_the_normal_law():
    place = (torch.special.ndtr(key().normal((N // 4,)).flatten().double()) * 100).long().clamp(0, 99)
    count = place.bincount(minlength=100).double()
    chi2 = ((count - N / 100) ** 2 / (N / 100)).sum().item()
    assert abs(chi2 - 99) < 4 * math.sqrt(2 * 99)


def test_draws_lie_on_the_grid_of_exact_products():
    z = key().normal((1000,), dtype=torch.float64)
    assert torch.equal(exact_products.on_grid(z, bits=exact_products.NOISE_BITS), z)
    assert torch.equal(z.float(), key().normal((1000,)))


# Keys and batches


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"purpose": "other"},
        {"step": 1},
        {"index": torch.arange(4) + 4},
        {"index": torch.arange(4) + 2**32},
    ],
    ids=["seed", "purpose", "step", "index", "high index"],
)
def test_streams_are_uncorrelated(change):
    a, b = (key(**c).normal((N // 4,)).flatten().double() for c in ({}, change))
    assert (a * b).mean().item() == pytest.approx(0, abs=4 / math.sqrt(N))
    assert (a.square() * b.square()).mean().item() == pytest.approx(1, abs=4 * math.sqrt(8 / N))


@pytest.mark.parametrize("lag", [1, 2, 3, 4])
def test_neighbours_are_uncorrelated(lag):
    z = key().normal((N // 4,)).double()
    along, across = z[:, lag:] * z[:, :-lag], z.roll(lag, 0)[:, 1:] * z[:, :-1]
    squares = (z[:, lag:].square() - 1) * (z[:, :-lag].square() - 1)
    for product, variance in ((along, 1), (across, 1), (squares, 4)):
        assert product.mean().item() == pytest.approx(0, abs=4 * math.sqrt(variance / product.numel()))


def test_one_draw_of_many_images_and_steps_is_normal_too():
    z = torch.cat([key(index=torch.arange(2000), step=k).normal((1,)) for k in range(100)], dim=1).double()
    assert z.square().mean().item() == pytest.approx(1, abs=4 * math.sqrt(2 / N))
    for product in (z[1:] * z[:-1], z[:, 1:] * z[:, :-1]):
        assert product.mean().item() == pytest.approx(0, abs=4 / math.sqrt(product.numel()))


def test_an_image_meets_the_same_draws_in_any_batch_and_shape():
    whole = key(index=torch.arange(40)).normal((3, 5, 7))
    rows = torch.tensor([31, 2, 17])
    assert torch.equal(key(index=rows).normal((3, 5, 7)), whole[rows])
    assert torch.equal(key(index=torch.arange(40)).rows(rows).normal((105,)), whole[rows].flatten(1))
    assert torch.equal(key(index=rows).normal((8,)), whole[rows].flatten(1)[:, :8])
    assert key(index=rows[:0]).normal((2, 3)).shape == (0, 2, 3)


@pytest.mark.parametrize("limit", [1, 3, 9, 20])
def test_pieces_change_no_draw(limit, monkeypatch):
    whole = key().normal((5, 7))
    monkeypatch.setitem(tabled_normal._AT_ONCE, "cpu", limit)
    assert torch.equal(key().normal((5, 7)), whole)


def test_a_key_stays_what_it_is_through_rows_and_steps():
    plain = noise.Key(0, "test", torch.arange(4))
    assert plain.normals == "box_muller"
    assert {plain.tabled().normals, plain.tabled().at(3).normals, plain.tabled().rows([0]).normals} == {"table"}
    assert not torch.equal(plain.normal((9,)), plain.tabled().normal((9,)))
    assert torch.equal(plain.uniform((9,)), plain.tabled().uniform((9,)))


def test_the_global_generator_and_the_index_are_left_alone():
    before, index = torch.get_rng_state(), torch.arange(4)
    key(index=index).normal((3,))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(index, torch.arange(4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noise.Key(0, "test", torch.arange(4), normals="tables"), "normals"),
        (lambda: key().normal((0,)), "shape"),
        (lambda: key().normal((2,), dtype=torch.float16), "dtype"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_draws_the_same_numbers():
    index = torch.tensor([0, 1, 2**33, 9999])
    here, there = (key(index=index.to(device)).normal((3, 64, 65)) for device in ("cpu", "cuda"))
    assert torch.equal(there.cpu(), here)
