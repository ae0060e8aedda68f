"""Which ρ is chosen, on which images; the differences that are told; what is missing where nothing can be chosen."""

import bottlenecks
import numpy as np
import pytest

from helpers import optimum, parameters, records

ARMS = {
    f"ceb@rho={rho:g}": bottlenecks.arm(f"ceb@rho={rho:g}", family="no_norm", rho=float(rho)) for rho in (8, 4, 2, 1, 0)
} | {"xent": bottlenecks.arm("xent", family="no_norm")}
# right of 20 validation and of 40 test images, for each of two seeds
SHARES = {8: (15, 30), 4: (18, 31), 2: (16, 40), 1: (18, 33), 0: (19, 20)}


def pieces(**changed):
    rows = {}
    for rho, (held, test) in SHARES.items():
        for seed in range(2):
            one = {"validation": np.arange(20) < held, "test": np.arange(40) < test - seed, "image": np.arange(40)}
            rows[f"ceb@rho={rho}", seed] = one | changed
    return rows


def test_the_best_inside_is_chosen_on_validation_images_alone():
    # 2 would be the best on test images, and the lowest ρ is the best on validation images, but an end.
    found = optimum.roles(pieces(), ARMS)
    assert found == {
        ("no_norm", "ceb"): {
            optimum.LOWEST: "ceb@rho=0",
            optimum.HIGHEST: "ceb@rho=8",
            optimum.MIDDLE: "ceb@rho=2",
            optimum.INSIDE: "ceb@rho=4",  # as good as 1, and compressed less
        }
    }


def test_without_validation_images_or_between_neighbours_nothing_is_chosen():
    without = {key: {k: v for k, v in piece.items() if k != "validation"} for key, piece in pieces().items()}
    (found,) = optimum.roles(without, ARMS).values()
    assert set(found) == {optimum.LOWEST, optimum.HIGHEST, optimum.MIDDLE}
    ends = {key: piece for key, piece in pieces().items() if key[0] in ("ceb@rho=8", "ceb@rho=0")}
    (found,) = optimum.roles(ends, ARMS).values()
    assert set(found) == {optimum.LOWEST, optimum.HIGHEST}
    assert optimum.roles({key: piece for key, piece in ends.items() if key[0] == "ceb@rho=8"}, ARMS) == {}


def test_a_record_of_test_images_and_what_is_said(tmp_path):
    made = pieces()
    p = parameters.Parameters("08_ceb_robustness", "digits", values={}, folder=tmp_path)
    frames = {"verdicts": optimum.verdicts(made, ARMS)}
    record = records.save(p, "optimum", scalars=optimum.summary(made, ARMS, seed=0), frames=frames)
    frame = record.frame("verdicts")
    assert len(frame) == 4 * 2 * 40
    inside = frame[frame["role"] == optimum.INSIDE]
    assert 100 * inside["correct"].mean() == pytest.approx(100 * 30.5 / 40)
    assert record.value("accuracy", case="ceb@rho=4", split="validation") == pytest.approx(90)
    gain = record.value("accuracy_difference", role=optimum.INSIDE, against=optimum.HIGHEST)
    assert gain == pytest.approx(100 / 40)
    assert record.value("accuracy_difference", role=optimum.MIDDLE, against=optimum.HIGHEST) == pytest.approx(25)
    curve = optimum.curves(record.scalars)
    assert curve["rho"].tolist() == [0, 1, 2, 4, 8]
    assert curve["value"].tolist() == pytest.approx([100 * (SHARES[rho][1] - 0.5) / 40 for rho in (0, 1, 2, 4, 8)])
    said = optimum.reading(record.scalars)
    assert said.startswith("no norm, CEB: best inside (4) less lowest ρ (0) 28")


def test_verdicts_are_of_the_sets_that_were_given():
    images, _ = bottlenecks.images()
    found = optimum.measured(bottlenecks.network(), {"test": images, "validation": images.first(5)}, batch_size=16)
    assert found["test"].all()
    rows = optimum.plain({("xent", 0): found, ("xent", 1): found | {"test": ~found["test"]}})
    assert rows.groupby("seed")["correct"].mean().tolist() == [1, 0]
    assert set(rows["network"]) == {"xent"}
    assert (len(found["test"]), len(found["validation"]), len(found["image"])) == (40, 5, 40)
