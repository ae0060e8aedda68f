"""The ensemble: verdicts that are known, accounts that add up, and evaluations that survive being killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from victims import convolutional, distances, images, linear

from helpers import apgd, autoattack, balls, metrics
from helpers.autoattack import Budget

ROOT = Path(__file__).parents[1]
SMALL = Budget(n_steps=12, n_targets=9, n_queries=40)
N = 24
INDEX = torch.arange(N) * 7 + 1


def evaluate(net, x, y, **changes):
    given = {
        "attacks": autoattack.STANDARD, "budget": SMALL, "norm": "linf", "epsilon": 0.01, "seed": 0, "index": INDEX,
        "batch_size": 5,
    }  # fmt: skip
    return autoattack.evaluate(net, x, y, **given | changes)


def labelled(net, n=N):
    x = images(n)
    y = net(x).argmax(1).detach()
    y[::8] = (y[::8] + 1) % net[-1].out_features  # some are wrong unattacked
    return x, y


@pytest.mark.parametrize("norm", balls.NORMS)
def test_verdicts_on_a_linear_network_are_those_of_its_closed_form(norm):
    net = linear(5)
    x, y = labelled(net)
    exact = distances(net, x, y, norm=norm)
    epsilon = float(exact[exact > 0].median())
    result = evaluate(net, x, y, norm=norm, epsilon=epsilon, budget=Budget(40, 9, 100))
    sure = (exact - epsilon).abs() > 0.02 * epsilon
    assert torch.equal(result.robust[sure], (exact > epsilon)[sure])
    assert torch.equal(result.correct, exact > 0)


@pytest.mark.parametrize("attack", ["apgd_t", "fab_t"])
def test_a_targeted_attack_tries_every_other_class(attack):
    """Where the nearest boundary is that of the least likely class, the likeliest target alone does not find it."""
    net, x = linear(6), images(N)
    with torch.no_grad():  # each class looks at its own pixels, the last one at those that are the same in all images
        net[1].weight.zero_()
        for k in range(6):
            net[1].weight[k, 32 * k : 32 * (k + 1)] = 20.0 if k == 5 else 1.0
        net[1].bias.zero_()
        net[1].bias[5] = -320.0 + 14.0
    x.flatten(1)[:, 160:] = 0.5
    y = net(x).argmax(1)
    assert (apgd.targets(net(x), y, 5) == 5).all()
    exact = distances(net, x, y, norm="linf")
    epsilon = float(exact[exact > 0].median())
    sure = (exact - epsilon).abs() > 0.02 * epsilon
    verdicts = [
        evaluate(net, x, y, attacks=(attack,), epsilon=epsilon, budget=Budget(40, n_targets, 1)).robust
        for n_targets in (1, 9)
    ]
    assert torch.equal(verdicts[1][sure], (exact > epsilon)[sure])
    assert verdicts[0].sum() > verdicts[1].sum()


def test_the_accounts_add_up():
    net = convolutional()
    x, y = labelled(net)
    seen = []
    result = evaluate(net, x, y, callback=seen.append)
    predicted = net(result.adversarial).argmax(1)
    assert torch.equal(predicted == y, result.robust)
    assert balls.inside(result.adversarial, x, norm="linf", epsilon=0.01).all()
    untouched = torch.tensor([name in ("", "clean") for name in result.broken_by])
    assert torch.equal(result.adversarial[untouched], x[untouched])
    assert 0 < result.robust.sum() < result.correct.sum() < N
    left = N
    for name, estimate in result.accuracy.items():
        left -= result.broken_by.count(name)
        assert estimate == metrics.wilson(left, N)
    assert list(result.accuracy) == ["clean", *autoattack.STANDARD]
    assert result.robust_accuracy == metrics.accuracy(result.robust)
    assert [row["attack"] for row in result.rows()] == ["clean", "APGD-CE", "APGD-T", "FAB-T", "Square"]
    # after its last batch an attack reports who stands
    last = {p.attack: p.standing for p in seen}
    assert last == {name: round(e.value * N / 100) for name, e in result.accuracy.items() if name != "clean"}
    assert all(p.done <= p.total for p in seen)
    assert max(p.n_runs for p in seen) == 4  # K − 1 targets
    assert result.notes == ("5 classes leave 4 targets for APGD-T and FAB-T",)


class Counted(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.forwards, self.most = net, 0, float("inf")

    def forward(self, x):
        self.forwards += len(x)
        if self.forwards > self.most:
            raise KeyboardInterrupt
        return self.net(x)


def test_costs_are_what_the_network_saw():
    net = Counted(convolutional())
    x, y = labelled(net.net)
    result = evaluate(net, x, y)
    assert sum(c.forward for c in result.cost.values()) == net.forwards
    assert result.cost["square"].backward == 0
    standing = round(result.accuracy["fab_t"].value * N / 100)
    left = int(result.robust.sum())
    # who stands at the end was asked for the start, every query and the verdict
    assert left * 42 <= result.cost["square"].forward <= standing * 42
    assert all(s >= 0 for s in result.seconds.values())


@pytest.mark.parametrize("norm", balls.NORMS)
def test_a_verdict_depends_on_neither_batch_nor_order(norm):
    net = convolutional()
    x, y = labelled(net)
    epsilon = 0.01 if norm == "linf" else 0.08
    whole = evaluate(net, x, y, norm=norm, epsilon=epsilon, batch_size=24)
    assert len(set(whole.broken_by)) >= 3
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    other = evaluate(net, x[order], y[order], norm=norm, epsilon=epsilon, index=INDEX[order], batch_size=7)
    assert other.broken_by == tuple(whole.broken_by[k] for k in order)
    assert torch.allclose(other.adversarial, whole.adversarial[order], atol=1e-9)
    for row in (1, 5, 9):
        one = slice(row, row + 1)
        alone = evaluate(net, x[one], y[one], norm=norm, epsilon=epsilon, index=INDEX[one])
        assert alone.broken_by == whole.broken_by[one]
        assert torch.allclose(alone.adversarial, whole.adversarial[one], atol=1e-9)


def test_a_first_attack_alone_is_that_attack():
    net = convolutional()
    x, y = labelled(net)
    only = {name: evaluate(net, x, y, attacks=(name,)).robust for name in autoattack.ATTACKS}
    together = evaluate(net, x, y, attacks=tuple(autoattack.ATTACKS)).robust
    # each next one only sees who stands: what one finds alone, the ensemble finds too
    assert torch.equal(together, torch.stack(list(only.values())).all(0))


# Names -------------------------------------------------------------------------------------------------------------


def test_only_the_whole_is_called_autoattack_standard():
    name = autoattack._name
    assert name(autoattack.STANDARD, Budget(), 10) == "AutoAttack standard"
    assert name(autoattack.STANDARD, Budget(), 4) == "AutoAttack standard"
    reduced = name(("apgd_ce", "square"), Budget(n_queries=500), 10)
    assert reduced == "reduced ensemble (APGD-CE 100 steps, Square 500 queries)"
    for less in (Budget(n_steps=99), Budget(n_targets=8), Budget(n_queries=4999)):
        assert name(autoattack.STANDARD, less, 10).startswith("reduced ensemble")
    assert name(autoattack.STANDARD, Budget(), 3).startswith("reduced ensemble")
    more = name((*autoattack.STANDARD, "apgd_dlr"), Budget(n_queries=6000), 10)
    assert more.startswith("own ensemble")
    assert name(autoattack.STANDARD[::-1], Budget(), 10).startswith("own ensemble")


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_few_classes_are_attacked_and_said(num_classes):
    net = linear(num_classes)
    x, y = labelled(net)
    exact = distances(net, x, y, norm="linf")
    epsilon = float(exact[exact > 0].median())
    result = evaluate(net, x, y, attacks=("apgd_t", "apgd_dlr"), epsilon=epsilon, budget=Budget(40, 9, 1))
    sure = (exact - epsilon).abs() > 0.02 * epsilon
    assert torch.equal(result.robust[sure], (exact > epsilon)[sure])
    text = "; ".join(result.notes)
    assert f"{num_classes} classes leave {num_classes - 1} targets" in text
    assert ("have no targeted DLR" in text) == (num_classes < 4)
    assert ("have no DLR" in text) == (num_classes < 3)


# Resuming ----------------------------------------------------------------------------------------------------------


def same(a, b):
    return (
        a.broken_by == b.broken_by
        and torch.equal(a.adversarial, b.adversarial)
        and a.accuracy == b.accuracy
        and a.cost == b.cost
        and (a.name, a.notes) == (b.name, b.notes)
    )


def test_killed_anywhere_it_goes_on_to_the_same_result(tmp_path):
    net = Counted(convolutional())
    x, y = labelled(net.net)
    whole = evaluate(net, x, y)
    total = net.forwards
    for share in (0.01, 0.2, 0.5, 0.8, 0.99):
        folder = tmp_path / str(share)
        net.forwards, net.most = 0, int(share * total)
        with pytest.raises(KeyboardInterrupt):
            evaluate(net, x, y, folder=folder)
        net.forwards, net.most = 0, float("inf")
        again = evaluate(net, x, y, folder=folder)
        assert same(again, whole)
        # nothing was done again but the clean pass and one batch, at most Square's: start, queries, verdict
        assert net.forwards <= (1 - share) * total + N + 4 * 5 * 42
        net.forwards = 0
        assert same(evaluate(net, x, y, folder=folder), whole)
        assert net.forwards == N


def test_killed_in_a_callback_and_with_damaged_parts(tmp_path, capsys):
    net = convolutional()
    x, y = labelled(net)
    whole = evaluate(net, x, y)

    def stop(progress):
        if progress.attack == "fab_t":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        evaluate(net, x, y, folder=tmp_path, callback=stop)
    parts = sorted(tmp_path.glob("*.npz"))
    parts[1].write_bytes(b"PK no zip at all")
    assert same(evaluate(net, x, y, folder=tmp_path), whole)
    assert f"{parts[1].name} is computed again" in capsys.readouterr().err


SCRIPT = """
import sys
sys.path.insert(0, "tests")
import test_autoattack as t
net = t.convolutional()
x, y = t.labelled(net)
t.torch.set_num_threads(1)
t.evaluate(net, x, y, folder=sys.argv[1], callback=lambda p: print(p.attack, flush=True))
"""


@pytest.mark.process
def test_killed_by_the_system_it_goes_on_to_the_same_result(tmp_path):
    net = convolutional()
    x, y = labelled(net)
    whole = evaluate(net, x, y)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("apgd_t"):
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    finished = len(list(tmp_path.glob("*.npz")))
    assert finished > 0
    seen = []
    assert same(evaluate(net, x, y, folder=tmp_path, callback=seen.append), whole)
    assert len(seen) > finished


def test_the_state_of_another_evaluation_is_refused(tmp_path):
    net = convolutional()
    x, y = labelled(net)
    evaluate(net, x, y, folder=tmp_path, attacks=("apgd_ce",))
    given = {"folder": tmp_path, "attacks": ("apgd_ce",)}
    with pytest.raises(ValueError, match=r"epsilon: 0.01 there, 0.02 here"):
        evaluate(net, x, y, epsilon=0.02, **given)
    with pytest.raises(ValueError, match=r"attacks: \['apgd_ce'\] there"):
        evaluate(net, x, y, **given | {"attacks": ("square",)})
    with pytest.raises(ValueError, match="images: "):
        evaluate(net, x.clamp(0.31), y, **given)
    with pytest.raises(ValueError, match="labels: "):
        evaluate(net, x, y.flip(0), **given)
    with pytest.raises(ValueError, match="index: "):
        evaluate(net, x, y, **given, index=INDEX + 1)
    with pytest.raises(ValueError, match="n_steps: 12 there, 13 here"):
        evaluate(net, x, y, **given, budget=Budget(13, 9, 40))
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] += 1e-6
    with pytest.raises(ValueError, match="network: "):
        evaluate(net, x, y, **given)


# Contract ----------------------------------------------------------------------------------------------------------


def test_network_inputs_and_generator_are_left_as_they_were():
    net = convolutional(dtype=torch.float32).train()
    net[0].bias.requires_grad_(False)
    x, y = (t.clone() for t in labelled(convolutional()))
    x = x.float().requires_grad_()
    before = ([p.clone() for p in net.parameters()], x.detach().clone(), y.clone(), torch.get_rng_state())
    result = evaluate(net, x, y)
    assert result.adversarial.dtype == torch.float32
    assert not result.adversarial.requires_grad
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before[0], strict=True))
    assert [p.requires_grad for p in net.parameters()] == [True, False, True, True, True, True]
    assert net.training
    assert torch.equal(x, before[1])
    assert torch.equal(y, before[2])
    assert torch.equal(torch.get_rng_state(), before[3])


def test_a_network_that_changes_its_mind_is_not_counted_as_fooled():
    class Fickle(nn.Module):
        """Wrong while gradients are asked for, right when it is asked again."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            z = self.scale * x.flatten(1)[:, :5]
            return -z if torch.is_grad_enabled() else z

    x = images(N)
    y = x.flatten(1)[:, :5].argmax(1)
    result = evaluate(Fickle(), x, y, attacks=("apgd_ce",), epsilon=1e-6)
    assert result.robust.all()
    assert f"{N} points that fooled the network once did not when it was asked again" in result.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": ()}, "expected attacks to name each attack once"),
        ({"attacks": ("square", "square")}, "expected attacks to name each attack once"),
        ({"attacks": ("pgd",)}, "expected attack to be one of 'apgd_ce'"),
        ({"norm": "Linf"}, "expected norm"),
        ({"epsilon": -0.1}, "expected epsilon"),
        ({"index": INDEX[:3]}, "expected index"),
        ({"budget": Budget(0)}, "expected n_steps"),
        ({"seed": -1}, "expected seed"),
        ({"batch_size": 0}, "expected batch_size"),
    ],
)
def test_refusals(changes, message):
    net = convolutional()
    x, y = labelled(net)
    with pytest.raises(ValueError, match=message):
        evaluate(net, x, y, **changes)


def test_labels_beyond_the_classes_are_refused():
    net = convolutional()
    x, y = labelled(net)
    with pytest.raises(ValueError, match="below 5"):
        evaluate(net, x, y.clamp(max=0) + 9)
    with pytest.raises(ValueError, match="at least one image"):
        evaluate(net, x[:0], y[:0], index=INDEX[:0])


def test_losses_of_the_ensemble_exist():
    assert {a for a in autoattack.ATTACKS if a.startswith("apgd")} == set(autoattack.LOSSES)
    assert {apgd.fitting(a, k) for a in autoattack.LOSSES.values() for k in (2, 3, 4)} <= set(apgd.LOSSES)
