"""Detection over seeds: which set is which, sets that are missing, and who is worse than chance."""

import numpy as np
import pytest
import torch

from helpers import detected, looks, ood, parameters, plots, records

MISSING = {"svhn": "fetch it"}


def look_of(seed, *, shift):
    """Logits of two classes: the foreign set "near" lies where the data lie, "far" `shift` lower in log p(x)."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, down in (("test", 0.0), ("near", 0.0), ("far", shift)):
        f = torch.randn(200, 2, generator=generator)
        found[f"{name} logits"] = (f - down).numpy()
        found[f"{name} mass"] = (torch.randn(200, generator=generator) + down).numpy()  # the other way round
    return found


@pytest.fixture(scope="module")
def told():
    return {
        (name, seed): detected.measured(look_of(seed, shift=shift), ["near", "far"], seed=0, n_seeds=3)
        for name, shift in (("standard", 1.0), ("madry", 3.0))
        for seed in range(3)
    }


@pytest.fixture
def record(told, tmp_path):
    p = parameters.Parameters("07_hybrid_evaluation", "digits", values={}, folder=tmp_path)
    return records.save(p, "detection", scalars=detected.summary(told, missing=MISSING))


def test_the_numbers_are_those_of_ood_with_the_data_inside():
    found = look_of(0, shift=1.0)
    one = detected.measured(found, ["far"], seed=0, n_seeds=1)
    assert set(one) == {(score, "far") for score in looks.SCORES}
    own, far = (torch.from_numpy(found[f"{name} logits"]).logsumexp(1) for name in ("test", "far"))
    expected = ood.detection(ood.Scores(own.double(), far.double()), seed=0)
    assert one["log_density", "far"].auroc.value == pytest.approx(expected.auroc.value)
    assert one["log_density", "far"].auroc.low == pytest.approx(expected.auroc.low)
    assert one["log_density", "far"].auroc.value > 0.7


def test_a_method_is_the_mean_over_its_seeds(told, record):
    each = [told["madry", seed]["log_density", "far"].auroc.value for seed in range(3)]
    where = {"network": "madry", "score": "log_density", "outside": "far"}
    assert record.value("auroc", **where) == pytest.approx(np.mean(each))
    frame = detected.frame(told)
    assert frame.query("network == 'madry' and score == 'log_density' and outside == 'far'")["auroc"].tolist() == each
    assert set(frame["n_images"]) == {400}
    rows = [row for row in record.content["scalars"] if row["metric"] == "fpr95"]
    assert all(0 <= row["low"] <= row["high"] <= 100 for row in rows)


def test_a_missing_set_is_named_and_not_run(record):
    row = next(row for row in record.content["scalars"] if row["outside"] == "svhn")
    assert row["value"] is None
    assert row["reason"] == "not run: fetch it"
    table = detected.table(record.scalars)
    assert table.iloc[-1]["outside"] == "svhn"
    assert table.iloc[-1]["n"] == "not run"
    assert len(table) == 2 * 3 * 2 + 1


def test_the_reading_names_the_best_and_the_blind(record):
    lines = detected.reading(record.scalars).splitlines()
    assert len(lines) == 6
    assert any(line.startswith("far by log p(x): highest AUROC Madry AT, 0.9") for line in lines)
    assert not any("told apart" in line for line in lines if line.startswith("far by log"))
    near = next(line for line in lines if line.startswith("near by log p(x)"))  # of no network is it far from chance
    assert "; not told apart from it: " in near
    blind = next(line for line in lines if line.startswith("far by approximate mass"))
    assert blind.endswith("worse than chance: Standard, Madry AT")
    assert not any("worse" in line for line in lines if line.startswith("near by log"))


def test_the_heat_map_reads_from_above_in_the_order_of_the_networks(record):
    figure = plots.heat_map(
        detected.cells(record.scalars), rows="network", columns="outside", panels=looks.SCORES, row_label="",
        column_label="", decimals=2,
    )  # fmt: skip
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["Madry AT", "Standard"], "from below"
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert all(len(text.split("\n")[0]) == 4 for text in texts), texts
