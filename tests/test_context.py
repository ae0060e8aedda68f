"""What a context changes it puts back, also after an error."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helpers import context, parameters


@pytest.fixture
def settings():
    """Undo what `context.setup` leaves behind, for the tests that follow in this process."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    flags = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    workspace = os.environ.get(context.CUBLAS)
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = flags
    os.environ.pop(context.CUBLAS, None)
    if workspace is not None:
        os.environ[context.CUBLAS] = workspace


def mixed_network():
    """A network in train mode, but for a batch norm frozen by hand and a weight that is not trained."""
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    net[1].eval()
    net[0].weight.requires_grad_(False)
    return net


def fail(_):
    raise KeyError


def state(net):
    return [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]


def test_modes_and_flags_come_back_one_by_one():
    net = mixed_network()
    before = state(net)
    with context.eval_mode(net), context.frozen(net):
        assert not any(m.training for m in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
    assert state(net) == before


def test_modes_and_flags_come_back_after_an_error():
    net = mixed_network()
    before = state(net)
    with pytest.raises(KeyError), context.eval_mode(net), context.frozen(net):
        raise KeyError
    assert state(net) == before


def test_nested_and_shared_modules_come_back():
    net = mixed_network()
    before = state(net)
    with context.eval_mode(net, net[0]), context.frozen(net, net), context.eval_mode(net):
        assert not net.training
    assert state(net) == before


def test_threads_come_back_after_an_error():
    before = torch.get_num_threads()
    inside = []
    with pytest.raises(KeyError), context.threads(3):
        fail(inside.append(torch.get_num_threads()))
    assert inside == [3]
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads"), context.threads(0):
        pass


def test_determinism_comes_back_after_an_error(settings):
    os.environ.pop(context.CUBLAS, None)
    inside = []
    with pytest.raises(KeyError), context.deterministic():
        fail(inside.append((torch.are_deterministic_algorithms_enabled(), os.environ.get(context.CUBLAS))))
    assert inside == [(True, ":4096:8")]
    assert not torch.are_deterministic_algorithms_enabled()
    assert context.CUBLAS not in os.environ


def test_setup_takes_threads_from_the_environment_before_the_profile(settings, monkeypatch, capsys):
    monkeypatch.delenv("COMPANION_THREADS", raising=False)
    monkeypatch.setattr(parameters, "profile_facts", {"mine": {"threads": 3}}.__getitem__)
    context.setup(SimpleNamespace(profile="mine"))
    assert torch.get_num_threads() == 3
    monkeypatch.setenv("COMPANION_THREADS", "2")
    device = context.setup(SimpleNamespace(profile="mine"))
    assert torch.get_num_threads() == 2
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5", "²"])
def test_setup_refuses_a_thread_count_that_is_none(settings, monkeypatch, value):
    monkeypatch.setenv("COMPANION_THREADS", value)
    with pytest.raises(ValueError, match=f"COMPANION_THREADS .*got '{value}'"):
        context.setup(SimpleNamespace(profile="digits"))


def test_setup_does_not_seed(settings, monkeypatch):
    monkeypatch.delenv("COMPANION_THREADS", raising=False)
    before = torch.get_rng_state()
    assert context.setup(SimpleNamespace(profile="digits"), device="cpu") == torch.device("cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_setup_refuses_a_device_that_is_not_there(settings, monkeypatch):
    monkeypatch.delenv("COMPANION_THREADS", raising=False)
    with pytest.raises(ValueError, match="'cuda', but torch sees no CUDA device"):
        context.setup(SimpleNamespace(profile="digits"), device="cuda")
