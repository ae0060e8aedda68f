"""What attacks raise: the values, the goals, the targets, and a network left alone."""

import pytest
import torch
from torch import nn

from helpers import attack_losses, energies

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(6, 3, 4, 4, generator=GENERATOR)
Y = torch.arange(6) % 5


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5))


@pytest.fixture(autouse=True)
def _global_generator():
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def test_values_and_goals():
    net = network()
    logits = net(X).detach()
    other = network(1)(X).detach()
    fooled = logits.argmax(1) != Y
    assert fooled.any()
    assert not fooled.all()
    value, goal = attack_losses.cross_entropy(net)(X, Y)
    assert torch.allclose(value, energies.cross_entropy(logits, Y), atol=1e-5)
    assert torch.equal(goal, fooled)
    value, goal = attack_losses.targeted_cross_entropy(net)(X, Y)
    assert torch.allclose(value, -energies.cross_entropy(logits, Y), atol=1e-5)
    assert torch.equal(goal, ~fooled)
    value, goal = attack_losses.kl_divergence(net, other)(X, Y)
    assert torch.allclose(value, energies.kl_from_energies(other, logits), atol=1e-5)
    assert torch.equal(goal, fooled)


def test_kl_holds_the_clean_logits_constant():
    net = network()
    clean = net(X)
    value, _ = attack_losses.kl_divergence(net, clean)(X.clone().requires_grad_(), Y)
    assert clean.requires_grad
    assert torch.autograd.grad(value.sum(), clean, allow_unused=True) == (None,)


def test_random_targets_are_even_among_the_other_classes():
    n = 9000
    y = torch.arange(n) % 10
    targets = attack_losses.random_targets(y, 10, seed=0, index=torch.arange(n))
    assert (targets != y).all()
    shifts = torch.bincount((targets - y) % 10, minlength=10)[1:]
    assert (shifts - n / 9).abs().max() < 4 * (n * (1 / 9) * (8 / 9)) ** 0.5


def test_random_targets_are_keyed_by_image():
    index = torch.tensor([4, 9, 2, 7])
    y = torch.tensor([0, 1, 2, 3])
    whole = attack_losses.random_targets(y, 10, seed=1, index=index)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(attack_losses.random_targets(y[order], 10, seed=1, index=index[order]), whole[order])
    many = torch.arange(100)
    zeros = torch.zeros_like(many)
    first, second = (attack_losses.random_targets(zeros, 10, seed=s, index=many) for s in (0, 1))
    assert (first != second).any()


def test_least_likely_is_the_lowest_logit_and_never_the_label():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 9.0]])

    class Table(nn.Module):
        def forward(self, x):
            return logits[: len(x)]

    assert attack_losses.least_likely(Table(), X[:2]).tolist() == [1, 0]
    assert attack_losses.least_likely(Table(), X[:2], torch.tensor([1, 1])).tolist() == [2, 0]


def test_the_network_runs_in_eval_mode_and_is_left_as_it_was():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            seen.append((self.training, self.net.training, any(p.requires_grad for p in self.parameters())))
            return self.net(x)

    spy = Spy()
    spy.net.eval()
    attack_losses.cross_entropy(spy)(X, Y)
    attack_losses.least_likely(spy, X)
    assert seen == [(False, False, False)] * 2
    assert (spy.training, spy.net.training) == (True, False)
    assert all(p.requires_grad for p in spy.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attack_losses.cross_entropy(lambda x: x), r"network to be a torch.nn.Module, got function"),
        (lambda: attack_losses.cross_entropy(network())(X, Y + 1), r"below 5 .*, got labels from 1 to 5"),
        (lambda: attack_losses.cross_entropy(nn.Flatten(0))(X, Y), r"the network's output .*\(B, K\)"),
        (lambda: attack_losses.cross_entropy(nn.Flatten(0, 1))(X[..., 0, 0], Y), r"output"),
        (lambda: attack_losses.kl_divergence(network(), X), r"clean_logits"),
        (lambda: attack_losses.kl_divergence(network(), torch.zeros(5, 5))(X, Y), r"one shape"),
        (lambda: attack_losses.random_targets(Y, 1, seed=0, index=Y), r"num_classes to be a whole number >= 2, got 1"),
        (lambda: attack_losses.random_targets(Y, 3, seed=0, index=Y), r"below 3"),
        (lambda: attack_losses.random_targets(Y, 5, seed=0, index=Y[:2]), r"each of 6 rows, got 2"),
        (lambda: attack_losses.least_likely(network(), X * 255), r"in \[0, 1\]"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
