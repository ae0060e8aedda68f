import pandas as pd
import pytest

from helpers import hybrid_training, metrics, zoo
from helpers.history import History

TOOK = {"plain": 10.5, "robust": 21.0, "old": 10.5}


def event(epoch, reason):
    return {"step": 9, "epoch": epoch, "reason": reason, "value": 1.0, "stream": 0, "back_to": 0, "gave_up": False}


def card(name, *, profile, seed):
    found = {"entry": {"epochs": 4}, "provenance": {"seconds": 10.0 + seed}, "accuracy": {"clean": {"value": 90.0}}}
    found["data"] = {"n_test": 50}
    if name == "robust":
        found |= {"provenance": {"seconds": 20.0 + 2 * seed}}
        found["training"] = {"events": [], "gave_up": False}
    if name == "plain":
        events = [event(2, "energy gap"), event(3, "not finite")][: seed + 1]
        found["training"] = {"events": events, "gave_up": False}
    return found


@pytest.fixture(autouse=True)
def trained(monkeypatch):
    monkeypatch.setattr(zoo, "card", card)
    monkeypatch.setattr(zoo, "seeds", lambda name, profile: (0, 1))


@pytest.fixture
def runs():
    return hybrid_training.runs(["plain", "robust", "plain", "old"], profile="tiny")


def test_a_row_for_each_seed_with_its_divergences_and_cost(runs):
    assert len(runs) == 6
    assert runs.query("network == 'plain'")["divergences"].tolist() == [1, 2]
    assert (
        runs.query("network == 'plain' and seed == 1")["reasons"].item()
        == "energy gap in epoch 2; not finite in epoch 3"
    )
    assert runs.query("network == 'robust'")["divergences"].tolist() == [0, 0]
    assert runs.query("seed == 0")["diverged"].tolist() == [100.0, 0.0, 0.0]
    assert runs.query("network == 'robust'")["accuracy"].tolist() == [90.0, 90.0]
    assert "seconds" not in runs
    # a network whose card says nothing of its training's course has had none to tell
    assert runs.query("network == 'old'")["divergences"].tolist() == [0, 0]


def test_divergences_are_summed_and_the_rest_is_a_mean(runs):
    rows = {(row["metric"], row["network"]): row for row in hybrid_training.summary(runs, TOOK)}
    assert rows["divergences", "plain"]["value"] == 3
    assert (rows["diverged", "plain"]["value"], rows["diverged", "robust"]["value"]) == (100.0, 0.0)
    assert rows["diverged", "robust"]["high"] == pytest.approx(metrics.wilson(0, 2).high)
    assert rows["seconds", "robust"]["value"] == 21.0
    assert (rows["accuracy", "robust"]["value"], rows["accuracy", "robust"]["low"]) == (90.0, None)  # of two seeds
    assert rows["divergences", "plain"]["seeds"] == [0, 1]
    table = hybrid_training.table(pd.DataFrame(list(rows.values())))
    assert table["divergences"].map(lambda cell: cell.value).tolist() == [3, 0, 0]
    assert table["seeds"].tolist() == [2, 2, 2]


def test_seconds_are_means_over_seeds():
    assert hybrid_training.seconds(["plain", "robust", "old"], profile="tiny") == TOOK


def test_the_reading_counts_and_says_that_few_seeds_tell_nothing(runs, monkeypatch):
    said = hybrid_training.reading(runs, TOOK, plain="plain", robust="robust")
    assert "plain: divergences seed 0: 1, seed 1: 2; 10 s a training" in said
    assert "2 seeds are too few to compare: 10 are needed." in said
    assert "Training with attacks took 2.00 times as long." in said
    of_one = hybrid_training.reading(runs[runs["seed"] == 0], TOOK, plain="plain", robust="robust")
    assert "1 seed is too few to compare: 10 are needed." in of_one
    monkeypatch.setattr(zoo, "seeds", lambda name, profile: tuple(range(10)))
    many = hybrid_training.runs(["plain", "robust"], profile="tiny")
    said = hybrid_training.reading(many, TOOK, plain="plain", robust="robust")
    # none of ten and all of ten: each Wilson interval reaches 27.75 points from its end
    assert "enough to compare: the share that diverged with attacks less that without is -100 [-100, -61] %." in said


def test_curves_are_those_that_energy_based_models_have(monkeypatch):
    whole = {"epoch": [1, 2], **{name: [0.5, 0.25] for name in hybrid_training.CURVES}}
    found = {("plain", 0): History(whole), ("old", 0): History({"epoch": [1, 2]})}
    monkeypatch.setattr(zoo, "histories_of", lambda names, profile: found)
    curves = hybrid_training.curves(["plain", "old"], profile="tiny")
    assert curves["network"].tolist() == ["plain", "plain"]
    assert curves["energy_gap"].tolist() == [0.5, 0.25]
    monkeypatch.setattr(zoo, "histories_of", lambda names, profile: {("old", 0): found["old", 0]})
    assert hybrid_training.curves(["old"], profile="tiny").empty
