"""Accuracy by the steps of PGD on a network whose verdicts are known."""

import bottlenecks
import pytest

from helpers import judged, parameters, records, step_curves

IMAGES, MARGIN = bottlenecks.images()


def curve(counts, gain=4.0):
    return step_curves.measured(
        bottlenecks.network(gain), IMAGES, epsilon=0.2, step_size=0.02, step_counts=counts, seed=0, batch_size=16
    )


def test_too_few_steps_do_not_reach_the_edge_of_the_ball():
    found = curve([40, 1])
    assert found["n_steps"].tolist() == [1, 40]
    late = found["correct"][1]
    clear = ((MARGIN - 0.2).abs() > 4e-3).numpy()
    assert (late == (MARGIN > 0.2).numpy())[clear].all()
    assert found["correct"][0].sum() > late.sum() + 5


def test_one_run_watched_on_its_way_is_a_run_of_each_number_of_steps(monkeypatch):
    runs = []
    pgd = judged.pgd
    monkeypatch.setattr(judged, "pgd", lambda *images, **given: runs.append(given["n_steps"]) or pgd(*images, **given))
    found = curve([3, 8, 1])
    assert runs == [8]
    net = bottlenecks.network()
    for steps, right in zip(found["n_steps"], found["correct"], strict=True):
        ball = {"attack": "pgd_ce", "norm": "linf", "epsilon": 0.2, "step_size": 0.02}
        points = pgd(net, IMAGES, n_steps=int(steps), seed=0, batch_size=40, **ball)
        assert right.tolist() == judged.right(net, points, IMAGES.labels, batch_size=40).tolist()


def test_a_record_and_what_is_said(tmp_path):
    pieces = {("madry", k): curve([1, 40], gain=4.0 + k) for k in range(2)}
    p = parameters.Parameters("08_ceb_robustness", "digits", values={}, folder=tmp_path)
    frames = {"curves": step_curves.frame(pieces)}
    record = records.save(p, "steps", scalars=step_curves.summary(pieces), frames=frames)
    shares = [100 * pieces["madry", 0]["correct"][i].mean() for i in (0, 1)]
    assert record.value("robust_accuracy", n_steps=40) == pytest.approx(shares[1])
    assert record.frame("curves")["robust_accuracy"].tolist()[:2] == pytest.approx(shares)
    assert f"from 1 to 40 steps {shares[0] - shares[1]:+.1f} points lost" in step_curves.reading(record.scalars)


@pytest.mark.parametrize("wrong", [[], [0], [3, 3]])
def test_counts_must_differ_and_be_at_least_one(wrong):
    with pytest.raises(ValueError, match="different numbers of at least 1"):
        curve(wrong)
