"""Margins and ratios: values by hand, invariances, gradients, and what is refused."""

import pytest
import torch
from victims import convolutional, images, randn

from helpers import attacks, energies, losses, margin_losses

Z = torch.tensor([[4.0, 1.0, 3.0, -2.0], [0.0, 5.0, 1.0, 2.0]], dtype=torch.float64)
Y, T = torch.tensor([0, 3]), torch.tensor([1, 1])


def test_values_by_hand():
    assert margin_losses.best_other(Z, Y).tolist() == [3, 5]
    assert margin_losses.margin(Z, Y).tolist() == [-1, 3]
    assert margin_losses.targeted_margin(Z, T).tolist() == [-3, 3]
    # z_π1 − z_π3 is 4 − 1 and 5 − 1; z_π1 − (z_π3 + z_π4)/2 is 4 + 0.5 and 5 − 0.5
    assert torch.allclose(margin_losses.dlr(Z, Y), torch.tensor([-1 / 3, 3 / 4]).double())
    assert torch.allclose(margin_losses.targeted_dlr(Z, Y, T), torch.tensor([-3 / 4.5, 3 / 4.5]).double())


@pytest.mark.parametrize("ratio", [margin_losses.dlr, lambda z, y: margin_losses.targeted_dlr(z, y, (y + 1) % 6)])
def test_ratios_ignore_shift_and_scale(ratio):
    z, y = randn(50, 6), torch.arange(50) % 6
    assert torch.allclose(ratio(z, y), ratio(37 * z - 11, y), rtol=1e-9)


def test_signs_say_who_is_fooled():
    z, y = randn(200, 6), torch.arange(200) % 6
    fooled = z.argmax(1) != y
    assert torch.equal(margin_losses.margin(z, y) > 0, fooled)
    assert torch.equal(margin_losses.dlr(z, y) > 0, fooled)
    assert margin_losses.dlr(z, y)[~fooled].min() >= -1
    assert torch.equal(margin_losses.targeted_margin(z, y) > 0, ~fooled)


@pytest.mark.parametrize(
    "loss",
    [margin_losses.margin, margin_losses.dlr, lambda z, y: margin_losses.targeted_dlr(z, y, (y + 1) % 6)],
)
def test_gradients(loss):
    z, y = randn(4, 6).requires_grad_(), torch.arange(4)
    assert torch.autograd.gradcheck(lambda z: loss(z, y), z)


def test_too_few_classes_are_refused():
    y = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="expected at least 3 classes for DLR, got 2"):
        margin_losses.dlr(torch.zeros(1, 2), y)
    with pytest.raises(ValueError, match="expected at least 4 classes for targeted DLR, got 3"):
        margin_losses.targeted_dlr(torch.zeros(1, 3), y, y + 1)


def made(net, y):
    """Each attack loss with the labels or targets it is told, and its value on logits."""
    t = (y + 1) % 5
    return {
        "margin": (
            margin_losses.carlini_wagner(net, kappa=0.5),
            y,
            lambda z: margin_losses.margin(z, y).clamp(max=0.5),
        ),
        "targeted margin": (
            margin_losses.targeted_carlini_wagner(net, kappa=0.5),
            t,
            lambda z: margin_losses.targeted_margin(z, t).clamp(max=0.5),
        ),
        "dlr": (margin_losses.difference_of_logits_ratio(net), y, lambda z: margin_losses.dlr(z, y)),
        "targeted dlr": (
            margin_losses.targeted_difference_of_logits_ratio(net, y),
            t,
            lambda z: margin_losses.targeted_dlr(z, y, t),
        ),
        "energy": (
            margin_losses.energy_cross_entropy(net, gamma=1.5),
            y,
            lambda z: losses.cross_entropy(z, y) + 1.5 * energies.marginal(z),
        ),
    }


@pytest.mark.parametrize("name", ["margin", "targeted margin", "dlr", "targeted dlr", "energy"])
def test_attack_losses(name):
    net, x = convolutional().train(), images(12)
    logits = net(x).detach()
    y = logits.argmax(1)
    loss, told, value = made(net, y)[name]
    said = loss(x, told)
    assert torch.allclose(said.value, value(logits))
    goal = logits.argmax(1) == told if "targeted" in name else logits.argmax(1) != told
    assert torch.equal(said.fooled, goal)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    x_adv = attacks.pgd(
        loss, x, told, norm="linf", epsilon=0.1, step_size=0.02, n_steps=10, start="none", n_restarts=1,
        returns="max_loss", seed=0, index=torch.arange(12),
    )  # fmt: skip
    assert (loss(x_adv, told).value - said.value).min() >= 0
    assert (loss(x_adv, told).value - said.value).mean() > 0


def test_energy_attack_with_gamma_one_raises_the_joint_energy():
    net, x = convolutional(), images(4)
    y = net(x).argmax(1)
    said = margin_losses.energy_cross_entropy(net, gamma=1.0)(x, y)
    assert torch.allclose(said.value, energies.joint(net(x), y))
