"""Energies: closed forms, and the paper's identities in float64 and float32."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import energies

# (batch, classes, spread of the logits, offset of the logits, seed)
CASES = st.tuples(
    st.integers(1, 8),
    st.integers(1, 200),
    st.floats(0, 60),
    st.floats(-500, 500),
    st.integers(0, 2**31),
)


def draw(case, dtype):
    batch, classes, spread, offset, seed = case
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, batch, classes, generator=generator, dtype=torch.float64) * spread + offset
    y = torch.randint(classes, (batch,), generator=generator)
    return p.to(dtype), q.to(dtype), y


def allowed(dtype, *values):
    """1e-10 in float64; in float32 1e-5 of the largest energy that enters the identity, and at least 1e-5."""
    scale = torch.stack([v.abs() for v in values]).amax(0).clamp_min(1)
    return scale * (1e-10 if dtype == torch.float64 else 1e-5)


def test_known_values():
    logits = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)
    y = torch.tensor([1])
    assert energies.marginal(logits).item() == pytest.approx(-math.log(4), abs=1e-15)
    assert energies.joint(logits, y).item() == pytest.approx(-math.log(3), abs=1e-15)
    assert energies.cross_entropy(logits, y).item() == pytest.approx(math.log(4 / 3), abs=1e-15)
    # p = (1/4, 3/4) against the uniform q: Σ p log 2p
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert energies.kl(logits, torch.zeros_like(logits)).item() == pytest.approx(expected, abs=1e-15)
    # and the other way round: Σ q log q/p with q = (1/2, 1/2)
    reverse = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert energies.kl(torch.zeros_like(logits), logits).item() == pytest.approx(reverse, abs=1e-15)


def test_a_higher_logit_is_a_lower_energy():
    low, high = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 9.0]])
    assert energies.marginal(high) < energies.marginal(low)
    assert energies.joint(high, torch.tensor([1])) < energies.joint(low, torch.tensor([1]))


def test_delta_is_positive_where_the_attack_lowered_the_energy():
    assert energies.delta(torch.tensor([-5.0, -5.0]), torch.tensor([-8.0, -1.0])).tolist() == [3.0, -4.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(case=CASES)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_cross_entropy_is_the_gap_of_the_energies(dtype, case):
    logits, _, y = draw(case, dtype)
    gap = energies.cross_entropy(logits, y)
    joint, marginal = energies.joint(logits, y), energies.marginal(logits)
    reference = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    assert ((gap - reference).abs() <= allowed(dtype, joint, marginal)).all()
    assert torch.equal(gap, joint - marginal)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(case=CASES)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_kl_is_what_proposition_1_says(dtype, case):
    p, q, _ = draw(case, dtype)
    direct, from_energies = energies.kl(p, q), energies.kl_from_energies(p, q)
    # Σ_k p(k) (E(x*, k) − E(x, k)) sums terms as large as the largest |E(x*, k)| + |E(x, k)|.
    largest = p.abs().amax(1) + q.abs().amax(1)
    assert ((direct - from_energies).abs() <= allowed(dtype, largest)).all()
    reference = torch.nn.functional.kl_div(q.log_softmax(1), p.log_softmax(1), reduction="none", log_target=True).sum(1)
    assert ((direct - reference).abs() <= allowed(dtype, largest)).all()


def test_kl_gradient_is_softmax_difference():
    p, q = torch.randn(2, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q.requires_grad_()
    (gradient,) = torch.autograd.grad(energies.kl(p, q).sum(), q)
    # d KL(p ‖ q) / d logits_q = softmax(q) − softmax(p); |terms| < 1, so 1e-14 is 50 ulp
    assert (gradient - (q.softmax(1) - p.softmax(1))).abs().max() < 1e-14


@pytest.mark.parametrize("size", [1e3, 1e10, 1e30])
def test_large_logits_stay_finite(size):
    logits = torch.tensor([[size, -size, 0.0], [-size, -size, -size]])
    other = logits.roll(1, 1)
    y = torch.tensor([1, 2])
    for value in (
        energies.marginal(logits),
        energies.joint(logits, y),
        energies.cross_entropy(logits, y),
        energies.kl(logits, other),
        energies.kl_from_energies(logits, other),
    ):
        assert torch.isfinite(value).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: energies.marginal(torch.zeros(3)), r"logits to be floating, of shape \(B, K\)"),
        (lambda: energies.joint(torch.zeros(1, 3), torch.tensor([3])), r"below 3"),
        (lambda: energies.joint(torch.zeros(2, 3), torch.tensor([1])), r"each of 2 rows"),
        (lambda: energies.kl(torch.zeros(1, 3), torch.zeros(1, 2)), r"one shape, got \(1, 3\) and \(1, 2\)"),
        (lambda: energies.delta(torch.zeros(2), torch.zeros(2, 1)), r"got \(2, 1\)"),
        (lambda: energies.delta(torch.zeros(2, 3), torch.zeros(2)), r"shape \(B,\), got \(2, 3\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
