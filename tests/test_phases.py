import dataclasses

import hybrids
import judges
import numpy as np
import pandas as pd
import pytest
import sets
import torch

from helpers import generation, metrics, phases, plots, sample_sets

ASKED = sample_sets.drawn(0, n=16, num_classes=4)


def follow(method, number=0):
    asked = sample_sets.drawn(number, n=16, num_classes=4)
    return phases.follow(hybrids.network(method.network), sets.START, method, **asked, seed=3)


@pytest.fixture(scope="module")
def combined():
    return follow(hybrids.table()["robust_jem"])


@pytest.fixture(scope="module")
def frame(combined):
    return phases.frame({"both": [combined], "energy": [follow(hybrids.table()["robust_jem_energy"])]})


def test_the_watched_images_are_those_of_the_sample_sets(combined):
    for name in ("robust_jem", "jempp", "robust_classifier", "start_only"):
        method = hybrids.table()[name]
        found = follow(method)
        assert np.array_equal(found["pictures"][0], generation.pixels(sets.first_images()).numpy())
        assert np.array_equal(found["pictures"][-1], hybrids.piece(method)["images"]), name


def test_phases_follow_each_other_and_their_ends_are_pictured(combined):
    assert [phases.PHASES[k] for k in combined["phase"]] == ["attack"] * 6 + ["contrast"] + ["chain"] * 2
    assert combined["step"].tolist() == list(range(9))
    assert combined["picture"].tolist() == [0, 5, 6, 8]
    alone = follow(hybrids.table()["robust_classifier"])
    assert set(alone["phase"]) == {0}
    assert follow(hybrids.table()["start_only"])["step"].tolist() == [0]


def test_energies_gradient_and_saturation_by_hand():
    network, y = hybrids.network("robust_jem"), torch.tensor([1, 0])
    x = torch.tensor([[0.0, 0.5, 0.25, 1.0, 0.5, 0.985], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]).reshape(2, 1, 2, 3)
    found = phases.look(network, x, y)
    logits = 2.5 * x.flatten(1)[:, :4]
    assert found["joint"] == pytest.approx([-1.25, -0.25])
    assert found["marginal"] == pytest.approx((-logits.logsumexp(1)).tolist())
    # ∇E(x) = −gain · softmax, zero in the last two pixels
    assert found["gradient_norm"] == pytest.approx((2.5 * logits.softmax(1).norm(dim=1)).tolist(), rel=1e-5)
    assert found["saturation"] == pytest.approx([100 * 3 / 6, 0.0])


@pytest.mark.parametrize("gain", [2.5, -2.5])
def test_what_the_last_clipping_cuts_is_counted(gain):
    # One step moves the pixel of the class by 0.25 · 2, up or down: beyond the range where it was in that half.
    method = dataclasses.replace(hybrids.table()["robust_jem_energy_joint"], n_steps=1)
    found = phases.follow(judges.Nested(gain=gain), sets.START, method, **ASKED, seed=3)
    pixel = sets.first_images().flatten(1)[torch.arange(16), ASKED["y"]]
    expected = 100 / 6 * ((pixel > 0.5) if gain > 0 else (pixel < 0.5)).double()
    assert 0 < expected.sum() < 16 * 100 / 6
    assert found["beyond"][1] == pytest.approx(expected.numpy(), abs=1e-4)
    assert np.isnan(found["beyond"][0]).all()


def test_less_contrast_keeps_pixels_inside_and_each_set_counts_as_one():
    base = hybrids.table()["robust_jem"]
    watched = {
        f"c = {c}": [follow(dataclasses.replace(base, contrast_factor=c), k) for k in range(3)] for c in (1, 0.5)
    }
    rows = phases.summary(phases.frame(watched), {"c = 1": 1.0, "c = 0.5": 0.5})
    beyond = {row["contrast_factor"]: row["value"] for row in rows}
    assert beyond[0.5] <= beyond[1.0]
    by_set = [one["beyond"][-1].mean() for one in watched["c = 1"]]
    assert (rows[0]["value"], rows[0]["seeds"], rows[0]["n"]) == (pytest.approx(np.mean(by_set)), [0, 1, 2], 16)
    whole = metrics.over_sets(by_set)
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((max(whole.low, 0.0), min(whole.high, 100.0)))


def test_a_share_of_pixels_has_no_interval_beyond_0_and_100():
    chains = [{"way": "a", "seed": k, "step": 3, "chain": 0, "beyond": v} for k, v in enumerate((0.0, 0.5, 4.0))]
    (row,) = phases.summary(pd.DataFrame(chains), {"a": 1.0})
    assert metrics.over_sets([0.0, 0.5, 4.0]).low < 0
    assert (row["low"], row["value"]) == (0.0, 1.5)


def test_the_rule_takes_the_smallest_decrease_or_says_that_there_is_none():
    assert phases.chosen_contrast({1.0: 1.0, 0.9: 0.99, 0.8: 0.2}) == 0.9
    assert phases.chosen_contrast({1.0: 0.0, 0.9: 0.0}) == 1.0
    said = phases.reading(beyond({1.0: (3.0, 2.8, 3.2), 0.9: (2.0, 0.5, 3.5)}), base=0.9)
    assert "c = 1: 3.00 [2.80, 3.20] %, c = 0.9: 2.0 [0.5, 3.5] %" in said
    assert "by the means no decrease that was tried keeps it below 1 % (not told apart from 1 %: c = 0.9)" in said
    assert "c = 0.9, does not follow from the rule" in said
    said = phases.reading(beyond({1.0: (3.0, 2.8, 3.2), 0.9: (0.5, 0.4, 0.6)}), base=0.9)
    assert "; by the means the smallest decrease below 1 % is c = 0.9. " in said
    assert said.endswith("The base setting, c = 0.9, follows the rule.")


def beyond(of):
    """A record's scalars, from c → share (%), low, high."""
    rows = [{"contrast_factor": c, "value": v, "low": low, "high": high} for c, (v, low, high) in of.items()]
    return pd.DataFrame(rows)


def test_means_at_the_end_of_each_phase(frame, combined):
    ends = phases.ends(frame)
    assert list(ends.query("way == 'both'")["phase"]) == ["start", "attack", "contrast", "chain"]
    assert list(ends.query("way == 'energy'")["phase"]) == ["start", "chain"]
    row = ends.query("way == 'both' and phase == 'attack'").iloc[0]
    assert (row["step"], row["joint"]) == (5, pytest.approx(combined["joint"][5].mean()))
    assert phases.boundaries(frame, "both") == [(0.0, "attack"), (5.0, "contrast, chain")]
    assert phases.boundaries(frame, "energy") == [(0.0, "chain")]


def test_real_images_are_measured_as_chains_are(frame):
    network = hybrids.network("robust_jem")
    real = phases.of_real(network, {"test": sets.REFERENCE, "train": sets.REFERENCE}, n=10, batch_size=4)
    assert len(real) == 20
    direct = phases.look(network, sets.REFERENCE.images()[:10], sets.REFERENCE.labels[:10])
    assert real.query("split == 'test'")["gradient_norm"].to_numpy() == pytest.approx(direct["gradient_norm"])
    marks = phases.boundaries(frame, "both")
    figure = plots.energy_by_step(frame, real, by="way", panels=phases.LABELS, phases=marks, wrap=2)
    assert len([ax for ax in figure.axes if ax.get_visible()]) == 4
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["attack", "contrast, chain"]


def test_chains_of_a_set_are_its_first_images():
    method = hybrids.table()["robust_jem"]
    given = {"network": hybrids.network("robust_jem"), "begin": sets.START, "method": method, "seed": 3}
    found = phases.of_set(**given, number=2, n=16, n_chains=5, num_classes=4)
    assert np.array_equal(found["pictures"][-1], hybrids.piece(method, 2)["images"][:5])
    with pytest.raises(ValueError, match="expected n_chains"):
        phases.of_set(**given, number=2, n=16, n_chains=17, num_classes=4)
