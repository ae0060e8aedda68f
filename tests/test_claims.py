import csv
import io
import math
import re

import ledgers
import numpy as np
import pandas as pd
import pytest
import yaml
from ledgers import ROLES, write
from runs import Run

from helpers import claims, contrasts, evidence, ledger, metrics, records, tables
from helpers.evidence import Sample
from helpers.metrics import Estimate

PAIRS = {"notebook": "01_energy_landscape", "record": "pairs", "metric": "delta_energy"}
POSITIVE = "{kind: value, above: 0}"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with the glossary and a profile `tiny` that has 01 and 12; claims.yaml is for the test to write."""
    return ledgers.project(tmp_path, monkeypatch)


def run(root, notebook="12_claims"):
    return Run(root / "figures" / "tiny" / notebook, profile="tiny", notebook=notebook, values=ROLES)


def measured(root, *, scalars=(), frames=None, record="pairs", notebook="01_energy_landscape"):
    """A finished notebook with one record."""
    p = run(root, notebook)
    records.save(p, record, scalars=scalars, frames=frames or {})
    records.finish(p)


def number(network, value, low=None, high=None, metric="delta_energy"):
    """A scalar of three seeds on 100 images, with or without interval."""
    interval = {} if low is None else {"interval": (low, high), "interval_kind": "student_t"}
    return records.scalar(metric, value, n=100, seeds=[0, 1, 2], network=network, **interval)


def entry(comparison=POSITIVE, *, more=None, paper="ebm", **asked):
    """A claim about PAIRS; `comparison` is YAML, `asked` further keys of its evidence."""
    there = {"paper": paper, "statement": "s", "evidence": PAIRS | asked, "comparison": yaml.safe_load(comparison)}
    return there | (more or {})


def ledger_of(root, **entries):
    """What becomes of the claims `entries`, in the ledger's order."""
    write(root, yaml.safe_dump(entries, sort_keys=False))
    return claims.evaluate(run(root), seed=0)


def one(root, comparison=POSITIVE, *, networks=None, **asked):
    """The finding of a single claim; several `networks` are its terms."""
    over = {"over": {"network": list(networks)}} if networks else {}
    return ledger_of(root, A1=entry(comparison, **over, **asked))[0]


# Statuses


VALUE = [
    ("above: 0", (2, 1, 3), "holds"),
    ("above: 0", (-2, -3, -1), "fails"),
    ("above: 0", (1, -1, 3), "undecided"),
    ("above: 0", (2, None, None), "undecided"),
    ("below: 0", (-2, -3, -1), "holds"),
    ("below: 0", (2, 1, 3), "fails"),
    ("below: 0", (-1, -3, 1), "undecided"),
    ("above: 0, below: 5", (2, 1, 3), "holds"),
    ("above: 0, below: 5", (7, 6, 8), "fails"),
    ("above: 0, below: 5", (-7, -8, -6), "fails"),
    ("above: 0, below: 5", (4, 2, 6), "undecided"),
    ("above: 0, below: 5", (2, -9, 9), "undecided"),
    ("below: 3, absolute: true", (-2, -2.5, -1), "holds"),
    ("above: 3, absolute: true", (-5, -6, -4), "holds"),
    ("above: 0.1, absolute: true", (-1, -3, 1), "undecided"),
    ("below: 1e-10, exact: true", (3e-16, None, None), "holds"),
    ("below: 1e-10, exact: true", (3e-9, None, None), "fails"),
]


@pytest.mark.parametrize(("bounds", "value", "status"), VALUE)
def test_a_value_against_its_bounds(root, bounds, value, status):
    measured(root, scalars=[number("standard", *value)])
    found = one(root, f"{{kind: value, {bounds}}}", where={"network": "$standard_network"})
    assert (found.status, found.said) == (status, f"{status} on digits")
    assert (found.reason == "") == (value[1] is not None or "exact" in bounds)


THREE = {"a": (1, 0.5, 1.5), "b": (3, 2.5, 3.5), "c": (5, 4.5, 5.5), "wide": (3, 0, 6), "alone": (3, None, None)}
SEVERAL = [
    ("order", "abc", "holds"),
    ("order", "acb", "fails"),
    ("order", ["a", "wide", "c"], "undecided"),
    ("order", ["a", "alone"], "undecided"),
    ("order", ["c", "a", "wide"], "fails"),  # one pair the wrong way round is enough
    ("largest", "cab", "holds"),
    ("largest", "bac", "fails"),
    ("largest", ["b", "a", "wide"], "undecided"),
    ("smallest", "acb", "holds"),
    ("smallest", "bac", "fails"),
    ("smallest", ["b", "c", "wide"], "undecided"),
    ("difference, above: 1", "ca", "holds"),
    ("difference, above: 1", "ac", "fails"),
    ("difference, above: 2", "ba", "undecided"),
    ("difference, below: 1", "ac", "holds"),
    ("difference, above: 1, below: 3", "ba", "holds"),
    ("difference, factor: 2, above: 0", "ca", "holds"),
    ("difference, factor: 6, above: 0", "ca", "undecided"),
    ("difference, factor: 20, above: 0", "ca", "fails"),
    ("value, above: 0", "abc", "holds"),
    ("value, above: 2", "abc", "fails"),
    ("value, above: 0.7", "abc", "undecided"),
    ("order", "abz", "not run"),
    ("largest", "cz", "not run"),
    ("smallest", "az", "not run"),
    ("difference, above: 0", "cz", "not run"),
    ("value, above: 0", "az", "not run"),
]


@pytest.mark.parametrize(("kind", "names", "status"), SEVERAL)
def test_several_terms_against_each_other(root, kind, names, status):
    measured(root, scalars=[number(name, *value) for name, value in THREE.items()])
    found = one(root, f"{{kind: {kind}}}", networks=names)
    assert found.said == f"{status} on digits"
    assert (found.estimate is None) == (status == "not run")
    if status == "not run":
        assert found.reason == "01_energy_landscape/pairs has no delta_energy where network = z"


def test_the_closest_comparison_is_the_one_that_is_told(root):
    measured(root, scalars=[number("a", 0, -0.1, 0.1), number("b", 1, 0.9, 1.1), number("c", 9, 8.9, 9.1)])
    found = one(root, "{kind: order}", networks="abc")
    assert (found.quantity, found.estimate.value, found.kind) == ("b − a", 1, "independent")


def test_why_nothing_was_found(root):
    def reason(**asked):
        found = one(root, **asked)
        assert found.status == "not run"
        return found.reason

    assert reason() == "01_energy_landscape has not come to its end"
    records.save(run(root, "01_energy_landscape"), "pairs", scalars=[number("a", 1, 0, 2)])
    assert reason() == "01_energy_landscape has not come to its end"  # a record alone is not enough
    (root / "figures/tiny/01_energy_landscape/finished.json").write_text('{"outputs": []}')
    assert reason() == "01_energy_landscape has made no record pairs"  # one of an earlier run is there
    measured(root, scalars=[number("a", 1, 0, 2), number("b", 1, 0, 2)])
    assert reason() == "01_energy_landscape/pairs has 2 of delta_energy; name more of their keys"
    assert reason(where={"network": "q"}) == "01_energy_landscape/pairs has no delta_energy where network = q"
    assert reason(frame="pairs") == "01_energy_landscape/pairs has no frame pairs"
    assert reason(notebook="03_weat") == "03_weat is not in this profile"
    assert reason(more={"only_on": "cifar10"}) == "a statement about cifar10"
    asked = {"where": {"network": "madry"}, "more": {"only_with": "resnet18"}}
    assert reason(**asked) == "the value of a resnet18; here it is another network"
    assert "has no delta_energy" in reason(where={"network": "madry"}, more={"only_with": "smallcnn"})
    assert reason(where={"network": "$overfitting_network"}) == "this profile names no overfitting_network"
    measured(root, scalars=[records.scalar("delta_energy", 1.0, interval=(0, 2), interval_kind="normal", level=0.9)])
    assert reason() == "01_energy_landscape/pairs: delta_energy has an interval of level 0.9, not 0.95"
    measured(root, scalars=[records.scalar("delta_energy", None, reason="no CUDA")])
    assert reason() == "01_energy_landscape/pairs: no CUDA"
    found = ledger_of(root, A1={"paper": "ebm", "statement": "s", "unmeasured": "no number decides it"})[0]
    assert (found.status, found.reason) == ("not run", "no number decides it")


def test_a_damaged_record_is_told_and_stops_nothing(root):
    measured(root, frames={"pairs": images({"a": [[1.0, 2.0]]})})
    (root / "figures/tiny/01_energy_landscape/pairs.npz").write_bytes(b"damaged")
    found = one(root, frame="pairs")
    assert found.status == "not run"
    assert "pairs.npz" in found.reason


def test_counts_of_rare_events_need_their_seeds(root):
    measured(root, scalars=[number("a", 2, 1, 3)])
    found = one(root, more={"min_seeds": 10})
    assert (found.status, found.reason) == ("undecided", "10 seeds are needed, there are 3")
    assert one(root, more={"min_seeds": 3}).status == "holds"
    few = records.scalar("delta_energy", 1, interval=(0.9, 1.1), interval_kind="student_t", seeds=[7, 8], network="b")
    measured(root, scalars=[number("a", 3, 2.9, 3.1), few])  # five seeds together, two of one network
    found = one(root, "{kind: largest}", networks="ab", more={"min_seeds": 3})
    assert (found.status, found.reason) == ("undecided", "3 seeds are needed, there are 2")


# The health of the attacks


BLIND = "the margin's gradient is 0 on {} of 100 images: gradient attacks stand still there; use Square"


def checked(root, blind, *, check="gradients", record="health", share=50):
    """What 01 measured of a (20, 15 to 25 %) and b (10 %), and a check that is bad on `share` images of `blind`."""
    numbers = [number("a", 20, 15, 25, "robust_accuracy"), number("b", 10, 8, 12, "robust_accuracy")]
    p = run(root, "01_energy_landscape")
    records.save(p, "pairs", scalars=numbers)
    if blind is not None:
        rows = [(name, check, name != blind, BLIND.format(share)) for name in "ab"]
        findings = pd.DataFrame(rows, columns=["network", "check", "ok", "message"]).assign(seed=0)
        records.save(p, record, frames={"health": findings})
    records.finish(p)


def robust(root, comparison, networks):
    asked = {"metric": "robust_accuracy", "health": "health"}
    asked |= {"networks": networks} if len(networks) > 1 else {"where": {"network": networks}}
    return one(root, f"{{kind: {comparison}}}", **asked)


SHAKEN = [
    ("largest", "ab", "holds", "a"),  # the one that would be the more robust
    ("largest", "ba", "fails", "a"),  # the other
    ("smallest", "ba", "holds", "a"),
    ("smallest", "ab", "fails", "a"),
    ("order", "ba", "holds", "a"),
    ("order", "ab", "fails", "a"),
    ("difference, above: 1", "ab", "holds", "a"),
    ("difference, above: -20, below: -1", "ab", "fails", "a"),
    ("difference, below: -1", "ba", "holds", "a"),
    ("difference, factor: 1.5, below: 10", "ba", "holds", "a"),
    ("value, above: 10", "a", "holds", "a"),
    ("value, below: 30", "a", "holds", None),
    ("value, below: 10", "a", "fails", "a"),
    ("value, above: 30", "a", "fails", None),
    ("value, above: 5, below: 30", "a", "holds", "a"),
]


@pytest.mark.parametrize(("comparison", "networks", "status", "shaker"), SHAKEN)
@pytest.mark.parametrize("blind", "ab")
def test_a_blind_attack_shakes_a_verdict_in_the_direction_in_which_it_errs(
    root, comparison, networks, status, shaker, blind
):
    checked(root, None)
    assert robust(root, comparison, networks).status == status
    checked(root, blind)
    found = robust(root, comparison, networks)
    assert found.status == ("undecided" if blind == shaker else status)
    said = f"would {status[:-1]}, but {blind}: gradients, the margin's gradient is 0 on 50 of 100 images"
    assert found.reason == (said if blind == shaker else "")


def test_a_check_that_is_bad_by_a_hair_shakes_what_holds_by_a_hair(root):
    low = contrasts.independent(Estimate(20, 15, 25, 9, "normal"), Estimate(10, 8, 12, 9, "normal")).low
    for share, status in ((1, "holds"), (math.floor(low), "holds"), (math.ceil(low), "undecided")):
        checked(root, "a", share=share)
        assert robust(root, "largest", "ab").status == status


def test_only_a_robust_accuracy_whose_network_was_examined_is_doubted(root):
    checked(root, "a")
    unnamed = one(root, "{kind: largest}", metric="robust_accuracy", networks="ab")
    assert (unnamed.status, unnamed.reason) == ("holds", "")
    checked(root, "c")  # nobody in the claim
    assert robust(root, "largest", "ab").status == "holds"
    checked(root, "a", check="black box")
    assert robust(root, "largest", "ab").status == "holds"


def test_without_a_record_of_checks_nothing_is_doubted(root):
    checked(root, "a", record="other")
    found = robust(root, "largest", "ab")
    assert (found.status, found.reason) == ("holds", "")


def test_a_damaged_record_of_checks_is_told(root):
    checked(root, "a")
    (root / "figures/tiny/01_energy_landscape/health.npz").write_bytes(b"damaged")
    found = robust(root, "largest", "ab")
    assert found.status == "not run"
    assert "health.npz" in found.reason


def test_one_comparison_that_is_shaken_leaves_a_claim_undecided_and_one_that_fails_decides_it(root):
    p = run(root, "01_energy_landscape")
    checked(root, "a")
    both = number("c", 1, 0.5, 1.5, "robust_accuracy"), number("d", 50, 45, 55, "robust_accuracy")
    rows = [number("a", 20, 15, 25, "robust_accuracy"), number("b", 10, 8, 12, "robust_accuracy"), *both]
    records.save(p, "pairs", scalars=rows)
    found = robust(root, "largest", "abc")
    assert (found.status, found.quantity) == ("undecided", "a − b")
    assert found.reason.startswith("would hold, but a: ")
    found = robust(root, "largest", "abd")
    assert (found.status, found.quantity, found.reason) == ("fails", "a − d", "")


def test_the_networks_of_a_frame_are_found_whatever_the_claim_calls_them(root):
    stands = {"net@rho=0": [[1.0] * 60 + [-1.0] * 40], "plain": [[1.0] * 10 + [-1.0] * 90]}
    frame = images(stands).assign(case=lambda rows: rows["network"].map({"net@rho=0": "ceb", "plain": "xent"}))
    message = BLIND.format(60)
    findings = pd.DataFrame({"network": ["net@rho=0"], "check": "gradients", "ok": False, "message": message})
    p = run(root, "01_energy_landscape")
    records.save(p, "pairs", frames={"pairs": frame})
    records.save(p, "health", frames={"findings": findings})
    records.finish(p)
    asked = {"frame": "pairs", "metric": "robust_accuracy", "over": {"case": ["ceb", "xent"]}}
    assert one(root, "{kind: largest}", **asked).status == "holds"
    found = one(root, "{kind: largest}", **asked, health="health")
    assert found.status == "undecided"
    assert claims.basis(found) == (
        "would hold, but net@rho=0: gradients, the margin's gradient is 0 on 60 of 100 images, 1 seed, 100 images"
    )
    assert len(found.reason) < 120
    p = run(root)
    record = records.save(p, "claims", scalars=claims.scalars([found]))
    assert record.scalars["reason"].tolist() == [found.reason]


# Intervals


def test_independent_shares_have_the_interval_of_the_literature():
    # Newcombe (1998, Stat. Med. 17, 873), Table II (a), method 10: 56/70 − 48/80 from 0.0524 to 0.3339.
    found = contrasts.independent(metrics.wilson(56, 70), metrics.wilson(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((20.0, 5.24, 33.39), abs=0.005)


def test_independent_with_a_factor_is_that_of_a_scaled_term():
    a, b = Estimate(5.0, 4.0, 7.0, 9, "normal"), Estimate(1.0, 0.5, 1.2, 9, "normal")
    scaled = Estimate(3.0, 1.5, 3.6, 9, "normal")
    got, expected = contrasts.independent(a, b, factor=3), contrasts.independent(a, scaled)
    assert (got.value, got.low, got.high) == pytest.approx((expected.value, expected.low, expected.high))


def images(networks):
    """A frame of pairs whose ΔE are the given (seeds, images); E is the image's row, so images can be ranked by it."""
    rows = []
    for name, table in networks.items():
        for seed, values in enumerate(table):
            for image, value in enumerate(values):
                at = {"network": name, "seed": seed, "image": image, "E": float(image), "E_adv": image - value}
                rows.append(at | {"E_y": 0.0, "E_y_adv": 1.0, "correct": True, "correct_adv": value > 0})
    return pd.DataFrame(rows)


RNG = np.random.default_rng(0)
SHARED = RNG.normal(0, 5, (3, 1)) + RNG.normal(0, 5, (1, 200))  # what both networks have in common
PAIRED = {"a": SHARED, "b": SHARED + 0.5 + RNG.normal(0, 0.1, (3, 200))}


@pytest.mark.parametrize("of_seeds", [0.0, 0.2])
def test_what_shares_seeds_and_images_is_paired(root, of_seeds):
    table = PAIRED | {"b": PAIRED["b"] + of_seeds * np.array([[-0.5], [0.0], [0.5]])}
    measured(root, frames={"pairs": images(table)})
    found = one(root, "{kind: order}", networks="ab", frame="pairs")
    assert found.status == "holds"  # far inside the noise that both share
    assert (found.seeds, found.n_images) == ((0, 1, 2), 200)
    a, b = (evidence.measure(term, evidence.Results(run(root))) for term in found.claim.terms)
    alone = contrasts.independent(b.estimate, a.estimate)
    assert alone.low < 0 < alone.high
    by_seed = (table["b"] - table["a"]).mean(1)
    t, boot = metrics.student_t(by_seed), metrics.paired_bootstrap(table["b"], table["a"], seed=0)
    assert found.estimate.value == pytest.approx(by_seed.mean())
    assert found.estimate.low == pytest.approx(min(t.low, boot.low), abs=1e-9)
    assert found.estimate.high == pytest.approx(max(t.high, boot.high), abs=1e-9)
    assert (t.low < boot.low, found.kind) == ((True, "student_t") if of_seeds else (False, "paired_bootstrap"))


def test_other_seeds_are_not_paired(root):
    frame = images(PAIRED)
    frame.loc[frame["network"] == "b", "seed"] += 10
    measured(root, frames={"pairs": frame})
    found = one(root, "{kind: order}", networks="ab", frame="pairs")
    assert (found.status, found.kind) == ("undecided", "independent")


def test_one_network_is_over_its_images(root):
    values = RNG.normal(1, 1, (1, 100))
    measured(root, frames={"pairs": images({"a": values, "b": values + 0.3})})
    found = one(root, frame="pairs", where={"network": "a"})
    expected = metrics.mean_over_images(values[0])
    assert (found.kind, found.estimate.low) == ("normal", pytest.approx(expected.low))
    paired = one(root, "{kind: order}", networks="ab", frame="pairs")
    assert (paired.status, paired.kind) == ("holds", "paired_bootstrap")


@pytest.mark.parametrize(
    ("metric", "value", "kind"),
    [
        ("share_lowered", 75.0, "wilson"),
        ("robust_accuracy", 75.0, "wilson"),
        ("share_joint_lowered", 0.0, "wilson"),
        ("accuracy", 100.0, "wilson"),
        ("delta_energy", 1.0, "normal"),
        ("delta_energy_size", 2.0, "normal"),
        ("delta_joint_energy", -1.0, "normal"),
        ("delta_energy_std", math.sqrt(3.5), "bootstrap"),
    ],
)
def test_numbers_by_image(root, metric, value, kind):
    measured(root, frames={"pairs": images({"a": [[1.0, 2.0, 3.0, -2.0] * 5]})})
    found = one(root, frame="pairs", metric=metric)
    assert (found.estimate.value, found.kind) == (pytest.approx(value), kind)
    assert found.estimate.low <= value + 1e-9
    assert found.estimate.high >= value - 1e-9


def test_equal_shares_of_the_seeds_are_no_certainty(root):
    measured(root, frames={"pairs": images({"a": [[1.0] * 20] * 3})})  # 100 % on each of three seeds
    found = one(root, "{kind: value, above: 95}", frame="pairs", metric="share_lowered")
    assert (found.status, found.kind) == ("undecided", "wilson")
    assert found.estimate.low == pytest.approx(metrics.wilson(20, 20).low)
    measured(root, scalars=[number("a", 100.0, 100.0, 100.0, metric="share_lowered")])
    found = one(root, "{kind: value, above: 90}", metric="share_lowered")
    assert (found.status, found.estimate.low) == ("holds", pytest.approx(metrics.wilson(100, 100).low))
    measured(root, frames={"curves": curves({"a": [[3.0, 7.0]] * 3}, metric="pgd_error")})  # on unknown many images
    ends = {"epochs": [[1, 1], [0, 0]]}
    found = one(root, "{kind: difference, above: 0}", frame="curves", metric="pgd_error", over=ends)
    assert (found.status, found.kind) == ("undecided", "none")
    measured(root, scalars=[records.scalar("phases", metrics.student_t([3.0, 3.0, 3.0]), seeds=[0, 1, 2])])
    found = one(root, "{kind: value, above: 2.5}", metric="phases")  # three of three may be chance
    assert (found.status, found.kind) == ("undecided", "none")
    assert found.reason == "no interval: one number, or equal ones, say nothing of chance"


def test_networks_that_agree_on_every_image_are_not_known_to_be_equal(root):
    same = [[1.0] * 15 + [-1.0] * 5] * 3
    measured(root, frames={"pairs": images({"a": same, "b": same})})
    bounds = "{kind: difference, above: -2, below: 2}"
    found = one(root, bounds, networks="ab", frame="pairs", metric="robust_accuracy")
    alone = metrics.wilson(15, 20)
    expected = contrasts.independent(alone, alone)
    assert (found.status, found.kind) == ("undecided", "independent")
    assert (found.estimate.low, found.estimate.high) == pytest.approx((expected.low, expected.high))


def test_ranges_of_images_by_rank(root):
    measured(root, frames={"pairs": images({"a": [[float(i) for i in range(100)]] * 2})})
    over = {"quantiles": [{"E": [0.75, 1]}, {"E": [0, 0.25]}]}
    found = one(root, "{kind: largest}", frame="pairs", over=over)
    assert found.quantity == "E in its highest 25 % − E in its lowest 25 %"
    assert found.estimate.value == pytest.approx(75)  # 75 … 99 against 0 … 24
    assert found.n_images == 25


def curves(networks, metric="delta_energy"):
    rows = []
    for name, values in networks.items():
        for seed, curve in enumerate(values):
            rows += [{"network": name, "seed": seed, "epoch": k, metric: v} for k, v in enumerate(curve)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("taken", "value"),
    [
        ("epochs: [0.5, 0.5]", 5),
        ("epochs: [0.25, 0.25]", 2.5),
        ("epochs: [1, 1]", -10),
        ("epochs: [0.2, 0.4]", 3),
        ("epochs: [0, 0.9], take: max", 9),
        ("epochs: [0.3, 0.9], take: min", 3),
        ("epochs: [0, 1], take: max_abs", 10),
        ("epochs: [0.01, 0.05], take: max", 0.5),  # no epoch lies inside: read between them
    ],
)
def test_curves_over_a_range_of_training(root, taken, value):
    curve = [0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -10]
    measured(root, frames={"curves": curves({"a": [curve, [v + 1e-3 for v in curve]]})})
    found = one(root, frame="curves", **yaml.safe_load(f"{{{taken}}}"))
    assert found.estimate.value == pytest.approx(value, abs=2e-3)
    assert (found.kind, found.seeds) == ("student_t", (0, 1))


def test_curves_of_the_same_seeds_are_paired(root):
    up = [[0.0, s, s + 1 + 0.01 * s] for s in (0.0, 10.0, 20.0)]
    measured(root, frames={"curves": curves({"a": up})})
    over = {"epochs": [[1, 1], [0.5, 0.5]]}
    found = one(root, "{kind: difference, above: 0}", frame="curves", over=over)
    expected = metrics.student_t([1.0, 1.1, 1.2])
    assert (found.status, found.kind) == ("holds", "student_t")
    assert (found.estimate.low, found.estimate.high) == pytest.approx((expected.low, expected.high))
    assert found.quantity == "at 100 % of training − at 50 % of training"


def of_sets(**by_start):
    """A frame with a row for each seed alone, as notebook 04 has it."""
    rows = [(start, k, value) for start, values in by_start.items() for k, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["start", "seed", "frechet_distance"]).assign(n_images=50)


SETS = {"notebook": "04_generation", "record": "quality", "frame": "sets", "metric": "frechet_distance"}


def of_starts(root, **more):
    """The finding on the order pca < noise."""
    asked = SETS | {"over": {"start": ["pca", "noise"]}} | more
    there = {"paper": "ebm", "statement": "s", "evidence": asked, "comparison": {"kind": "order"}}
    return ledger_of(root, A1=there)[0]


def test_numbers_of_seeds_alone_are_paired_by_seed(root):
    # A difference of 1 with little spread, under a spread of 10 from seed to seed.
    frame = of_sets(pca=[10.0, 20.0, 30.0], noise=[11.0, 21.1, 31.0]).iloc[[2, 0, 1, 3, 4, 5]]
    measured(root, frames={"sets": frame.reset_index(drop=True)}, record="quality", notebook="04_generation")
    found = of_starts(root)
    expected = metrics.student_t([1.0, 1.1, 1.0])
    assert found.status == "holds"
    assert (found.estimate.value, found.estimate.low) == (pytest.approx(expected.value), pytest.approx(expected.low))
    assert (found.kind, found.seeds, found.n_images) == ("student_t", (0, 1, 2), 50)
    assert of_starts(root, over={"start": ["noise", "pca"]}).status == "fails"


def test_numbers_of_seeds_alone_must_be_there_once(root):
    twice = pd.concat([of_sets(pca=[1.0, 2.0]), of_sets(pca=[3.0], noise=[4.0, 5.0])], ignore_index=True)
    measured(root, frames={"sets": twice}, record="quality", notebook="04_generation")
    assert "several rows for a seed" in of_starts(root).reason
    assert "has no column diversity" in of_starts(root, metric="diversity").reason


def test_absolute_is_taken_of_each_seed():
    by_seed, by_image = np.array([-2.0, 2.0]), np.array([[-1.0, -3.0], [3.0, 1.0]])
    found = contrasts.absolute(Sample(Estimate(0.0, -9, 9, 2, "student_t"), (0, 1), by_seed, by_image, (0, 1)))
    assert found.by_seed.tolist() == [2, 2]
    assert found.by_image.tolist() == [[1, 3], [3, 1]]
    assert found.estimate.value == 2


# The ledger


def test_the_ledger_is_by_paper_and_status_with_one_scalar_for_each_claim(root):
    measured(root, scalars=[number(name, *value) for name, value in THREE.items()])

    def about(network, bound, paper="ebm"):
        return entry(f"{{kind: value, above: {bound}}}", where={"network": network}, paper=paper)

    findings = ledger_of(root, Z=about("a", 0, "ceb"), A=about("a", 9), B=about("a", 0), C=about("q", 0))
    said = ["holds", "fails", "not run", "holds"]
    assert [(f.claim.id, f.status) for f in findings] == list(zip("BACZ", said, strict=True))
    assert claims.counts(findings).splitlines() == [
        "ebm: 3 claims on digits: 1 holds, 1 fails, 0 undecided, 1 not run",
        "ceb: 1 claim on digits: 1 holds, 0 fails, 0 undecided, 0 not run",
    ]
    p = run(root)
    record = records.save(p, "claims", scalars=claims.scalars(findings), frames={"claims": claims.strip(findings)})
    assert record.value("delta_energy", claim="B", status="holds") == 1
    assert record.value("delta_energy", claim="C") is None
    tables.save(claims.table(findings), p, "claims", record, caption="The ledger.")
    rows = list(csv.DictReader(io.StringIO((p.folder / "claims.csv").read_text("utf-8"))))
    assert [row["status"] for row in rows] == [f"{status} on digits" for status in said]
    assert (float(rows[0]["measured_low"]), rows[0]["asked"]) == (0.5, "delta_energy (nat) > 0")
    assert rows[0]["evidence"] == "01_energy_landscape/pairs: network = a"
    assert rows[0]["basis"] == "Student's t, 3 seeds, 100 images"
    assert rows[2]["basis"] == "01_energy_landscape/pairs has no delta_energy where network = q"


@pytest.mark.parametrize(("seeds", "said"), [("[0]", ", one network each"), ("[0, 1]", "")])
def test_the_ledger_says_where_each_network_was_trained_once(root, seeds, said):
    networks = root / "params" / "tiny" / "networks.yaml"
    kept = re.sub(r"seeds: .*", f"seeds: {seeds}", networks.read_text())
    assert kept.count(f"seeds: {seeds}")
    networks.write_text(kept)
    frame = pd.DataFrame({"network": "madry", "seed": [0, 1, 2], "frechet_distance": [1.0, 2.0, 3.0]})
    measured(root, frames={"sets": frame})
    found = one(root, frame="sets", metric="frechet_distance", where={"network": "madry"})
    assert claims.basis(found) == f"Student's t, 3 sets{said}"


@pytest.mark.parametrize("trust", ledger.TRUST)
def test_a_published_value_that_is_not_confirmed_is_not_printed(root, trust):
    measured(root, scalars=[number("a", 2, 1, 3)])
    found = one(root, more={"published": {"value": 49.75, "source": "a table", "trust": trust}})
    value = "49.75" if trust in ("high", "medium") else "not confirmed, so not printed"
    assert claims.published(found.claim) == f"{value} (a table; {trust})"


def test_the_data_set_is_that_of_the_networks(root):
    networks = root / "params" / "tiny" / "networks.yaml"
    networks.write_text(networks.read_text().replace("madry:\n", "madry:\n  dataset: cifar10\n"))
    measured(root, scalars=[number("madry", 2, 1, 3), number("standard", 2, 1, 3)])
    assert one(root, where={"network": "$robust_network"}).said == "holds on cifar10"
    assert one(root, where={"network": "standard"}).said == "holds on digits"


def test_a_claim_of_another_paper_needs_data_only(root):
    row = records.scalar("accuracy", metrics.wilson(60, 100), network="ceb@rho=2")
    measured(root, scalars=[row], notebook="08_ceb_robustness", record="sweep")
    asked = {
        "notebook": "08_ceb_robustness",
        "record": "sweep",
        "metric": "accuracy",
        "where": {"network": "ceb@rho=2"},
    }
    assert one(root, "{kind: value, above: 50}", paper="ceb", **asked).status == "holds"
