"""Peers that are not there say so; those that are do what ours do (none is a dependency, so most tests have none)."""

import importlib.util
import sys

import pytest
import torch
from attack_cases import EPSILON, convolutional, middle

from helpers import peers
from helpers.contest import Contest
from helpers.interleaved import Way


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(peers.Absent, match="torchattacks"):
        peers.ATTACKS["torchattacks"](convolutional(), epsilon=0.1, step_size=0.1, n_steps=1)


def test_no_folder_of_checkouts(monkeypatch, tmp_path):
    monkeypatch.delenv("PEERS", raising=False)
    with pytest.raises(peers.Absent, match="PEERS"):
        peers.autoattack(convolutional(), epsilon=0.1, batch_size=1)
    monkeypatch.setenv("PEERS", str(tmp_path))
    with pytest.raises(peers.Absent, match="auto-attack"):
        peers.autoattack(convolutional(), epsilon=0.1, batch_size=1)


def test_two_checkouts_may_have_modules_of_one_name(monkeypatch, tmp_path):
    monkeypatch.setenv("PEERS", str(tmp_path))
    for folder, value in (("JEMPP", 1), ("auto-attack", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "utils.py").write_text(f"value = {value}\n")
    assert peers._checkout("JEM++", "utils").value == 1
    assert peers._checkout("AutoAttack", "utils").value == 2
    assert "utils" not in sys.modules
    assert str(tmp_path / "JEMPP") not in sys.path


def test_samplers_of_others_take_their_own_size_only():
    for make in peers.CHAINS.values():
        with pytest.raises(peers.Absent, match=r"\(3, 32, 32\)"):
            make(convolutional(), shape=(1, 16, 16), step_size=0.1, noise_std=0.1, n_steps=1)


def test_a_contest_notes_who_does_not_come():
    def away():
        raise peers.Absent("not installed")

    here, fails = Way(lambda k: None, 1.0), Way(lambda k: 1 / 0, 1.0)
    contest = Contest("image", {}, invited={"here": lambda: here, "fails": lambda: fails, "away": away})
    assert not contest.ways  # nobody is asked before it is gathered
    assert list(contest.gathered().ways) == ["here"]
    assert contest.absent == {"fails": "ZeroDivisionError: division by zero", "away": "not installed"}


@pytest.mark.foreign
@pytest.mark.parametrize(
    ("name", "package"), [("torchattacks", "torchattacks"), ("ART", "art"), ("foolbox", "foolbox")]
)
def test_attacks_that_are_there_stay_in_the_ball(name, package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    net, x = convolutional(), middle(torch.float32, 8)
    with torch.no_grad():
        y = net(x).argmax(1)
    make = peers.ATTACKS[name]
    attack = make(net, epsilon=EPSILON, step_size=EPSILON / 4, n_steps=5, shape=tuple(x.shape[1:]), num_classes=5)
    x_adv = attack(x, y)
    assert 0 < (x_adv - x).abs().max() <= EPSILON + 1e-6
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy
        assert loss(net(x_adv), y) > loss(net(x), y)
