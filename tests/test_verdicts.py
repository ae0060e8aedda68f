"""The fast way to a verdict is the plain way's verdict, on the CPU and on CUDA where there is one."""

import pytest
import torch
from attack_cases import EPSILON, convolutional, middle
from victims import Liar

from helpers import attacks, verdicts

N = 48
INDEX = torch.arange(100, 100 + N)


def case(device):
    net, x = convolutional().to(device), middle(torch.float32, N).to(device)
    y = net(x).argmax(1)
    y[::8] = (y[::8] + 1) % 5  # some are wrong as they are
    return net, x, y


def rule(norm, **changes):
    epsilon = EPSILON / 2 if norm == "linf" else 2 * EPSILON
    return {
        "norm": norm,
        "epsilon": epsilon,
        "step_size": epsilon / 4,
        "n_steps": 7,
        "n_restarts": 1,
        "seed": 3,
    } | changes


def plain(net, x, y, **settings):
    x_adv = attacks.pgd(
        attacks.cross_entropy(net), x, y, start="uniform", returns="first_success", index=INDEX, **settings
    )
    with torch.no_grad():
        return (net(x).argmax(1) == y) & (net(x_adv).argmax(1) == y)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("n_restarts", [1, 2])
@pytest.mark.parametrize("batch_size", [7, N])
def test_the_same_verdicts_as_the_plain_way(device, norm, n_restarts, batch_size):
    net, x, y = case(device)
    settings = rule(norm, n_restarts=n_restarts)
    stands = verdicts.standing(net, x, y, index=INDEX, batch_size=batch_size, **settings)
    assert torch.equal(stands, plain(net, x, y, **settings))
    right = (net(x).argmax(1) == y).sum()
    assert 0 < stands.sum() < right  # the attack does something, but not everything


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_autoattack_has_the_same_verdicts_image_by_image(device, norm):
    # It compacts its batches too: whole and one image at a time must come to the same.
    from helpers import autoattack

    net, x, y = case(device)
    given = {"attacks": ["apgd_ce"], "budget": autoattack.Budget(5, 1, 5), "norm": norm, "seed": 0}
    given |= {"epsilon": rule(norm)["epsilon"]}
    whole = autoattack.evaluate(net, x, y, index=INDEX, batch_size=N, **given).robust
    single = autoattack.evaluate(net, x, y, index=INDEX, batch_size=1, **given).robust
    assert torch.equal(whole, single)


def test_bfloat16_condemns_nobody(device, monkeypatch):
    net, x, y = case(device)
    monkeypatch.setattr(verdicts, "InBfloat16", Liar)
    Liar.asked = 0
    still = rule("linf", step_size=1e-9, n_steps=2)  # no step goes anywhere, so only a lie could condemn
    found = verdicts.standing(net, x, y, index=INDEX, batch_size=N, precision="bfloat16", **still)
    assert Liar.asked == 2
    assert torch.equal(found, verdicts.standing(net, x, y, index=INDEX, batch_size=N, **still))


def test_bfloat16_searches_nearly_as_well(device):
    net, x, y = case(device)
    settings = rule("linf")
    both = [
        verdicts.standing(net, x, y, index=INDEX, batch_size=N, precision=precision, **settings)
        for precision in verdicts.PRECISIONS
    ]
    assert (both[0] != both[1]).sum() <= N // 16


def test_the_network_and_the_images_are_left_alone():
    net, x, y = case("cpu")
    net.train()
    before, state = x.clone(), {name: t.clone() for name, t in net.state_dict().items()}
    verdicts.standing(net, x, y, index=INDEX, batch_size=N, **rule("linf"))
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    assert torch.equal(x, before)
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"norm": "l1"}, "norm"), ({"n_restarts": 0}, "n_restarts"), ({"batch_size": 0}, "batch_size"),
     ({"precision": "half"}, "precision"), ({"step_size": 0.0}, "step_size")],
)  # fmt: skip
def test_bad_input_is_refused(changes, said):
    net, x, y = case("cpu")
    with pytest.raises(ValueError, match=said):
        verdicts.standing(net, x, y, **{"index": INDEX, "batch_size": N, **rule("linf"), **changes})
