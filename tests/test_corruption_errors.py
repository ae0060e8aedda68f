"""mCE and its relatives: the published table recomputed, hand-made tables, and what is refused."""

import csv

import pytest
import torch

from helpers import corruption_errors, corruptions, data, metrics
from helpers.corruption_settings import GROUPS, names
from helpers.parameters import ROOT

PRINTED = (
    "Gauss. Noise", "Shot Noise", "Impulse Noise", "Defocus Blur", "Glass Blur", "Motion Blur", "Zoom Blur", "Snow",
    "Frost", "Fog", "Brightness", "Contrast", "Elastic Trans.", "Pixelate", "JPEG Comp.",
)  # fmt: skip


def table():
    """Column by column what the paper printed."""
    with (ROOT / "params" / "published" / "ceb_table.csv").open(newline="") as file:
        rows = {row.pop("metric"): row for row in csv.DictReader(file)}
    return {column: {metric: float(row[column]) for metric, row in rows.items()} for column in rows["mCE"]}


@pytest.mark.parametrize("column", list(table()))
def test_the_published_summaries_follow_from_the_published_rows(column):
    printed = table()[column]
    ce = {name: printed[row] for name, row in zip(names(), PRINTED, strict=True)}
    reference = corruption_errors.over_severities(corruption_errors.alexnet())
    assert corruption_errors.mce(ce, reference=reference) == pytest.approx(printed["mCE"], abs=0.05)
    assert corruption_errors.average_ce(ce) == pytest.approx(printed["Average CE"], abs=0.055)


def test_there_are_fourteen_columns_and_nineteen_divisors():
    assert len(table()) == 14
    assert set(corruption_errors.alexnet()) == set(names(*GROUPS))


def test_the_published_means_of_alexnet_are_those_of_its_severities():
    with (ROOT / "params" / "published" / "alexnet_ce.csv").open(newline="") as file:
        printed = {row["corruption"]: 100 * float(row["mean_error"]) for row in csv.DictReader(file)}
    assert corruption_errors.over_severities(corruption_errors.alexnet()) == pytest.approx(printed, abs=1e-3)


def test_mce_weighs_each_corruption_by_the_reference():
    reference = {name: 20.0 for name in names()} | {"fog": 80.0}
    ce = {name: 10.0 for name in names()} | {"fog": 80.0}
    assert corruption_errors.mce(ce, reference=reference) == pytest.approx((14 * 50 + 100) / 15)
    assert corruption_errors.average_ce(ce) == pytest.approx((14 * 10 + 80) / 15)
    assert corruption_errors.mce(reference, reference=reference) == 100


def test_relative_mce_is_blind_to_clean_accuracy_alone():
    reference = {name: 30.0 + 2 * k for k, name in enumerate(names())}
    better = {name: value - 7 for name, value in reference.items()}
    words = {"reference": reference, "reference_clean": 20.0}
    assert corruption_errors.relative_mce(better, clean=13.0, **words) == pytest.approx(100)
    assert corruption_errors.mce(better, reference=reference) < 90


def test_extra_corruptions_never_enter():
    ce = {name: 10.0 for name in names()}
    more = ce | {"saturate": 90.0}
    assert corruption_errors.average_ce(more) == corruption_errors.average_ce(ce) == 10
    assert corruption_errors.mce(more, reference=ce) == 100


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda ce: corruption_errors.average_ce({"fog": 1.0}), "15 corruptions"),
        (lambda ce: corruption_errors.average_ce(ce | {"fog": 101.0}), "<= 100"),
        (lambda ce: corruption_errors.average_ce(ce | {"fog": float("nan")}), "finite"),
        (lambda ce: corruption_errors.mce(ce, reference=ce | {"fog": 0.0}), "err more on fog"),
        (lambda ce: corruption_errors.relative_mce(ce, clean=1, reference=ce, reference_clean=10), "err more"),
        (lambda ce: corruption_errors.over_severities({"fog": [1.0, 2.0]}), "expected 5 errors for fog"),
    ],
)
def test_what_means_nothing_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call({name: 10.0 for name in names()})


def test_several_networks_see_the_same_corrupted_images():
    torch.manual_seed(0)
    networks = {k: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10)) for k in ("a", "b")}
    images = data.load("digits", "test").first(7)
    words = {"name": "gaussian_noise", "severity": 2, "profile": "digits", "seed": 3}
    found = corruption_errors.predictions(networks, images, **words, batch_size=3)
    name = words.pop("name")
    x = corruptions.corrupt(name, images.images(), **words, index=images.index)
    for key, network in networks.items():
        assert torch.allclose(found[key], metrics.predictions(network, x, batch_size=7), atol=1e-5)
        assert network.training
