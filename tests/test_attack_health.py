"""Each check is triggered by the fault it knows, and silent on a network and an attack that are sound."""

import pytest
import torch
from torch import nn
from victims import convolutional, images

from helpers import attack_health, autoattack, balls, data
from helpers.apgd import apgd
from helpers.square import square

N = 16
INDEX = torch.arange(N)


def attack(net, **changes):
    def run(x, y, epsilon):
        given = {"loss": "margin", "norm": "linf", "n_steps": 20, "n_restarts": 1, "returns": "first_success"}
        return apgd(net, x, y, **given | changes, epsilon=epsilon, seed=0, index=INDEX[: len(x)], batch_size=64)

    return run


def black(net):
    def run(x, y, epsilon):
        return square(
            net, x, y, norm="linf", epsilon=epsilon, n_queries=200, returns="first_success", seed=0, index=INDEX,
            batch_size=64,
        )  # fmt: skip

    return run


def sound():
    net = convolutional()
    x = images(N)
    return net, x, net(x).argmax(1).detach()


def one(findings, name):
    (finding,) = [f for f in findings if f.name == name]
    return finding


def test_a_sound_network_and_attack_pass_every_check():
    net, x, y = sound()
    y[0] = (y[0] + 1) % 5
    found = attack_health.examine(
        net, x, y, attack=attack(net), epsilons=[0.005, 0.01], large=0.5, black=black(net), other=convolutional().eval()
    )
    assert [f.name for f in found] == [
        "logits", "gradients", "outputs repeat", "zero radius", "falls with radius", "large radius", "black box",
        "transfer",
    ]  # fmt: skip
    assert all(f.ok for f in found), [str(f) for f in found if not f.ok]
    assert attack_health.columns(found)["ok"].tolist() == [True] * 8
    assert all(isinstance(v, float) for f in found for v in f.numbers.values())


def test_probabilities_given_as_logits():
    z = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    assert attack_health.logits(z).ok
    assert not attack_health.logits(z.softmax(1)).ok
    assert "probabilities" in attack_health.logits(z.softmax(1)).message
    assert "log-probabilities" in attack_health.logits(z.log_softmax(1)).message
    assert not attack_health.logits(z.log_softmax(1)).ok
    assert not attack_health.logits(z.where(z < 2, torch.inf)).ok
    # rows that sum to 1 by chance are no probabilities while some are negative
    assert attack_health.logits(torch.tensor([[2.0, -1.0], [3.0, -2.0]])).ok


class Through(nn.Module):
    """A network with something in front of it."""

    def __init__(self, net, front):
        super().__init__()
        self.net, self.front = net, front

    def forward(self, x):
        return self.net(self.front(x))


def quantised(x):
    return torch.round(x * 15) / 15


def test_zero_gradients():
    net, x, y = sound()
    assert attack_health.gradients(net, x, y).ok
    cut = attack_health.gradients(Through(net, quantised), x, y)
    assert not cut.ok
    assert cut.numbers["zero_share_margin"] == 1
    assert "stand still" in cut.message


def test_saturated_logits_blind_cross_entropy_alone():
    net = convolutional(dtype=torch.float32)
    with torch.no_grad():
        net[-1].weight.mul_(1e5)
        net[-1].bias.mul_(1e5)
    x = images(N, dtype=torch.float32)
    finding = attack_health.gradients(net, x, net(x).argmax(1))
    assert not finding.ok
    assert finding.numbers["zero_share_margin"] == 0
    assert finding.numbers["zero_share_cross_entropy"] > 0.5
    assert "believe attacks on the margin" in finding.message


def test_random_outputs():
    net, x, _ = sound()
    generator = torch.Generator().manual_seed(0)
    noisy = Through(net, lambda z: z + 0.01 * torch.randn(z.shape, generator=generator, dtype=z.dtype))
    assert attack_health.outputs_repeat(net, x).ok
    finding = attack_health.outputs_repeat(noisy, x)
    assert not finding.ok
    assert finding.numbers["relative_difference"] > 1e-3


def test_radius_zero_is_not_clean():
    net, x, y = sound()

    def leaves_the_ball(x, y, epsilon):
        return attack(net)(x, y, epsilon + 0.05)

    finding = one(
        attack_health.examine(net, x, y, attack=leaves_the_ball, epsilons=[0.01], large=0.5), "zero radius"
    )  # fmt: skip
    assert not finding.ok
    assert finding.numbers["different"] > 0
    assert "leaves the ball" in finding.message


def test_robust_accuracy_that_rises_or_rests():
    def verdicts(n):
        return torch.arange(100) < n

    falls = attack_health.falls_with_epsilon
    assert falls({0.0: verdicts(90), 0.1: verdicts(50), 0.2: verdicts(10)}).ok
    assert falls({0.2: verdicts(10), 0.1: verdicts(50), 0.0: verdicts(90)}).ok  # in any order
    rising = falls({0.0: verdicts(90), 0.1: verdicts(40), 0.2: verdicts(50)})
    assert not rising.ok
    assert "rises from radius 0.1 to 0.2" in rising.message
    flat = falls({0.0: verdicts(90), 0.1: verdicts(90)})
    assert not flat.ok
    assert "does not use its radius" in flat.message
    # as many stand, but others: those that fell within 0.1 must fall within 0.2
    swapped = falls({0.0: verdicts(90), 0.1: verdicts(50), 0.2: ~verdicts(60)})
    assert not swapped.ok
    assert swapped.numbers["missed"] == 40
    assert falls({0.0: verdicts(0), 0.1: verdicts(0)}).ok
    with pytest.raises(ValueError, match="two radii or more"):
        falls({0.1: verdicts(3)})


def test_an_attack_that_ignores_its_radius():
    net, x, y = sound()
    found = attack_health.examine(net, x, y, attack=lambda x, y, e: x, epsilons=[0.01, 0.02], large=0.5)
    assert not one(found, "falls with radius").ok
    assert not one(found, "large radius").ok
    assert one(found, "zero radius").ok


def test_a_large_radius_that_does_not_reach_zero():
    stands = torch.tensor([True, False, False])
    assert attack_health.large_radius(~stands & stands, epsilon=0.5).ok
    finding = attack_health.large_radius(stands, epsilon=0.5)
    assert not finding.ok
    assert "1 of 3 images stand within 0.5" in finding.message


def test_black_box_beating_white_box_where_gradients_are_cut():
    net, x, y = sound()
    masked = Through(net, quantised)
    y = masked(x).argmax(1).detach()
    found = attack_health.examine(
        masked, x, y, attack=attack(masked), epsilons=[0.05, 0.1], large=0.5, black=black(masked), other=net
    )
    assert not one(found, "gradients").ok
    assert not one(found, "black box").ok
    assert one(found, "black box").numbers["only_by_black"] > 1
    # the network before the cut has gradients, and what fools it fools this one
    assert not one(found, "transfer").ok
    assert "fall to the transfer one" in one(found, "transfer").message


def test_the_ensembles_own_verdicts():
    net, x, y = sound()

    def findings(net, y):
        result = autoattack.evaluate(
            net, x, y, attacks=("apgd_ce", "square"), budget=autoattack.Budget(20, 9, 200), norm="linf", epsilon=0.05,
            seed=0, index=INDEX, batch_size=64,
        )  # fmt: skip
        return attack_health.of_evaluation(result)

    (good,) = findings(net, y)
    assert good.ok
    masked = Through(net, quantised)
    (bad,) = findings(masked, masked(x).argmax(1).detach())
    assert not bad.ok
    assert bad.name == "black box (Square)"


def test_the_network_is_left_as_it_was():
    net, x, y = sound()
    net.train()
    before = torch.get_rng_state()
    attack_health.examine(net, x, y, attack=attack(net), epsilons=[0.01], large=0.5, black=black(net), other=net)
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("norm", balls.NORMS)
def test_a_sound_attack_passes_in_both_norms(norm):
    net, x, y = sound()
    large = 0.5 if norm == "linf" else 0.5 * x[0].numel() ** 0.5
    epsilons = [0.005, 0.01] if norm == "linf" else [0.05, 0.1]
    found = attack_health.examine(net, x, y, attack=attack(net, norm=norm), epsilons=epsilons, large=large)
    assert all(f.ok for f in found), [str(f) for f in found if not f.ok]


def test_refusals():
    net, x, y = sound()
    good = torch.ones(3, dtype=torch.bool)
    with pytest.raises(ValueError, match="expected white to be bool verdicts"):
        attack_health.black_box(good.float(), good)
    with pytest.raises(ValueError, match="expected black on the same 3 images, got 2"):
        attack_health.black_box(good, good[:2])
    with pytest.raises(ValueError, match="expected radii above 0"):
        attack_health.examine(net, x, y, attack=attack(net), epsilons=[0.0], large=0.5)
    with pytest.raises(ValueError, match="expected n_times"):
        attack_health.outputs_repeat(net, x, n_times=1)


NAMED = {"step_size": 0.003, "n_steps": 20, "n_queries": 200, "seed": 0, "batch_size": 64}


def named(net, *, epsilon=0.01, **changes):
    """`of_named` on a network's own labels, by the check's name: whether it is ok."""
    x = images(N, dtype=torch.float32)
    with torch.no_grad():
        y = net(x).argmax(1)
    part = data.from_tensors(x, y, classes=tuple("abcde"), index=INDEX)
    found = attack_health.of_named(net, part, attack="pgd_ce", epsilon=epsilon, **NAMED | changes)
    assert set(found) == {"check", "ok", "message"}
    return dict(zip(found["check"].tolist(), found["ok"].tolist(), strict=True))


def test_an_attack_by_name_is_examined_at_its_own_radii():
    found = named(convolutional(dtype=torch.float32))
    names = ["logits", "gradients", "outputs repeat", "zero radius", "falls with radius", "large radius", "black box"]
    assert found == dict.fromkeys(names, True)


def test_an_attack_by_name_whose_gradient_misleads_loses_to_the_black_box():
    class Misleading(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional(dtype=torch.float32)

        def forward(self, x):
            z = self.net(x)
            return 2 * z.detach() - z  # the same numbers, the opposite gradient

    found = named(Misleading().eval(), epsilon=0.05)
    assert not found["black box"]
    assert not found["large radius"]


def test_at_radius_zero_only_the_network_is_examined():
    assert list(named(convolutional(dtype=torch.float32), epsilon=0.0)) == ["logits", "gradients", "outputs repeat"]
