"""What APGD, FAB, Square and CW keep alike: ball and box, inputs, modes, flags and the global generator."""

import pytest
import torch
from torch import nn
from victims import images

from helpers import apgd, balls, cw, fab, square

B, K = 6, 4


class Delicate(nn.Module):
    """Train mode, a frozen weight, dropout and batch norm: everything that an attack could disturb."""

    def __init__(self, dtype, *, calls=10**9):
        super().__init__()
        self.calls, self.watched = calls, False
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, dtype=dtype), nn.BatchNorm2d(4, dtype=dtype), nn.ReLU(), nn.Dropout(), nn.Flatten(),
            nn.Linear(144, K, dtype=dtype),
        )  # fmt: skip
        with torch.no_grad():
            for seed, p in enumerate(self.parameters()):
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)).to(dtype) / 3)
        self.body[0].bias.requires_grad_(False)
        self.body[3].eval()

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("no more")
        if torch.is_grad_enabled() and self.watched:
            assert not any(p.requires_grad for p in self.parameters())  # no gradient of a weight is ever computed
        return self.body(x)


def by_apgd(returns):
    return lambda net, x, y, **given: apgd.apgd(
        net, x, y, loss="targeted_dlr", n_targets=2, n_steps=6, n_restarts=1, returns=returns, seed=0,
        index=torch.arange(B), batch_size=4, **given,
    )  # fmt: skip


def by_fab(returns):
    return lambda net, x, y, **given: fab.fab(
        net, x, y, n_steps=6, n_targets=2, returns=returns, batch_size=4, **given
    )  # fmt: skip


def by_square(returns):
    return lambda net, x, y, **given: square.square(
        net, x, y, n_queries=12, returns=returns, seed=0, index=torch.arange(B), batch_size=4, **given
    )


def by_cw(returns):
    return lambda net, x, y, **given: cw.cw(
        net, x, y, c=1.0, n_searches=2, kappa=0.0, step_size=0.01, n_steps=6, targeted=False, returns=returns,
        batch_size=4,
    )  # fmt: skip


ATTACKS = {
    **{f"apgd {r}": by_apgd(r) for r in apgd.RETURNS},
    **{f"fab {r}": by_fab(r) for r in fab.RETURNS},
    **{f"square {r}": by_square(r) for r in square.RETURNS},
    **{f"cw {r}": by_cw(r) for r in cw.RETURNS},
}
BOUNDED = [name for name in ATTACKS if not name.startswith("cw") and name != "fab closest"]


def state(net):
    return (
        [m.training for m in net.modules()],
        [(p.requires_grad, p.grad) for p in net.parameters()],
        [t.clone() for t in [*net.parameters(), *net.buffers()]],
    )


def same(a, b):
    return a[0] == b[0] and a[1] == b[1] and all(torch.equal(s, t) for s, t in zip(a[2], b[2], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", balls.NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_contract(name, norm, dtype):
    net, x = Delicate(dtype), images(B, dtype=dtype)
    x[0], x[1] = 0.0, 1.0
    y = net.eval()(x).argmax(1)
    net.train().body[3].eval()
    net.watched = True
    x.requires_grad_()
    epsilon = 0.1 if norm == "linf" else 0.5
    before, inputs, generator = state(net), (x.detach().clone(), y.clone()), torch.get_rng_state()
    x_adv = ATTACKS[name](net, x, y, norm=norm, epsilon=epsilon)
    assert x_adv.shape == x.shape
    assert x_adv.dtype == dtype
    assert not x_adv.requires_grad
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    if name in BOUNDED:
        assert balls.inside(x_adv, x, norm=norm, epsilon=epsilon).all()
    assert not torch.equal(x_adv, x)
    assert torch.equal(x, inputs[0])
    assert torch.equal(y, inputs[1])
    assert x.requires_grad
    assert x.grad is None
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()
    assert same(state(net), before)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_network_is_put_back_when_it_raises(name):
    net, x = Delicate(torch.float32, calls=4), images(B, dtype=torch.float32)
    before = state(net)
    with pytest.raises(RuntimeError, match="no more"):
        ATTACKS[name](net, x, torch.arange(B) % K, norm="linf", epsilon=0.001)
    assert same(state(net), before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ATTACKS)
def test_labels_beyond_the_classes_are_refused(name):
    net, x = Delicate(torch.float32), images(B, dtype=torch.float32)
    with pytest.raises(ValueError, match=f"expected y .* below {K}"):
        ATTACKS[name](net, x, torch.full((B,), K), norm="linf", epsilon=0.1)
