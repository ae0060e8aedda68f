import dataclasses
import math

import hybrids
import numpy as np
import pandas as pd
import pytest
import sets

from helpers import generated, generation, hybrid_sets, hybrid_tables, noise, parameters, records, sample_sets

CHOSEN = [one for one in hybrids.cases() if one.ablation in ("table", "contrast")]


@pytest.fixture(scope="module")
def made():
    return hybrids.pieces(CHOSEN)


@pytest.fixture
def record(made, tmp_path):
    p = parameters.Parameters("06_robust_jem", "digits", values={}, folder=tmp_path)
    return records.save(
        p, "quality", scalars=hybrid_sets.summary(CHOSEN, made), frames={"sets": hybrid_sets.frame(CHOSEN, made)}
    )


def images_of(made, case, number=0):
    return made[hybrids.table()[case].key, number]["images"]


# What is made


def test_all_methods_begin_at_the_same_draws(made):
    first = sets.first_images()
    assert images_of(made, "start_only").tolist() == generation.pixels(first).numpy().tolist()
    table = hybrids.table()
    for name, method in table.items():
        still = dataclasses.replace(method, n_steps=0, attack_n_steps=0, contrast_factor=1.0)
        assert np.array_equal(hybrids.piece(still)["images"], images_of(made, "start_only")), name


def test_chains_attacks_and_contrast_by_hand(made):
    # The toy's logits are gain · its first four pixels: E(x, y) = −gain x_y, so a chain raises the pixel of the class
    # alone, by 0.25 · min(gain, 2) a step; an L∞ attack raises it by 0.25 and lowers the other three.
    x = sets.first_images().flatten(1).numpy()
    y = np.arange(16) % 4
    rows = np.arange(16)
    joint = x.copy()
    joint[rows, y] = np.minimum(1, x[rows, y] + 2 * 0.25 * 2.0)
    assert images_of(made, "robust_jem_energy_joint").reshape(16, -1) / 255 == pytest.approx(joint, abs=0.003)
    short = x.copy()  # a step of 0.25 · 2.5 without the bound on the gradient
    short[rows, y] = np.minimum(1, x[rows, y] + 0.25 * 2.0)
    one = hybrids.piece(dataclasses.replace(hybrids.table()["robust_jem_energy_joint"], n_steps=1))
    assert one["images"].reshape(16, -1) / 255 == pytest.approx(short, abs=0.003)
    attacked = x.copy()
    attacked[:, :4] = np.maximum(0, x[:, :4] - 0.25)
    attacked[rows, y] = np.minimum(1, x[rows, y] + 0.25)
    assert images_of(made, "robust_classifier").reshape(16, -1) / 255 == pytest.approx(attacked, abs=0.003)
    both = 0.5 + 0.8 * (attacked - 0.5)
    both[rows, y] = np.minimum(1, both[rows, y] + 2 * 0.25 * 2.0)
    assert images_of(made, "robust_jem").reshape(16, -1) / 255 == pytest.approx(both, abs=0.003)


def test_distances_are_from_the_class_gaussians_draw_and_saturation_is_of_the_set(made):
    piece = made[hybrids.table()["robust_jem"].key, 0]
    change = (piece["images"] / 255.0 - sets.first_images().numpy()).reshape(16, -1)
    assert piece["moved"] == pytest.approx(np.linalg.norm(change, axis=1), abs=0.02)
    ends = (piece["images"] <= 5) | (piece["images"] >= 250)
    assert float(piece["saturation"]) == pytest.approx(100 * ends.mean())
    assert 0 < float(piece["contrast"]) < 0.5


# Records


def test_a_row_for_each_case_and_set(made, record):
    frame = record.frame("sets")
    assert len(frame) == 3 * len(CHOSEN)
    row = frame[(frame["ablation"] == "table") & (frame["case"] == "robust_jem") & (frame["seed"] == 1)].iloc[0]
    piece = made[hybrids.table()["robust_jem"].key, 1]
    assert row["saturation"] == float(piece["saturation"])
    assert row["frechet_distance"] == sample_sets.scores_of(piece).estimates["frechet_distance"].value
    assert (row["epsilon_255"], row["contrast_factor"], row["n_images"]) == (63.75, 0.8, 16)
    single = frame[frame["case"] == "robust_classifier"].iloc[0]
    assert single["chain_energy"] == ""
    assert math.isnan(single["step_size"])
    ends = record.scalars.query("metric == 'saturation'")
    assert ((ends["low"] >= 0) & (ends["high"] <= 100)).all()
    value = record.value("saturation", ablation="contrast", case="c = 0.8")
    assert value == pytest.approx(frame.loc[frame["case"] == "c = 0.8", "saturation"].mean())


def test_differences_are_taken_set_by_set():
    rows = [{"ablation": "table", "case": case, "seed": k, "kid": base + 10 * k + d * k}
            for case, base, d in (("a", 1.0, 0.01), ("b", 0.0, 0.0)) for k in range(3)]  # fmt: skip
    found = hybrid_sets.against(pd.DataFrame(rows), "kid", "a", "b", ablation="table")
    assert found.value == pytest.approx(1.01)
    assert found.low > 0  # unpaired it would drown in the spread of 10
    said = hybrid_tables.reading(pd.DataFrame(rows), [("b", "a")], metrics=["kid", "recall"])
    assert said.splitlines()[0] == "b − a:"
    assert said.splitlines()[1:] == ["  KID −1.010 [−1.035, −0.985], less"]


def test_the_first_images_of_each_class_by_case(made):
    shown = hybrid_sets.first(CHOSEN, made, ablation="contrast", n_each=2)
    assert list(shown) == ["c = 0.8", "c = 1"]
    assert np.array_equal(shown["c = 0.8"], sample_sets.by_class(made[hybrids.table()["robust_jem"].key, 0], 2))


# Table 1


def test_table_1_has_the_published_rows_first_and_ours_in_columns_of_their_own(made, record):
    protocol = generated.protocol(made)
    table = hybrid_tables.table_1(record.scalars, protocol)
    assert list(table["model"][:6]) == [
        "Residual Flow", "Glow", "JEM++", "Single Robust Classifier", "Robust JEM-Energy", "Robust JEM",
    ]  # fmt: skip
    assert list(table["FID, published"][:6]) == [46.40, 48.90, 48.25, 85.12, 41.17, 47.92]
    assert list(table["IS, published"][:6]) == [3.69, 3.92, 7.54, 7.05, 8.71, 9.28]
    ours = f"FD ({protocol.extractor})"
    assert table[ours][:2].isna().all()
    assert list(table["images by"][:2]) == ["published only"] * 2
    assert table["FID, published"][6:].isna().all()
    assert table[ours][2:].notna().all()
    expected = record.value("frechet_distance", ablation="table", case="robust_jem")
    assert table[ours][5].value == expected
    assert "another kind" in hybrid_tables.caption(protocol, n_sets=3)
    assert len(table) == 6 + 4


def test_every_case_of_every_ablation_has_a_row(made, record):
    protocol = hybrid_sets.protocol(made)
    table = hybrid_tables.ablations(record.scalars, protocol)
    assert table["ablation"].tolist() == ["contrast", "contrast"]
    assert table["case"].tolist() == ["c = 0.8", "c = 1"]
    assert table[f"FD ({protocol.extractor})"][1].value == record.value(
        "frechet_distance", ablation="contrast", case="c = 1"
    )
    assert set(hybrid_tables.ABLATIONS) == {one.ablation for one in hybrids.cases()} - {"table"}


def test_pictures_show_what_was_measured(made, record):
    protocol = hybrid_sets.protocol(made)
    shown = hybrid_sets.panels(record.scalars, protocol)
    assert list(shown) == ["frechet_distance", "inception_score", "diversity", "saturation"]
    assert shown["frechet_distance"] == f"FD ({protocol.extractor})"
    early = record.scalars[record.scalars["metric"] != "inception_score"]
    assert "inception_score" not in hybrid_sets.panels(early, protocol)


def test_every_case_of_an_ablation_is_read_against_its_first(record):
    said = hybrid_tables.against_first(record.frame("sets"), "contrast", metrics=("saturation",))
    assert said.startswith("c = 1 − c = 0.8:\n  saturation (%) ")
    alone = record.frame("sets").query("case == 'c = 1'")
    assert hybrid_tables.against_first(alone, "contrast", metrics=("saturation",)) == ""


def test_start_noise_depends_on_seed_and_index_alone():
    asked = sample_sets.drawn(1, n=16, num_classes=4)
    again = sets.START.draw(asked["y"], noise.Key(3, "generation/start", asked["index"]).tabled())
    still = dataclasses.replace(hybrids.table()["robust_jem"], n_steps=0, attack_n_steps=0, contrast_factor=1.0)
    assert np.array_equal(hybrids.piece(still, 1)["images"], generation.pixels(again).numpy())
