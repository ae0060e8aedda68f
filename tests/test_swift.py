"""Gradients in bfloat16 lead, float32 decides."""

import pytest
import torch
from victims import Liar, convolutional, images

from helpers import apgd, autoattack, balls, fab, noise, swift, victim

N, EPSILON = 32, 0.006
INDEX = torch.arange(N)
BUDGET = autoattack.Budget(n_steps=25, n_targets=4, n_queries=150)


def case(device="cpu"):
    net, x = convolutional(dtype=torch.float32).to(device), images(N, dtype=torch.float32).to(device)
    return net, x, net(x).argmax(1)


def evaluate(net, x, y, **changes):
    given = {"attacks": autoattack.STANDARD, "budget": BUDGET, "norm": "linf", "epsilon": EPSILON, "seed": 0}
    return autoattack.evaluate(net, x, y, index=INDEX, batch_size=N, **given | changes)


def test_what_bfloat16_alone_calls_fooled_stays_in_the_search(device, monkeypatch):
    net, x, y = case(device)
    monkeypatch.setattr(swift, "InBfloat16", Liar)
    Liar.asked = 0
    with victim.attacked(net):
        seer = swift.Guided(net, x)
        key = noise.Key(0, "test", INDEX.to(device))
        given = {"norm": "linf", "epsilon": 1e-6, "n_steps": 6, "returns": "first_success", "key": key}
        found = apgd.climb(seer, x, y, y, loss="ce", **given)
    assert Liar.asked == 7  # nobody left: every step was made
    assert not found.fooled.any()
    result = evaluate(net, x, y, attacks=["apgd_ce"], epsilon=1e-6, precision="bfloat16")
    assert result.robust.all()


def test_only_what_float32_confirms_is_confirmed():
    net, x, y = case()
    seer, said = swift.Guided(net, x), net(x).detach()
    lied = said.clone()
    lied[::2] = -said[::2]
    torch.testing.assert_close(seer.confirmed(lied, x, y), said, rtol=1e-5, atol=1e-5)
    other = (y + 1) % 5
    assert (seer.confirmed(said, x, other).argmax(1) != other).all()
    assert seer.cost.forward == N // 2 + N


def middling(net, x, y, norm):
    """A radius within which half of the images are fooled."""
    near = fab.fab(net, x, y, norm=norm, epsilon=1.0, n_steps=30, n_targets=4, returns="closest", batch_size=N)
    return float(balls.distance(near, x, norm=norm).median()) * 1.02


@pytest.mark.parametrize("norm", balls.NORMS)
def test_the_fooled_are_fooled_in_float32_and_the_verdicts_are_the_plain_ones(device, norm):
    net, x, y = case(device)
    epsilon = middling(net, x, y, norm)
    plain, halved = (evaluate(net, x, y, norm=norm, epsilon=epsilon, precision=p) for p in ("float32", "bfloat16"))
    with torch.no_grad():
        wrong = (net(halved.adversarial).argmax(1) != y).cpu()
    assert torch.equal(wrong, ~halved.robust)
    assert balls.inside(halved.adversarial, x, norm=norm, epsilon=epsilon).all()
    assert 0 < plain.robust.sum() < N  # the attack does something, but not everything
    assert torch.equal(plain.robust, halved.robust)
    assert not halved.notes or "targets" in halved.notes[0]  # nothing that was believed fell through at the end


def test_fab_and_square_find_what_they_find_in_float32(device):
    net, x, y = case(device)
    epsilon = middling(net, x, y, "linf")
    for attack in ("fab_t", "square"):
        plain, swiftly = (
            evaluate(net, x, y, attacks=[attack], epsilon=epsilon, precision=p) for p in ("float32", "bfloat16")
        )
        assert torch.equal(plain.robust, swiftly.robust)
        assert plain.broken_by == swiftly.broken_by
        assert 0 < swiftly.robust.sum() < N


def test_the_state_of_one_precision_is_not_taken_for_that_of_the_other(tmp_path):
    net, x, y = case()
    evaluate(net, x, y, attacks=["apgd_ce"], folder=tmp_path)
    with pytest.raises(ValueError, match="precision"):
        evaluate(net, x, y, attacks=["apgd_ce"], folder=tmp_path, precision="bfloat16")
