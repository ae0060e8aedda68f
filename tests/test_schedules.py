"""Schedules against PyTorch's own."""

import math

import pytest
import torch

from helpers import schedules


@pytest.mark.parametrize(("n_steps", "pct_start"), [(100, 0.25), (7, 0.5), (1000, 0.3), (40, 0.05)])
def test_one_cycle_is_pytorchs(n_steps, pct_start):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=9.0, momentum=0.9)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=n_steps, pct_start=pct_start)
    entry = {"schedule": "one_cycle", "learning_rate": 0.1, "pct_start": pct_start, "momentum": None}
    for step in range(n_steps):
        group = optimizer.param_groups[0]
        rate, momentum = schedules.at(step, entry=entry, n_steps=n_steps, steps_per_epoch=1)
        assert rate == pytest.approx(group["lr"], rel=1e-12, abs=1e-15)
        assert momentum == pytest.approx(group["momentum"], rel=1e-12)
        optimizer.step()
        if step + 1 < n_steps:
            reference.step()


def test_one_cycle_of_the_paper_starts_and_ends_where_the_digest_says():
    entry = {"schedule": "one_cycle", "learning_rate": 0.1, "pct_start": 0.25, "momentum": None}
    n = 100 * 391
    at = {
        epoch: schedules.at(epoch * 391, entry=entry, n_steps=n, steps_per_epoch=391) for epoch in (0, 25, 50, 78, 90)
    }
    assert at[0] == pytest.approx((0.004, 0.95))
    assert at[25] == pytest.approx((0.1, 0.85), rel=1e-6)
    assert [round(at[e][0], 3) for e in (50, 78, 90)] == [0.075, 0.02, 0.004]
    assert schedules.at(n - 1, entry=entry, n_steps=n, steps_per_epoch=391)[0] == pytest.approx(4e-7)


def test_a_given_momentum_is_kept():
    entry = {"schedule": "one_cycle", "learning_rate": 0.1, "pct_start": 0.25, "momentum": 0.9}
    assert {schedules.at(k, entry=entry, n_steps=20, steps_per_epoch=5)[1] for k in range(20)} == {0.9}


def test_step_decays_after_its_milestones():
    entry = {"schedule": "step", "learning_rate": 1.0, "milestones": [2, 3], "decay": 0.1, "momentum": 0.9}
    rates = [schedules.at(k, entry=entry, n_steps=16, steps_per_epoch=4)[0] for k in range(16)]
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 4 + [0.01] * 4)


def test_constant_and_unknown():
    entry = {"schedule": "constant", "learning_rate": 0.3}
    assert schedules.at(7, entry=entry, n_steps=9, steps_per_epoch=3) == (0.3, 0.0)
    with pytest.raises(ValueError, match="expected schedule one_cycle, step or constant"):
        schedules.at(0, entry={"schedule": "cosine", "learning_rate": 1.0}, n_steps=9, steps_per_epoch=3)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_the_shortest_schedules_are_finite(n_steps):
    for step in range(n_steps):
        rate, momentum = schedules.one_cycle(step, n_steps=n_steps, learning_rate=1.0, pct_start=0.25, momentum=None)
        assert math.isfinite(rate)
        assert 0 < rate <= 1
        assert 0.85 <= momentum <= 0.95
