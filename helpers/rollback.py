"""After a divergence: back to the last good checkpoint and on with other noise; each event is kept, tries are counted.

At the end of each epoch a healthy run leaves `good-<step>-<stream>.safetensors`, of which the last three stay. A run
that diverges goes back to the newest one that no earlier event went back to, so that a second divergence goes back
further, and to the first step where none is left. From there it goes on under the next stream of noise: chains, data
noise, attack, order and augmentation of the images. After `max_rollbacks` of them it is given up and stays at the
newest good one. Everything is a function of recipe and seed, and a kill in between changes nothing.

An event: step, epoch (of the divergence, from 1), reason, value (`divergence`), stream (in which it happened), back_to
(the step gone back to), back_to_stream, gave_up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from helpers import training_state
from helpers.divergence import Diverged
from helpers.messages import say
from helpers.training_state import Run

N_GOOD = 3


def _path(folder: Path, step: int, stream: int) -> Path:
    return folder / f"good-{step:08d}-{stream}.safetensors"


def _place(path: Path) -> tuple[int, int]:
    _, step, stream = path.name.removesuffix(".safetensors").split("-")
    return int(step), int(stream)


def _good(folder: Path) -> list[Path]:
    """Good checkpoints, the newest last."""
    return sorted(folder.glob("good-*.safetensors"), key=_place)


def keep(run: Run, folder: Path, whose: Mapping[str, Any]) -> None:
    """Leave a good checkpoint of a run at the end of an epoch, and take the oldest away."""
    assert run.memory is not None
    training_state.save(run, _path(folder, run.step, run.memory.stream), whose)
    for old in _good(folder)[:-N_GOOD]:
        old.unlink()


def sweep(folder: Path) -> None:
    """Take away all good checkpoints, once a training is finished."""
    for path in _good(folder):
        path.unlink()


def back(
    run: Run,
    error: FloatingPointError,
    *,
    begin: Callable[[], Run],
    folder: Path,
    whose: Mapping[str, Any],
    seed: int,
    epoch: int,
    max_rollbacks: int,
) -> Run:
    """The run after the divergence `error` of `run` in `epoch`: an earlier one with the event in its history.

    `begin` makes a run before its first step. `stopped` is set where no further rollback is allowed.
    """
    assert run.memory is not None
    events, stream = run.history.events, run.memory.stream
    gave_up = len(events) >= max_rollbacks
    used = {(event["back_to"], event["back_to_stream"]) for event in events} if not gave_up else set()
    found = [path for path in _good(folder) if _place(path) not in used]
    again, place = begin(), (0, stream)
    while found:
        path = found.pop()
        try:
            training_state.load(again, path, whose, seed=seed)
            place = _place(path)
            break
        except training_state.UnusableCheckpoint as damage:
            say(f"good checkpoint not usable: {damage}")
            again = begin()
    reason, value = (error.reason, error.value) if isinstance(error, Diverged) else ("not finite", None)
    event = {
        "step": run.step + 1, "epoch": epoch, "reason": reason, "value": value, "stream": stream, "back_to": place[0],
        "back_to_stream": place[1], "gave_up": gave_up,
    }  # fmt: skip
    again.history.events[:] = [*events, event]
    assert again.memory is not None
    again.memory = again.memory.on_stream(stream + 1, seed=seed)
    again.seconds, again.stopped = run.seconds, gave_up
    return again
