import dataclasses

import numpy as np
import pandas as pd
import pytest
import sets

from helpers import generated, image_quality, metrics, parameters, records, sample_sets


@pytest.fixture(scope="module")
def made():
    return sets.pieces()


@pytest.fixture
def record(made, tmp_path):
    p = parameters.Parameters("04_generation", "digits", values={}, folder=tmp_path)
    frames = {"sets": generated.frame(made), "protocol": generated.as_frame(generated.protocol(made))}
    return records.save(p, "quality", scalars=generated.summary(made), frames=frames)


def test_one_row_for_each_set_with_its_own_numbers(made, record):
    frame = record.frame("sets")
    assert len(frame) == len(made) == 9
    for row in frame.to_dict("records"):
        piece = made[sample_sets.Place(row["network"], row["start"], row["sampler"]), row["seed"]]
        found = sample_sets.scores_of(piece)
        assert row["frechet_distance"] == found.estimates["frechet_distance"].value
        assert row["class_agreement"] == 100 * piece["agrees"].mean()
        assert row["moved_distance"] == piece["moved"].mean()
        assert (row["n_images"], row["reference"]) == (16, "toy/test")
    assert not [name for name in frame if "seconds" in name], "what differs from run to run is in no frame"


def test_means_over_sets_have_students_interval(made, record):
    chosen = {"network": "net", "start": "uniform", "sampler": "plain"}
    frame = record.frame("sets")
    for metric in ("frechet_distance", "moved_distance", "diversity"):
        values = frame.loc[frame["sampler"] == "plain", metric]
        rows = record.scalars
        row = rows[(rows["metric"] == metric) & (rows["sampler"] == "plain")].to_dict("records")[0]
        expected = metrics.student_t(values)
        assert (row["value"], row["seeds"], row["n"]) == (pytest.approx(expected.value), [0, 1, 2], 16)
        # 16 images are more than twice the toy's 6 features: the Fréchet distance has its interval.
        assert (row["low"], row["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
        assert record.value(metric, **chosen) == pytest.approx(values.mean())
    seconds = record.scalars[record.scalars["metric"] == "seconds_per_image"]
    assert seconds["low"].isna().all()
    assert (seconds["value"] > 0).all()


def test_shares_on_which_all_sets_agree_have_wilsons_interval_and_two_sets_none():
    assert metrics.over_sets([100.0] * 3, share_of=50) == metrics.wilson(50, 50)
    assert metrics.over_sets([1.0, 2.0]).kind == "none"
    assert metrics.over_sets([90.0, 99.0, 99.0], share_of=50).high == 100.0


def test_the_table_names_each_score_by_its_extractor_and_lpips_as_not_run(made, record):
    protocol = generated.protocol(made)
    table = generated.table(record.scalars, protocol)
    assert len(table) == 3
    assert list(table["sampler"]) == ["start alone", "plain SGLD", "with momentum"]
    assert f"FD ({protocol.extractor})" in table
    assert set(table["LPIPS"]) == {"not run"}
    assert not [name for name in table if name in ("FID", "KID", "IS")]


def test_an_extractor_without_logits_has_no_is_and_no_column_for_it(tmp_path):
    early = dataclasses.replace(sets.judges.judge(), provides=("penultimate",))
    found = {(sets.PLACES["plain"], k): sets.piece("plain", k, extractor=early) for k in range(3)}
    p = parameters.Parameters("04_generation", "digits", values={}, folder=tmp_path)
    record = records.save(p, "quality", scalars=generated.summary(found))
    protocol = generated.protocol(found)
    assert not [name for name in generated.table(record.scalars, protocol) if name.startswith("IS")]
    ours = generated.beside_published(record.scalars, protocol, place=sets.PLACES["plain"])
    assert [name for name in ours if name.endswith(", ours")] == [f"FD ({protocol.extractor}), ours"]


def test_ours_stand_in_other_columns_than_what_was_published(made, record):
    protocol = generated.protocol(made)
    table = generated.beside_published(record.scalars, protocol, place=sets.PLACES["momentum"])
    ours, theirs = table.iloc[-1], table.iloc[:-1]
    assert pd.isna(ours["FID, published"])
    own = [name for name in table if name.endswith(", ours")]
    assert len(own) == 2
    assert theirs[own].isna().all(axis=None)
    assert theirs.loc[theirs["model"] == "Mirza et al. 2024", "FID, published"].item() == 30.74
    assert not generated.comparable(protocol)


def test_marks_find_means_and_sets_of_what_is_asked_for(record):
    marks = generated.marks(record, ["frechet_distance"], sampler=["plain", "momentum"])
    assert set(marks["seeds"]["way"]) == {"uniform noise, plain SGLD", "uniform noise, with momentum"}
    assert len(marks["seeds"]) == 6
    means = marks["means"][marks["means"]["measure"] == "frechet_distance"]
    assert len(means) == 2
    for way, rows in marks["seeds"].groupby("way"):
        assert means.loc[means["way"] == way, "value"].item() == pytest.approx(rows["value"].mean())


def rows(**by_sampler):
    return pd.DataFrame(
        [
            {"network": "net", "sampler": sampler, "seed": k, "fid": value}
            for sampler, values in by_sampler.items()
            for k, value in enumerate(values)
        ]
    )


def test_a_reading_pairs_the_sets_of_one_number():
    # Paired the difference is 1 throughout but for a little; unpaired it would drown in the spread of 10.
    frame = rows(plain=[11.0, 21.0, 31.1], momentum=[10.0, 20.0, 30.0])
    said = generated.reading(frame, "fid", over="sampler", values=["plain", "momentum"], network="net")
    assert said.startswith("plain SGLD − with momentum: 1.0")
    assert said.endswith("higher (3 sets)")
    same = rows(plain=[1.0, 2.0, 3.0], momentum=[1.0, 2.0, 3.0], long_step=[0.0, 9.0, 0.0])
    told = generated.reading(same, "fid", over="sampler", values=["plain", "momentum", "long_step"], beside="first")
    assert [line.split(": ")[0] for line in told.splitlines()] == [
        "plain SGLD − with momentum", "plain SGLD − longer step",
    ]  # fmt: skip
    assert all("not told apart" in line for line in told.splitlines())


def test_scores_of_different_protocols_are_not_put_together(made):
    mixed = dict(list(made.items())[:1])
    mixed[sets.PLACES["plain"], 7] = sets.piece("plain", 7, seed=4)
    with pytest.raises(ValueError, match="expected scores of one protocol"):
        generated.protocol(mixed)
    assert generated.described(generated.protocol(made)) == image_quality.described(generated.protocol(made))
    assert np.isfinite(generated.frame(made)["kid"]).all()
