import numpy as np
import pytest

from helpers import ablation_pictures, plots
from helpers.settings import Case, Setting


def setting(r, spread):
    return Setting("class_pca", "joint", 0.1, 0.8, 0.001, 50, "plain", "steps", r, spread)


# The base setting first, as settings.cases has it.
CASES = [Case("pca", setting(r, s), ("retained_variance", "pca_spread")) for r in (0.9, 0.5) for s in (1.0, 0.25)]
CASES.append(Case("stop", setting(0.9, 1.0), ("stop",)))


def image(r, spread, k, i):
    """An image that tells where it is from: class k's i-th."""
    return np.full((1, 2, 2), 100 * (r == 0.9) + 50 * (spread == 1.0) + 10 * k + i, np.uint8)


@pytest.fixture
def collected():
    measured = {
        (case.setting.key, number): {
            "pictures": number + np.stack([
                image(case.setting.retained_variance, case.setting.pca_spread, k, i) for k in range(2) for i in range(3)
            ])
        }
        for case in CASES for number in (0, 1)
    }  # fmt: skip
    return ablation_pictures.collect(CASES, measured, number=0)


def test_a_record_has_the_pictures_of_one_set_case_by_case(collected):
    arrays, frame = collected
    assert {name: one.shape for name, one in arrays.items()} == {"pca": (4, 6, 1, 2, 2), "stop": (1, 6, 1, 2, 2)}
    assert frame["row"].tolist() == [0, 1, 2, 3, 0]
    assert arrays["pca"][0, 0].max() == 150


def test_the_grid_has_rising_spreads_across_and_rising_variance_down_in_each_class(collected):
    arrays, frame = collected
    laid = ablation_pictures.grid(arrays["pca"], frame, classes=["car", "horse"])
    assert list(laid["blocks"]) == ["spread 0.25", "spread 1"]
    assert laid["row_labels"] == ["car, r = 0.5", "car, r = 0.9", "horse, r = 0.5", "horse, r = 0.9"]
    rows = laid["blocks"]["spread 1"][:, 0, 0, 0].reshape(4, laid["n_columns"]).tolist()
    assert rows == [[50, 51, 52], [150, 151, 152], [60, 61, 62], [160, 161, 162]]
    assert plots.image_blocks(**laid).axes


def test_the_gallery_has_a_row_for_each_case_and_a_block_for_each_class(collected):
    arrays, frame = collected
    laid = ablation_pictures.gallery(arrays, frame, ablations=["stop", "pca"], classes=["car", "horse"])
    assert laid["row_labels"][:2] == ["stop: steps", "r 0.9, spread 1"]
    horses = laid["blocks"]["horse"][:, 0, 0, 0].reshape(5, 3)
    assert horses[:, 0].tolist() == [160, 160, 110, 60, 10]
    assert plots.image_blocks(**laid).axes
