"""Scores of sets of images: closed forms, agreement with torch-fidelity's own entry, and what may stand in a column."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch_fidelity
from judges import Nested, image_set, judge, noise
from scipy import stats
from torch.utils.data import Dataset

from helpers import image_quality, parameters, records

PROTOCOL = image_quality.Protocol(
    n=400, reference="toy/train", reference_n=400, reference_sha256="0" * 64, extractor="judge 01234567",
    extractor_sha256="1" * 64, extractor_checked="known", official=False, feature="penultimate", dimension=3,
    logits="logits", selection="fresh", seed=0, kid_subsets=50, kid_subset_size=100, isc_splits=1, prc_neighbours=3,
    shape=(1, 2, 3), torch_fidelity="0.4.0",
)  # fmt: skip


def whitened(n: int, *, mean: list[float], std: list[float], seed: int) -> torch.Tensor:
    """(n, d) float64 whose sample mean and covariance are `mean` and diag(std²), not only in expectation."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return torch.from_numpy(x * np.array(std) + np.array(mean))


def measured(one, two, *families, **changed):
    protocol = replace(PROTOCOL, n=len(one), reference_n=len(two), **changed)
    found = {"penultimate": one, "logits": one}
    return image_quality.from_features(found, {"penultimate": two}, protocol=protocol, families=families).estimates


def scored(images, reference, extractor=None, **changed):
    given = {"feature": "penultimate", "seed": 0, "batch_size": 64, "selection": "fresh", **changed}
    return image_quality.scores(images, reference, extractor=extractor or judge(), **given)


# ---- closed forms ----


def test_the_frechet_distance_of_two_gaussians_is_the_closed_form():
    one = whitened(400, mean=[1.0, 0.0, -2.0], std=[1.0, 2.0, 0.5], seed=0)
    two = whitened(300, mean=[0.0, 1.0, -2.0], std=[3.0, 2.0, 1.0], seed=1)
    expected = (1 + 1 + 0) + (1 - 3) ** 2 + 0 + (0.5 - 1) ** 2
    assert measured(one, two, "frechet")["frechet_distance"].value == pytest.approx(expected, rel=1e-6)


def test_a_set_has_no_frechet_distance_to_itself_and_a_shift_adds_its_square():
    one = torch.randn(500, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    delta = torch.tensor([0.5, 0, 0, -1, 0, 2], dtype=torch.float64)
    zero = measured(one, one, "frechet")["frechet_distance"].value
    shifted = measured(one + delta, one, "frechet")["frechet_distance"].value
    assert zero == pytest.approx(0, abs=1e-9)
    assert shifted == pytest.approx(delta.square().sum().item(), abs=1e-9)


@pytest.mark.parametrize("k", [2, 5])
def test_the_inception_score_of_sure_and_balanced_verdicts_is_their_number(k):
    sure = 100 * torch.eye(k).repeat(20, 1)
    assert measured(sure, sure, "inception_score")["inception_score"].value == pytest.approx(k)


def test_the_inception_score_of_one_verdict_for_all_is_one():
    same = torch.tensor([[3.0, 1.0, -2.0]]).repeat(40, 1)
    assert measured(same, same, "inception_score")["inception_score"].value == pytest.approx(1)


def gaussian(n, seed, shift=0.0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_kernel_distance_is_without_bias_and_its_interval_covers():
    covered, values = 0, []
    for seed in range(60):
        estimate = measured(gaussian(200, 2 * seed), gaussian(200, 2 * seed + 1), "kid")["kid"]
        assert estimate.kind == "subsets"
        covered += estimate.low <= 0 <= estimate.high
        values.append(estimate.value)
    assert abs(np.mean(values)) < 4 * np.std(values, ddof=1) / math.sqrt(len(values))
    assert covered >= stats.binom.ppf(1e-4, 60, 0.95)  # the interval promises 95 %


def test_the_kernel_distances_interval_covers_also_where_the_sets_differ():
    truth = np.mean(
        [measured(gaussian(2000, 900 + s, 0.5), gaussian(2000, 950 + s), "kid")["kid"].value for s in range(8)]
    )
    covered = 0
    for seed in range(60):
        estimate = measured(gaussian(200, 2 * seed, 0.5), gaussian(200, 2 * seed + 1), "kid")["kid"]
        covered += estimate.low <= truth <= estimate.high
    assert covered >= stats.binom.ppf(1e-4, 60, 0.95)


def test_the_kernel_distance_of_classes_in_equal_shares_is_below_zero():
    # equal shares vary less than those of independent draws, which the estimate without bias expects
    far = torch.tensor([[0.0, 0, 0], [6, 0, 0]])
    values = []
    for seed in range(20):
        one, two = (gaussian(100, 2 * seed + k) / 10 + far.repeat(50, 1) for k in (0, 1))
        values.append(measured(one, two, "kid", kid_subset_size=50)["kid"].value)
    assert np.mean(values) < -4 * np.std(values, ddof=1) / math.sqrt(len(values))


def test_the_frechet_distance_of_few_images_is_biased_upward():
    def mean(n):
        pairs = [(gaussian(n, 2 * seed), gaussian(n, 2 * seed + 1)) for seed in range(30)]
        return np.mean([measured(one, two, "frechet")["frechet_distance"].value for one, two in pairs])

    few, many = mean(20), mean(200)
    assert few > 5 * many > 0


def test_subsets_of_more_than_half_of_the_images_give_no_interval():
    # with a subset of all images every subset is the same and their spread would be zero
    for size, kind in ((100, "subsets"), (101, "none"), (200, "none")):
        assert measured(gaussian(200, 0), gaussian(300, 1), "kid", kid_subset_size=size)["kid"].kind == kind


def test_precision_and_recall_are_full_for_equal_sets_and_nothing_for_sets_apart():
    one = gaussian(100, 0)
    both = measured(one, one, "precision_recall")
    assert (both["precision"].value, both["recall"].value) == (100, 100)
    apart = measured(one + 1000, one, "precision_recall")
    assert (apart["precision"].value, apart["recall"].value) == (0, 0)


def test_precision_is_of_the_made_and_recall_of_the_real_images():
    # made images in one of two real modes: all of them are near real ones, half of the real ones are near none
    real = torch.cat([gaussian(100, 0), gaussian(100, 1, 1000)])
    found = measured(gaussian(50, 0, 0.0), real, "precision_recall")
    assert found["precision"].value > 90
    assert found["recall"].value <= 50


# ---- scores of images ----


class Images(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return torch.from_numpy(self.images[row])


class Registered(torch_fidelity.FeatureExtractorBase):
    """The toy judge as torch-fidelity wants an extractor."""

    def __init__(self, name, features_list, **kwargs):
        super().__init__(name, features_list)
        self.network = Nested()

    @staticmethod
    def get_provided_features_list():
        return "penultimate", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "logits" if metric == "isc" else "penultimate"

    def forward(self, x):
        known = {"penultimate": self.network.features(x / 255), "logits": self.network(x / 255)}
        return tuple(known[name] for name in self.features_list)


def test_scores_are_those_of_torch_fidelitys_own_entry():
    made, real = noise(120, seed=0, top=200), noise(150, seed=1)
    torch_fidelity.register_feature_extractor("toy-judge", Registered)
    expected = torch_fidelity.calculate_metrics(
        input1=Images(made), input2=Images(real), cuda=False, feature_extractor="toy-judge", isc=True, fid=True,
        kid=True, prc=True, kid_subsets=20, kid_subset_size=50, cache=False, verbose=False, rng_seed=7,
        save_cpu_ram=True,
    )  # fmt: skip
    found = scored(made, image_set(real), seed=7, kid_subsets=20, kid_subset_size=50)
    values = {name: estimate.value for name, estimate in found.estimates.items()}
    assert values == pytest.approx(
        {
            "frechet_distance": expected["frechet_inception_distance"],
            "kid": expected["kernel_inception_distance_mean"],
            "inception_score": expected["inception_score_mean"],
            "precision": 100 * expected["precision"],
            "recall": 100 * expected["recall"],
        },
        rel=1e-5,
    )
    assert found.isc_split_std == pytest.approx(expected["inception_score_std"], rel=1e-5)
    half = (found.estimates["kid"].high - found.estimates["kid"].low) / 2
    assert half == pytest.approx(1.959963984540054 * expected["kernel_inception_distance_std"], rel=1e-5)


def test_nothing_is_printed_no_global_draw_is_made_and_nothing_is_changed(capsys):
    made, real, extractor = noise(60, seed=0), image_set(noise(60, seed=1)), judge()
    extractor.module.train()
    before, state, world = made.copy(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    scored(made, real, extractor)
    assert np.array_equal(made, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], world)  # noqa: NPY002
    assert extractor.module.training
    assert capsys.readouterr() == ("", "")


def test_scores_do_not_depend_on_how_the_images_lie_in_memory(tmp_path):
    made, real = noise(50, seed=0), image_set(noise(60, seed=1))
    np.save(tmp_path / "images.npy", made)
    kinds = [made, np.load(tmp_path / "images.npy", mmap_mode="r"), torch.from_numpy(made), np.asfortranarray(made)]
    found = [scored(images, real, batch_size=size) for images, size in zip(kinds, (50, 7, 64, 1), strict=True)]
    assert len({one.images_sha256 for one in found}) == 1
    for one in found[1:]:
        assert one.protocol == found[0].protocol
        for name, estimate in one.estimates.items():
            assert estimate.value == pytest.approx(found[0].estimates[name].value, rel=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": noise(20, seed=0) / 255}, "expected images to be uint8 pixels from 0 to 255, got float64"),
        ({"images": torch.rand(20, 1, 2, 3)}, "expected images to be uint8 pixels from 0 to 255, got torch.float32"),
        ({"images": noise(20, seed=0)[0]}, r"expected images of shape \(N, C, H, W\) with C 1 or 3, got \(1, 2, 3\)"),
        ({"images": noise(20, seed=0, shape=(1, 3, 3))}, r"expected images of shape \(1, 2, 3\), as the reference"),
        ({"kid_subset_size": 21}, r"number of images \(made 20, reference 30\), got 21"),
        ({"families": ["fid"]}, "expected families to be one of 'frechet', 'kid'"),
        ({"feature": "2048"}, "among penultimate, logits, got '2048'"),
        ({"isc_splits": 21}, "expected isc_splits to be a whole number >= 1 and <= 20, got 21"),
        ({"prc_neighbours": 20}, "expected prc_neighbours to be a whole number >= 1 and <= 19, got 20"),
        ({"seed": -1}, "expected seed"),
    ],
)
def test_what_cannot_be_scored_is_refused(changed, message):
    images = changed.pop("images", noise(20, seed=0))
    with pytest.raises(ValueError, match=message):
        scored(images, image_set(noise(30, seed=1)), **changed)


# ---- several sets ----


def several(n, k=3, **changed):
    real = image_set(noise(200, seed=99))
    return [scored(noise(n, seed=seed), real, families=["frechet", "kid"], **changed) for seed in range(k)]


def test_sets_have_students_interval_around_their_mean():
    sets = several(40)
    found = image_quality.over_sets(sets)
    values = [one.estimates["frechet_distance"].value for one in sets]
    estimate = found.estimates["frechet_distance"]
    assert estimate.value == pytest.approx(np.mean(values))
    # t_{0.975} with 2 degrees of freedom (any table)
    assert estimate.high - estimate.value == pytest.approx(4.302653 * np.std(values, ddof=1) / math.sqrt(3), rel=1e-6)
    assert (estimate.n, estimate.kind, found.reasons) == (3, "student_t", {})


@pytest.mark.parametrize(
    ("n", "k", "reason"),
    [(11, 3, "n = 11 is less than twice the feature's dimension 6"), (12, 2, "2 sets of images; an interval needs 3")],
)
def test_too_few_images_or_sets_give_no_interval_and_say_why(n, k, reason):
    found = image_quality.over_sets(several(n, k))
    estimate = found.estimates["frechet_distance"]
    assert (estimate.kind, found.reasons["frechet_distance"]) == ("none", reason)
    assert math.isnan(estimate.low)
    assert image_quality.over_sets(several(12, 3)).estimates["frechet_distance"].kind == "student_t"


def test_the_same_images_are_not_two_sets_and_other_protocols_no_sets_of_one_score():
    one, two = several(40, 2)
    with pytest.raises(ValueError, match="got one of them twice"):
        image_quality.over_sets([one, two, one])
    with pytest.raises(ValueError, match="set 1 and set 2, which differ in n: 40 and 30"):
        image_quality.over_sets([one, *several(30, 1)])
    with pytest.raises(ValueError, match="expected scores of at least one set"):
        image_quality.over_sets([])


# ---- columns ----


def test_a_column_takes_one_protocol_only():
    made, real = noise(40, seed=0), image_set(noise(60, seed=1))
    first = scored(made, real)
    head, cells = image_quality.column({"a": first, "b": scored(noise(40, seed=3), real)}, "frechet_distance")
    assert head == f"FD ({first.protocol.extractor})"
    assert list(cells) == ["a", "b"]
    others = {
        "n: 40 and 39": scored(made[:39], real, kid_subset_size=20),
        "reference_sha256": scored(made, image_set(noise(60, seed=2))),
        "reference: toy/train and toy/test": scored(made, image_set(noise(60, seed=1), split="test")),
        "extractor: judge": scored(made, real, judge(shift=0.5)),
        "selection: fresh and best of 10": scored(made, real, selection="best of 10"),
        "seed: 0 and 1": scored(made, real, seed=1),
        "kid_subset_size: 20 and 10": scored(made, real, kid_subset_size=10),
        "prc_neighbours: 3 and 5": scored(made, real, prc_neighbours=5),
        "isc_splits: 10 and 4": scored(made, real, isc_splits=4),
        "feature: penultimate and logits": scored(made, real, feature="logits"),
    }
    for difference, other in others.items():
        with pytest.raises(ValueError, match=f"got ours and theirs, which differ in .*{difference}"):
            image_quality.column({"ours": first, "theirs": other}, "frechet_distance")


def test_every_entry_of_the_protocol_keeps_scores_apart():
    for name in image_quality.entries(PROTOCOL):
        other = replace(PROTOCOL, **{name: "other"})
        assert [text.split(":")[0] for text in PROTOCOL.differences(other)] == [name]


def test_a_column_needs_its_score_in_every_row():
    made, real = noise(40, seed=0), image_set(noise(60, seed=1))
    with pytest.raises(ValueError, match="expected kid in every row, got none for b"):
        image_quality.column({"a": scored(made, real), "b": scored(made, real, families=["frechet"])}, "kid")


@pytest.mark.parametrize(
    ("official", "feature", "titles"),
    [
        (True, "2048", ["FID", "KID", "IS", "precision (Inception 01, 2048)"]),
        (True, "768", ["FID-768", "KID-768", "IS", "precision (Inception 01, 768)"]),
        (False, "penultimate", ["FD (judge 01)", "KID (judge 01)", "IS (judge 01)", "precision (judge 01)"]),
    ],
)
def test_only_inceptions_last_features_are_called_fid(official, feature, titles):
    name = "Inception 01" if official else "judge 01"
    protocol = replace(PROTOCOL, official=official, feature=feature, extractor=name)
    measures = [image_quality.frechet_name(protocol), "kid", "inception_score", "precision"]
    assert [image_quality.title(metric, protocol) for metric in measures] == titles
    assert measures[0] in parameters.metrics()
    wrong = "frechet_distance" if official else "fid"
    with pytest.raises(ValueError, match="expected a score among"):
        image_quality.title(wrong, protocol)


def test_scores_are_rows_of_a_record():
    found = scored(noise(40, seed=0), image_set(noise(60, seed=1)))
    rows = found.scalars(seeds=[3], start="uniform")
    assert {row["metric"] for row in rows} == {"frechet_distance", "kid", "inception_score", "precision", "recall"}
    assert {(row["n"], row["reference"], row["selection"]) for row in rows} == {(40, "toy/train", "fresh")}
    assert all(row["extractor"] == found.protocol.extractor and row["start"] == "uniform" for row in rows)
    assert records.Record(None, {"record": "r", "scalars": rows}, {}).value("kid") == found.estimates["kid"].value


def test_the_description_holds_the_protocol():
    text = image_quality.described(PROTOCOL)
    for part in ("fresh images, n = 400 against 400 of toy/train", "judge 01234567", "50 subsets of 100", "k = 3"):
        assert part in text
