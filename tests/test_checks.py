"""Each check lets the good through unchanged and says what it expected and what it got."""

import math

import pytest
import torch

from helpers import checks

GOOD = [
    (checks.images, (torch.rand(2, 3, 4, 4),)),
    (checks.images, (torch.rand(2, 1, 1, 1, dtype=torch.float64),)),
    (checks.images, (torch.rand(0, 3, 4, 4),)),
    (checks.labels, (torch.tensor([0, 9]),)),
    (checks.index, (torch.tensor([0, 2**40]),)),
    (checks.logits, (torch.randn(2, 5),)),
    (checks.radius, (0.0,)),
    (checks.radius, (8 / 255,)),
    (checks.count, (3, "n")),
]

BAD = [
    (lambda: checks.images([0.5]), r"x to be a torch.Tensor, got list"),
    (lambda: checks.images(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)), r"got torch.uint8 \(divide uint8"),
    (lambda: checks.images(torch.zeros(1, 3, 2, 2).half()), r"got torch.float16"),
    (lambda: checks.images(torch.zeros(3, 2, 2)), r"shape \(B, C, H, W\), got \(3, 2, 2\)"),
    (lambda: checks.images(torch.full((1, 1, 1, 1), 1.01)), r"in \[0, 1\], got values from 1.01 to 1.01"),
    (lambda: checks.images(torch.full((1, 1, 1, 1), -0.01)), r"got values from -0.01"),
    (lambda: checks.images(torch.full((1, 1, 1, 1), math.nan)), r"got values from nan"),
    (lambda: checks.labels(torch.zeros(2)), r"int64 labels of shape \(B,\), got torch.float32"),
    (lambda: checks.labels(torch.zeros(2, 1, dtype=torch.int64)), r"got torch.int64 of \(2, 1\)"),
    (lambda: checks.labels(torch.tensor([0, 10]), num_classes=10), r"below 10 .*, got labels from 0 to 10"),
    (lambda: checks.labels(torch.tensor([-1, 1])), r"at least 0, got labels from -1 to 1"),
    (lambda: checks.labels(torch.tensor([1]), torch.zeros(2, 3)), r"each of 2 rows on cpu, got 1 on cpu"),
    (lambda: checks.index(torch.tensor([-1])), r"index to be at least 0, got -1"),
    (lambda: checks.index(torch.tensor([1]), torch.zeros(2)), r"each of 2 rows, got 1"),
    (lambda: checks.index(torch.tensor([1.0])), r"int64 of shape \(B,\)"),
    (lambda: checks.logits(torch.zeros(3)), r"shape \(B, K\), got torch.float32 of \(3,\)"),
    (lambda: checks.logits(torch.zeros(3, 2, dtype=torch.int64)), r"floating"),
    (lambda: checks.per_sample(torch.zeros(2, 1), torch.zeros(2), "loss"), r"loss of shape \(2,\).*got \(2, 1\)"),
    (lambda: checks.per_sample(torch.zeros(()), torch.zeros(2), "loss"), r"got \(\)"),
    (lambda: checks.radius(-1e-9), r"epsilon to be a finite number and >= 0, got -1e-09"),
    (lambda: checks.radius(math.nan), r"got nan"),
    (lambda: checks.radius(math.inf), r"got inf"),
    (lambda: checks.radius("8/255"), r"got '8/255'"),
    (lambda: checks.radius(True), r"got True"),
    (lambda: checks.number(0.0, "lr", above=0), r"lr to be a finite number and > 0, got 0.0"),
    (lambda: checks.probability(1.5, "p"), r"p to be a finite number and >= 0 and <= 1, got 1.5"),
    (lambda: checks.count(2.0, "n"), r"n to be a whole number >= 0, got 2.0"),
    (lambda: checks.count(True, "n"), r"got True"),
    (lambda: checks.count(0, "n", minimum=1), r">= 1, got 0"),
    (lambda: checks.count(9, "n", maximum=8), r">= 0 and <= 8, got 9"),
    (lambda: checks.choice("l1", ("linf", "l2"), "norm"), r"norm to be one of 'linf', 'l2', got 'l1'"),
    (lambda: checks.module(lambda x: x), r"network to be a torch.nn.Module, got function"),
]


@pytest.mark.parametrize(("check", "arguments"), GOOD)
def test_the_good_comes_back_as_it_was(check, arguments):
    assert check(*arguments) is arguments[0]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_the_bad_is_named_with_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_divergence_names_step_value_and_image():
    values = torch.tensor([[1.0, 2.0], [3.0, math.inf], [math.nan, 0.0]])
    with pytest.raises(FloatingPointError, match=r"gradient is not finite at step 4: inf for image 11 \(2 of 3 rows\)"):
        checks.finite(values, "gradient", step=4, index=torch.tensor([10, 11, 12]))
    with pytest.raises(FloatingPointError, match=r"loss is not finite at step 0: nan for image 1 \(1 of 2"):
        checks.finite(torch.tensor([0.0, math.nan]), "loss", step=0)
    assert checks.finite(torch.zeros(0), "loss", step=0).shape == (0,)


def test_on_an_accelerator_the_look_comes_after_the_last_step():
    finite = checks.Finite([3, 141, 59, 26])
    rows = torch.zeros(4, device="meta")  # a device whose values cannot be read
    finite.watch(rows, "the loss", 3)
    assert finite.pending == [(rows, "the loss", 3)]
    finite.pending = [(torch.tensor([0.0, 0.0, 0.0, math.nan]), "the loss", 3)]
    with pytest.raises(FloatingPointError, match="the loss is not finite at step 3: nan for image 26"):
        finite.look()
