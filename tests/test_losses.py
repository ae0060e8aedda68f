"""Per-sample terms: closed forms and gradients."""

import math

import pytest
import torch

from helpers import energies, losses


def test_known_values():
    logits, y = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64), torch.tensor([0])
    assert losses.cross_entropy(logits, y).item() == pytest.approx(math.log(4), abs=1e-15)
    uniform = torch.zeros(1, 2, dtype=torch.float64)
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert losses.trades_kl(logits, uniform).item() == pytest.approx(expected, abs=1e-15)


def test_terms_equal_their_form_in_energies():
    p, q = torch.randn(2, 6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6)
    assert torch.allclose(losses.cross_entropy(p, y), energies.cross_entropy(p, y), rtol=0, atol=1e-10)
    assert torch.allclose(losses.trades_kl(p, q), energies.kl_from_energies(p, q), rtol=0, atol=1e-10)


def test_trades_kl_gives_gradients_to_both_of_its_logits():
    p, q = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(losses.trades_kl, (p.requires_grad_(), q.requires_grad_()))
    natural, adversarial = torch.autograd.grad(losses.trades_kl(p, q).sum(), (p, q))
    assert natural.abs().min() > 0
    assert adversarial.abs().min() > 0


def test_cross_entropy_of_a_confident_mistake_stays_finite_and_keeps_its_gradient():
    logits = torch.tensor([[1e4, 0.0]], requires_grad=True)
    loss = losses.cross_entropy(logits, torch.tensor([1]))
    assert loss.item() == 1e4
    assert torch.autograd.grad(loss.sum(), logits)[0].tolist() == [[1.0, -1.0]]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"below 3 .*got labels from 3 to 3"):
        losses.cross_entropy(torch.zeros(1, 3), torch.tensor([3]))
    with pytest.raises(ValueError, match=r"each of 2 rows on cpu, got 1"):
        losses.cross_entropy(torch.zeros(2, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match="one shape"):
        losses.trades_kl(torch.zeros(2, 3), torch.zeros(1, 3))
