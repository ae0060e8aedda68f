"""WEAT's weights against energy: known weights, means over seeds, and what is said of the direction."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from helpers import data, weighting


def frame(*energies):
    """One seed for each list of energies, with WEAT's own weights."""
    parts = []
    for seed, values in enumerate(energies):
        e = np.array(values, dtype=np.float64)
        parts.append(pd.DataFrame({"seed": seed, "image": range(len(e)), "E": e, "weight": weighting.curve(e)}))
    return pd.concat(parts, ignore_index=True)


def by_metric(weights):
    return {row["metric"]: row for row in weighting.summary(weights, network="weat_adv")}


def test_weights_of_a_networks_images_are_those_of_their_energies():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([7.0, 7.0, 7.0]) - np.log(3))  # E(x) = −7 for every image
    images = data.from_tensors(torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.long), classes=["a", "b", "c"])
    found = weighting.weigh(network.eval(), images, batch_size=2)
    assert found["E"] == pytest.approx([-7.0] * 5, abs=1e-5)
    assert found["weight"] == pytest.approx([1 / np.log1p(np.exp(7.0))] * 5, rel=1e-5)
    assert found["image"].tolist() == [0, 1, 2, 3, 4]


def test_the_mean_weight_is_over_seeds():
    found = by_metric(frame([-10.0, -10.0], [-10.0, -5.0]))
    ten, five = 1 / np.log1p(np.exp(10.0)), 1 / np.log1p(np.exp(5.0))
    assert found["mean_weight"]["value"] == pytest.approx((ten + (ten + five) / 2) / 2)
    assert (found["mean_weight"]["n"], found["mean_weight"]["seeds"]) == (2, [0, 1])
    uneven = 100 * (ten + five) ** 2 / (2 * (ten**2 + five**2))
    assert found["effective_share"]["value"] == pytest.approx((100 + uneven) / 2)
    assert found["energy"]["value"] == pytest.approx(-8.75)


def test_the_direction_is_told_as_it_is():
    below = weighting.reading(pd.DataFrame(weighting.summary(frame([-10.0, -5.0], [-6.0, -7.0]), network="x")))
    assert "every E(x) is below 0, so the higher the energy, the higher the weight" in below
    both = weighting.reading(pd.DataFrame(weighting.summary(frame([-1.0, 1.0], [-1.0, 2.0]), network="x")))
    assert "E(x) is below 0 on 50" in both
    assert "above 0 a higher energy means a lower weight" in both
    assert "loss is 10.0 times smaller" in weighting.reading(
        pd.DataFrame(weighting.summary(frame([-10.0, -10.0], [-10.0, -10.0]), network="x"))
    )
