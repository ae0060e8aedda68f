"""All ways of a round are timed in that round, in turn, with their draws seeded."""

import torch

from helpers import interleaved
from helpers.interleaved import Way

CPU = torch.device("cpu")


def test_rounds_go_there_and_back_after_an_untimed_one():
    seen = []
    ways = {name: Way(lambda k, name=name: seen.append((name, k)), 1.0) for name in "ab"}
    interleaved.timed(ways, rounds=2, device=CPU)
    assert seen == [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("b", 1), ("a", 1)]


def test_seconds_are_for_each_item(monkeypatch):
    clock = iter([0.0, 6.0])
    monkeypatch.setattr(interleaved.time, "perf_counter", lambda: next(clock))
    courses = interleaved.timed({"a": Way(lambda k: None, 3.0)}, rounds=1, device=CPU, warm=False)
    assert courses["a"].wall == [2.0]


def test_verdicts_are_gathered_and_others_draw_alike_each_time():
    ways = {"a": Way(lambda k: torch.rand(5) > 0.5, 1.0)}
    first, second = (interleaved.timed(ways, rounds=2, device=CPU)["a"].verdicts for _ in range(2))
    assert first == second
    assert len(first) == 10
