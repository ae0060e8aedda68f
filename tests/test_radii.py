"""Accuracy by radius: a linear network whose curve is known, units, and what is said."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers import data, parameters, radii, records


class Linear(nn.Module):
    """Two classes: f = (s, −s) with s = Σ x − d/2, so an L∞ ball of ε flips what lies within d ε, an L2 ball √d ε."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        s = self.scale * (x.flatten(1) - 0.5).sum(1)
        return torch.stack([s, -s], 1)


@pytest.fixture(scope="module")
def images():
    level = torch.linspace(0.3, 0.7, 40)  # images of one grey, d = 4
    x = level.view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return data.from_tensors(x, (level < 0.5).long(), classes="ab")


def curve(images, norm, epsilons):
    return radii.measured(
        Linear(), images, norm=norm, epsilons=epsilons, step_radii=0.5, n_steps=20, seed=0, batch_size=16
    )


@pytest.mark.parametrize(("norm", "reach"), [("linf", 1.0), ("l2", 0.5)])
def test_the_curve_of_a_linear_network_is_exact(images, norm, reach):
    # A grey g is flipped by ε > |g − 1/2| in L∞ and by ε/√4 > |g − 1/2| in L2.
    found = curve(images, norm, [0.1, 0.05, 0.3])
    assert found["epsilon"].tolist() == [0, 0.05, 0.1, 0.3]
    distance = (images.images().flatten(1).mean(1) - 0.5).abs()
    for epsilon, correct in zip(found["epsilon"], found["correct"], strict=True):
        clear = (distance - reach * epsilon).abs() > 1e-3  # the start's sideways part fades with the steps
        assert torch.from_numpy(correct)[clear].equal((distance > reach * epsilon)[clear])
    assert found["correct"][0].all()


def test_units_are_converted_in_one_place():
    assert radii.units(8 / 255) == {"epsilon": 8 / 255, "epsilon_255": 8.0, "epsilon_symmetric": 16 / 255}
    assert radii.units(0.5)["epsilon_symmetric"] == 1.0
    # what is ε on [0, 1] is 2ε on [−1, 1], whatever the norm
    x, d = torch.rand(3, 4), torch.rand(3, 4) / 9
    for order in (2, torch.inf):
        scaled = (2 * (x + d) - 1) - (2 * x - 1)
        assert scaled.norm(order) == pytest.approx(radii.units(float(d.norm(order)))["epsilon_symmetric"], rel=1e-5)


def test_over_seeds_with_all_units_and_a_table(images, tmp_path):
    pieces = {("standard", k, norm): curve(images, norm, [0.1]) for k in range(2) for norm in ("linf", "l2")}
    p = parameters.Parameters("07_hybrid_evaluation", "digits", values={}, folder=tmp_path)
    record = records.save(p, "curves", scalars=radii.summary(pieces), frames={"curves": radii.frame(pieces)})
    share = 100 * pieces["standard", 0, "linf"]["correct"][1].mean()
    assert record.value("robust_accuracy", norm="linf", epsilon=0.1) == pytest.approx(share)
    row = next(row for row in record.content["scalars"] if row["norm"] == "linf" and row["epsilon"] > 0)
    assert (row["epsilon_255"], row["epsilon_symmetric"]) == pytest.approx((25.5, 0.2))
    assert row["interval_kind"] == "wilson", "seeds that agree are no certainty"
    table = radii.table(record.scalars)
    assert list(table["norm"]) == ["L∞", "L∞", "L2", "L2"]
    assert table["Standard"][1].value == pytest.approx(share)
    assert len(record.frame("curves")) == 8
    said = radii.reading(record.scalars, chance=50)
    assert "L∞, Standard: at chance from ε = 0.1 on (0.2 on [−1, 1])" in said
    assert "still" in said.splitlines()[1]
    assert "not down to chance" in said.splitlines()[1]


def test_known_verdicts_are_taken_as_they_are(images):
    said = np.arange(len(images)) % 2 == 0
    given = {"norm": "linf", "epsilons": [0.1], "step_radii": 0.5, "n_steps": 2, "seed": 0, "batch_size": 16}
    found = radii.measured(Linear(), images, known={0.1: said}, **given)
    assert found["correct"][0].all()
    assert np.array_equal(found["correct"][1], said)
    with pytest.raises(ValueError, match=r"verdicts on 40 images, got \[3\]"):
        radii.measured(Linear(), images, known={0.1: said[:3]}, **given)


def test_radii_must_differ_and_be_above_zero(images):
    for wrong in ([0.1, 0.1], [0.0]):
        with pytest.raises(ValueError, match="different radii above 0"):
            curve(images, "linf", wrong)
    assert np.array_equal(curve(images, "linf", [0.1])["image"], images.index)
