"""The sweep over ρ on a network whose every verdict is known, its rank correlations, and what is said and drawn."""

import bottlenecks
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import judged, parameters, radii, records, rho_sweep

IMAGES, MARGIN = bottlenecks.images()
ARMS = {"xent": bottlenecks.arm("xent"), "gamma0": bottlenecks.arm("gamma0")} | {
    f"ceb@rho={rho}": bottlenecks.arm(f"ceb@rho={rho}", rho=float(rho)) for rho in (4, 2, 0)
}


def measured():
    return rho_sweep.measured(
        bottlenecks.network(), IMAGES, attack_names=["pgd_ce", "pgd_ce_targeted"],
        epsilons={"linf": 0.1, "l2": 0.2}, step_radii=0.5, n_steps=20, seed=0, batch_size=16,
    )  # fmt: skip


def test_verdicts_of_a_network_that_is_known():
    # A margin m of two pixels is overturned by ε > m in L∞ and by ε > √2 m in L2; the target is the other class.
    found = measured()
    assert found["natural"].all()
    for key in found.keys() - {"image", "natural"}:
        reach = 0.1 if key.endswith("linf") else 0.2 / 2**0.5
        clear = (MARGIN - reach).abs() > 4e-3
        assert torch.from_numpy(found[key])[clear].equal((reach < MARGIN)[clear]), key


def pieces(shares):
    """Made-up verdicts on 20 images: network → right under L∞ PGD for each of two seeds."""
    rows = {}
    for network, counts in shares.items():
        for seed, count in enumerate(counts):
            right = np.arange(20) < count
            rows[network, seed] = {"image": np.arange(20), "natural": np.ones(20, bool), "pgd_ce linf": right}
    return rows


SHARES = {"xent": (8, 8), "gamma0": (9, 7), "ceb@rho=4": (6, 8), "ceb@rho=2": (9, 6), "ceb@rho=0": (15, 12)}


def test_the_rank_correlation_is_spearmans():
    shares = rho_sweep.accuracies(pieces(SHARES), ARMS)
    found = rho_sweep.trends(shares, value="share", over=["measure"]).set_index("measure")["rank_correlation"]
    assert found["natural"].tolist() == [0, 0], "equal accuracies rise no more than they fall, and every seed counts"
    # seed 0 falls throughout; of seed 1 (12, 6, 8 for ρ = 0, 2, 4) the ranks are 3, 1, 2: 1 − 6 · 6 / 24.
    assert found["pgd_ce linf"].to_numpy() == pytest.approx([-1.0, -0.5])
    assert rho_sweep.trends(shares[shares["rho"] != 4], value="share", over=["measure"]).empty, "two are no trend"


def test_the_ends_of_the_ladder_are_paired_by_seed_and_image():
    made, single = pieces(SHARES), bottlenecks.arm("vib@rho=1", rho=1.0)
    made["vib@rho=1", 0] = made["xent", 0]
    arms = ARMS | {"vib@rho=1": single}
    rows = rho_sweep.end_differences(made, arms, seed=0)
    found = {row["measure"]: row for row in rows}
    assert len(rows) == 2, "one ρ has no ends"
    row = found["pgd_ce linf"]
    assert (row["metric"], row["lowest"], row["highest"]) == ("robust_accuracy_difference", 0, 4)
    assert row["value"] == pytest.approx(100 * ((15 - 6) + (12 - 8)) / 40)
    # Student's t of 45 and 20 points is wider than the bootstrap: ± 12.706 · 12.5
    assert row["high"] == pytest.approx(32.5 + 12.7062 * 12.5, rel=1e-4)
    assert found["natural"]["value"] == 0
    frame = rho_sweep.verdicts(made, arms)
    assert set(frame.loc[frame["end"] == rho_sweep.LOWEST, "network"]) == {"ceb@rho=0"}
    assert set(frame.loc[frame["end"] == rho_sweep.HIGHEST, "network"]) == {"ceb@rho=4"}


def test_what_the_sweep_has_is_not_measured_again():
    given = {"step_radii": 0.5, "n_steps": 3, "seed": 0, "batch_size": 16}
    net = bottlenecks.network()
    one = rho_sweep.measured(net, IMAGES, attack_names=["pgd_ce"], epsilons={"linf": 0.1}, n_points=6, **given)
    few = IMAGES.first(6)
    points = rho_sweep.known(one, few, rho_sweep.POINTS)
    assert points.shape == (6, 1, 4, 4)
    alone = judged.pgd(
        net, few, attack="pgd_ce", norm="linf", epsilon=0.1, step_size=0.05, n_steps=3, seed=0, batch_size=16
    )
    assert np.abs(points - alone.numpy()).max() < 1e-6, "an image's points do not depend on its batch"
    assert "points" not in rho_sweep.measures(one)
    curve = {"norm": "linf", "epsilons": [0.1, 0.2], **given}
    known = rho_sweep.known_radii(one, few, norm="linf", epsilon=0.1)
    assert (
        radii.measured(net, few, known=known, **curve)["correct"] == radii.measured(net, few, **curve)["correct"]
    ).all()
    for images in (IMAGES.first(7), IMAGES.subset(slice(1, 4))):
        with pytest.raises(ValueError, match="first 6 images of the sweep"):
            rho_sweep.known(one, images, rho_sweep.POINTS)


def test_a_record_its_table_what_is_said_and_what_is_drawn(tmp_path):
    made = pieces(SHARES)
    trends = rho_sweep.trends(rho_sweep.accuracies(made, ARMS), value="share", over=["measure"])
    scalars = rho_sweep.summary(made, ARMS) + rho_sweep.trend_scalars(trends, over=["measure"])
    scalars += rho_sweep.end_differences(made, ARMS, seed=0)
    p = parameters.Parameters("08_ceb_robustness", "digits", values={}, folder=tmp_path)
    frames = {"verdicts": rho_sweep.verdicts(made, ARMS), "trends": trends}
    record = records.save(p, "sweep", scalars=scalars, frames=frames)
    assert record.value("robust_accuracy", case="ceb@rho=0") == pytest.approx(67.5)
    assert record.value("rank_correlation", measure="pgd_ce linf") == pytest.approx(-0.75)
    ranks = {row["measure"]: row for row in record.content["scalars"] if row["metric"] == "rank_correlation"}
    assert ranks["natural"]["low"] is None, "equal numbers have no interval"
    row = ranks["pgd_ce linf"]
    assert row["low"] >= -1
    assert row["high"] <= 1
    assert len(record.frame("verdicts")) == 20 * len(made)
    table = rho_sweep.table(record.scalars)
    assert table["untargeted L∞ (%)"][0].value == pytest.approx(40)
    said = rho_sweep.reading(record.scalars)
    assert "untargeted L∞: ρ = 0 less ρ = 4 32" in said
    assert "highest of the ρ tried at 0, 68" in said
    assert "XEnt 40" in said


def test_the_ladder_gives_guests_to_every_family_and_levels_once():
    arms = ARMS | {"xent_b": bottlenecks.arm("xent", family="no_norm"), "madry": bottlenecks.arm("madry")}
    made = pieces(SHARES | {"xent_b": (5, 5), "madry": (19, 19)})
    for one in made.values():
        one["pgd_ce_targeted linf"] = one["natural"]
    scalars = pd.DataFrame(rho_sweep.summary(made, arms))
    rows = rho_sweep.ladder(scalars, rows={"L∞": ["pgd_ce linf", "pgd_ce_targeted linf"]})
    assert set(rows.loc[rows["kind"] == "madry", "family"]) == {"batch_norm", "no_norm"}
    assert set(rows["line"]) == {"xent", "gamma0", "madry", "ceb", "ceb@targeted"}
    assert (rows[rows["rho"].isna()]["measure"] == "pgd_ce linf").all()
    seeds = rho_sweep.by_seed(rho_sweep.accuracies(made, arms), rows={"L∞": ["pgd_ce linf", "pgd_ce_targeted linf"]})
    assert set(seeds["line"]) == {"ceb", "ceb@targeted"}
    assert len(seeds) == 2 * 3 * 2, "two measures, three ρ, two seeds"
    assert "untargeted L∞: from 25 [11, 47] % (XEnt) to 95" in rho_sweep.span(scalars)
    assert "(Madry AT)" in rho_sweep.span(scalars)
