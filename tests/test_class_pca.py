"""PCA starts: spectra known in closed form, scikit-learn's own counts, the paper's counts on CIFAR-10, kept fits."""

import csv

import numpy as np
import pytest
import torch
from foreign_files import cifar10_root
from sklearn import decomposition

from helpers import class_pca, data, leading, noise
from helpers.parameters import ROOT

AMPLITUDES = (40, 20, 10)  # so shares of the variance 16/21, 4/21, 1/21


def spectrum():
    """Eight images of 1×2×2 pixels: three orthogonal directions with known standard deviations; and the directions."""
    signs = torch.tensor([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]).double()
    u = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]]).double() / 2
    pixels = 128 + signs * torch.tensor(AMPLITUDES) @ u
    images = data.from_tensors(pixels.to(torch.uint8).reshape(8, 1, 2, 2), torch.zeros(8, dtype=torch.long))
    std = torch.tensor(AMPLITUDES).double() * (8 / 7) ** 0.5 / 255
    return images, u, std


def fit(images, *, retained_variance=0.96, pca_spread=1.0, folder=None):
    return class_pca.fit_class_pca(images, retained_variance=retained_variance, pca_spread=pca_spread, folder=folder)


def many(start, n=20_000):
    return start.draw(torch.zeros(n, dtype=torch.long), noise.Key(1, "many", torch.arange(n))).flatten(1).double()


def digits():
    return data.load("digits", "train", validation_fraction=0.125)


# The whole class


@pytest.mark.parametrize(("r", "m"), [(0.77, 1), (0.95, 1), (0.96, 2), (0.99, 2)])
def test_components_of_a_known_spectrum(r, m):
    images, u, std = spectrum()
    start = fit(images, retained_variance=r)
    assert start.n_components.tolist() == [m]
    # The grid of 2⁻²⁴ moves each entry by at most 2⁻²⁵.
    assert torch.allclose(start.directions[0].double().abs(), (std[:m, None] * u[:m]).abs(), rtol=0, atol=2**-24)
    assert torch.allclose(start.mean[0], torch.tensor(128 / 255, dtype=torch.float64), rtol=1e-15)


@pytest.mark.parametrize("pca_spread", [0.5, 1.5])
def test_draws_have_the_classs_deviations_times_the_spread_and_nothing_beyond_the_components(pca_spread):
    images, u, std = spectrum()
    x = many(fit(images, pca_spread=pca_spread)) - 128 / 255
    along = x @ u.T
    relative = 4 * (2 / len(x)) ** 0.5
    for i in range(2):
        assert along[:, i].var().item() == pytest.approx((pca_spread * std[i].item()) ** 2, rel=relative)
        assert abs(along[:, i].mean().item()) <= 4 * pca_spread * std[i].item() / len(x) ** 0.5
    assert abs(along[:, :2].T.corrcoef()[0, 1].item()) <= 4 / len(x) ** 0.5
    assert along[:, 2].abs().max() < 1e-6  # float32 near ½ rounds by 3e-8, the grids less


def test_sigma_pca_is_the_papers_which_multiplies_singular_values():
    images, _, _ = spectrum()
    start = fit(images, pca_spread=0.7)
    x = images.images().flatten(1).double()
    singular = torch.linalg.svdvals(x - x.mean(0))[:2]
    length = start.directions[0].double().norm(dim=1)
    assert torch.allclose(start.sigma_pca * singular, 0.7 * length, rtol=1e-6)
    assert start.sigma_pca.item() == pytest.approx(0.7 / 7**0.5, rel=1e-15)


def test_one_component_fewer_than_scikit_learn_keeps():
    images = digits()
    for r in (0.8, 0.9, 0.95):
        start = fit(images, retained_variance=r)
        for k, m in enumerate(start.n_components.tolist()):
            flat = images.images(images.labels == k).flatten(1).double().numpy()
            assert decomposition.PCA(n_components=r, svd_solver="full").fit(flat).n_components_ == m + 1


def test_the_solver_agrees_with_the_full_svd():
    pixels = noise.Key(0, "pixels", torch.arange(300)).integers(256, (60,)).to(torch.uint8)
    fast, full = (class_pca.decompose(pixels, kept=0.9, solver=s) for s in ("leading", "full"))
    assert torch.allclose(fast["share"], full["share"], rtol=1e-10, atol=1e-14)
    assert len(fast["share"]) == 60
    assert fast["directions"].shape == full["directions"].shape
    assert 1 < len(fast["directions"]) < 60
    assert torch.allclose(fast["directions"], full["directions"], rtol=0, atol=1e-7)  # the signs, too


def test_components_without_variance_and_a_single_one():
    pixels = noise.Key(0, "pixels", torch.arange(40)).integers(256, (1,)).to(torch.uint8).expand(40, 5)
    found = class_pca.decompose(pixels, kept=0.99)
    assert found["share"].tolist() == pytest.approx([1, 0, 0, 0, 0], abs=1e-14)
    std = pixels[:, 0].double().std() / 255
    assert torch.allclose(found["directions"], std.float().expand(1, 5), rtol=0, atol=2**-24)


def test_the_exact_covariance_is_numpys():
    pixels = noise.Key(1, "pixels", torch.arange(50)).integers(256, (7,)).double().numpy()
    lower = np.tril(leading.covariance(pixels))
    assert np.allclose(lower, np.tril(np.cov(pixels.T / 255)), rtol=1e-13, atol=1e-16)


def test_more_variance_adds_to_the_same_image():
    images, u, _ = spectrum()
    less, more = (many(fit(images, retained_variance=r), 50) @ u.T for r in (0.8, 0.96))
    assert torch.allclose(less[:, 0], more[:, 0], rtol=0, atol=1e-6)
    assert (less[:, 1] - more[:, 1]).abs().min() > 1e-5


@pytest.mark.parametrize("r", [0.0095, 0.5, 0.76])
def test_a_share_that_keeps_no_component_is_refused(r):
    # The paper's code divides 0.95 by 100, keeps nothing, and starts every chain of a class at its mean.
    with pytest.raises(ValueError, match=rf"component of class '0', whose first has 0\.762 of the variance, got {r}"):
        fit(spectrum()[0], retained_variance=r)


@pytest.mark.parametrize("r", [0, 1, 95, float("nan"), "0.9"])
def test_a_share_outside_of_zero_to_one_is_refused(r):
    with pytest.raises(ValueError, match="expected retained_variance to be"):
        fit(spectrum()[0], retained_variance=r)


def test_images_all_alike_and_a_single_image_are_refused():
    images, _, _ = spectrum()
    with pytest.raises(ValueError, match="got 3 that are all alike"):
        fit(images.subset([2, 2, 2]))
    with pytest.raises(ValueError, match="at least 2 images of class '0', got 1"):
        fit(images.first(1))


@pytest.mark.foreign
@pytest.mark.parametrize("k", [0, 5, 9])  # notebook 04 prints all ten; each takes some ten seconds
def test_component_counts_on_cifar10_are_the_papers(k):
    images = data.load("cifar10", "train", root=cifar10_root())
    assert images.num_classes == 10
    fitted = class_pca.decompose(images.pixels[images.labels == k].flatten(1), kept=0.95)
    with open(ROOT / "params" / "published" / "ebm_pca_components.csv", newline="") as file:
        published = {float(row["retained_variance"]): int(row[images.classes[k]]) for row in csv.DictReader(file)}
    assert {r: class_pca.n_components(fitted["share"].numpy(), r) for r in published} == published
    assert set(published) == {0.90, 0.95}


# Kept fits


def test_a_fit_is_kept_for_each_class_and_serves_every_share_below(tmp_path, monkeypatch):
    images = digits()
    first = fit(images, folder=tmp_path, retained_variance=0.95)
    assert len(list(tmp_path.glob("class_pca-*.safetensors"))) == 10
    monkeypatch.setattr(decomposition, "PCA", None)  # nothing is fitted from here on
    again = fit(images, folder=tmp_path, retained_variance=0.95)
    assert again.directions.equal(first.directions)
    assert again.mean.equal(first.mean)
    assert (fit(images, folder=tmp_path, retained_variance=0.8).n_components < first.n_components).all()
    with pytest.raises(TypeError, match="not callable"):
        fit(images, folder=tmp_path, retained_variance=0.995)


def test_a_fit_of_other_images_is_another_file(tmp_path):
    images = digits()
    fit(images, folder=tmp_path)
    fit(images.subset(slice(1, None)), folder=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 20


def test_a_damaged_fit_is_made_again(tmp_path, capsys):
    images = digits()
    first = fit(images, folder=tmp_path)
    path = sorted(tmp_path.glob("*.safetensors"))[3]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert fit(images, folder=tmp_path).directions.equal(first.directions)
    assert "made again" in capsys.readouterr().err


# A neighbourhood


def local(images, *, n_neighbours, retained_variance=0.96, pca_spread=1.0, folder=None):
    return class_pca.fit_local_class_pca(
        images, n_neighbours=n_neighbours, retained_variance=retained_variance, pca_spread=pca_spread, folder=folder
    )


def test_neighbours_are_the_nearest_of_the_class_ties_to_the_earlier():
    images = digits()
    start = local(images, n_neighbours=9)
    for k in (0, 7):
        x = images.images(images.labels == k).flatten(1).double()
        expected = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1, stable=True).indices
        assert start.neighbours[k].long().equal(expected[:, :9])
    twins = torch.tensor([[4], [2], [4], [6]], dtype=torch.uint8)
    assert class_pca.nearest(twins, 3).tolist() == [[0, 2, 1], [1, 0, 2], [0, 2, 1], [3, 0, 2]]


def test_a_neighbourhood_that_is_the_class_draws_as_the_class_does():
    images, u, std = spectrum()
    x = many(local(images, n_neighbours=8, pca_spread=0.8)) - 128 / 255
    along = x @ u.T
    for i in range(2):
        expected = (0.8 * std[i].item()) ** 2
        assert along[:, i].var().item() == pytest.approx(expected, rel=4 * (2 / len(x)) ** 0.5)
    assert along[:, 2].abs().max() < 1e-6
    # Two noise draws for the components kept, seen through eight: they stay independent of each other.
    assert abs(along[:, :2].T.corrcoef()[0, 1].item()) <= 4 / len(x) ** 0.5


def test_the_projection_is_scikit_learns_components():
    pixels = noise.Key(2, "pixels", torch.arange(3)).integers(256, (20, 50)).to(torch.uint8)
    z = noise.Key(3, "z", torch.arange(3)).normal((20,), dtype=torch.float64)
    found = class_pca._project(pixels.double(), z, 0.8)
    for one, noise_of_one, got in zip(pixels.double().numpy(), z.numpy(), found.numpy(), strict=True):
        pca = decomposition.PCA(svd_solver="full").fit(one)
        m = class_pca.n_components(pca.explained_variance_ratio_, 0.8)
        v = (one - one.mean(0)) @ pca.components_[:m].T / pca.singular_values_[:m]
        np.testing.assert_allclose(got, v @ (v.T @ noise_of_one), rtol=0, atol=1e-10)


def test_without_spread_a_draw_is_the_mean_of_some_neighbourhood_and_centres_are_even():
    images = digits()
    start = local(images, n_neighbours=5, pca_spread=0.0)
    y = torch.zeros(3000, dtype=torch.long)
    x = start.draw(y, noise.Key(0, "centres", torch.arange(3000))).flatten(1).double()
    flat = images.images(images.labels == 0).flatten(1).double()
    hoods = start.neighbours[0].long().sort(1).values  # two images may have the same neighbours
    hoods, share = hoods.unique(dim=0, return_counts=True)
    means, share = flat[hoods].mean(1), share / len(flat)
    distance, place = torch.cdist(x, means, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert distance.max() < 16 * 1e-7
    n = len(means)
    # χ² of the counts over n neighbourhoods has mean n − 1 and variance near 2(n − 1).
    chi2 = ((place.bincount(minlength=n) - 3000 * share) ** 2 / (3000 * share)).sum().item()
    assert abs(chi2 - (n - 1)) <= 4 * (2 * (n - 1)) ** 0.5


def test_at_least_one_component_is_kept_in_a_neighbourhood():
    images, u, std = spectrum()
    along = (many(local(images, n_neighbours=8, retained_variance=0.1)) - 128 / 255) @ u.T
    assert along[:, 0].var().item() == pytest.approx(std[0].item() ** 2, rel=4 * (2 / len(along)) ** 0.5)
    assert along[:, 1:].abs().max() < 1e-6


def test_a_neighbourhood_of_equal_images_gives_that_image():
    images, _, _ = spectrum()
    x = many(local(images.subset([5, 5, 5]), n_neighbours=2), 10)
    assert torch.allclose(x, images.images()[5].flatten().double().expand(10, 4), rtol=0, atol=1e-7)


def test_too_few_or_too_many_neighbours_are_refused():
    images, _, _ = spectrum()
    for n, message in [(1, "n_neighbours to be a whole number >= 2"), (9, "at least 9 images of class '0', got 8")]:
        with pytest.raises(ValueError, match=message):
            local(images, n_neighbours=n)


def test_neighbours_are_kept_and_used_again(tmp_path, monkeypatch):
    images = digits()
    first = local(images, n_neighbours=6, folder=tmp_path)
    monkeypatch.setattr(class_pca, "nearest", None)
    again = local(images, n_neighbours=6, folder=tmp_path, retained_variance=0.5)
    assert all(a.equal(b) for a, b in zip(first.neighbours, again.neighbours, strict=True))
    with pytest.raises(TypeError, match="not callable"):
        local(images, n_neighbours=7, folder=tmp_path)


def test_the_sigma_of_a_neighbourhood_is_that_of_its_size():
    images, _, _ = spectrum()
    assert local(images, n_neighbours=5, pca_spread=0.6).sigma_pca.tolist() == [pytest.approx(0.3)]
