import math

import numpy as np
import pandas as pd
import pytest
from runs import Run

from helpers import ablation_scores, records, settings
from helpers.settings import Case, Setting

BASE = Setting("class_pca", "joint", 0.1, 0.8, 0.001, 50, "plain", "steps", 0.95, 1.0)
NOISY = Setting("class_pca", "joint", 0.1, 0.8, 0.01, 50, "plain", "steps", 0.95, 1.0)
REAL = Setting("images", "joint", 0.1, 0.8, 0.001, 50, "plain", "steps", start_noise_std=0.1)
CASES = [
    Case("noise", BASE, ("noise_std",)),
    Case("noise", NOISY, ("noise_std",)),
    Case("initialiser", BASE, ("initialiser",)),
    Case("initialiser", REAL, ("initialiser",)),
]
KID = {BASE: (0.1, 0.2, 0.3), NOISY: (0.05, 0.16, 0.27), REAL: (-1.0, -1.0, -1.1)}


@pytest.fixture
def frame():
    """Three sample sets of 200 images of each setting; agreement is the same in all."""
    numbers = {
        (setting.key, k): {
            "kid": np.array(values[k]),
            "frechet_distance": np.array(10 * values[k]),
            "class_agreement": np.array(99.5),
            "dimension": np.array(96),
            "pictures": np.full((2, 1, 2, 2), 100 * k, np.uint8),
        }
        for setting, values in KID.items()
        for k in range(3)
    }
    return ablation_scores.sets(CASES, numbers, network="madry", n=200)


def test_one_row_for_each_case_and_set_with_its_knobs(frame):
    assert len(frame) == 12
    own = frame[frame["ablation"] == "initialiser"]
    assert own["initialiser"].tolist() == ["class_pca"] * 3 + ["images"] * 3
    assert own["pca_spread"].isna().tolist() == [False] * 3 + [True] * 3
    assert own["seed"].tolist() == [0, 1, 2] * 2
    assert ablation_scores.measured_metrics(frame) == ["kid", "frechet_distance", "class_agreement"]


def test_numbers_are_means_over_sets_with_student_t(frame):
    rows = ablation_scores.summary(CASES, frame, n=200, network="madry", reference="validation")
    assert len(rows) == 4 * 3
    first = rows[0]
    assert first["value"] == pytest.approx(0.2)
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert (first["low"], first["high"]) == (pytest.approx(0.2 - half), pytest.approx(0.2 + half))
    assert (first["interval_kind"], first["n"], first["seeds"]) == ("student_t", 200, [0, 1, 2])
    assert {key: first[key] for key in ("ablation", "case", "noise_std", "pca_spread", "reference")} == {
        "ablation": "noise", "case": "noise σ 0.001", "noise_std": 0.001, "pca_spread": 1.0, "reference": "validation",
    }  # fmt: skip
    agreement = next(row for row in rows if row["metric"] == "class_agreement")
    assert agreement["interval_kind"] == "wilson", "equal sets are no certainty"


def test_a_frechet_distance_of_too_few_images_has_no_interval(frame):
    rows = ablation_scores.summary(CASES, frame.assign(dimension=101), n=200)
    kinds = {row["metric"]: row["interval_kind"] for row in rows}
    assert kinds == {"kid": "student_t", "frechet_distance": "none", "class_agreement": "wilson"}
    two = frame[frame["seed"] < 2]
    assert {row["interval_kind"] for row in ablation_scores.summary(CASES, two, n=200)} == {"none"}


def test_shares_stay_between_0_and_100():
    found = ablation_scores.estimate([99.0, 100.0, 100.0], "precision", n=200, dimension=96)
    assert found.high == 100


def test_the_least_score_is_chosen_but_no_start_from_real_images(frame):
    chosen = ablation_scores.best(CASES, frame)
    assert chosen == CASES[1]
    with pytest.raises(ValueError, match="expected a setting that does not start from real images"):
        ablation_scores.best(CASES[3:], frame)


def test_settings_are_compared_set_by_set(frame):
    found = ablation_scores.against(frame, CASES[1], CASES[0], "kid")
    assert found.value == pytest.approx(-0.04)
    assert found.high - found.low == pytest.approx(
        2 * 4.302652729911275 * 0.01 / math.sqrt(3)
    )  # less than either's own
    assert ablation_scores.verdict(found, "kid") == "better"
    assert ablation_scores.verdict(found, "diversity") == "less"
    same = ablation_scores.against(frame, CASES[1], CASES[0], "class_agreement")
    assert ablation_scores.verdict(same, "class_agreement") == "not told apart"
    worse = ablation_scores.against(frame, CASES[0], CASES[1], "kid")
    assert ablation_scores.verdict(worse, "kid") == "worse"


WAYS = [
    ("precision", 1, "better"),
    ("recall", -1, "worse"),
    ("frechet_distance", 1, "worse"),
    ("saturation", 1, "more"),
]


@pytest.mark.parametrize(("metric", "sign", "said"), WAYS)
def test_which_way_is_better(metric, sign, said):
    ends = sorted((sign * 1.0, sign * 3.0))
    found = ablation_scores.Estimate(sign * 2.0, *ends, n=3, kind="student_t")
    assert ablation_scores.verdict(found, metric) == said


def test_reading_says_each_case_against_the_first(frame):
    said = ablation_scores.reading(CASES, frame, "noise", shown=["kid"]).splitlines()
    assert said[0] == "Against the base setting, noise σ 0.001:"
    assert said[1].startswith("  noise σ 0.01: KID −0.040 [−0.065, −0.015], better")
    assert len(said) == 2


def test_tables_are_drawn_from_the_record_and_the_tidy_one_has_every_number(frame, tmp_path):
    run = Run(tmp_path, notebook="05_generation_ablations")
    real = ablation_scores.of_real([{"kid": 0.1 * k, "dimension": 96} for k in range(3)], n=200)
    scalars = ablation_scores.summary(CASES, frame, n=200) + real
    record = records.save(run, "settings", scalars=scalars, frames={"sets": frame})
    assert ablation_scores.level(record.scalars) == {"kid": pytest.approx(0.1)}
    wide = ablation_scores.table(record.scalars)
    assert wide["case"].tolist() == [
        "noise σ 0.001",
        "noise σ 0.01",
        "start: class PCA",
        "start: images",
        "another split",
    ]
    assert str(wide["kid"].iloc[1]).startswith("0.16 [")
    path = ablation_scores.save_tidy(run, record)
    stored = pd.read_csv(path)
    assert path.name == "settings_tidy.csv"
    assert len(stored) == 13
    row = stored[(stored["metric"] == "kid") & (stored["noise_std"] == 0.01)].iloc[0]
    assert (row["value"], row["n"], row["seeds"]) == (pytest.approx(0.16), 200, "0 1 2")
    assert row["low"] < row["value"] < row["high"]


def test_selected_and_fresh_stand_in_columns_of_their_own(frame, tmp_path):
    final = settings.final(CASES[1], CASES)
    numbers = {
        (row.setting, row.seed): {"kid": np.array(row.kid), "dimension": np.array(96)} for row in frame.itertuples()
    }
    rows = []
    for protocol, shift in ((ablation_scores.SELECTED, 0.0), (ablation_scores.FRESH, 1.0)):
        moved = {key: {**one, "kid": one["kid"] + shift} for key, one in numbers.items()}
        found = ablation_scores.sets(final, moved, network="madry", n=200)
        rows += ablation_scores.summary(final, found, n=200, protocol=protocol)
        rows += ablation_scores.of_real(
            [{"kid": shift - k, "dimension": 96} for k in range(3)], n=200, protocol=protocol
        )
    record = records.save(Run(tmp_path), "best", scalars=rows)
    table = ablation_scores.best_table(record.scalars, shown=["kid"])
    assert table.columns.tolist() == ["", "setting", "KID, selected", "KID, fresh"]
    assert table[""].tolist() == ["chosen setting", "base setting", "real images"]
    values = [[round(cell.value, 6) for cell in table[name]] for name in ("KID, selected", "KID, fresh")]
    assert values == [[0.16, 0.2, -1.0], [1.16, 1.2, 0.0]]


def test_what_is_told_has_both_protocols(frame):
    final = settings.final(CASES[1], CASES)
    own = {
        name: pd.concat(
            [
                frame[frame["setting"] == case.setting.key].drop_duplicates("seed").assign(ablation=case.ablation)
                for case in final
            ]
        )
        for name in ("selected", "fresh")
    }
    lines = ablation_scores.told(own, final, n_settings=3).splitlines()
    assert lines[0] == "Chosen by KID among 3 settings: noise σ 0.01"
    assert lines[1].startswith("selected: KID −0.040 [")
    assert lines[2].startswith("fresh: KID −0.040 [")
