import csv
from dataclasses import fields, replace

import hybrids
import pytest
import sets
from judges import Nested

from helpers import hybrid_methods, hybrid_tables, starts
from helpers.attacked_start import Attacked
from helpers.hybrid_methods import PUBLISHED, TABLE, Method


@pytest.fixture(scope="module")
def table():
    return hybrids.table()


def by_case(ablation, **changes):
    return {one.case: one.method for one in hybrids.cases(**changes) if one.ablation == ablation}


def test_the_methods_of_table_1_are_the_papers_in_our_range(table):
    jem, both = table["jempp"], table["robust_jem"]
    # α = 5 · 0.2 in [−1, 1] is a quarter of that in [0, 1], a bound of 1 on the gradient is 2, ε = 0.5 is 63.75/255.
    assert (jem.step_size, jem.max_gradient, jem.noise_std) == (0.25, 2.0, 0.0)
    assert (jem.energy, jem.n_steps, jem.attack_n_steps, jem.contrast_factor) == ("marginal", 4, 0, 1.0)
    assert (both.epsilon, both.attack_n_steps, both.attack_step_size) == (0.25, 5, pytest.approx(0.125))
    assert (both.energy, both.n_steps, both.contrast_factor, both.network) == ("joint", 2, 0.8, "robust_jem")
    single = table["robust_classifier"]
    assert (single.network, single.n_steps, single.contrast_factor, single.epsilon) == ("madry", 0, 1.0, 0.25)
    l2 = table["robust_classifier_l2"]
    assert (l2.attack_norm, l2.epsilon, l2.attack_step_size, l2.attack_n_steps) == ("l2", 0.5, 0.2, 3)
    assert (table["start_only"].n_steps, table["start_only"].attack_n_steps) == (0, 0)


def test_every_row_has_its_name_and_its_words(table):
    assert set(table) == set(PUBLISHED) == set(hybrid_tables.WAYS)
    with open(hybrid_tables.SOURCE, newline="", encoding="utf-8") as file:
        printed = [row["model"] for row in csv.DictReader(file)]
    assert [name for name in printed if name not in PUBLISHED.values()] == ["Residual Flow", "Glow"]
    assert {name for name in PUBLISHED.values() if name} < set(printed)
    assert {name for name, printed in PUBLISHED.items() if not printed} == set(hybrid_tables.OURS)


def test_every_ablation_begins_with_the_base_setting(table):
    firsts = {}
    for case in hybrids.cases():
        firsts.setdefault(case.ablation, case.method)
    assert set(firsts) == {
        TABLE, "sampler", "epsilon", "contrast", "chain_steps", "convention", "variant",
    }  # fmt: skip
    for name in ("epsilon", "contrast", "chain_steps", "variant"):
        assert firsts[name] == table["robust_jem"], name
    assert firsts["convention"] == table["jempp"]


def test_training_and_sampler_are_crossed_and_meet_the_table(table):
    found = by_case("sampler")
    assert list(found) == [f"AT {word}, {one}" for word in ("off", "on") for one in ("SGLD", "PGD", "PGD + SGLD")]
    assert found["AT on, PGD + SGLD"] == table["robust_jem"]
    assert found["AT on, SGLD"].key == table["robust_jem_energy_joint"].key
    assert found["AT off, SGLD"].key == table["jempp_joint"].key
    assert found["AT off, PGD"] == replace(found["AT on, PGD"], network="jempp")
    assert (found["AT on, PGD"].n_steps, found["AT on, PGD"].contrast_factor) == (0, 1.0)


def test_an_ablation_changes_what_it_says(table):
    base = table["robust_jem"]
    assert by_case("epsilon")["ε = 25.5/255"] == replace(base, epsilon=0.1, attack_step_size=pytest.approx(0.05))
    assert by_case("contrast")["c = 1"] == replace(base, contrast_factor=1.0)
    assert by_case("chain_steps")["m = 3"] == replace(base, n_steps=3)
    # The script of evaluation drops the step size: five steps of 1 in [−1, 1].
    assert by_case("convention")["eval: α = 1.25"] == replace(table["jempp"], step_size=1.25)
    assert list(by_case("variant")) == ["robust_jem"]
    others = by_case("variant", variant_networks=["robust_jem@epsilon_255=4"])
    assert others["robust_jem@epsilon_255=4"] == replace(base, network="robust_jem@epsilon_255=4")


def test_methods_are_made_of_the_knobs_alone():
    assert set(hybrid_methods.KNOBS) == set(hybrids.VALUES)


def test_no_radius_is_no_attack_and_no_bound_is_none(table):
    none = by_case("epsilon", epsilons_255=[63.75, 0])["ε = 0/255"]
    assert (none.attack_n_steps, none.contrast_factor) == (0, 0.8)
    assert none.knobs["epsilon_255"] is None
    loose = hybrid_methods.chain_settings({**hybrids.ENTRY, "chain_max_gradient_pm1": None}, "train")
    assert loose == {"step_size": 0.25, "max_gradient": None, "noise_std": 0.0}


def test_keys_tell_every_field_and_no_type(table):
    base = table["robust_jem"]
    changes = {
        "network": "jempp", "energy": "marginal", "n_steps": 9, "step_size": 0.5, "max_gradient": None,
        "noise_std": 0.1, "attack_norm": "l2", "epsilon": 0.3, "attack_step_size": 0.3, "attack_n_steps": 9,
        "contrast_factor": 0.5,
    }  # fmt: skip
    assert set(changes) == {field.name for field in fields(Method)}
    keys = {replace(base, **{name: value}).key for name, value in changes.items()}
    assert len(keys | {base.key}) == len(changes) + 1
    assert replace(base, contrast_factor=1).key == replace(base, contrast_factor=1.0).key


def test_images_come_from_the_start_of_the_training():
    begin = hybrid_methods.inner_start({"chain_start": "class_gaussian"}, sets.REFERENCE)
    assert (begin.name, begin.jitter_std) == ("class_gaussian", starts.JEMPP_JITTER_STD)


def test_starts_are_the_inner_one_or_it_attacked(table):
    net = Nested()
    for name in ("start_only", "jempp", "jempp_joint", "robust_jem_energy"):
        assert hybrid_methods.start_of(table[name], sets.START, net) is sets.START
    start = hybrid_methods.start_of(table["robust_jem"], sets.START, net)
    assert isinstance(start, Attacked)
    assert (start.start, start.network, start.epsilon, start.n_steps, start.contrast) == (sets.START, net, 0.25, 5, 0.8)
    pale = hybrid_methods.start_of(replace(table["jempp"], contrast_factor=0.5), sets.START, net)
    assert (pale.n_steps, pale.contrast) == (0, 0.5)


def test_what_a_record_says_of_a_method(table):
    assert table["robust_jem"].knobs == {
        "network": "robust_jem", "chain_energy": "joint", "n_steps": 2, "step_size": 0.25, "contrast_factor": 0.8,
        "attack_n_steps": 5, "epsilon_255": 63.75, "epsilon_l2": None,
    }  # fmt: skip
    assert table["robust_classifier"].knobs["chain_energy"] is None
    assert table["robust_classifier_l2"].knobs["epsilon_l2"] == 0.5
    assert len(hybrid_methods.unique(hybrids.cases())) < len(hybrids.cases())
