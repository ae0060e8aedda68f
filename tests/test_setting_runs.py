import numpy as np
import pytest
import torch

from helpers import data, extractors, models, sample_sets, setting_runs
from helpers.settings import Setting


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train").first(400)


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=2).eval()


@pytest.fixture(scope="module")
def jury(digits):
    judge = extractors.of_network(network(1), name="judge")
    return setting_runs.Jury(data.load("digits", "test").first(60), judge, "penultimate", judge, seed=0)


SETTING = Setting(
    initialiser="class_pca", retained_variance=0.9, pca_spread=1.0, energy="joint", step_size=0.01, momentum=0.5,
    noise_std=0.001, n_steps=3, gradient="plain", stop="steps",
)  # fmt: skip


def measured(digits, jury, folder, *, number=0, setting=SETTING, **changes):
    start = setting_runs.fitted(setting, digits, folder=None)
    given = {"network": network(0), "start": start, "setting": setting, "training": digits, "seed": 0, "jury": jury}
    given |= {"shown": setting_runs.shown_rows(40, 10, [3, 8], n_each=2), "batch_size": 16}
    return setting_runs.measure(
        **{**given, **setting_runs.drawn(number, n=40, images=digits), "folder": folder, **changes}
    )


def test_a_sample_set_has_every_score_and_the_pictures_that_were_asked_for(digits, jury, tmp_path):
    found = measured(digits, jury, tmp_path / "a")
    assert found["pictures"].shape == (4, 1, 16, 16)
    assert found["pictures"].dtype == np.uint8
    stored = np.load(tmp_path / "a" / "images.npy")
    assert np.array_equal(found["pictures"], stored[[3, 13, 8, 18]])
    assert found["dimension"] == 16
    assert found["steps_taken"] == 3
    whole = setting_runs.score(stored, torch.arange(40) % 10, jury=jury, made_by=None, batch_size=40)
    assert {name: float(found[name]) for name in whole} == pytest.approx(whole, rel=1e-4, abs=1e-3)
    assert {"kid", "frechet_distance", "precision", "recall", "class_agreement", "diversity"} <= set(found)


def test_the_setting_is_what_is_run(digits, jury, tmp_path):
    from dataclasses import replace

    plain = measured(digits, jury, tmp_path / "a")
    for name, changed in {
        "step": replace(SETTING, step_size=0.1),
        "steps": replace(SETTING, n_steps=5),
        "momentum": replace(SETTING, momentum=0.0),
        "noise": replace(SETTING, noise_std=0.1),
        "energy": replace(SETTING, energy="cross_entropy"),
        "gradient": replace(SETTING, gradient="l2", step_size=1.0),
        "spread": replace(SETTING, pca_spread=0.1),
    }.items():
        other = measured(digits, jury, tmp_path / name, setting=changed)
        assert other["joint_energy"] != plain["joint_energy"], name


def test_chains_stop_at_the_energy_of_their_class_and_only_then_need_it(digits, jury, tmp_path):
    from dataclasses import replace

    assert setting_runs.targets(network(0), digits, SETTING, batch_size=100) is None
    adaptive = replace(SETTING, stop="energy", n_steps=50, step_size=0.2)
    aims = setting_runs.targets(network(0), digits, adaptive, batch_size=100)
    assert aims.shape == (10,)
    found = measured(digits, jury, tmp_path / "a", setting=adaptive)
    assert found["steps_taken"] < 50
    within = replace(adaptive, stop="energy_within", energy_tolerance=0.01)
    assert measured(digits, jury, tmp_path / "b", setting=within)["steps_taken"] != found["steps_taken"]


def test_sets_share_no_image_and_settings_share_their_draws(digits):
    first, second = (setting_runs.drawn(number, n=40, images=digits) for number in (0, 1))
    assert not set(first["index"].tolist()) & set(second["index"].tolist())
    assert torch.equal(first["y"], second["y"])
    assert first["y"].bincount().tolist() == [4] * 10
    assert first["index"].equal(sample_sets.drawn(0, n=40, num_classes=10)["index"])
    with pytest.raises(ValueError, match="n_generated: expected a multiple of the 10 classes, got 41"):
        setting_runs.drawn(0, n=41, images=digits)


def test_too_few_images_to_show_is_an_error():
    with pytest.raises(ValueError, match="expected 5 of each of the classes"):
        setting_runs.shown_rows(40, 10, [3], n_each=5)


def test_the_images_that_choose_are_not_those_that_are_reported_on(digits, jury):
    given = {"judge": network(1), "name": "judge", "kind": "judge", "feature": None, "seed": 0, "device": "cpu"}
    found = setting_runs.juries({"validation": digits, "test": jury.reference}, "validation", **given)
    assert found["validation"].reference is digits
    assert found["test"].reference is jury.reference
    assert {one.extractor.name for one in found.values()} == {jury.extractor.name}
    assert {one.feature for one in found.values()} == {"penultimate"}
    with pytest.raises(ValueError, match="reference: expected another split than that of the fresh report, got 'test'"):
        setting_runs.juries({"test": digits}, "test", **given)


def test_real_sets_are_disjoint_and_balanced(digits):
    several = setting_runs.real_sets(digits, n=100, n_sets=3)
    assert [one.labels.bincount().tolist() for one in several] == [[10] * 10] * 3
    assert len({int(i) for one in several for i in one.index}) == 300
    assert len(setting_runs.real_sets(digits, n=100, n_sets=9)) == 3, "as many as there are"
    with pytest.raises(ValueError, match="expected 50 images of each class in digits/train, got fewer"):
        setting_runs.real_sets(digits, n=500, n_sets=1)


def test_real_images_are_scored_set_by_set(digits, jury):
    found = setting_runs.score_real(digits, jury=jury, n=100, n_sets=2, batch_size=50)
    first = setting_runs.real_sets(digits, n=100, n_sets=2)[0]
    assert len(found) == 2
    assert found[0] == setting_runs.score(first.pixels, first.labels, jury=jury, made_by=None, batch_size=50)
    assert found[0]["diversity"] == pytest.approx(1, abs=0.2)


def test_saturation_counts_both_ends_and_contrast_is_that_of_each_image():
    black_and_white = np.stack([np.zeros((1, 2, 2), np.uint8), np.full((1, 2, 2), 255, np.uint8)])
    assert setting_runs.saturation(black_and_white) == 100
    assert setting_runs.contrast(black_and_white) == 0  # no image has any, though they differ
    grey = np.full((1, 1, 2, 2), 6, np.uint8)
    assert setting_runs.saturation(grey) == 0
    assert setting_runs.saturation(grey - 1) == 100
    assert setting_runs.saturation(torch.from_numpy(grey + 244)) == 100
