"""Generation: the images of the sampler by their keys, in folders that survive a kill, with memory flat in N."""

import errno
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from runs import Run
from torch import Tensor, nn

from helpers import arrays, data, energies, files, generation, noise, parts, proximal, samplers
from helpers.parameters import ROOT

N, K, SHAPE = 11, 5, (1, 6, 6)


@dataclass(frozen=True, eq=False)
class Level:
    """A start: each class has its grey, with noise around it."""

    level: Tensor  # (K,)
    std: float
    name: str = "level"
    shape: tuple[int, ...] = SHAPE

    def draw(self, y: Tensor, key: noise.Key) -> Tensor:
        x = self.level[y][:, None, None, None] + self.std * (key.uniform(self.shape) - 0.5)
        return x.clamp(0, 1)


@dataclass(frozen=True)
class Constant:
    """A start that gives what it is told to, whatever is asked."""

    value: Tensor
    name: str = "constant"

    def draw(self, y: Tensor, key: noise.Key) -> Tensor:
        return self.value


class Network(nn.Module):
    """Some convolutional network that counts what it sees."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, K))
        self.seen = 0
        with torch.no_grad():
            for number, p in enumerate(self.parameters()):
                draws = noise.uniform(p.shape, seed=0, purpose="weights", index=torch.tensor([number]))[0]
                p.copy_((draws - 0.5) * 2)

    def forward(self, x):
        self.seen += len(x)
        return self.body(x)


START = Level(torch.linspace(0.2, 0.8, K), 0.2)
SETTINGS = {
    "y": torch.arange(N) % K, "index": torch.arange(N) + 100, "seed": 3, "energy": "joint", "step_size": 0.02,
    "momentum": 0.8, "noise_std": 0.01, "n_steps": 6, "gradient": "plain", "stop": "steps", "targets": None,
    "batch_size": 4,
}  # fmt: skip


def generate(folder, network=None, start=START, **changes):
    return generation.generate(network or Network(), start, folder=folder, **SETTINGS | changes)


def same(a, b):
    pairs = zip(a.arrays().items(), b.arrays().values(), strict=True)
    return all(arrays.identical(left, right) for (name, left), right in pairs if name != "seconds")


def by_hand(network, rows=slice(None), **changes):
    """The images before rounding, by the keys that the module states."""
    given = SETTINGS | changes
    y, index = given["y"][rows], given["index"][rows]
    x = START.draw(y, generation.start_key(3, index))
    options = {name: given[name] for name in ("step_size", "momentum", "noise_std", "n_steps", "gradient", "stop")}
    target = None if given["targets"] is None else given["targets"][y]
    energy = samplers.energy_of(network, given["energy"])
    return samplers.sgld(energy, x, y, key=generation.chain_key(3, index), target=target, **options)


# What is generated


def test_images_are_those_of_the_sampler_from_the_start(tmp_path):
    network = Network()
    made = generate(tmp_path, network, batch_size=N)
    x = by_hand(network)
    assert isinstance(made.images, np.memmap)
    assert arrays.identical(np.array(made.images), generation.pixels(x).numpy())
    assert abs(made.images.astype(int) - generation.pixels(START.draw(SETTINGS["y"], generation.start_key(
        3, SETTINGS["index"]))).numpy()).max() > 10  # fmt: skip
    logits = network.eval()(torch.from_numpy(np.array(made.images)).float() / 255).detach()
    assert np.allclose(made.joint, energies.joint(logits, SETTINGS["y"]))
    assert np.allclose(made.marginal, energies.marginal(logits))
    assert made.joint.dtype == made.marginal.dtype == np.float32
    assert (made.n_steps_taken == 6).all()
    assert made.y.tolist() == SETTINGS["y"].tolist()
    assert made.index.tolist() == SETTINGS["index"].tolist()
    assert made.seconds > 0


def test_an_image_does_not_depend_on_its_batch(tmp_path):
    whole = generate(tmp_path / "a", batch_size=N)
    for size in (1, 4):
        some = generate(tmp_path / str(size), batch_size=size)
        # the network's sums round otherwise in another batch: a pixel may fall on the other side of a half
        assert abs(some.images.astype(int) - whole.images.astype(int)).max() <= 1
        assert (some.images == whole.images).mean() > 0.99
    rows = [7, 2]
    two = generate(tmp_path / "two", y=SETTINGS["y"][rows], index=SETTINGS["index"][rows])
    assert abs(two.images.astype(int) - whole.images[rows].astype(int)).max() <= 1


def test_the_network_may_lie_on_another_device_than_the_start(device, tmp_path):
    options = {"stop": "energy", "targets": torch.full((K,), -1e9)}
    here = generate(tmp_path / "here", **options)
    there = generate(tmp_path / "there", Network().to(device), **options)
    # sums are rounded in another order there: a pixel may fall on the other side of a half
    assert abs(there.images.astype(int) - here.images.astype(int)).max() <= 1
    assert np.allclose(there.joint, here.joint, atol=36 / 255)


@pytest.mark.parametrize("stop", ["energy", "energy_within"])
def test_chains_stop_at_the_energy_of_their_class(stop, tmp_path):
    network = Network()
    began, ended = (by_hand(network, n_steps=n) for n in (0, 6))
    energy = samplers.energy_of(network, "joint")
    far = torch.stack([energy(x, SETTINGS["y"]).detach() for x in (began, ended)])
    targets = torch.stack([far[:, SETTINGS["y"] == k].mean() for k in range(K)])  # halfway, class by class
    more = {"stop": stop, "targets": targets, "tolerance": 0.1 if stop == "energy_within" else None}
    made = generate(tmp_path, network, noise_std=0.0, step_size=0.004, n_steps=80, **more)
    taken = made.n_steps_taken
    assert 0 < taken.min() < taken.max() < 80
    gap = made.joint - targets.numpy()[made.y]
    slack = (
        0.01 * 0.5 * 36
    )  # rounding moves each of 36 pixels by at most half a grey level, the energy by less than this
    assert (gap < slack).all() if stop == "energy" else (abs(gap) < 0.1**0.5 + slack).all()


def test_pixels_round_half_up_and_keep_every_grey_level():
    levels = torch.arange(256)
    assert generation.pixels(levels / 255).tolist() == levels.tolist()
    halves = (torch.arange(255, dtype=torch.float64) + 0.5) / 255
    above, below = generation.pixels(halves + 1e-9), generation.pixels(halves - 1e-9)
    assert above.tolist() == list(range(1, 256))
    assert below.tolist() == list(range(255))


def test_class_targets_are_mean_energies_of_each_class():
    network = Network()
    x = noise.uniform(SHAPE, seed=0, purpose="images", index=torch.arange(40))
    y = torch.arange(40) % 3
    images = data.from_tensors(x, y, classes=["a", "b", "c"])
    logits = network.eval()(images.images()).detach()
    for name, function in samplers.ENERGIES.items():
        targets = generation.class_targets(network, images, energy=name, batch_size=7)
        expected = torch.stack([function(logits, y)[y == k].mean() for k in range(3)])
        assert targets.dtype == torch.float32
        assert torch.allclose(targets, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="every class in own/test, got none of 'c'"):
        generation.class_targets(network, images.subset(y < 2), energy="joint", batch_size=7)


def test_a_trajectory_is_that_of_the_generated_images(tmp_path):
    network = Network()
    options = {name: value for name, value in SETTINGS.items() if name != "batch_size"}
    seen = generation.trajectory(network, START, **options, picture_steps=(0, 6, 2))
    made = generate(tmp_path, network, batch_size=N)
    assert seen["step"].tolist() == list(range(7))
    assert seen["picture_step"].tolist() == [0, 2, 6]
    assert arrays.identical(seen["pictures"][2], np.array(made.images))
    assert arrays.identical(seen["pictures"][1], generation.pixels(by_hand(network, n_steps=2)).numpy())
    assert np.allclose(seen["joint"][6], energy_of(network, "joint", by_hand(network)))
    assert np.allclose(seen["marginal"][0], energy_of(network, "marginal", by_hand(network, n_steps=0)))
    assert np.allclose(seen["cross_entropy"], seen["joint"] - seen["marginal"], atol=1e-6)
    assert (seen["joint"][6] < seen["joint"][0]).all()
    none = generation.trajectory(network, START, **options)
    assert none["pictures"].shape == (0, N, *SHAPE)


def test_with_a_clamped_gradient_both_are_proximal_sgld(tmp_path):
    network, options = Network(), {"momentum": 0.0, "max_gradient": 0.01, "step_size": 2.0}
    kept = ("step_size", "max_gradient", "noise_std", "n_steps")
    given = SETTINGS | options
    key, y = generation.chain_key(3, SETTINGS["index"]), SETTINGS["y"]
    x_0 = by_hand(network, n_steps=0)
    x = proximal.proximal_sgld(
        samplers.energy_of(network, "joint"), x_0, y, key=key, **{name: given[name] for name in kept}
    )
    made = generate(tmp_path, network, **options, batch_size=N)
    assert arrays.identical(np.array(made.images), generation.pixels(x).numpy())
    watched = {name: value for name, value in given.items() if name != "batch_size"}
    seen = generation.trajectory(network, START, **watched, picture_steps=(6,))
    assert arrays.identical(seen["pictures"][0], np.array(made.images))
    assert not np.array_equal(
        made.images, generate(tmp_path / "plain", network, **options | {"max_gradient": None}).images
    )


def energy_of(network, name, x):
    return samplers.energy_of(network, name)(x, SETTINGS["y"]).detach().numpy()


def test_a_trajectory_ends_where_the_last_chain_froze():
    options = {name: value for name, value in SETTINGS.items() if name not in ("batch_size", "stop", "targets")}
    seen = generation.trajectory(
        Network(), START, **options, stop="energy", targets=torch.full((K,), 1e6), picture_steps=(0, 3)
    )
    assert seen["step"].tolist() == [0]
    assert seen["picture_step"].tolist() == [0]


# Folders


def test_a_finished_folder_is_read_and_nothing_is_computed(tmp_path):
    network = Network()
    whole = generate(tmp_path, network)
    network.seen = 0
    told = []
    again = generate(tmp_path, network, callback=lambda n, total: told.append((n, total)))
    assert network.seen == 0
    assert told == [(4, 11), (8, 11), (11, 11)]
    assert same(again, whole)
    assert again.seconds == whole.seconds


class Enough(Exception):
    pass


def stop_at(n):
    def stop(done, total):
        if done >= n:
            raise Enough

    return stop


def test_interrupted_it_goes_on_to_the_same_images(tmp_path):
    network = Network()
    whole = generate(tmp_path / "whole", network)
    with pytest.raises(Enough):
        generate(tmp_path / "killed", network, callback=stop_at(8))
    network.seen = 0
    assert same(generate(tmp_path / "killed", network), whole)
    assert network.seen == 3 * (6 + 1)  # the last batch alone: six steps, and the stored images
    assert (tmp_path / "killed" / "images.npy").read_bytes() == (tmp_path / "whole" / "images.npy").read_bytes()


@pytest.mark.parametrize("damage", ["pixel", "truncated", "gone", "shape", "part"])
def test_what_is_damaged_is_made_again(damage, tmp_path):
    network = Network()
    whole = generate(tmp_path / "whole", network)
    generate(tmp_path / "here", network)
    path = tmp_path / "here" / "images.npy"
    content = path.read_bytes()
    if damage == "pixel":
        files.overwrite(path, bytes([content[-1] ^ 1]), offset=len(content) - 1)
    elif damage == "truncated":
        path.write_bytes(content[:-40])
    elif damage == "gone":
        path.unlink()
    elif damage == "shape":
        np.save(path, np.zeros((2, *SHAPE), np.uint8))
    else:
        (tmp_path / "here" / "000-0001.npz").write_bytes(b"PK")
    network.seen = 0
    assert same(generate(tmp_path / "here", network), whole)
    assert network.seen == {"pixel": 3, "part": 4}.get(damage, N) * 7
    assert path.read_bytes() == content


SCRIPT = """
import sys
sys.path.insert(0, "tests")
import test_generation as t
t.torch.set_num_threads(1)
t.generate(sys.argv[1], batch_size=1, callback=lambda n, total: print(n, flush=True))
"""


@pytest.mark.process
def test_killed_by_the_system_it_ends_with_the_same_bytes(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == 5:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    finished = len(list((tmp_path / "killed").glob("*.npz")))
    assert 5 <= finished < N
    network = Network()
    again = generate(tmp_path / "killed", network, batch_size=1)
    assert network.seen == (N - finished) * 7
    assert same(again, generate(tmp_path / "whole", network, batch_size=1))
    assert (tmp_path / "killed" / "images.npy").read_bytes() == (tmp_path / "whole" / "images.npy").read_bytes()


def altered():
    network = Network()
    with torch.no_grad():
        network.body[4].bias[0] += 1e-6
    return network


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step_size": 0.03}, r"\(step_size: 0.02 there, 0.03 here\)"),
        ({"seed": 4, "energy": "marginal"}, "seed: 3 there, 4 here; energy: 'joint' there, 'marginal' here"),
        ({"network": altered()}, r"\(network: "),
        ({"start": replace(START, std=0.21)}, r"\(start_digest: "),
        ({"y": SETTINGS["y"].flip(0)}, r"\(y: "),
        ({"index": SETTINGS["index"] + 1}, r"\(index: "),
        ({"stop": "energy", "targets": torch.zeros(K)}, "stop: 'steps' there, 'energy' here; .*targets: None there"),
        ({"precision": "bfloat16"}, r"\(precision: "),
        ({"max_step": 0.1}, r"\(max_step: None there, 0.1 here\)"),
        ({"max_gradient": 2.0}, r"\(max_gradient: None there, 2.0 here\)"),
    ],
)
def test_a_folder_of_another_generation_is_refused(changes, said, tmp_path):
    whole = generate(tmp_path)
    with pytest.raises(ValueError, match=said):
        generate(tmp_path, **changes)
    assert same(generate(tmp_path), whole)


def test_every_setting_is_part_of_what_a_folder_is_of(tmp_path):
    generate(tmp_path)
    known = files.read_json(tmp_path / "config.json")
    others = {"network", "start", "start_digest", "tolerance", "max_step", "max_gradient", "precision"}
    assert set(SETTINGS) | others <= set(known)


def test_a_folder_from_before_the_clamp_of_gradients_is_one_without_it(tmp_path):
    whole = generate(tmp_path)
    known = files.read_json(tmp_path / "config.json")
    files.write_json(tmp_path / "config.json", {key: value for key, value in known.items() if key != "max_gradient"})
    assert same(generate(tmp_path), whole)


def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    network = Network()
    whole = generate(tmp_path / "whole", network)
    begun = []

    def full(descriptor):
        begun.append(descriptor)
        if len(begun) > 8:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match=r"(images\.npy|npz): the disk is full"):
            generate(tmp_path / "here", network)
    finished = len(list((tmp_path / "here").glob("*.npz")))
    assert 0 < finished < 3
    network.seen = 0
    assert same(generate(tmp_path / "here", network), whole)
    assert network.seen < N * 7


MEMORY = """
import resource, sys, tempfile
sys.path.insert(0, "tests")
import test_generation as t
from torch import nn
t.torch.set_num_threads(1)
network = nn.Sequential(nn.AvgPool2d(64), nn.Flatten(), nn.Linear(12, t.K))
start = t.replace(t.Level(t.torch.linspace(0.2, 0.8, t.K), 0.0), shape=(3, 128, 128))
for n in (30, int(sys.argv[1]), 4 * int(sys.argv[1])):
    y = t.torch.arange(n) % t.K
    with tempfile.TemporaryDirectory() as folder:
        made = t.generate(folder, network, start, y=y, index=t.torch.arange(n), n_steps=1, noise_std=0.0, batch_size=30)
        assert len(made.images) == n
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
"""


@pytest.mark.process
def test_memory_is_flat_in_the_number_of_images(tmp_path):
    n = 200
    command = [sys.executable, "-c", MEMORY, str(n)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    _, few, many = map(int, done.stdout.split())
    kept_as_bytes = 3 * n * 3 * 128 * 128  # what holding the added images would take, as uint8
    assert many - few < kept_as_bytes / 2


# Within a notebook


def test_as_a_piece_of_a_notebook_it_gives_arrays_and_goes_on(tmp_path, monkeypatch):
    p = Run(tmp_path / "01_energy_landscape")
    network = Network()
    given = {"network": network, "start": START, **SETTINGS}
    write = arrays.write
    made = generation.generate

    def killed(*args, **keywords):
        return made(*args, **keywords, callback=stop_at(8))

    with monkeypatch.context() as m:
        m.setattr(generation, "generate", killed)
        with pytest.raises(Enough):
            parts.compute_in_folder(p, "images", generation.arrays_of, **given)
    assert arrays.write is write
    network.seen = 0
    first = parts.compute_in_folder(p, "images", generation.arrays_of, **given)
    assert network.seen == 3 * 7
    whole = generate(tmp_path / "whole", network)
    assert all(arrays.identical(first[name], value) for name, value in whole.arrays().items() if name != "seconds")
    assert [path.suffix for path in (p.folder / "parts").iterdir()] == [".npz"]  # the folder is gone
    network.seen = 0
    parts.compute_in_folder(p, "images", generation.arrays_of, **given)
    assert network.seen == 0


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": torch.zeros(0, dtype=torch.int64), "index": torch.zeros(0, dtype=torch.int64)}, "at least one class"),
        ({"index": torch.zeros(N, dtype=torch.int64)}, "an index of its own"),
        ({"index": torch.arange(N - 1)}, "one entry for each"),
        ({"energy": "potential"}, "energy to be one of"),
        ({"precision": "half"}, "precision to be one of"),
        ({"stop": "energy"}, r"targets \(K,\) exactly where chains stop"),
        ({"targets": torch.zeros(K)}, r"targets \(K,\) exactly where chains stop"),
        ({"stop": "energy", "targets": torch.zeros(K - 1)}, "one energy for each class"),
        ({"n_steps": -1}, "n_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"step_size": -1.0}, "step_size"),
        ({"start": Constant(torch.full((4, *SHAPE), 1.5))}, r"start 'constant' in \[0, 1\]"),
        ({"start": Constant(torch.zeros(3, *SHAPE))}, "expected 4 float32 images from the start"),
        ({"start": Constant(torch.zeros(4, *SHAPE, dtype=torch.float64))}, "float32 images from the start"),
    ],
)
def test_bad_input_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path, **changes)


def test_divergence_names_the_image(tmp_path):
    class Broken(Network):
        def forward(self, x):
            return super().forward(x) / (x.amax((1, 2, 3), keepdim=False) < 2)[:, None].float().log()

    with pytest.raises(FloatingPointError, match=r"not finite at step 0: .* for image 100"):
        generate(tmp_path, Broken())
