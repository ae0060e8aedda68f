"""Many attacks on a network whose every verdict is known; gaps; averages over z; what is said."""

import bottlenecks
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import bottleneck, critique, judged, parameters, records, robustness

IMAGES, MARGIN = bottlenecks.images()
BALL = {"epsilon": 0.1, "step_size": 0.05, "n_steps": 10}
BUDGET = {"n_restarts": 1, "ensemble_n_steps": 5, "n_targets": 1, "n_queries": 20}


def paper(gain=4.0):
    """What the paper's PGD makes of the images."""
    given = {"attack": "pgd_ce", "norm": "linf", "seed": 0, "batch_size": 16}
    return judged.pgd(bottlenecks.network(gain), IMAGES, **given, **BALL).numpy()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    far = np.full((40, 1, 4, 4), 0.5, dtype=np.float32)  # on which the known network answers class 0
    return critique.measured(
        bottlenecks.network(), IMAGES, attack_names=["pgd_margin"], paper=paper(), transferred=far, **BALL, **BUDGET,
        seed=0, batch_size=16, folder=tmp_path_factory.mktemp("state"),
    )  # fmt: skip


def test_each_attack_finds_what_can_be_found(found):
    clear = (MARGIN - 0.1).abs() > 4e-3
    for name in (critique.PAPER, "pgd_margin", robustness.ENSEMBLE):
        assert torch.from_numpy(found[name])[clear].equal((MARGIN > 0.1)[clear]), name
    assert found[critique.TRANSFER].tolist() == (IMAGES.labels == 0).tolist()


def test_the_worst_case_is_image_by_image(found):
    every = [found[name] for name in ("natural", critique.PAPER, "pgd_margin", critique.TRANSFER, robustness.ENSEMBLE)]
    assert found[critique.WORST].tolist() == np.logical_and.reduce(every).tolist()
    assert found[critique.WORST].sum() < min(one.sum() for one in every)


def test_each_network_gets_images_from_one_other_of_its_seed():
    several = [(name, seed) for name in ("xent", "xent_noise", "madry") for seed in (0, 1)]
    given = {one: critique.donor(*one, several) for one in several}
    assert all(source[0] != name and source[1] == seed for (name, seed), source in given.items())
    assert given["xent", 1] == ("xent_noise", 1)
    assert given["madry", 1] == ("xent", 1)
    assert critique.donor("madry", 5, several) == ("xent", 0), "a seed that the source lacks"
    with pytest.raises(ValueError, match="a network beside xent"):
        critique.donor("xent", 0, [("xent", 0), ("xent", 1)])


def frame():
    """Two seeds of three networks on ten images: right under the paper's PGD and in the worst case."""
    counts = {"xent": (5, 4), "ceb": (8, 5), "madry": (9, 9)}
    blocks = [
        pd.DataFrame({"image": range(10), "correct": True, "correct_adv": np.arange(10) < n}).assign(
            network=name, seed=seed, attack=attack
        )
        for name, several in counts.items()
        for attack, n in zip((critique.PAPER, critique.WORST), several, strict=True)
        for seed in range(2)
    ]
    return pd.concat(blocks, ignore_index=True)


def test_gaps_and_both_sides():
    gaps = critique.gaps(frame())
    assert gaps.set_index(["network", "seed"])["worst_case_gap"]["ceb", 1] == pytest.approx(30)
    assert {row["network"]: row["value"] for row in critique.gap_scalars(gaps)}["xent"] == pytest.approx(10)
    assert not gaps["at_floor"].any()
    scalars = pd.DataFrame(robustness.summary(frame()))
    said = critique.reading(scalars, plain="xent", robust="madry")
    assert "+30.0 points under PGD as in the paper, +10.0 in the worst case; Madry AT stands +40.0" in said
    assert critique.table(scalars)["worst case (%)"][1].value == pytest.approx(50)
    assert critique.cells(scalars)["network"].iloc[0] == "Madry AT", "the last is drawn first, from below"


def test_a_gap_that_ends_at_the_floor_is_no_evidence():
    rows = frame()
    fallen = (rows["network"] == "xent") & (rows["seed"] == 1) & (rows["attack"] == critique.WORST)
    gaps = critique.gaps(rows.assign(correct_adv=rows["correct_adv"] & ~fallen))
    assert gaps.loc[gaps["at_floor"], ["network", "seed"]].to_numpy().tolist() == [["xent", 1]]
    scalars = pd.DataFrame(robustness.summary(rows) + critique.gap_scalars(gaps))
    said = critique.reading(scalars, plain="xent", robust="madry").splitlines()
    assert [line for line in said if "no evidence" in line] == [line for line in said if line.startswith("XEnt:")]
    assert "at 0 % with 1 of 2 seeds: no evidence" in "".join(said)


def test_averages_over_z_are_attacked_and_judged_apart(tmp_path):
    given = {"sample_counts": [1, 4], **BALL, "seed": 1, "batch_size": 16}
    pieces = {
        ("ceb", k): critique.sampled(bottlenecks.network(4.0 + k), IMAGES, paper=paper(4.0 + k), **given)
        for k in range(2)
    }
    keys = set(pieces["ceb", 0])
    seen = (critique.MEAN, "k = 1", "k = 4")
    assert keys == {f"{a}|{b}" for a in ("natural", *seen) for b in seen}
    first = pieces["ceb", 0]
    assert first[f"natural|{critique.MEAN}"].all()
    clear = (MARGIN - 0.1).abs() > 4e-3
    assert torch.from_numpy(first[f"{critique.MEAN}|{critique.MEAN}"])[clear].equal((MARGIN > 0.1)[clear])
    noise = bottleneck.Averaged(bottlenecks.network(), n_samples=1, seed=1, purpose="judge").noise[0]
    assert noise[1] - noise[0] > 2 * MARGIN.max(), "a draw that outweighs every margin"
    assert first["natural|k = 1"].tolist() == (IMAGES.labels == 1).tolist()
    p = parameters.Parameters("08_ceb_robustness", "digits", values={}, folder=tmp_path)
    record = records.save(p, "samples", scalars=critique.sampled_summary(pieces))
    table = critique.sampled_table(record.scalars)
    assert len(table) == 4
    assert "judged by k = 4 (%)" in table


def test_only_a_bottleneck_has_a_latent():
    assert critique.has_latent(bottlenecks.network())
    assert not critique.has_latent(torch.nn.Linear(2, 2))
