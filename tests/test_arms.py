"""What a recipe is among CEB's arms, and that no two of a comparison are the same."""

import math

import pytest

from helpers import arms, parameters


def arm(like=None, **entry):
    return arms.arm("some", {"objective": "ceb", "rho": 2.0, "norm": "batch", **entry}, like=like or {})


def test_kinds_are_told_apart():
    assert arm().case == "ceb@rho=2"
    assert arm(consistent=True).case == "cceb@rho=2"
    assert arm(objective="vib", rho=0.5).case == "vib@rho=0.5"
    assert arm(rho=100).case == arms.NOISE
    assert math.isnan(arm(rho=100).rho), "γ = 0 has no place on an axis of ρ"
    assert arm(objective="standard", rho=None).case == arms.XENT
    assert arm(objective="madry", rho=None).case == "madry"


def test_families_are_named_by_what_differs_from_the_first():
    assert arm().family == "batch_norm"
    assert arm(norm="none").family == "no_norm"
    assert arm(augment="shift").family == "batch_norm@shift"
    assert arm(augment="shift", like={"augment": "shift"}).family == "batch_norm"
    assert arm(augment="none", like={"augment": "crop"}).family == "batch_norm@none"


def test_a_scalar_gets_no_nan():
    assert "rho" not in arm(rho=100).where
    assert arm().where["rho"] == 2.0


def test_one_case_of_a_family_stands_once():
    found = arms.of(["xent", "xent_noise", "ceb@rho=2", "ceb_no_norm@rho=2", "madry"], profile="digits")
    assert [one.case for one in found.values()] == ["xent", "gamma0", "ceb@rho=2", "ceb@rho=2", "madry"]
    assert found["ceb_no_norm@rho=2"].family == "no_norm"
    with pytest.raises(ValueError, match=r"once, got xent and xent_rate.*, both xent"):
        arms.of(["xent", "xent_rate@learning_rate=0.02"], profile="digits")


@pytest.mark.parametrize("profile", ["digits", "cifar10", "paper"])
def test_only_the_norm_tells_the_two_networks_of_its_claims_apart(profile):
    values, there = parameters.read("12_claims", profile), parameters.recipes(profile)
    with_norm, without = (there[values[key]] for key in ("norm_network", "no_norm_network"))
    shown = parameters.read("08_ceb_robustness", profile)["other_networks"]
    assert {with_norm.name, without.name} <= set(shown)
    norm = {one.name: one.entry.get("norm") or "batch" for one in (with_norm, without)}
    assert norm == {with_norm.name: "batch", without.name: "none"}
    keys = (with_norm.entry.keys() | without.entry.keys()) - {"norm"}
    assert {key for key in keys if with_norm.entry.get(key) != without.entry.get(key)} == set()
    assert with_norm.seeds == without.seeds


@pytest.mark.parametrize("profile", ["digits", "cifar10", "paper"])
@pytest.mark.parametrize("notebook", ["08_ceb_robustness", "10_ceb_calibration"])
def test_each_profile_compares_networks_that_it_has(profile, notebook):
    values, there = parameters.read(notebook, profile), parameters.recipes(profile)
    found = arms.of(values["networks"], profile=profile)
    for key in ("networks", "other_networks", "attacked_networks"):
        assert set(values.get(key, [])) <= set(there), key
    ladders = {one.family for one in found.values() if one.kind == "ceb"}
    assert {"batch_norm", "no_norm"} <= ladders
    assert all(sum(one.family == family and one.kind == "ceb" for one in found.values()) >= 3 for family in ladders)
    assert all(any(one.family == family and one.case == "xent" for one in found.values()) for family in ladders)
