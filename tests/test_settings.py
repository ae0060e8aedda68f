import pytest

from helpers import parameters, setting_runs, settings
from helpers.settings import Case

PROFILES = [name for name in parameters.profiles() if "05_generation_ablations" in parameters.notebooks(name)]


@pytest.fixture
def values():
    """The digits' parameters; a test may change them."""
    return parameters.read("05_generation_ablations", "digits")


def varied(cases, ablation):
    return [{knob: case.setting.knobs.get(knob) for knob in case.varied} for case in cases if case.ablation == ablation]


def test_the_base_setting_has_the_first_value_of_each_list(values):
    base = settings.base(values)
    for knob, name in settings.LISTS.items():
        assert getattr(base, knob) in (values[name][0], None)
    assert (base.n_neighbours, base.start_noise_std, base.energy_tolerance) == (None, None, None)  # not its start's


def test_an_ablation_changes_its_own_knobs_only_and_begins_with_the_base_setting(values):
    cases, base = settings.cases(values), settings.base(values)
    assert list(dict.fromkeys(case.ablation for case in cases)) == values["ablations"]
    for name in values["ablations"]:
        own = [case.setting for case in cases if case.ablation == name]
        assert own[0] == base
        for setting in own:
            changed = {knob for knob in base.__dict__ if getattr(setting, knob) != getattr(base, knob)}
            follow = {"start_noise_std", "n_neighbours", "retained_variance", "pca_spread", "energy_tolerance"}
            assert changed <= set(settings.ABLATIONS[name]) | (
                follow if name in ("initialiser", "stop", "follow_up") else set()
            )
        assert len(set(own)) == len(own)


def test_two_knobs_give_every_pair(values):
    found = varied(settings.cases(values | {"ablations": ["pca"]}), "pca")
    assert len(found) == len(values["pca_spreads"]) * len(values["retained_variances"])
    assert {"retained_variance": 0.99, "pca_spread": 1.414} in found


def test_the_normalised_gradient_takes_steps_of_its_own(values):
    found = varied(settings.cases(values | {"ablations": ["gradient"]}), "gradient")
    steps = [one["step_size"] for one in found if one["gradient"] == "l2"]
    assert steps == values["l2_step_sizes"]
    assert [one["step_size"] for one in found if one["gradient"] == "plain"] == values["step_sizes"][:1]


def test_the_follow_up_crosses_pca_starts_and_stops(values):
    found = varied(settings.cases(values | {"ablations": ["follow_up"]}), "follow_up")
    starts = {(one["initialiser"], one["n_neighbours"]) for one in found}
    assert starts == {("class_pca", None), *(("local_class_pca", n) for n in values["neighbour_counts"])}
    assert len(found) == len(starts) * len(values["stops"])


def test_a_setting_has_one_key_whatever_ablation_it_stands_in(values):
    cases = settings.cases(values)
    unique = settings.unique(cases)
    assert len(unique) == len({case.setting for case in cases}) < len(cases)
    assert settings.base(values).key in unique
    more = settings.base(values | {"momenta": [0.81]})
    assert more.key != settings.base(values).key
    assert settings.base(values | {"energy_tolerance": 7}).key == settings.base(values).key  # which it does not take
    whole, real = (settings.base(values | {"pca_spreads": [one]}) for one in (1, 1.0))
    assert whole.key == real.key


@pytest.mark.parametrize("ablation", ["pca", "momentum", "momentum_by_step", "noise", "initialiser", "energy", "stop"])
def test_lists_of_one_value_are_one_point_of_the_ablation(values, ablation):
    whole = {case.setting.key: case.place for case in settings.cases(values | {"ablations": [ablation]})}
    for case in settings.cases(values | {"ablations": [ablation]}):
        given = {settings.LISTS[knob]: [case.setting.knobs[knob]] for knob in case.varied}
        (alone,) = settings.cases(values | given | {"ablations": [ablation]})
        assert alone.place == whole[alone.setting.key]
        assert alone == case


def test_an_ablation_of_pca_starts_needs_one(values):
    with pytest.raises(
        ValueError, match="initialisers: expected one of class_pca, local_class_pca for the ablation pca"
    ):
        settings.cases(values | {"initialisers": ["uniform"]})


def test_final_has_the_chosen_case_and_what_its_ablation_started_from(values):
    cases = settings.cases(values)
    case = next(case for case in cases if case.ablation == "noise" and case.setting.noise_std == 0.03)
    chosen, base = settings.final(case, cases)
    assert (chosen.ablation, chosen.setting) == ("chosen", case.setting)
    assert (base.ablation, base.setting) == ("base", settings.base(values))
    assert isinstance(base, Case)
    assert settings.named(base) == "noise σ 0.001"


@pytest.mark.parametrize("profile", PROFILES)
def test_sample_sets_fit_each_profile(profile):
    values = parameters.read("05_generation_ablations", profile)
    assert values["n_sets"] >= 3, "an interval needs three"
    assert values["reference"] != "test"
    assert values["fresh_seed"] != values["seed"]
    assert setting_runs.shown_rows(values["n_generated"], 10, values["shown_classes"], n_each=values["n_shown"]).numel()
    dimension = 96 if values["extractor"] == "judge" else int(values["inception_feature"])
    assert values["n_generated"] >= 2 * dimension
