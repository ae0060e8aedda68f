"""Objectives: golden losses held to their version, the closed forms they are made of, and modes put back."""

import pytest
import torch
from torch import Tensor, nn

from helpers import attacks, energies, models, noise, objectives, parameters
from helpers.context import eval_mode

ENTRY = {
    "attack_norm": "linf",
    "epsilon_255": 51.0,
    "step_size_255": 12.75,
    "n_steps": 4,
    "start": "uniform",
    "start_std": None,
    "beta": 6.0,
}
STARTS = {"standard": {}, "madry": {}, "trades": {"start": "gaussian", "start_std": 0.001}}

# (objective, version): losses of four fixed images. When a change moves them, raise the objective's number in
# parameters.OBJECTIVE_VERSIONS, so that networks are trained anew, and put the new losses here.
GOLDEN: dict[tuple[str, int], list[float]] = {
    ("standard", 1): [0.3171590791, 1.4770933551, 3.2060495883, 0.4162547535],
    ("madry", 1): [0.4188075812, 1.6703847181, 2.9737848685, 0.4435820997],
    ("trades", 1): [0.3185953363, 1.4918336809, 3.3094698524, 0.4282451242],
}


def entry(name: str, **changes: object) -> dict[str, object]:
    return {**ENTRY, **STARTS[name], "objective": name, **changes}


def network() -> nn.Module:
    """A network whose weights are a formula, in float64: no generator of any version takes part."""
    f = models.build("smallcnn", num_classes=3, in_channels=1, image_size=8, width=2).double()
    with torch.no_grad():
        for k, p in enumerate(f.parameters()):
            p.copy_(torch.sin(torch.arange(p.numel(), dtype=torch.float64) * 0.7 + k).view_as(p) * 0.6 + (k % 3 == 1))
    return f.train()


def images() -> tuple[Tensor, Tensor, Tensor]:
    index = torch.arange(10, 14)
    x = noise.uniform((1, 8, 8), seed=3, purpose="golden", index=index, dtype=torch.float64)
    return x, torch.tensor([0, 1, 2, 0]), index


def outcome(name: str, *, epoch: int = 1, seed: int = 2, **changes: object) -> objectives.Outcome:
    x, y, index = images()
    return objectives.evaluate(network(), x, y, entry=entry(name, **changes), seed=seed, index=index, epoch=epoch)


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_golden_losses_belong_to_the_version(name):
    version = parameters.OBJECTIVE_VERSIONS[name]
    assert (name, version) in GOLDEN, f"no golden losses for version {version} of {name}"
    assert outcome(name).loss.tolist() == pytest.approx(GOLDEN[name, version], rel=1e-6)


def test_every_objective_has_a_version():
    assert objectives.OBJECTIVES.keys() == parameters.OBJECTIVE_VERSIONS.keys()


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_contract(name):
    x, y, index = images()
    f, before = network(), x.clone()
    f.body.norm2.eval()  # frozen by hand, and so it must stay
    state = torch.get_rng_state()
    statistics = f.body.norm2.running_mean.clone()
    loss, wrong = objectives.evaluate(f, x, y, entry=entry(name), seed=0, index=index, epoch=0)
    assert loss.shape == wrong.shape == (4,)
    assert wrong.dtype == torch.bool
    loss.mean().backward()
    assert all(p.grad is not None for p in f.parameters())
    assert f.training
    assert not f.body.norm2.training
    assert f.body.norm2.running_mean.equal(statistics)
    assert x.equal(before)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(("name", "passes"), [("standard", 1), ("madry", 1), ("trades", 2)])
def test_batch_norm_meets_training_batches_only(name, passes):
    f = network()
    x, y, index = images()
    objectives.evaluate(f, x, y, entry=entry(name), seed=0, index=index, epoch=0)
    assert f.body.norm1.num_batches_tracked == passes


@pytest.mark.parametrize("name", ["madry", "trades"])
def test_the_attack_is_keyed_by_seed_epoch_and_image(name):
    a, b = outcome(name).loss, outcome(name).loss
    assert a.equal(b)
    assert not outcome(name, epoch=2).loss.equal(a)
    assert not outcome(name, seed=3).loss.equal(a)


def test_madry_is_cross_entropy_at_the_attacked_point():
    x, y, index = images()
    f = network()
    with eval_mode(f):
        x_adv = attacks.pgd(
            attacks.cross_entropy(f),
            x,
            y,
            norm="linf",
            epsilon=0.2,
            step_size=0.05,
            n_steps=4,
            start="uniform",
            n_restarts=1,
            returns="last",
            seed=2,
            index=index,
            purpose="train/attack/epoch 1",
        )
    assert (x_adv - x).abs().max() <= 0.2 + 1e-12
    assert outcome("madry").loss.allclose(energies.cross_entropy(network()(x_adv), y))


def test_trades_is_cross_entropy_where_beta_is_zero_and_grows_linearly_in_beta():
    plain = outcome("trades", beta=0.0).loss
    x, y, _ = images()
    assert plain.allclose(energies.cross_entropy(network()(x), y))
    one, six = outcome("trades", beta=1.0).loss, outcome("trades", beta=6.0).loss
    assert (six - plain).allclose(6 * (one - plain))
    assert (one > plain).all()


def test_attack_settings_are_in_pixel_units():
    assert objectives.attack_settings(ENTRY) == {"norm": "linf", "epsilon": 0.2, "step_size": 0.05}
    l2 = {"attack_norm": "l2", "epsilon_l2": 0.5, "step_size_l2": 0.1}
    assert objectives.attack_settings(l2) == {"norm": "l2", "epsilon": 0.5, "step_size": 0.1}
    with pytest.raises(ValueError, match="linf or l2"):
        objectives.attack_settings({"attack_norm": "l1"})
    with pytest.raises(ValueError, match="expected objective among"):
        outcome("standard", objective="mart")
