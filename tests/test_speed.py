"""Ratios, agreement, shares and aims from times that were made up."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from helpers import bill, hot_spots, race, racing, speed, speed_tables
from helpers.records import _columns


def course(wall, cpu=None, verdicts=()):
    return {"wall": list(wall), "cpu": list(cpu or wall), "verdicts": list(verdicts)}


FOUND = {
    "ceilings": {"float32": 1e9, "bfloat16": 2e9, "bandwidth": 1e8, "kind": "cpu", "device": "one", "threads": 1,
                 "torch": "2"},
    "pgd_20": {
        "item": "image", "absent": {"ART": "not here"}, "rounds": 3,
        "counts": {"operations": 5e5, "bytes_moved": 1e4},
        "ways": {
            "ours": course([1e-3, 2e-3, 1e-3], verdicts=[True, True, False, False]),
            "torchattacks": course([3e-3, 5e-3, 2e-3], [4e-3, 8e-3, 4e-3], [True, False, False, False]),
        },
        "versions": {"ours": "", "torchattacks": "3.5.1"},
    },
    "growth": {
        "steps": [{"value": 2, "wall": [1.0, 2.0], "kept": 2**20}, {"value": 6, "wall": [3.0, 7.0], "kept": 2**20}]
    },
    "hot_spots": {"training": [{"kernel": "conv", "share": 90.0, "calls": 3}]},
}  # fmt: skip


def frame(rows):
    return pd.DataFrame(rows, columns=_columns(rows))


def one(rows, metric, **where):
    found = [row for row in rows if row["metric"] == metric and all(row.get(k) == v for k, v in where.items())]
    assert len(found) == 1
    return found[0]


def test_a_ratio_is_of_one_round():
    rows = speed.summary(FOUND)
    wall = one(rows, "speed_ratio", way="torchattacks", clock="wall")
    assert (wall["low"], wall["value"], wall["high"]) == (2.0, 2.5, 3.0)
    assert wall["level"] == 0.75  # of three rounds
    assert one(rows, "speed_ratio", way="torchattacks", clock="cpu")["value"] == 4.0
    assert "not here" in one(rows, "speed_ratio", way="ART")["reason"]
    assert one(rows, "seconds_per_item", way="ours", round=1)["value"] == 2e-3
    assert len({row["id"] for row in rows}) == len(rows)


def test_gradients_in_bfloat16_are_compared_with_others_only():
    found = json.loads(json.dumps(FOUND))
    found["pgd_20"]["ways"]["ours, bfloat16"] = course([5e-4, 1e-3, 5e-4], verdicts=[True] * 4)
    rows = speed.summary(found)
    assert one(rows, "halved_speed_ratio", clock="wall")["value"] == 5.0  # of torchattacks alone
    text = speed_tables.reading(frame(rows), device="cpu")
    assert "with gradients in bfloat16 5.0 [4.0, 6.0] ×: met" in text


def test_agreement_is_by_image():
    rows = speed.agreement(FOUND)
    assert one(rows, "verdict_agreement", way="torchattacks")["value"] == 75
    assert one(rows, "robust_accuracy", way="ours")["value"] == 50


def test_the_share_of_the_ceiling():
    rows = speed.counted(FOUND)
    assert one(rows, "least_seconds", row="pgd_20")["value"] == 5e-4  # computing, not moving
    assert one(rows, "share_of_ceiling", row="pgd_20")["value"] == pytest.approx(50)
    found = json.loads(json.dumps(FOUND))
    found["pgd_20"]["ways"]["ours, bfloat16"] = course([5e-4, 5e-4, 5e-4])
    rows = speed.counted(found)
    assert one(rows, "share_of_ceiling", way="ours, bfloat16")["value"] == pytest.approx(50)
    table = speed_tables.count_table(frame(rows))
    assert list(table["way"]) == ["ours", "ours, bfloat16"]
    assert list(table["share (%)"]) == [50, 50]


def test_growth_is_over_the_smallest_in_the_same_round():
    rows = speed.growth(FOUND)
    assert one(rows, "time_ratio", times=3.0)["value"] == pytest.approx(3.25)
    assert "steps × 3: time × 3.2" in speed_tables.growth_reading(frame(rows))
    assert "kept activations × 1.00" in speed_tables.growth_reading(frame(rows))


@pytest.mark.parametrize(("factor", "said"), [(1.0, "met in some rounds only"), (2.0, ": met"), (0.5, "missed")])
def test_aims_are_met_missed_or_between(factor, said):
    found = json.loads(json.dumps(FOUND))
    found["pgd_20"]["ways"]["torchattacks"]["wall"] = [factor * t for t in (3e-3, 5e-3, 2e-3)]
    text = speed_tables.reading(frame(speed.summary(found)), device="cpu")
    assert "by the processor" in text
    assert text.startswith("verdicts under PGD-20 against torchattacks: ")
    assert text.endswith(said)


def test_a_miss_has_its_cause():
    def said(factor):
        found = json.loads(json.dumps(FOUND))
        found["pgd_20"]["ways"]["torchattacks"]["wall"] = [factor * t for t in (2e-3, 4e-3, 2e-3)]
        found["hot_spots"]["pgd_20"] = [{"kernel": "conv", "share": 87.6, "calls": 3}]
        rows = [frame(one(found)) for one in (speed.summary, speed.counted, speed.hot_spots)]
        return speed_tables.causes(*rows, device="cpu")

    # 5e5 operations at 1e9 a second are 0.5 ms, half of ours: at the ceiling the ratio of 2 would be 4
    assert said(1.0).startswith("verdicts under PGD-20 against torchattacks, 2.000 [2.000, 2.000] × for 2.5 ×: ")
    assert said(1.0).endswith("ours is at 50 % of the ceiling, which is 4 ×; its time: conv 88 %")
    assert "short of the aim; its time" in said(0.5)
    assert said(2.0) == "No aim is missed in any round."


def test_the_table_has_a_line_for_each_rival():
    rows = [*speed.summary(FOUND), *speed.agreement(FOUND)]
    table = speed_tables.race_table(frame(rows)).set_index("against")
    assert str(table.loc["torchattacks", "ratio"]) == "2.50 [2.00, 3.00]"
    assert table.loc["torchattacks", "ours (µs)"] == 1000
    assert table.loc["ART", "ratio"] is None
    assert "not here" in table.loc["ART", "not run"]
    assert list(speed_tables.absent(FOUND)) == ["ART: not here (verdicts under PGD-20)"]
    assert "torchattacks 3.5.1" in speed_tables.machine(FOUND)


def test_the_rate_of_training_is_by_its_counts():
    training = {"counts": {"operations": 6.0}, "ways": {"ours": course([2.0, 3.0, 4.0])}}
    assert speed.training_rate({"training": training}) == 2.0
    assert speed.training_rate(FOUND) is None


def test_times_do_not_count_when_runs_are_compared():
    from helpers import records

    rows = [*speed.summary(FOUND), *speed.counted(FOUND), *speed.growth(FOUND), *speed.hot_spots(FOUND)]
    steady = {row["metric"] for row in rows if row["unit"] not in records.COST_UNITS}
    assert steady == {"operations", "bytes_moved"}


def test_the_largest_kernels_are_named_and_the_rest_summed(monkeypatch):
    import torch

    x = torch.rand(64, 64)
    rows = hot_spots._shares(lambda: [x @ x, x.exp(), x.sin(), x.cos(), x.tan(), x.log(), x.sqrt(), x.abs()], x.device)
    assert len(rows) == hot_spots.SHOWN + 1
    assert sum(row["share"] for row in rows) == pytest.approx(100)
    assert rows[-1]["kernel"] == "all others"


# The process --------------------------------------------------------------------------------------------------------


def test_a_failing_process_says_its_last_words(tmp_path, monkeypatch):
    code = "import sys; sys.exit('no such network')"
    monkeypatch.setattr(race, "COMMAND", ["-c", code])
    monkeypatch.setenv("PEERS_PYTHON", sys.executable)
    with pytest.raises(RuntimeError, match="no such network"):
        race.measure(folder=tmp_path, profile="digits", values={"speed_rows": ["chain"]})


def test_what_is_in_the_folder_is_not_measured_again(tmp_path, monkeypatch):
    (tmp_path / "request.json").write_text('{"profile": "digits", "values": {"speed_rows": ["chain", "class_pca"]}}')
    for name in ("ceilings", "chain", "growth", "hot_spots"):
        (tmp_path / f"{name}.json").write_text('{"kept": 1}')
    monkeypatch.setattr(racing.contests, "prepared", lambda *_: None)
    monkeypatch.setattr(racing, "_row", lambda row, setting: {"row": row})
    assert racing.main([str(tmp_path)]) == 0
    assert json.loads((tmp_path / "class_pca.json").read_text()) == {"row": "class_pca"}
    assert json.loads((tmp_path / "chain.json").read_text()) == {"kept": 1}


# The bill -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"objective": "standard"}, 3),
        ({"objective": "madry", "n_steps": 10}, 3 + 20),
        ({"objective": "trades", "n_steps": 10}, 6 + 20 + 1),
        ({"objective": "fgsm_rs", "n_steps": None}, 3 + 2),
        ({"objective": "ceb"}, 3),
        ({"objective": "jem", "chain_n_steps": 10, "n_steps": 5}, 9 + 20 + 10),
    ],
)
def test_passes_of_a_training(entry, expected):
    assert bill.passes(entry) == expected


def test_no_rate_no_hours_and_all_notebooks_once(monkeypatch):
    costs = {"03_weat": bill.Cost(7.2e15, 0.0, 3.6e15), "04_generation": bill.Cost(0.0, 3.6e15, 0.0)}
    monkeypatch.setattr(bill, "costs", lambda profile: costs)
    unrated, rated = (frame(bill.summary("paper", rate=rate)) for rate in (None, 1e12))
    assert "not measured" in bill.reading(unrated)
    assert unrated.loc[unrated["metric"] == "gpu_hours", "value"].isna().all()
    table = bill.frame(rated).set_index("notebook")
    assert list(table.loc["03_weat", ["hours on 1", "hours on 8", "hours on 64"]]) == [2.0, 1.0, 1.0]
    assert table.loc["all", "hours on 1"] == 3.0


def test_a_resnet18_has_its_published_operations():
    from helpers import parameters

    found = bill.forward(parameters.recipe("cifar10", "madry"))
    assert found == pytest.approx(2 * 0.5557e9, rel=0.02)  # 0.56 billion multiplications at 32×32
    assert np.isclose(bill.training(parameters.recipe("cifar10", "madry")), found * 23 * 100 * 50000)
