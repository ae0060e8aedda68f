"""Beside the authors' own AutoAttack, where it is installed: the same images, network and radius.

Put the package on the path, e.g. PYTHONPATH=…/auto-attack, with CIFAR-10 in DATA_ROOT and weights in CHECKPOINTS.
"""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from helpers import autoattack, data, foreign, models

WEIGHTS = "cifar10_linf2_resnet2b.safetensors"
N = 100

pytestmark = [
    pytest.mark.foreign,
    pytest.mark.skipif(
        importlib.util.find_spec("autoattack") is None
        or not os.environ.get("DATA_ROOT")
        or not (Path(os.environ.get("CHECKPOINTS", "")) / WEIGHTS).is_file(),
        reason="needs the autoattack package, DATA_ROOT with CIFAR-10 and CHECKPOINTS with the foreign networks",
    ),
]


@pytest.fixture(scope="module")
def case():
    network = models.build(
        "resnet2b", num_classes=10, in_channels=3, image_size=32, norm="none",
        mean=[0.4914, 0.4822, 0.4465], std=[0.2471, 0.2435, 0.2616],
    )  # fmt: skip
    path = foreign.folder() / WEIGHTS
    foreign.fill(network, foreign.read(path), where=str(path))
    images = data.load("cifar10", "test").first(N)
    return network.eval(), images.images(), images.labels, images.index


def official(network, x, y, *, norm, epsilon):
    """How many stand after each attack of the authors' code."""
    theirs = importlib.import_module("autoattack").AutoAttack(
        network, norm=norm, eps=epsilon, seed=0, version="standard", device="cpu", verbose=False
    )
    stands, counts = network(x).argmax(1) == y, []
    for name in ("apgd-ce", "apgd-t"):
        theirs.attacks_to_run = [name]
        rows = stands.nonzero().squeeze(1)
        found = theirs.run_standard_evaluation(x[rows], y[rows], bs=N)
        stands[rows] = network(found).argmax(1) == y[rows]
        counts.append(int(stands.sum()))
    return counts


@pytest.mark.filterwarnings("ignore")  # the authors' checks warn of zero gradients
@pytest.mark.parametrize(("norm", "theirs", "epsilon"), [("linf", "Linf", 8 / 255), ("l2", "L2", 0.5)])
@torch.no_grad()
def test_as_many_images_stand_as_against_the_authors(case, norm, theirs, epsilon):
    network, x, y, index = case
    ours = autoattack.evaluate(
        network, x, y, attacks=("apgd_ce", "apgd_t"), budget=autoattack.Budget(), norm=norm, epsilon=epsilon, seed=0,
        index=index, batch_size=N,
    )  # fmt: skip
    counts = [round(ours.accuracy[name].value * N / 100) for name in ("apgd_ce", "apgd_t")]
    expected = official(network, x, y, norm=theirs, epsilon=epsilon)
    # over four seeds each of the two moved by up to 5 of 1,000 images
    assert all(abs(a - b) <= 1 for a, b in zip(counts, expected, strict=True)), (counts, expected)
