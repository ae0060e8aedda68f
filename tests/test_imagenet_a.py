"""ImageNet-A's protocol: both conventions, and classes found by their ids."""

import pytest
import torch

from helpers import imagenet_a

CLASSES = [f"n{k:08d}" for k in range(1000)]
SUBSET = CLASSES[3:1000:5]


def test_columns_are_the_places_of_200_of_1000_classes():
    found = imagenet_a.columns(SUBSET, CLASSES)
    assert found.tolist() == list(range(3, 1000, 5))


def test_slicing_can_only_help():
    logits = torch.randn(500, 1000, generator=torch.Generator().manual_seed(0))
    y = torch.arange(500) % 200
    columns = imagenet_a.columns(SUBSET, CLASSES)
    logits[torch.arange(500), columns[y]] += 3
    sliced, whole = (imagenet_a.correct(logits, y, columns=columns, convention=c) for c in imagenet_a.CONVENTIONS)
    assert bool((sliced | ~whole).all())
    assert int(sliced.sum()) > int(whole.sum()) > 0


def test_an_answer_outside_the_subset_is_wrong_as_a_whole_and_passed_over_when_sliced():
    logits = torch.zeros(2, 1000)
    logits[0, 4], logits[0, 8] = 9.0, 5.0  # class 4 is not one of the 200; class 8 is the second of them
    logits[1, 13] = 9.0
    y, columns = torch.tensor([1, 1]), imagenet_a.columns(SUBSET, CLASSES)
    assert imagenet_a.correct(logits, y, columns=columns, convention="sliced").tolist() == [True, False]
    assert imagenet_a.correct(logits, y, columns=columns, convention="whole").tolist() == [False, False]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: imagenet_a.columns(["n1", "n9"], ["n1", "n2"]), "n9"),
        (lambda: imagenet_a.columns(["n1", "n1"], ["n1", "n2"]), "subset to name each class once"),
        (lambda: imagenet_a.columns(["n1"], ["n1", "n1"]), "classes to name each class once"),
        (lambda: correct(y=torch.tensor([2])), "below 2"),
        (lambda: correct(columns=torch.tensor([0, 3])), "columns among the 3"),
        (lambda: correct(convention="both"), "convention"),
        (lambda: correct(logits=torch.zeros(3)), "shape"),
    ],
)
def test_bad_input_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def correct(**changes):
    words = {"logits": torch.zeros(1, 3), "y": torch.tensor([0]), "columns": torch.tensor([0, 1])}
    words |= {"convention": "sliced"} | changes
    return imagenet_a.correct(words.pop("logits"), words.pop("y"), **words)
