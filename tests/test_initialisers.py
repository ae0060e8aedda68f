"""What every start of generation keeps, whichever it is; that none is missing here; and the starts without PCA."""

import dataclasses
import inspect
import re

import numpy as np
import pytest
import torch

from helpers import class_pca, data, exact_products, initialisers, noise, parameters, parts, starts

OPTIONS = {
    "uniform": {},
    "class_mean": {"start_noise_std": 0.1},
    "class_gaussian": {},
    "class_pca": {"retained_variance": 0.9, "pca_spread": 0.8},
    "local_class_pca": {"n_neighbours": 12, "retained_variance": 0.9, "pca_spread": 0.8},
    "images": {"start_noise_std": 0.05},
}
Y = torch.arange(40) % 10
KEY = noise.Key(seed=5, purpose="chains", index=torch.arange(40) * 3 + 2**33)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train", validation_fraction=0.125)


@pytest.fixture(scope="module")
def fitted(digits):
    return {name: initialisers.fit(name, digits, folder=None, **options) for name, options in OPTIONS.items()}


@pytest.fixture(params=OPTIONS)
def start(request, fitted):
    return fitted[request.param]


def toy(n=40, seed=0):
    """One class of n images of 1×2×3 pixels near the middle of the range, so that nothing is clipped."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.rand(6, 6, generator=generator) - 0.5
    pixels = 128 + 25 * torch.randn(n, 6, generator=generator) @ mixing
    return data.from_tensors(pixels.round().to(torch.uint8).reshape(n, 1, 2, 3), torch.zeros(n, dtype=torch.long))


def centred(images):
    flat = images.pixels.flatten(1).double() / 255
    return flat - flat.mean(0)


def many(start, n=20_000):
    return start.draw(torch.zeros(n, dtype=torch.long), noise.Key(1, "many", torch.arange(n))).flatten(1).double()


# The family


def test_no_start_is_missing_from_the_list():
    classes = [c for m in (starts, class_pca) for _, c in inspect.getmembers(m, dataclasses.is_dataclass)]
    assert {c.name for c in classes if hasattr(c, "draw")} == set(initialisers.OPTIONS) == set(OPTIONS)
    table = re.findall(r"^\| `(\w+)` *\|[^|]*\|(.*)\|$", initialisers.__doc__, re.M)
    told = {name: tuple(filter(None, options.strip().split(", "))) for name, options in table}
    assert told == initialisers.OPTIONS


def test_names_are_those_of_yaml(fitted):
    assert [start.name for start in fitted.values()] == list(OPTIONS)


def test_images_of_the_right_shape_type_and_range(start, device):
    x = start.draw(Y.to(device), KEY)
    assert (x.shape, x.dtype, x.device.type) == ((40, 1, 16, 16), torch.float32, device)
    assert x.min() >= 0
    assert x.max() <= 1
    assert not x.requires_grad


def test_an_image_is_the_same_bits_in_any_batch_and_order(start):
    x = start.draw(Y, KEY)
    for n in (1, 7, 23):
        pieces = [start.draw(Y[rows], KEY.rows(rows)) for rows in torch.arange(40).split(n)]
        assert torch.cat(pieces).equal(x)
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert start.draw(Y[shuffled], KEY.rows(shuffled)).equal(x[shuffled])


def test_an_empty_batch_is_an_empty_batch(start):
    assert start.draw(Y[:0], KEY.rows(slice(0, 0))).shape == (0, 1, 16, 16)


def test_draws_are_those_of_seed_index_and_step_but_not_of_the_callers_purpose(start):
    x = start.draw(Y, KEY)
    assert start.draw(Y, dataclasses.replace(KEY, purpose="another")).equal(x)
    for other in (dataclasses.replace(KEY, seed=6), KEY.at(1), dataclasses.replace(KEY, index=KEY.index + 1)):
        # Every image is another one: two equal ones would need equal noise in each of 256 pixels.
        assert (start.draw(Y, other) != x).flatten(1).any(1).all()


def test_the_class_decides_but_for_starts_that_do_not_look_at_it(start):
    same = (start.draw(Y, KEY) == start.draw((Y + 1) % 10, KEY)).flatten(1).all(1)
    assert bool(same.all() if start.name in ("uniform", "images") else not same.any())


def test_neither_inputs_nor_the_global_generator_are_touched(digits, device):
    before, state = digits.checksum, torch.get_rng_state()
    y, index = Y.clone().to(device), KEY.index.clone()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    for name, options in OPTIONS.items():
        initialisers.fit(name, digits, folder=None, **options).draw(y, dataclasses.replace(KEY, index=index))
    assert digits.checksum == before
    assert y.cpu().equal(Y)
    assert index.equal(KEY.index)
    assert torch.get_rng_state().equal(state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_starts_have_a_fingerprint_that_sees_their_options(fitted, digits):
    p = parameters.Parameters("01_energy_landscape", "digits", values={})
    other = initialisers.fit("class_pca", digits, folder=None, retained_variance=0.9, pca_spread=0.7)
    marks = {parts.fingerprint(p, toy, {"start": start}) for start in [*fitted.values(), other]}
    assert len(marks) == 7


def test_wrong_classes_and_keys_are_refused(start):
    with pytest.raises(ValueError, match="int64 labels"):
        start.draw(Y.float(), KEY)
    with pytest.raises(ValueError, match="one entry for each of 39 rows, got 40"):
        start.draw(Y[1:], KEY)
    if start.name != "images":
        with pytest.raises(ValueError, match="below 10"):
            start.draw(Y + 1, KEY)


# Options


@pytest.mark.parametrize("name", OPTIONS)
def test_missing_unknown_and_impossible_options_are_named(name, digits):
    for option in OPTIONS[name]:
        fewer = {key: value for key, value in OPTIONS[name].items() if key != option}
        for left_out in (fewer, {**fewer, option: None}):
            with pytest.raises(ValueError, match=f"expected each of them, got no {option}"):
                initialisers.fit(name, digits, folder=None, **left_out)
        with pytest.raises(ValueError, match=f"expected {option} to be"):
            initialisers.fit(name, digits, folder=None, **{**fewer, option: -1})
    with pytest.raises(ValueError, match="expected no other, got 'pca_spred'"):
        initialisers.fit(name, digits, folder=None, **OPTIONS[name], pca_spred=1.0)


def test_an_unknown_start_and_a_near_option_are_told(digits):
    with pytest.raises(ValueError, match=r"expected start to be one of 'uniform', .*got 'gaussian'"):
        initialisers.fit("gaussian", digits, folder=None)
    with pytest.raises(ValueError, match="nearest: pca_spread"):
        initialisers.fit("class_pca", digits, folder=None, retained_variance=0.9, pca_spred=1.0)


def test_options_are_picked_from_a_notebooks_values():
    values = {"n_neighbours": 3, "retained_variance": 0.9, "pca_spread": 1.0, "start_noise_std": 0.1, "seed": 0}
    for name, wanted in initialisers.OPTIONS.items():
        assert tuple(initialisers.options(name, values)) == wanted


@pytest.mark.parametrize("name", ["class_mean", "class_gaussian", "class_pca", "local_class_pca"])
def test_a_class_without_images_is_named(name, digits):
    few = digits.subset(digits.labels != 3)
    with pytest.raises(ValueError, match="images of class '3', got 0"):
        initialisers.fit(name, few, folder=None, **OPTIONS[name])


# Closed forms


def test_uniform_has_the_moments_of_a_uniform_distribution(fitted):
    x = many(fitted["uniform"], 4000)
    # Mean ½ with variance 1/12, variance 1/12 with variance (1/80 − 1/144)/n; all pixels are alike.
    n = x.numel()
    assert x.mean().item() == pytest.approx(1 / 2, abs=4 * (1 / 12 / n) ** 0.5)
    assert x.var().item() == pytest.approx(1 / 12, abs=4 * ((1 / 80 - 1 / 144) / n) ** 0.5)


@pytest.mark.parametrize("std", [None, starts.JEMPP_JITTER_STD])
def test_class_gaussian_has_the_mean_and_the_full_covariance_of_the_class(std):
    images = toy(n=5)  # so few that N and N − 1 differ, and that two of six directions have the jitter alone
    start = initialisers.fit("class_gaussian", images, folder=None)
    x = many(start if std is None else dataclasses.replace(start, jitter_std=std))
    jitter_variance = 1e-4 if std is None else std**2
    n, mean = len(x), images.images().flatten(1).double().mean(0)
    expected = centred(images).T @ centred(images) / len(images) + jitter_variance * torch.eye(6)
    variance = expected.diag()
    assert ((x.mean(0) - mean).abs() <= 4 * (variance / n).sqrt()).all()
    # An entry's standard error is √((Σ_ii Σ_jj + Σ_ij²)/n).
    four_sigma = 4 * ((variance.outer(variance) + expected**2) / n).sqrt()
    assert ((x.T.cov() - expected).abs() <= four_sigma).all()
    assert (expected.abs() > 3 * four_sigma).sum() > 20  # most entries would be missed if they were taken for 0
    empty = torch.linalg.eigh(expected).eigenvectors[:, :2]
    jitter = (x @ empty).var(0)
    assert (jitter / jitter_variance - 1).abs().max() <= 4 * (2 / n) ** 0.5


def test_jitters_are_1e_4_of_the_variance_in_the_range_of_each_source():
    assert pytest.approx(1e-4) == starts.SANTURKAR_JITTER_STD**2
    assert pytest.approx(1e-4) == (2 * starts.JEMPP_JITTER_STD) ** 2  # [−1, 1] is twice as long


@pytest.mark.parametrize(("std", "name"), [(0.05, "class_mean"), (0.02, "images")])
def test_noise_has_the_standard_deviation_that_is_asked_for(std, name):
    images = toy(n=1)
    x = many(initialisers.fit(name, images, folder=None, start_noise_std=std))
    n = x.numel()
    assert (x - images.images().flatten(1)).std().item() == pytest.approx(std, rel=4 * (1 / 2 / n) ** 0.5)
    assert (x.mean(0) - images.images().flatten()).abs().max() <= 4 * std / len(x) ** 0.5


def test_without_noise_the_mean_is_the_mean_and_an_image_is_an_image(digits):
    mean = initialisers.fit("class_mean", digits, folder=None, start_noise_std=0).draw(Y, KEY)
    for k in range(10):
        expected = digits.images(digits.labels == k).double().mean(0)
        assert torch.allclose(mean[k].double(), expected, atol=1e-7)
    x = initialisers.fit("images", digits, folder=None, start_noise_std=0).draw(Y, KEY)
    found = [(digits.images() == one).flatten(1).all(1).nonzero().flatten() for one in x]
    assert all(len(rows) >= 1 for rows in found)
    assert len({int(rows[0]) for rows in found}) > 30  # 40 of 1,257


def test_images_are_chosen_evenly():
    images = toy(n=8)
    x = many(initialisers.fit("images", images, folder=None, start_noise_std=0))
    place = torch.cdist(x, images.images().flatten(1).double()).argmin(1)
    share = place.bincount(minlength=8) / len(x)
    assert (share - 1 / 8).abs().max() <= 4 * (1 / 8 * 7 / 8 / len(x)) ** 0.5


# Exact sums


def test_products_on_the_grid_are_exact_in_any_order():
    key = noise.Key(0, "test", torch.arange(9))
    z, pixels = starts.grid_normal(key, 3000), noise.Key(1, "test", torch.arange(3000)).integers(256, (50,))
    whole = exact_products.product(z, pixels.to(torch.uint8))
    integers = (z * 2**exact_products.NOISE_BITS).long()
    assert (whole * 2**exact_products.NOISE_BITS).long().equal(integers @ pixels)  # int64: no rounding at all
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    assert exact_products.product(z[:, order], pixels[order].to(torch.uint8)).equal(whole)
    assert (z - key.normal((3000,), dtype=torch.float64)).abs().max() <= 2.0 ** -(exact_products.NOISE_BITS + 1)


def test_combination_is_the_centred_product():
    images = toy()
    z = starts.grid_normal(noise.Key(0, "test", torch.arange(5)), len(images))
    expected = z @ centred(images)
    # float64 sums of 40 terms of size < 1: 40 roundings of 2⁻⁵³ each.
    flat = images.pixels.flatten(1)
    found = exact_products.combination(z, flat, mean=exact_products.mean_of(flat))
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)
