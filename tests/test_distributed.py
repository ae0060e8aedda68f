"""Work of several processes: two on this CPU, started by torchrun, come to what one comes to with whole batches."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tiny
import torch
import trees

from helpers import arrays, checkpoints, distributed, parameters, train
from helpers.history import History

NETWORKS = """
.few: &few
  dataset: digits
  validation_fraction: 0.7
  architecture: smallcnn
  width: 4
  norm: none
  optimizer: sgd
  learning_rate: 0.05
  momentum: 0.9
  schedule: constant
  epochs: 1
  batch_size: 62 # of 377 images: the last batch has 5, three for one process and two for the other
  augment: shift
  checkpoint_every: 2
  attack_norm: linf
  epsilon_255: 25.5
  step_size_255: 12.75
  n_steps: 2
  start: uniform
  monitor_n_images: 20
  monitor_n_steps: 2
  evaluation_n_images: 40

madry:
  <<: *few
  objective: madry

ceb:
  <<: *few
  objective: ceb
  latent: dense
  latent_dim: 8
  rho: 1
"""


# Two processes make 11 images in three batches; the first then makes them alone, and alone what the second had made.
GENERATION = """
import json, shutil
import numpy as np
import torch
from helpers import generation, models, starts

torch.manual_seed(0)
network = models.build("smallcnn", num_classes=3, in_channels=1, image_size=8, width=2, norm="none").eval()
rows, made, batch = torch.arange(11), [], generation._batch
rule = {"energy": "joint", "step_size": 0.1, "momentum": 0.5, "noise_std": 0.01, "n_steps": 5, "gradient": "plain"}
rule |= {"y": rows % 3, "index": rows, "seed": 0, "batch_size": 4, "stop": "steps", "targets": None}

def watched(task, rows):
    made.append(int(rows[0]))
    return batch(task, rows)

def generate(folder, name):
    found = generation.generate(network, starts.Uniform((1, 8, 8), 3), folder=parameters.ROOT / folder, **rule)
    np.savez(parameters.ROOT / f"{name}.npz", made=made, **found.arrays())
    made.clear()

generation._batch = watched
"""
TOGETHER = 'generate("together", f"together-{here.rank}")'
ALONE = """
if here.first:
    generate("alone", "alone")
    shutil.copytree(parameters.ROOT / "together", parameters.ROOT / "half")
    (parameters.ROOT / "half" / "000-0001.npz").unlink()
    generate("half", "half")
"""


def torchrun(root, *names, processes, then="", inside="pass", after=""):
    """`python -m helpers.zoo train tiny NAME` by so many processes, in `root`, with code around it."""
    script = root / "run.py"
    lines = [
        "from pathlib import Path",
        "from helpers import distributed, parameters, zoo",
        f"parameters.ROOT = Path({str(root)!r})",
        textwrap.dedent(then),
        "with distributed.joined() as here:",
        *(f"    assert zoo.main(['train', 'tiny', {name!r}, '--seed', '0']) == 0" for name in names),
        f"    {inside}",
        after,
    ]
    script.write_text("\n".join(lines))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", script]
    environment = trees.environment(parameters.ROOT)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.profile(tmp_path_factory.mktemp("a root"), networks=NETWORKS)


@pytest.fixture(scope="module")
def of_two(root):
    """What two processes say while they train madry and ceb, and then generate images."""
    done = torchrun(root, "madry", "ceb", processes=2, then=GENERATION, inside=TOGETHER, after=ALONE)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


@pytest.mark.process
@pytest.mark.parametrize("name", ["madry", "ceb"])
def test_two_processes_come_to_what_one_comes_to(name, of_two, root, tmp_path, monkeypatch):
    monkeypatch.setattr(parameters, "ROOT", root)
    recipe = parameters.recipe("tiny", name)
    folder = recipe.folder(0)
    together, _ = checkpoints.load(folder / "weights.safetensors")
    alone, history = train.fit(recipe, 0, folder=tmp_path, device="cpu")
    for key, value in alone.state_dict().items():
        assert torch.allclose(together[key], value, atol=1e-4, rtol=0), key
    curves = History.load(folder).scalars
    assert curves.keys() == history.scalars.keys()
    assert curves["train_loss"] == pytest.approx(history.scalars["train_loss"], abs=1e-4)
    assert json.loads((folder / "card.json").read_text())["provenance"]["processes"] == 2
    assert of_two.count(f"{name}, seed 0: clean") == 1  # the first process alone says so


@pytest.mark.process
def test_two_processes_generate_the_images_of_one_each_making_its_share(of_two, root):
    found = {name: dict(np.load(root / f"{name}.npz")) for name in ("together-0", "together-1", "alone", "half")}
    made = {name: one.pop("made").tolist() for name, one in found.items()}
    assert made == {"together-0": [0, 8], "together-1": [4], "alone": [0, 4, 8], "half": [4]}
    alone = found.pop("alone")
    assert len(np.unique(alone["images"], axis=0)) == 11
    for one in found.values():
        assert all(arrays.identical(one[name], alone[name]) for name in alone if name != "seconds")


@pytest.mark.process
def test_a_run_of_two_goes_on_with_one(tmp_path, monkeypatch):
    root = tiny.profile(tmp_path / "a root", networks=NETWORKS)
    stop = """
    from helpers import training_state, training_step
    save = training_state.save
    def saving(run, *given):
        with open(parameters.ROOT / "saves", "a") as out:
            out.write(f"process {distributed.world().rank} after step {run.step}, ")
        save(run, *given)
    training_state.save = saving
    step, calls = training_step.step, []
    def stopping(*given):
        calls.append(1)
        if len(calls) == 4:
            raise ValueError("killed")
        return step(*given)
    training_step.step = stopping
    """
    assert torchrun(root, "madry", processes=2, then=stop).returncode != 0
    assert (root / "saves").read_text() == "process 0 after step 2, "
    monkeypatch.setattr(parameters, "ROOT", root)
    recipe = parameters.recipe("tiny", "madry")
    seen = []
    network, _ = train.fit(recipe, 0, folder=recipe.folder(0), device="cpu", callback=lambda p: seen.append(p.step))
    assert seen == [3, 4, 5, 6, 7]  # the last checkpoint was after step 2
    alone, _ = train.fit(recipe, 0, folder=root / "alone", device="cpu")
    for mine, whole in zip(network.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.allclose(mine, whole, atol=1e-4, rtol=0)


# What several processes cannot train, and what one does not notice


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "jem"}, "expected one process for objective jem"),
        ({"objective": "weat_adv", "weight_normalisation": "mean"}, "weight_normalisation mean"),
        ({"batch_size": 95}, "expected at most 1 processes"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes, said, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: distributed.World(0, 2))
    with pytest.raises(ValueError, match=said):
        train.fit(tiny.recipe(**changes), 0, folder=tmp_path, device="cpu", sets=tiny.sets())


def test_shares_are_a_partition_of_a_batch(monkeypatch):
    rows, parts = torch.arange(11), []
    for rank in range(3):
        monkeypatch.setattr(distributed, "world", lambda rank=rank: distributed.World(rank, 3))
        parts.append(distributed.share(rows))
    assert sorted(torch.cat(parts).tolist()) == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_process_alone_is_a_world(monkeypatch):
    for name in distributed.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with distributed.joined() as here:
        assert here == distributed.World(0, 1)
        assert here.first
        assert distributed.added({"loss": 2.5}) == {"loss": 2.5}
        assert distributed.told(False) is False
    layer = torch.nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad.clone()
    distributed.add_gradients(layer)
    assert layer.weight.grad.equal(before)
