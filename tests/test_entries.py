"""Recipes that leave training images out, and recipes of a bottleneck: what they must name, and what is in a hash."""

import pytest
import tiny

from helpers import entries, parameters
from helpers.parameters import ParameterError

WITHOUT = """
without:
  <<: *tiny
  objective: madry
  n_steps: 2
  start: uniform
  removed: high_energy
  removed_share: 0.2
  removed_by: madry
  removed_judged: attacked
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """Writes the networks.yaml of a profile `tiny` of its own: tests/tiny.py's, and what is added."""
    tiny.profile(tmp_path)
    monkeypatch.setattr(parameters, "ROOT", tmp_path)

    def write(added, base=tiny.NETWORKS):
        tiny.profile(tmp_path, networks=base + added)

    return write


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("high_energy", "high_energies", "without: removed: expected one of"),
        ("  removed_share: 0.2\n", "", "removed_share: expected a number > 0 and <= 0.9 (removed high_energy), got"),
        ("  removed_by: madry\n", "", "removed_by: expected text (removed high_energy), got nothing"),
        ("  removed_judged: attacked\n", "", "removed_judged: expected one of"),
        ("removed_share: 0.2", "removed_share: 0", "removed_share: expected a number > 0"),
        ("objective: madry\n  n_steps: 2\n", "objective: standard\n", "n_steps: expected a whole number >= 1"),
        ("by: madry", "by: madri", "removed_by: expected a known name (nearest: madry), got the network 'madri'"),
        ("by: madry", "by: without", "removed_by: expected a network that does not wait for this one, got without → w"),
        ("removed: high", "seeds: [1, 5]\n  removed: high", "expected a network with the seeds [1, 5], got madry, whi"),
        ("removed: high", "split_seed: 3\n  removed: high", "on the same images (source, dataset, image_size, valid"),
    ],
)
def test_faults_are_told_before_anything_runs(networks, old, new, said):
    assert old in WITHOUT
    networks(WITHOUT.replace(old, new))
    faults = [str(fault) for fault in parameters.check("tiny", [])]
    assert [fault for fault in faults if said in fault and "params/tiny/networks.yaml: without" in fault], faults


def test_a_circle_of_two_is_told_for_both(networks):
    other = WITHOUT.replace("without:", "other:").replace("by: madry", "by: without")
    networks(WITHOUT.replace("by: madry", "by: other") + other)
    said = [str(fault) for fault in parameters.check("tiny", [])]
    assert any("got without → other → without" in fault for fault in said)
    assert any("got other → without → other" in fault for fault in said)


def test_the_hash_covers_the_reference_of_the_same_seed(networks, monkeypatch):
    networks(WITHOUT)
    before = parameters.recipe("tiny", "without")
    plain = {seed: parameters.recipe("tiny", "standard").digest(seed) for seed in (0, 1)}
    first = {seed: before.digest(seed) for seed in (0, 1)}
    assert before.reference == parameters.recipe("tiny", "madry")
    # Only madry's own entry changes.
    networks(WITHOUT, base=tiny.NETWORKS.replace("madry\n  n_steps: 2", "madry\n  n_steps: 3"))
    after = {seed: parameters.recipe("tiny", "without").digest(seed) for seed in (0, 1)}
    assert not set(first.values()) & set(after.values())
    assert {seed: parameters.recipe("tiny", "standard").digest(seed) for seed in (0, 1)} == plain
    networks(WITHOUT)
    assert before.digest(0) == first[0]
    monkeypatch.setattr(parameters, "REMOVAL_VERSION", 2)
    assert before.digest(0) != first[0]


def test_what_is_named_without_being_used_binds_nothing(networks):
    networks(WITHOUT.replace("removed: high_energy", "removed: none"))
    recipe = parameters.recipe("tiny", "without")
    assert (recipe.entry["removed_by"], recipe.reference) == ("madry", None)
    assert entries.reference(parameters.recipe("tiny", "standard").entry) is None
    networks(WITHOUT.replace("by: madry", "by: nobody"))
    with pytest.raises(ParameterError, match="nobody"):
        parameters.recipes("tiny")


BOTTLENECK = """
narrow:
  <<: *tiny
  objective: ceb
  latent: dense
  latent_dim: 4
  rho: 2
  anneal: gamma
  rho_start: 100
  anneal_epochs: 1.5
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "  latent: dense\n  latent_dim: 4\n",
            "",
            "latent: expected one of pooled, dense (objective ceb), got nothing",
        ),
        ("  latent_dim: 4\n", "", "latent_dim: expected a whole number >= 1 (latent dense), got nothing"),
        (
            "latent: dense",
            "latent: pooled",
            "latent_dim: expected null (latent pooled keeps the width of the backbone)",
        ),
        ("  rho: 2\n", "", "rho: expected a number >= -20 and <= 100 (objective ceb), got nothing"),
        (
            "objective: ceb\n  latent: dense\n  latent_dim: 4",
            "objective: vib",
            "latent: expected one of pooled, dense (objec",
        ),
        ("rho: 2", "rho: 101", "rho: expected a number >= -20 and <= 100, got 101"),
        ("  anneal_epochs: 1.5\n", "", "anneal_epochs: expected a number > 0 (anneal gamma), got nothing"),
        ("  rho_start: 100\n", "", "rho_start: expected a number"),
        (
            "objective: ceb",
            "objective: vib\n  consistent: true",
            "consistent: expected false (objective vib has no b(z",
        ),
        ("rho: 2", "rho: 2\n  energy_penalty: abs\n  energy_penalty_weight: 1", "objective ceb attacks nothing"),
    ],
)
def test_faults_of_a_bottleneck_are_told_before_anything_runs(networks, old, new, said):
    assert old in BOTTLENECK
    networks(BOTTLENECK)
    assert parameters.check("tiny", []) == []
    networks(BOTTLENECK.replace(old, new))
    faults = [str(fault) for fault in parameters.check("tiny", [])]
    assert [fault for fault in faults if said in fault and "params/tiny/networks.yaml: narrow" in fault], faults


def test_a_grid_over_rho_names_its_networks(networks):
    networks(BOTTLENECK.replace("  rho: 2\n", "  grid: {rho: [8, -0.5]}\n"))
    names = [name for name in parameters.recipes("tiny") if name.startswith("narrow")]
    assert names == ["narrow@rho=8", "narrow@rho=-0.5"]
