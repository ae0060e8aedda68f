"""What a latent keeps, on a bottleneck whose Rex is known, and its place in the plane."""

import math

import bottlenecks
import numpy as np
import pytest

from helpers import information, kept, parameters, records

IMAGES, _ = bottlenecks.images()
NAMES = ("ceb@rho=2", "gamma0")
ARMS = {"ceb@rho=2": bottlenecks.arm("ceb@rho=2", rho=2.0), "gamma0": bottlenecks.arm("gamma0")}


def measured(gain=4.0):
    sets = {"train": IMAGES, "test": IMAGES.first(10)}
    return kept.measured(bottlenecks.network(gain), sets, n_samples=400, seed=0, batch_size=16)


def test_rex_of_a_known_encoder():
    found = measured()
    f = IMAGES.images()[:, 0, 0, :2].double().numpy()  # about (½ + m, ½ − m), and (½ − m, ½ + m) of class 1
    y = IMAGES.labels.numpy()
    assert found["train rex"] == pytest.approx(((f - np.eye(2)[y]) ** 2).sum(1).mean() / 2, rel=1e-5)
    spread = [((f[y == k] - f[y == k].mean(0)) ** 2).sum(1).mean() / 2 for k in (0, 1)]
    assert found["train rex_class_means"] == pytest.approx(np.mean(spread), rel=1e-4)
    assert found["train i_y_z"] + found["train h_y_z"] == pytest.approx(math.log(2))
    assert found["test n_images"] == 10


def test_each_set_is_gone_through_once(monkeypatch):
    seen, measure = [], information.measure
    monkeypatch.setattr(information, "measure", lambda f, one, **given: seen.append(one) or measure(f, one, **given))
    measured()
    assert [len(one) for one in seen] == [40, 10]


def test_a_useless_classifier_keeps_nothing_of_y():
    assert measured(gain=0.0)["train i_y_z"] == pytest.approx(0, abs=1e-6)
    assert measured(gain=4.0)["train h_y_z"] != pytest.approx(math.log(2), abs=1e-3)


def test_no_rex_of_its_own_where_b_was_not_trained(tmp_path):
    pieces = {(name, seed): measured(4.0 + seed) for name in NAMES for seed in range(2)}
    frame = kept.frame(pieces, ARMS)
    assert frame.loc[frame["kind"] == "gamma0", "rex"].isna().all()
    p = parameters.Parameters("08_ceb_robustness", "digits", values={}, folder=tmp_path)
    record = records.save(p, "information", scalars=kept.summary(frame), frames={"networks": frame})
    of_noise = [row for row in record.content["scalars"] if row["case"] == "gamma0" and row["metric"] == "rex"]
    assert {row["center"] for row in of_noise} == {"class means"}
    table = kept.table(record.scalars, split="test")
    assert table["Rex, own b (nat)"][1] is None
    place = kept.plane(record.frame("networks"), split="train").iloc[0]
    assert place["x"] == pytest.approx(float(pieces["ceb@rho=2", 0]["train rex_class_means"]))
    assert place["y_low"] < place["y"] < place["y_high"]
    said = kept.reading(kept.plane(record.frame("networks"), split="train"), most=math.log(2))
    assert said.startswith("batch norm: ρ = 2 keeps")
    assert len(said.splitlines()) == 1, "γ = 0 is no ρ"
