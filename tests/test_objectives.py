"""Objectives: golden losses held to their version, the closed forms they are made of, and modes put back."""

import pytest
import torch
from torch import Tensor, nn

from helpers import attacks, energies, jem, losses, models, noise, objectives, parameters
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
GAUSSIAN = {"start": "gaussian", "start_std": 0.001}
WEIGHTED = {**GAUSSIAN, "weight_normalisation": "none"}
OWN: dict[str, dict[str, object]] = {
    "standard": {},
    "madry": {},
    "fgsm_rs": {"step_over_epsilon": 1.25, "n_steps": None, "start": None},
    "trades": GAUSSIAN,
    "weat_nat": WEIGHTED,
    "weat_adv": WEIGHTED,
    "mail_trades": {**WEIGHTED, "weight_normalisation": "mean", "margin_slope": 1.0, "margin_bias": -1.5},
    "mart": GAUSSIAN,
}
ATTACKED = [name for name in objectives.OBJECTIVES if name != "standard"]

# (objective, version): losses of four fixed images. When a change moves them, raise the objective's number in
# versions.OBJECTIVE_VERSIONS, so that networks are trained anew, and put the new losses here.
GOLDEN: dict[tuple[str, int], list[float]] = {
    ("standard", 1): [0.3171590791, 1.4770933551, 3.2060495883, 0.4162547535],
    ("madry", 1): [0.4188075812, 1.6703847181, 2.9737848685, 0.4435820997],
    ("fgsm_rs", 1): [0.5266883529, 1.8027477661, 3.1432113073, 0.3972428357],
    ("trades", 1): [0.3185953363, 1.4918336809, 3.3094698524, 0.4282451242],
    ("weat_nat", 1): [0.1414341423, 0.7657918967, 1.5913025569, 0.1880400223],
    ("weat_adv", 1): [0.1360814207, 0.8260771456, 1.5804298746, 0.206305382],
    ("mail_trades", 1): [0.3179909885, 1.4969316537, 3.3488978808, 0.4245723144],
    ("mart", 1): [0.8731017878, 3.2207705425, 4.1049539531, 0.8218543804],
}


def entry(name: str, **changes: object) -> dict[str, object]:
    return {**ENTRY, **OWN[name], "objective": name, **changes}


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
    # Those of a bottleneck have their golden losses in test_bottleneck.py.
    known = {*objectives.OBJECTIVES, *objectives.BOTTLENECKS, jem.OBJECTIVE}
    assert known == parameters.OBJECTIVE_VERSIONS.keys()


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_contract(name):
    x, y, index = images()
    f, before = network(), x.clone()
    f.body.norm2.eval()  # frozen by hand, and so it must stay
    state = torch.get_rng_state()
    statistics = f.body.norm2.running_mean.clone()
    loss, wrong, _ = objectives.evaluate(f, x, y, entry=entry(name), seed=0, index=index, epoch=0)
    assert loss.shape == wrong.shape == (4,)
    assert wrong.dtype == torch.bool
    loss.mean().backward()
    assert all(p.grad is not None for p in f.parameters())
    assert f.training
    assert not f.body.norm2.training
    assert f.body.norm2.running_mean.equal(statistics)
    assert x.equal(before)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(
    ("name", "passes"), [("standard", 1), ("madry", 1), ("fgsm_rs", 1), ("trades", 2), ("weat_adv", 2), ("mart", 2)]
)
def test_batch_norm_meets_training_batches_only(name, passes):
    f = network()
    x, y, index = images()
    objectives.evaluate(f, x, y, entry=entry(name), seed=0, index=index, epoch=0)
    assert f.body.norm1.num_batches_tracked == passes


@pytest.mark.parametrize("name", ATTACKED)
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
        outcome("standard", objective="marti")


# What the weighted objectives are made of


def seen(name: str, **changes: object) -> objectives.Seen:
    """f(x), f(x*), y of the four images, x* found as the objective finds it."""
    x, y, index = images()
    f, given = network(), entry(name, **changes)
    search = objectives.OBJECTIVES[name].search
    assert search is not None
    with eval_mode(f):
        x_adv = search(f, x, y, entry=given, seed=2, index=index, epoch=1)
    f = network()
    return objectives.Seen(y, given, f(x), f(x_adv))


def test_weat_weighs_the_whole_of_trades_by_the_natural_energy():
    s = seen("weat_nat")
    w = 1 / torch.log1p(energies.marginal(s.natural).abs().exp())
    kl = energies.kl_from_energies(s.natural, s.adversarial)
    natural, adversarial = (energies.cross_entropy(f, s.y) for f in (s.natural, s.adversarial))
    assert outcome("weat_nat").loss.allclose(w * (natural + 6 * kl), rtol=0, atol=1e-10)
    assert outcome("weat_adv").loss.allclose(w * (adversarial + 6 * kl), rtol=0, atol=1e-10)
    assert outcome("weat_nat").loss.allclose(w * outcome("trades").loss)
    by_mean = outcome("weat_adv", weight_normalisation="mean").loss
    assert by_mean.allclose(outcome("weat_adv").loss / w.mean())


def test_mail_weighs_the_kl_alone():
    s = seen("mail_trades")
    omega = losses.mail_weight(s.adversarial, s.y, slope=1.0, bias=-1.5)
    expected = energies.cross_entropy(s.natural, s.y) + 6 * omega * energies.kl(s.natural, s.adversarial)
    assert outcome("mail_trades", weight_normalisation="none").loss.allclose(expected, rtol=0, atol=1e-10)
    again = outcome("mail_trades", margin_slope=1e-9).loss  # all weights are one half, then one
    assert again.allclose(outcome("trades").loss)


def test_mart_finds_its_points_by_cross_entropy_and_weighs_the_kl_by_doubt():
    s = seen("mart")
    p, q = s.natural.softmax(1), s.adversarial.softmax(1)
    rows = torch.arange(4)
    others = q.clone()
    others[rows, s.y] = 0
    expected = -q[rows, s.y].log() - (1 - others.max(1).values).log()
    expected = expected + 6 * (1 - p[rows, s.y]) * (p * (p / q).log()).sum(1)
    assert outcome("mart").loss.allclose(expected, rtol=0, atol=1e-10)
    adversarial = seen("madry", **GAUSSIAN).adversarial
    assert outcome("mart", beta=0.0).loss.allclose(losses.boosted_cross_entropy(adversarial, s.y))


@pytest.mark.parametrize("name", ["weat_nat", "weat_adv", "mail_trades"])
def test_no_gradient_flows_through_weights(name):
    s = seen(name)
    f, g = (logits.detach().requires_grad_() for logits in (s.natural, s.adversarial))
    loss = objectives.OBJECTIVES[name].loss(objectives.Seen(s.y, s.entry, f, g))
    kl, first = losses.trades_kl(f, g), losses.cross_entropy(g if name == "weat_adv" else f, s.y)
    if name == "mail_trades":
        omega = torch.sigmoid(-losses.probabilistic_margin(g, s.y) - 1.5)
        fixed = first + (omega / omega.mean()).detach() * 6 * kl
    else:
        fixed = losses.weat_weight(energies.marginal(f)) * (first + 6 * kl)
    for ours, theirs in zip(*(torch.autograd.grad(part.sum(), (f, g)) for part in (loss, fixed)), strict=True):
        assert ours.allclose(theirs, rtol=0, atol=1e-12)


def test_gradients_flow_through_the_doubt_of_mart_as_in_its_authors_code():
    s = seen("mart")
    f, g = s.natural.detach().requires_grad_(), s.adversarial.detach()
    (whole,) = torch.autograd.grad(objectives.mart(objectives.Seen(s.y, s.entry, f, g)).sum(), f)
    held = losses.doubt(f, s.y).detach() * 6 * losses.trades_kl(f, g)
    assert not whole.allclose(torch.autograd.grad(held.sum(), f)[0])


def test_one_random_step_stays_in_the_ball_and_is_longer_than_half_of_it():
    x, y, index = images()
    f = network().eval()
    given = {"entry": entry("fgsm_rs"), "seed": 2, "index": index, "epoch": 1}
    start = objectives.random_step(f, x, y, **{**given, "entry": entry("fgsm_rs", step_over_epsilon=1e-9)})
    x_adv = objectives.random_step(f, x, y, **given)
    assert ((x_adv - x).abs().amax((1, 2, 3)) <= 0.2 + 1e-12).all()
    free = ((x_adv - x).abs() < 0.2 - 1e-9) & (x_adv > 0) & (x_adv < 1)
    moved = (x_adv - start)[free].abs()
    moved = moved[moved > 1e-6]  # some pixels have no gradient
    assert len(moved)
    assert moved.allclose(torch.tensor(1.25 * 0.2, dtype=torch.float64))
    assert outcome("fgsm_rs").loss.allclose(energies.cross_entropy(network()(x_adv), y))


# The energy penalty


@pytest.mark.parametrize("name", ATTACKED)
@pytest.mark.parametrize(("form", "margin"), [("abs", None), ("square", None), ("hinge", 0.02)])
def test_an_energy_penalty_is_added_to_any_objective_with_an_attack(name, form, margin):
    s = seen(name)
    delta = energies.marginal(s.natural) - energies.marginal(s.adversarial)
    expected = {"abs": delta.abs(), "square": delta**2, "hinge": (delta.abs() - 0.02).clamp_min(0)}[form]
    changes = {"energy_penalty": form, "energy_penalty_weight": 3.0, "energy_penalty_margin": margin}
    assert expected.sum() > 0
    assert (outcome(name, **changes).loss - outcome(name).loss).allclose(3 * expected, rtol=0, atol=1e-9)
    assert outcome(name, **{**changes, "energy_penalty": "none"}).loss.equal(outcome(name).loss)


def test_gradients_of_the_penalty_flow_into_both_energies():
    s = seen("madry", energy_penalty="abs", energy_penalty_weight=1.0)
    gradients = torch.autograd.grad(objectives._delta_energy_penalty(s).sum(), (s.natural, s.adversarial))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_where_nothing_is_attacked_there_is_nothing_to_penalise():
    with pytest.raises(ValueError, match="expected energy_penalty none with objective standard"):
        outcome("standard", energy_penalty="abs", energy_penalty_weight=1.0)
