"""PGD and FGSM against an independent implementation, on real images and networks trained by others.

Runs where torchattacks is importable (it is not in the lock: it pins old packages; install it with
--no-deps into a folder of its own and name that in PYTHONPATH), DATA_ROOT holds CIFAR-10 and
CHECKPOINTS the foreign networks. Both implementations begin at the same point, with the same ε,
step and number of steps; the verdicts may differ on one image in 1,000. `-rP` shows the figures.
"""

import os

import pytest
import torch

from helpers import attacks, data, foreign, metrics, noise

torchattacks = pytest.importorskip("torchattacks")

pytestmark = [
    pytest.mark.foreign,
    pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT is unset"),
    pytest.mark.skipif("CHECKPOINTS" not in os.environ, reason="CHECKPOINTS is unset"),
]

N, BATCH = 1000, 250
ALLOWED = N // 1000
INDEX = torch.arange(N)
COMMON = {"source": "checkpoint", "dataset": "cifar10", "image_size": 32}
NETWORKS = {
    "resnet20": {
        "architecture": "resnet20",
        "file": "cifar10_standard_resnet20.safetensors",
        "sha256": "02926273efb1deadb6dc654c7087baea932ef2026d9f854680d6858146d85838",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "resnet2b": {
        "architecture": "resnet2b",
        "file": "cifar10_linf2_resnet2b.safetensors",
        "sha256": "7828015f3676449a96b0374327e76d73d250f5a8d30c9282d8fb63ab4b4fdb6c",
        "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.2471, 0.2435, 0.2616],
    },
}
EPSILON = {"linf": {"resnet20": 2 / 255, "resnet2b": 4 / 255}, "l2": {"resnet20": 0.15, "resnet2b": 0.5}}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    network = foreign.build(COMMON | NETWORKS[request.param])
    images = data.load("cifar10", "test").first(N)
    x, y = images.images(), images.labels
    assert torch.equal(images.index, INDEX)
    return request.param, network, x, y


def verdicts(network, x):
    return metrics.predictions(network, x, batch_size=BATCH).argmax(1)


def compare(case, ours, theirs):
    name, network, x, y = case
    mine, other = verdicts(network, ours), verdicts(network, theirs)
    differ = int(((mine == y) != (other == y)).sum())
    moved = int((ours != theirs).flatten(1).any(1).sum())
    print(
        f"{name}: robust accuracy ours {metrics.accuracy(mine == y)}, theirs {metrics.accuracy(other == y)} %; "
        f"{differ} verdicts and {moved} images of {N} differ"
    )
    assert 0 < (mine == y).sum() < (verdicts(network, x) == y).sum()  # the attack does something, but not everything
    assert differ <= ALLOWED


def ours(case, norm, *, start, n_steps=20, loss=None, labels=None):
    name, network, x, y = case
    epsilon = EPSILON[norm][name]
    loss = attacks.cross_entropy(network) if loss is None else loss
    return torch.cat(
        [
            attacks.pgd(
                loss,
                x[rows],
                (y if labels is None else labels)[rows],
                norm=norm,
                epsilon=epsilon,
                step_size=epsilon / 4,
                n_steps=n_steps,
                start=start,
                n_restarts=1,
                returns="last",
                seed=0,
                index=INDEX[rows],
            )
            for rows in INDEX.split(BATCH)
        ]
    )


def start_of(case, norm):
    """Where our uniform start puts each image, as its distance from x."""
    return ours(case, norm, start="uniform", n_steps=0) - case[2]


def theirs(case, attack, labels=None):
    _, _, x, y = case
    return torch.cat([attack(x[rows], (y if labels is None else labels)[rows]) for rows in INDEX.split(BATCH)])


def pieces(values):
    """Hands out the rows of `values` batch by batch, as the patched draw of torchattacks asks for them."""
    parts = iter(values.split(BATCH))
    return lambda tensor, *_: tensor.copy_(next(parts))


def test_fgsm(case):
    name, network, x, y = case
    epsilon = EPSILON["linf"][name]
    mine = torch.cat(
        [attacks.fgsm(attacks.cross_entropy(network), x[r], y[r], epsilon=epsilon) for r in INDEX.split(BATCH)]
    )
    compare(case, mine, theirs(case, torchattacks.FGSM(network, eps=epsilon)))


@pytest.mark.parametrize("start", ["none", "uniform"])
def test_pgd_linf(case, start, monkeypatch):
    name, network, *_ = case
    epsilon = EPSILON["linf"][name]
    attack = torchattacks.PGD(network, eps=epsilon, alpha=epsilon / 4, steps=20, random_start=start == "uniform")
    monkeypatch.setattr(torch.Tensor, "uniform_", pieces(start_of(case, "linf")))
    compare(case, ours(case, "linf", start=start), theirs(case, attack))


@pytest.mark.parametrize("start", ["none", "uniform"])
def test_pgd_l2(case, start, monkeypatch):
    name, network, *_ = case
    epsilon = EPSILON["l2"][name]
    # Their 1e-10 beside the gradient's length shortens the steps of confident images, whose gradient is no longer
    # than that; a smaller one leaves the direction alone.
    attack = torchattacks.PGDL2(
        network, eps=epsilon, alpha=epsilon / 4, steps=20, random_start=start == "uniform", eps_for_division=1e-30
    )
    away = start_of(case, "l2")
    monkeypatch.setattr(torch.Tensor, "normal_", pieces(away))
    monkeypatch.setattr(torch.Tensor, "uniform_", pieces(away.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1) / epsilon))
    compare(case, ours(case, "l2", start=start), theirs(case, attack))


def test_targeted_pgd_linf(case):
    name, network, _, y = case
    epsilon = EPSILON["linf"][name]
    targets = attacks.random_targets(y, 10, seed=0, index=INDEX)
    attack = torchattacks.PGD(network, eps=epsilon, alpha=epsilon / 4, steps=20, random_start=False)
    attack.set_mode_targeted_by_label(quiet=True)
    mine = ours(case, "linf", start="none", loss=attacks.targeted_cross_entropy(network), labels=targets)
    compare(case, mine, theirs(case, attack, targets))


def test_kl_pgd(case, monkeypatch):
    name, network, x, y = case
    epsilon = EPSILON["linf"][name]
    attack = torchattacks.TPGD(network, eps=epsilon, alpha=epsilon / 4, steps=20)
    draws = iter(noise.normal(x.shape[1:], seed=0, purpose="attack", index=INDEX).split(BATCH))
    monkeypatch.setattr(torch, "randn_like", lambda images: next(draws))
    mine = attacks.run(
        "pgd_kl", network, x, y, norm="linf", epsilon=epsilon, step_size=epsilon / 4, n_steps=20, returns="last",
        n_restarts=1, seed=0, index=INDEX, batch_size=BATCH,
    )  # fmt: skip
    compare(case, mine, theirs(case, attack))
