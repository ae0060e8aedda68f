"""Divergence in training: back to a good checkpoint, then further back, then given up; kills change nothing."""

import json

import jems
import pytest
import tiny
import torch

from helpers import batch_norm, checkpoints, divergence, jem, rollback, train, zoo
from helpers.history import History

SEEN = divergence.Watch.see


class Stop(Exception):
    """Raised by a callback in place of a kill."""


def fit(folder, *, stop=None, **changes):
    """Three epochs of three steps; a buffer of 40."""

    def callback(p: train.Progress) -> None:
        if p.step == stop:
            raise Stop

    recipe = tiny.recipe(**{**jems.ENTRY, "epochs": 3, "max_rollbacks": 2, **changes})
    return train.fit(recipe, 0, folder=folder, device="cpu", callback=callback, sets=tiny.sets())


@pytest.fixture
def diverges(monkeypatch):
    """Makes the watch raise at its calls of these numbers, counted in one process; `diverges.count` counts them."""

    def install(*calls: int):
        install.count = 0

        def see(watch, step):
            install.count += 1
            SEEN(watch, step)
            if install.count in calls:
                raise divergence.Diverged("energy gap", 99.0, "energy gap: 99")

        monkeypatch.setattr(divergence.Watch, "see", see)

    return install


def of(events, *keys):
    return [tuple(event[key] for key in keys) for event in events]


def test_an_undisturbed_run_has_no_events_and_leaves_its_buffer(tmp_path):
    _, curves = fit(tmp_path)
    assert curves.events == []
    assert curves.scalars["epoch"] == [1, 2, 3]
    terms = ("energy_gap", "chain_saturation", "classification_loss", "chain_gradient_norm")
    assert all(len(curves.scalars[name]) == 3 for name in terms)
    assert len(jem.buffer_in(tmp_path, tiny.sets().train)) == 40
    assert not list(tmp_path.glob("good-*"))


def test_it_goes_back_to_the_last_epoch_and_on_with_other_noise(tmp_path, diverges):
    expected, _ = fit(tmp_path / "calm")
    diverges(5)  # the second step of the second epoch
    network, curves = fit(tmp_path / "wild")
    assert of(curves.events, "step", "epoch", "reason", "value", "stream", "back_to", "gave_up") == [
        (5, 2, "energy gap", 99.0, 0, 3, False)
    ]
    assert curves.scalars["step"] == [3, 6, 9]
    assert not tiny.same(network, expected)


def test_a_second_divergence_goes_back_further_and_a_third_gives_up(tmp_path, diverges):
    diverges(8, 9, 13)  # in epoch 3; again at its first step; and after one epoch and a step from step 3
    network, curves = fit(tmp_path)
    assert of(curves.events, "step", "back_to", "back_to_stream", "stream", "gave_up") == [
        (8, 6, 0, 0, False),
        (7, 3, 0, 1, False),
        (7, 6, 2, 2, True),
    ]
    assert curves.scalars["step"] == [3, 6]  # of the good checkpoint that it was left at
    assert not network.training


def test_where_no_epoch_is_finished_it_begins_anew(tmp_path, diverges):
    diverges(2)
    _, curves = fit(tmp_path)
    assert of(curves.events, "step", "back_to", "gave_up") == [(2, 0, False)]
    assert curves.scalars["step"] == [3, 6, 9]


def test_no_rollback_is_allowed_where_the_recipe_says_so(tmp_path, diverges):
    diverges(5)
    _, curves = fit(tmp_path, max_rollbacks=0)
    assert of(curves.events, "back_to", "gave_up") == [(3, True)]
    assert curves.scalars["step"] == [3]


def by_step(monkeypatch, *steps):
    """Divergence at each of these (step, stream), so that a run in pieces meets it too."""
    evaluate = train.jem.evaluate

    def watched(network, batch, memory, *, step, **given):
        if (step, memory.stream) in steps:
            raise FloatingPointError("energy is nan")
        return evaluate(network, batch, memory, step=step, **given)

    monkeypatch.setattr(train.jem, "evaluate", watched)


@pytest.mark.parametrize("stop", [1, 3, 4, 6, 7])
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(stop, tmp_path, monkeypatch):
    by_step(monkeypatch, (4, 0), (7, 1))
    whole, curves = fit(tmp_path / "whole", max_rollbacks=5)
    assert of(curves.events, "step", "reason", "back_to") == [(5, "not finite", 3), (8, "not finite", 6)]
    with pytest.raises(Stop):
        fit(tmp_path / "pieces", stop=stop, max_rollbacks=5)
    torch.randn(5)
    network, again = fit(tmp_path / "pieces", max_rollbacks=5)
    assert tiny.same(network, whole)
    assert again.events == curves.events
    assert json.dumps(again.scalars) == json.dumps(curves.scalars)
    sets = tiny.sets().train
    assert jem.buffer_in(tmp_path / "pieces", sets).pixels.equal(jem.buffer_in(tmp_path / "whole", sets).pixels)


def test_a_damaged_good_checkpoint_is_passed_over(tmp_path, diverges, monkeypatch, capsys):
    diverges(8)
    keep = rollback.keep

    def damaging(run, folder, whose):
        keep(run, folder, whose)
        if run.step == 6:
            (folder / "good-00000006-0.safetensors").write_bytes(b"damage")

    monkeypatch.setattr(rollback, "keep", damaging)
    _, curves = fit(tmp_path)
    assert of(curves.events, "step", "back_to") == [(8, 3)]
    assert "good checkpoint not usable" in capsys.readouterr().err


def test_a_run_that_was_given_up_stays_so(tmp_path, diverges):
    diverges(2)
    fit(tmp_path, max_rollbacks=0)
    diverges()
    _, curves = fit(tmp_path, max_rollbacks=0)
    assert of(curves.events, "gave_up") == [(True,)]


def test_other_objectives_still_raise(tmp_path, monkeypatch):
    def evaluate(*_, **__):
        raise FloatingPointError("energy is nan")

    monkeypatch.setattr(train.objectives, "evaluate", evaluate)
    with pytest.raises(FloatingPointError, match="tiny, seed 0: energy is nan"):
        train.fit(tiny.recipe(), 0, folder=tmp_path, device="cpu", sets=tiny.sets())


def test_a_history_keeps_its_events(tmp_path):
    History({"epoch": [1]}, {}, [{"step": 3, "value": None}]).save(tmp_path)
    assert History.load(tmp_path).events == [{"step": 3, "value": None}]
    History({"epoch": [1]}, {}).save(tmp_path)
    assert "events" not in json.loads((tmp_path / "history.json").read_text())
    assert History.load(tmp_path).events == []


def test_the_network_that_comes_back_has_the_averages_of_training_images(tmp_path):
    network, _ = fit(tmp_path, ema=0.0)
    tensors, _ = checkpoints.load(tmp_path / train.CHECKPOINT)
    state = network.state_dict()
    assert state["body.conv1.weight"].equal(tensors["network/body.conv1.weight"])
    assert not state["body.norm1.running_mean"].equal(tensors["network/body.norm1.running_mean"])
    again = batch_norm.settled(network, tiny.sets().train, batch_size=train.MONITOR_BATCH)
    assert again.state_dict()["body.norm1.running_mean"].equal(state["body.norm1.running_mean"])


def test_a_card_tells_of_divergences():
    curves = History({"epoch": [1, 2]}, {}, [{"gave_up": False}, {"gave_up": True}])
    assert zoo._course(curves) == {"training": {"epochs": 2, "events": curves.events, "gave_up": True}}
    assert zoo._course(History({"epoch": [1]}, {}))["training"] == {"epochs": 1, "events": [], "gave_up": False}
