"""Training: it learns, it resumes bit for bit from anywhere, and it says where it diverged."""

import copy
import json
import math

import jems
import numpy as np
import pytest
import tiny
import torch
from torch import nn

from helpers import augment, checkpoints, halved, history, models, seeds, train, training_step
from helpers.history import History

CPU = torch.device("cpu")


class Stop(Exception):
    """Raised by a callback in place of a kill."""


def stopping(*steps: int):
    """A callback that raises at these steps."""

    def callback(p: train.Progress) -> None:
        if p.step in steps:
            raise Stop

    return callback


def fit(folder, *, seed=0, callback=None, **changes):
    return train.fit(tiny.recipe(**changes), seed, folder=folder, device=CPU, callback=callback, sets=tiny.sets())


def equal(a: History, b: History) -> bool:
    return (
        json.dumps(a.scalars) == json.dumps(b.scalars)
        and a.arrays.keys() == b.arrays.keys()
        and all(np.array_equal(a.arrays[k], b.arrays[k]) for k in a.arrays)
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run."""
    return fit(tmp_path_factory.mktemp("whole"))


# Nine steps, three an epoch; checkpoints after 2, 3, 4, 6, 8 and 9: stops on, after and between them.
@pytest.mark.parametrize("stops", [(1,), (2,), (3,), (5,), (9,), (1, 4, 7, 8)], ids=str)
def test_a_stopped_run_ends_with_the_bits_of_an_undisturbed_one(stops, whole, tmp_path):
    for stop in stops:
        with pytest.raises(Stop):
            fit(tmp_path, callback=stopping(stop))
        torch.randn(7)  # whoever draws from the global generator in between has no part in it
    network, curves = fit(tmp_path)
    assert tiny.same(network, whole[0])
    assert equal(curves, whole[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "standard", "ema": 0.0, "nesterov": True, "momentum": 0.9},
        {"objective": "trades", "beta": 2.0, "start": "gaussian", "start_std": 0.001, "precision": "bfloat16"},
        {"schedule": "step", "milestones": [1], "decay": 0.1, "momentum": 0.9, "norm": "none", "learning_rate": 0.01},
        {"attack_norm": "l2", "epsilon_l2": 1.0, "step_size_l2": 0.5, "augment": "autoaugment", "epochs": 2},
        {"momentum": 0.0, "schedule": "constant", "monitor_n_images": None, "optimizer": "adam", "learning_rate": 0.01},
        {**jems.ENTRY, "clf_input": "both", "epochs": 2},
    ],
    ids=lambda c: "-".join(list(c)[:3]),
)
def test_every_kind_of_recipe_resumes_exactly(changes, tmp_path):
    expected, curves = fit(tmp_path / "a", **changes)
    with pytest.raises(Stop):
        fit(tmp_path / "b", callback=stopping(5), **changes)
    network, again = fit(tmp_path / "b", **changes)
    assert tiny.same(network, expected)
    assert equal(again, curves)


def test_a_resumed_run_goes_on_where_it_was(tmp_path, capsys):
    with pytest.raises(Stop):
        fit(tmp_path, callback=stopping(5))
    seen = []
    fit(tmp_path, callback=lambda p: seen.append(p.step))
    assert seen == [5, 6, 7, 8, 9]  # the last checkpoint was after step 4
    assert "going on after step 4" in capsys.readouterr().err


def test_seeds_differ_and_the_same_seed_does_not(whole, tmp_path):
    again, _ = fit(tmp_path / "again")
    assert tiny.same(again, whole[0])
    other, curves = fit(tmp_path / "other", seed=1)
    assert not tiny.same(other, whole[0])
    assert curves.scalars["train_loss"] != whole[1].scalars["train_loss"]


def test_the_callers_generators_and_settings_are_left_alone(tmp_path):
    state, deterministic = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with pytest.raises(Stop):
        fit(tmp_path, callback=stopping(2))
    assert torch.get_rng_state().equal(state)
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.utils.deterministic.fill_uninitialized_memory == filled


def test_history_has_a_row_for_each_epoch_and_an_entry_for_each_image(whole):
    _, h = whole
    assert h.scalars["epoch"] == [1, 2, 3]
    assert h.scalars["step"] == [3, 6, 9]
    assert {len(v) for v in h.scalars.values()} == {3}
    for split in ("train", "test"):
        assert h.arrays[f"{split}/y"].shape == h.arrays[f"{split}/index"].shape == (10,)
        for name in history.ENERGIES:
            assert h.arrays[f"{split}/{name}"].shape == (3, 10)
            assert h.arrays[f"{split}/{name}"].dtype == np.float32
        delta = (h.arrays[f"{split}/E"].astype(float) - h.arrays[f"{split}/E_adv"]).mean(1)
        assert h.scalars[f"delta_energy_{split}"] == pytest.approx(delta, abs=1e-5)
        # CE = E(x, y) − E(x) is never negative.
        assert (h.arrays[f"{split}/E_y"] - h.arrays[f"{split}/E"] >= -1e-5).all()
        for kind in ("clean_error", "pgd_error"):
            assert all(v in np.arange(0, 101, 10) for v in np.round(h.scalars[f"{kind}_{split}"], 6))


def test_the_probe_is_measured_with_the_network_that_is_returned(whole):
    network, h = whole
    probe = tiny.sets().test.first(10)
    assert -network(probe.images()).logsumexp(1).detach().numpy() == pytest.approx(h.arrays["test/E"][-1], abs=1e-5)


def test_the_monitors_noise_is_the_same_in_every_epoch(whole):
    network, h = whole
    entry = tiny.recipe().entry
    for _ in range(2):
        m = history.measure(network, tiny.sets().test.first(10), entry=entry, seed=0, batch_size=3)
        assert m["E_adv"].numpy() == pytest.approx(h.arrays["test/E_adv"][-1], abs=1e-4)


def test_measuring_leaves_the_network_as_it_was(whole):
    network = copy.deepcopy(whole[0]).train().requires_grad_(True)
    before = copy.deepcopy(network)
    history.measure(network, tiny.sets().test.first(4), entry=tiny.recipe().entry, seed=0, batch_size=2)
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert tiny.same(network, before)


def test_training_learns(tmp_path):
    settings = {
        "objective": "standard",
        "width": 8,
        "epochs": 12,
        "ema": 0.0,
        "augment": "none",
        "checkpoint_every": None,
    }
    _, h = fit(tmp_path, **settings)
    assert h.scalars["train_loss"][0] > 1.5
    assert h.scalars["train_loss"][-1] < 0.3
    assert h.scalars["train_error"][-1] < 10


@pytest.mark.parametrize("nesterov", [False, True])
def test_one_step_is_the_sgd_of_the_docstring(nesterov, tmp_path):
    """θ ← θ − η v with v = ∇L + λθ at the first step (with Nesterov: (1 + m) times that)."""
    changes = {
        "objective": "standard", "norm": "none", "schedule": "constant", "momentum": 0.5, "learning_rate": 0.1,
        "weight_decay": 0.01, "nesterov": nesterov, "epochs": 1, "batch_size": 96, "augment": "none", "ema": 0.0,
        "monitor_n_images": None,
    }  # fmt: skip
    after, h = fit(tmp_path, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(seeds.derived(0, "global"))
        before = train.build(tiny.recipe(**changes).entry, (1, 16, 16), 10)
    s = tiny.sets().train
    loss = nn.functional.cross_entropy(before(s.images()), s.labels)
    gradients = torch.autograd.grad(loss, list(before.parameters()))
    factor = 1.5 if nesterov else 1.0
    for p, g, q in zip(before.parameters(), gradients, after.parameters(), strict=True):
        assert torch.allclose(q, p - 0.1 * factor * (g + 0.01 * p), atol=1e-6)
    assert h.scalars["train_loss"][0] == pytest.approx(loss.item(), rel=1e-5)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    assert h.scalars["gradient_norm"][0] == pytest.approx(norm, rel=1e-4)


def test_the_moving_average_follows_its_recurrence(tmp_path):
    weights: list[torch.Tensor] = []

    changes = {"objective": "standard", "ema": 0.8, "epochs": 1, "checkpoint_every": 1, "norm": "none"}

    def watch(p: train.Progress) -> None:
        tensors, _ = checkpoints.load(tmp_path / train.CHECKPOINT)
        weights.append(tensors["network/body.linear.weight"].clone())

    network, _ = fit(tmp_path, callback=watch, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(seeds.derived(0, "global"))
        average = train.build(tiny.recipe(**changes).entry, (1, 16, 16), 10).body.linear.weight.detach()
    for w in weights:
        average = 0.8 * average + 0.2 * w
    assert torch.allclose(network.body.linear.weight, average, atol=1e-6)


def test_divergence_names_recipe_step_and_value(tmp_path):
    with pytest.raises(FloatingPointError, match=r"tiny, seed 0: .* is (nan|inf) at step \d+ \(epoch \d\)"):
        fit(tmp_path, objective="standard", norm="none", learning_rate=1e20, schedule="constant", momentum=0.9)


def test_divergence_in_the_gradient_alone_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(training_step, "_gradient_norm", lambda network: torch.tensor(math.inf))
    with pytest.raises(FloatingPointError, match="gradient norm is inf at step 1"):
        fit(tmp_path, objective="standard")


def test_augmentation_is_keyed_by_image_and_epoch(tmp_path, monkeypatch):
    calls = []
    plain = augment.augment

    def spy(name, pixels, *, seed, index, epoch):
        calls.append((epoch, tuple(index.tolist())))
        return plain(name, pixels, seed=seed, index=index, epoch=epoch)

    monkeypatch.setattr(augment, "augment", spy)
    fit(tmp_path, objective="standard", epochs=2, monitor_n_images=None)
    images = tiny.sets().train.index.tolist()
    for epoch in (0, 1):
        assert sorted(i for e, rows in calls if e == epoch for i in rows) == sorted(images)
    assert [r for e, r in calls if e == 0] != [r for e, r in calls if e == 1]


def test_bfloat16_hands_out_float32_and_shares_its_modes():
    network = models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=4)
    seen = halved.InBfloat16(network, CPU)
    seen.eval()
    assert not network.training
    logits = seen(torch.rand(2, 1, 16, 16))
    assert logits.dtype == torch.float32
    assert logits.equal(logits.bfloat16().float())


def test_history_survives_the_disk_and_names_damage(whole, tmp_path):
    whole[1].save(tmp_path)
    assert equal(History.load(tmp_path), whole[1])
    (tmp_path / "history.npz").write_bytes((tmp_path / "history.npz").read_bytes()[:-1])
    with pytest.raises(ValueError, match="SHA-256"):
        History.load(tmp_path)
    (tmp_path / "history.json").write_text("{")
    with pytest.raises(ValueError, match="whole history"):
        History.load(tmp_path)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_run_on_cuda_ends_with_the_same_bits(precision, tmp_path):
    def on_cuda(folder, callback=None):
        recipe = tiny.recipe(precision=precision, architecture="resnet18", width=8)
        return train.fit(recipe, 0, folder=folder, device="cuda", callback=callback, sets=tiny.sets())

    expected, curves = on_cuda(tmp_path / "a")
    with pytest.raises(Stop):
        on_cuda(tmp_path / "b", stopping(5))
    network, again = on_cuda(tmp_path / "b")
    assert tiny.same(network, expected)
    assert equal(again, curves)
