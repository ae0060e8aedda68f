"""The table of robust accuracies: known verdicts and intervals, what stands beside what, and kills in the ensemble."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
import torch
from runs import Run
from victims import convolutional, distances, linear

from helpers import attack_health, data, metrics, parts, records, robustness, tables
from helpers.parameters import ROOT

BALL = {"seed": 0, "batch_size": 7}
STEPS = {"step_size": 0.0025, "n_steps": 5, **BALL}
BUDGET = {"n_steps": 5, "n_targets": 2, "n_queries": 20}
SHAPE = (3, 8, 8)
EPSILON = 0.005


def labelled(network, n=30):
    """Images in the middle of the pixel range, labelled by the network itself but for every tenth."""
    pixels = 0.3 + 0.4 * torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))
    pixels = (255 * pixels).round() / 255
    y = network(pixels).argmax(1)
    y[::10] = (y[::10] + 1) % int(network(pixels).shape[1])
    return data.from_tensors(pixels, y, classes=[str(k) for k in range(network(pixels).shape[1])])


def test_pgd_on_a_linear_network_is_right_where_the_boundary_is_far():
    network = linear(2, dtype=torch.float32)
    images = labelled(network)
    found = robustness.pgd(network, images, epsilon=EPSILON, **STEPS)
    away = distances(network, images.images(), images.labels, norm="linf")
    assert found["correct"].tolist() == (away > 0).tolist()
    sure = ((away - EPSILON).abs() > 1e-4).numpy()
    assert (found["correct_adv"] == (away > EPSILON).numpy())[sure].all()
    assert found["image"].tolist() == list(range(30))


def test_the_ensemble_is_at_least_as_strong_and_says_what_it_is(tmp_path):
    network = convolutional(dtype=torch.float32)
    images = labelled(network)
    weak = robustness.pgd(network, images, epsilon=EPSILON, **STEPS)
    found = robustness.ensemble(network, images, epsilon=EPSILON, folder=tmp_path / "state", **BUDGET, **BALL)
    assert (found["correct"] == weak["correct"]).all()
    assert 0 < found["correct_adv"].sum() <= weak["correct_adv"].sum() < 27
    called = str(found["name"])
    assert robustness.kind(called) == "reduced ensemble"
    assert "Square 20 queries" in called
    assert robustness.findings(found)["check"].tolist() == ["black box (Square)"]
    assert list(robustness.verdicts(found)) == ["image", "correct", "correct_adv"]


def test_health_tells_a_sound_attack_from_one_that_stands_still():
    network = convolutional(dtype=torch.float32)
    images = labelled(network)
    given = {**STEPS, "n_steps": 20, "attack": robustness.PGD, "epsilon": EPSILON, "n_queries": 20}

    def examined(network, **changes):
        return robustness.findings(attack_health.of_named(network, images, **given, **changes))

    good = examined(network, other=linear(5, dtype=torch.float32))
    assert {"zero radius", "large radius", "transfer", "black box", "gradients"} <= set(good["check"])
    assert good["ok"].all(), good
    alone = examined(network)
    assert set(good["check"]) - set(alone["check"]) == {"transfer"}
    bad = examined(torch.nn.Sequential(network, Rounded())).set_index("check")
    assert not bad.loc["gradients", "ok"]
    findings = pd.concat([alone.assign(network="madry"), bad.reset_index().assign(network="mart")])
    wide, said = robustness.sickness(findings.reset_index(drop=True))
    assert wide.columns.tolist() == ["check", "Madry AT", "MART"]
    assert wide.set_index("check").loc["gradients"].tolist() == ["ok", "BAD"]
    assert "MART, gradients: the margin's gradient is 0" in said


class Rounded(torch.nn.Module):
    """Logits without a gradient."""

    def forward(self, logits):
        return logits.round() + 0 * logits


# Over seeds


def frame(shares, *, attack="pgd_ce", by="network"):
    """Verdicts of 100 images whose shares of right ones, natural and attacked, are known: name → [(seed, n, n_adv)]."""
    blocks = []
    for name, several in shares.items():
        for seed, right, robust in several:
            image = np.arange(100)
            columns = {"image": image, "correct": image < right, "correct_adv": image < robust}
            blocks.append(pd.DataFrame(columns).assign(seed=seed, attack=attack, **{by: name}))
    return pd.concat(blocks, ignore_index=True)


SHARES = {"madry": [(0, 90, 40), (1, 92, 44), (2, 94, 48)], "weat_adv": [(0, 90, 43), (1, 91, 46), (2, 92, 52)]}


def values(scalars):
    return {row["id"]: row for row in scalars}


def test_means_standard_errors_and_intervals_over_seeds():
    found = values(robustness.summary(frame(SHARES)))
    row = found["robust_accuracy[attack=pgd_ce,network=madry]"]
    assert (row["value"], row["n"], row["seeds"], row["interval_kind"]) == (44, 100, [0, 1, 2], "student_t")
    error = 4 / math.sqrt(3)
    assert found["standard_error[attack=pgd_ce,network=madry,of=robust_accuracy]"]["value"] == pytest.approx(error)
    assert row["high"] - row["value"] == pytest.approx(4.302653 * error, rel=1e-6)
    assert found["accuracy[network=weat_adv]"]["value"] == 91
    one = values(robustness.summary(frame({"madry": [(0, 90, 40)]})))
    row = one["robust_accuracy[attack=pgd_ce,network=madry]"]
    assert (row["low"], row["interval_kind"]) == (pytest.approx(metrics.wilson(40, 100).low), "wilson")
    assert not any(name.startswith("standard_error") for name in one)
    near = values(robustness.summary(frame({"madry": [(0, 100, 1), (1, 90, 0)]})))
    assert near["accuracy[network=madry]"]["high"] == 100
    assert near["robust_accuracy[attack=pgd_ce,network=madry]"]["low"] == 0


def test_natural_accuracy_is_that_of_the_images_of_pgd_and_the_ensemble_is_named():
    both = pd.concat([frame(SHARES), frame(SHARES, attack="autoattack").query("image < 50")], ignore_index=True)
    found = values(robustness.summary(both, ensemble="reduced ensemble (APGD-CE 5 steps); a note"))
    name = "robust_accuracy[attack=autoattack,ensemble=reduced ensemble,network=madry]"
    assert (found[name]["n"], found["accuracy[network=madry]"]["n"]) == (50, 100)
    assert found["accuracy[network=madry]"]["value"] == 92
    table = robustness.table(pd.DataFrame(found.values()))
    assert table["network"].tolist() == ["Madry AT", "WEAT (adversarial)"]
    assert {"natural (%)", "PGD (%)", "reduced ensemble (%)", "± s.e. (PGD)"} <= set(table)
    assert str(table["PGD (%)"][0]) == "44.0 [34.1, 53.9]"


def test_differences_are_taken_by_seed_and_image():
    found = values(robustness.differences(frame(SHARES), against="madry", seed=7))
    row = found["robust_accuracy_difference[against=madry,attack=pgd_ce,network=weat_adv]"]
    assert (row["value"], row["seeds"], row["n"]) == (pytest.approx(3), [0, 1, 2], 100)
    a, b = ([[100.0 * (i < n) for i in range(100)] for _, _, n in SHARES[name]] for name in ("weat_adv", "madry"))
    expected = metrics.paired_bootstrap(a, b, seed=7)
    assert (row["low"], row["high"], row["interval_kind"]) == (expected.low, expected.high, "paired_bootstrap")
    # Only 2 to 4 of 100 images differ; as if they were other images it would be ± 2 √(2 · 0.24 / 300) = ± 8 points.
    assert 0 < row["low"] < row["high"] < 8
    assert found["accuracy_difference[against=madry,network=weat_adv]"]["value"] == pytest.approx(-1)
    said = robustness.reading(pd.DataFrame(found.values())).splitlines()
    assert said[1].startswith("WEAT (adversarial) − Madry AT, PGD: 3.0 [")
    assert said[1].endswith("points over 3 seeds × 100 images: more accurate")
    assert said[0].endswith("not told apart")


def test_differences_share_their_seeds_and_images():
    assert robustness.differences(frame(SHARES), against="trades", seed=0) == []
    other = {"madry": SHARES["madry"][:1], "weat_adv": SHARES["weat_adv"]}
    assert [row["seeds"] for row in robustness.differences(frame(other), against="madry", seed=0)] == [[0], [0]]
    apart = {"madry": SHARES["madry"][:1], "weat_adv": SHARES["weat_adv"][1:]}
    assert robustness.differences(frame(apart), against="madry", seed=0) == []
    mixed = frame(SHARES)
    mixed.loc[mixed["network"] == "madry", "image"] += 1
    with pytest.raises(ValueError, match="expected weat_adv and madry on the same images"):
        robustness.differences(mixed, against="madry", seed=0)


def test_the_arms_of_a_removal_are_told_apart_by_their_own_column():
    arms = frame({"none": SHARES["weat_adv"], "random": SHARES["madry"]}, by="removed")
    found = values(robustness.summary(arms, by="removed"))
    assert found["robust_accuracy[attack=pgd_ce,removed=random]"]["value"] == 44
    (row,) = [r for r in robustness.differences(arms, against="random", by="removed", seed=0) if r.get("attack")]
    assert row["id"] == "robust_accuracy_difference[against=random,attack=pgd_ce,removed=none]"
    seeds = robustness.by_seed(arms, by="removed")
    assert seeds.query("removed == 'random' and measure == 'natural'")["value"].tolist() == [90, 92, 94]


def test_published_values_stand_beside_the_same_data_only_with_a_difference():
    shares = {"madry": SHARES["madry"], "weat_adv_beta@beta=2": SHARES["madry"], "weat_adv_svhn": SHARES["weat_adv"]}
    scalars = pd.DataFrame(robustness.summary(frame(shares)))
    sets = {"madry": "digits", "weat_adv_beta@beta=2": "digits", "weat_adv_svhn": "svhn"}
    table = robustness.beside_published(scalars, data=sets).set_index(["method", "metric"])
    assert table.loc[("SAT", "PGD"), ["published", "dataset", "ours on"]].tolist() == [49.03, "CIFAR-10", "digits"]
    assert table.loc[("SAT", "PGD"), "difference"] is None
    assert table.loc[("WEAT_adv", "PGD"), "published"] == 56.40
    assert table.loc[("WEAT_adv", "PGD"), "difference"].value == pytest.approx(47 - 56.40)
    assert len(table) == 4, "variants that were not published have no row"
    assert math.isnan(table.loc[("SAT", "natural"), "published"])
    ensemble = frame({"madry": SHARES["madry"]}, attack="autoattack")
    scalars = pd.DataFrame(robustness.summary(ensemble, ensemble="reduced ensemble (APGD-CE 5 steps)"))
    table = robustness.beside_published(scalars, data=sets).set_index("metric")
    assert table.loc["AutoAttack", ["published", "ours by"]].tolist() == [45.37, "reduced ensemble"]
    none = robustness.beside_published(pd.DataFrame(robustness.summary(frame({"x": SHARES["madry"]}))), data={"x": "a"})
    assert none.empty


# Kills


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
import test_robustness as t
t.torch.set_num_threads(1)
t.tried(Path(sys.argv[1]), slow=True)
"""


def tried(folder, *, slow=False):
    """The ensemble as the notebook calls it, then the record; `slow` waits to be killed after four batches."""
    p = Run(folder / "03_weat", notebook="03_weat")
    network = convolutional(dtype=torch.float32)
    if slow:
        network.register_forward_hook(lambda *_: _wait_to_be_killed(p.folder / "parts"))
    given = {"network": network, "images": labelled(network), "epsilon": EPSILON, **BUDGET, **BALL}
    found = parts.compute_in_folder(p, "weat_adv-0-ensemble", robustness.ensemble, **given)
    verdicts = robustness.verdicts(found).assign(network="weat_adv", seed=0, attack="autoattack")
    record = records.save(p, "robustness", scalars=robustness.summary(verdicts), frames={"verdicts": verdicts})
    return p, found, record


def _wait_to_be_killed(state):
    if len(list(state.glob("*/*.npz"))) >= 4:
        print("now", flush=True)
        time.sleep(100)


@pytest.mark.process
def test_killed_in_the_ensemble_the_record_is_that_of_an_undisturbed_run(tmp_path, capsys):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "killed")]
    state = tmp_path / "killed" / "03_weat" / "parts"
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert len(list(state.glob("*/*.npz"))) == 4
    assert not (state.parent / "robustness.json").exists()
    _, found, _ = tried(tmp_path / "killed")
    assert list(state.glob("*")) == [next(state.glob("*.npz"))], "the state is gone, the finished piece is kept"
    _, calm, _ = tried(tmp_path / "calm")
    assert all(np.array_equal(found[key], calm[key]) for key in calm)
    assert records.compare(tmp_path / "calm", tmp_path / "killed") == []
    tried(tmp_path / "calm")
    assert "taken from the interrupted run" in capsys.readouterr().out
    records.finish(Run(tmp_path / "calm" / "03_weat", notebook="03_weat"))
    assert not (tmp_path / "calm" / "03_weat" / "parts").exists()


def test_an_interval_without_ends_is_one_number():
    assert robustness.interval({"value": 3.0, "low": None, "high": math.nan}) == tables.Interval(3.0, None, None)
