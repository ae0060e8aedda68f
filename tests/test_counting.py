"""Counts against what one can work out by hand."""

import torch
import torch.nn.functional as F
from torch import nn

from helpers import ceilings, counting


def test_a_convolution_counts_its_products():
    x, w = torch.ones(2, 3, 8, 8), torch.ones(5, 3, 3, 3)
    with counting.counting() as counts:
        F.conv2d(x, w, padding=1)
    assert counts.operations == 2 * 2 * 5 * 3 * 9 * 64
    assert counts.bytes_moved == 4 * (x.numel() + w.numel() + 2 * 5 * 64)


def test_views_are_free_and_other_kernels_count_what_they_write():
    x = torch.ones(4, 6)
    with counting.counting() as counts:
        x.T.reshape(6, 4)[:3].square()
    assert counts.operations >= 12
    with counting.counting() as counts:
        x.view(24).unsqueeze(0)
    assert (counts.operations, counts.bytes_moved) == (0, 0)


def test_a_gradient_in_the_image_costs_as_much_as_the_pass():
    net = nn.Conv2d(4, 4, 3, padding=1, bias=False).requires_grad_(False)
    x = torch.rand(1, 4, 8, 8, requires_grad=True)
    with counting.counting() as there:
        out = net(x)
    ones = torch.ones_like(out)
    with counting.counting() as back:
        torch.autograd.grad(out, x, ones)
    assert back.operations == there.operations


def test_kept_for_a_gradient_is_the_most_at_one_time():
    def look(n):
        x = torch.ones(1000, requires_grad=True)
        with counting.kept_for_gradient() as held:
            for _ in range(n):
                torch.autograd.grad((x * 2).square().sum(), x)
        return held.peak

    assert look(1) == look(5) == 4000


def test_the_longer_of_computing_and_moving():
    machine = ceilings.Ceilings(float32=100.0, bfloat16=400.0, bandwidth=10.0)
    assert machine.least_seconds(counting.Counts(1000.0, 50.0)) == 10.0
    assert machine.least_seconds(counting.Counts(100.0, 50.0)) == 5.0


def test_the_best_of_several_runs(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    monkeypatch.setattr(ceilings.time, "perf_counter", lambda: next(clock))
    assert ceilings.best_seconds(lambda: None, torch.device("cpu"), patience=0.1) == 2.0
