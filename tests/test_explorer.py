"""What the explorer measures, shows and moves, without a browser; `test_jupyterlab.py` moves it in one."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers import data, energies, explorer

CLASSES = ("cat", "dog", "bird")


@pytest.fixture
def network():
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    return net.eval()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(4)
    labels = torch.tensor([0, 1, 2, 0, 1])
    return data.from_tensors(torch.rand(5, 3, 8, 8, generator=generator), labels, classes=CLASSES)


def _choice(**changes):
    return explorer.Choice(**{"network": "net", "row": 1, "epsilon_255": 16.0, "n_steps": 5} | changes)


def test_energies_and_probabilities_are_those_of_the_network(network, images):
    seen = explorer.look(network, images, _choice(), seed=0)
    logits = network(torch.from_numpy(np.stack([seen["x"], seen["x_adv"]]))).detach()
    y = torch.tensor([1, 1])
    np.testing.assert_allclose([seen["E"], seen["E_adv"]], energies.marginal(logits), rtol=1e-5)
    np.testing.assert_allclose([seen["E_y"], seen["E_y_adv"]], energies.joint(logits, y), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        [seen["probabilities"], seen["probabilities_adv"]], logits.softmax(1), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(seen["x"], images.images([1])[0])
    # The adversarial image is inside the ball, and its cross-entropy E(x, y) − E(x) is larger.
    assert 0 < np.abs(seen["x_adv"] - seen["x"]).max() <= 16 / 255 + 1e-6
    assert seen["E_y_adv"] - seen["E_adv"] > seen["E_y"] - seen["E"]


def test_without_a_radius_nothing_moves(network, images):
    seen = explorer.look(network, images, _choice(epsilon_255=0.0), seed=0)
    np.testing.assert_array_equal(seen["x"], seen["x_adv"])
    assert seen["E"] == seen["E_adv"]


def test_a_targeted_attack_makes_the_next_class_likelier(network, images):
    untargeted, targeted = (explorer.look(network, images, _choice(row=2, targeted=t), seed=0) for t in (False, True))
    assert (untargeted["target"], targeted["target"]) == (-1, 0)  # after the last class comes the first
    assert targeted["probabilities_adv"][0] > targeted["probabilities"][0]
    assert targeted["probabilities_adv"][0] >= untargeted["probabilities_adv"][0] - 1e-6


def test_scalars_are_the_energies_before_and_after(network, images):
    seen = explorer.look(network, images, _choice(), seed=0)
    rows = {row["id"]: row["value"] for row in explorer.scalars(seen, network="net")}
    assert rows == {
        "energy[image=natural,network=net]": pytest.approx(float(seen["E"])),
        "joint_energy[image=natural,network=net]": pytest.approx(float(seen["E_y"])),
        "energy[image=adversarial,network=net]": pytest.approx(float(seen["E_adv"])),
        "joint_energy[image=adversarial,network=net]": pytest.approx(float(seen["E_y_adv"])),
    }


def test_reading_says_lowered_and_raised():
    seen = {"probabilities": np.array([0.9, 0.1]), "probabilities_adv": np.array([0.8, 0.2])}
    text = explorer.reading(seen | {"E": -5.0, "E_adv": -8.0, "E_y": -4.9, "E_y_adv": 1.0}, ("cat", "dog"))
    assert text.startswith("cat (90 %) stayed cat (80 %)")
    assert "E(x) −5.00 → −8.00, lowered by 3.00" in text
    assert "E(x, y) −4.90 → 1.00, raised by 5.90" in text


def test_the_picture_follows_the_choice_and_only_the_choice(network, images):
    bytes_of = [
        explorer.png(explorer.figure(explorer.look(network, images, choice, seed=0), CLASSES, name="madry"))
        for choice in (_choice(), _choice(), _choice(epsilon_255=40.0), _choice(row=3))
    ]
    assert bytes_of[0] == bytes_of[1]
    assert len(set(bytes_of)) == 3
    assert Image.open(io.BytesIO(bytes_of[0])).width > 300


def test_each_control_changes_what_is_shown(network, images):
    box = explorer.sliders(
        {"net": network, "negative": nn.Sequential(network, nn.Linear(3, 3))}, images, _choice(), seed=0
    )
    assert set(box.controls) == {"network", "row", "epsilon_255", "n_steps", "targeted"}
    moves = {"row": 3, "epsilon_255": 30.0, "n_steps": 9, "targeted": True, "network": "negative"}
    for name, value in moves.items():
        before = box.picture.value, box.text.value
        box.controls[name].value = value
        assert box.picture.value != before[0], name
        assert "E(x, y)" in box.text.value
    assert box.controls["row"].max == 4


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"JPY_SESSION_NAME": "notebooks/00.ipynb"}, True),
        ({"VSCODE_PID": "1"}, True),
        ({"JPY_SESSION_NAME": "x", "COMPANION_WIDGETS": "0"}, False),
        ({"COMPANION_WIDGETS": "1"}, True),
    ],
)
def test_front_ends_with_widgets(monkeypatch, environment, expected):
    for name in ("JPY_SESSION_NAME", "VSCODE_PID", "COMPANION_WIDGETS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert explorer.live() is expected


@pytest.mark.parametrize("widgets", ["0", "1"])
def test_a_picture_is_there_with_and_without_widgets(monkeypatch, capsys, network, images, widgets):
    monkeypatch.setenv("COMPANION_WIDGETS", widgets)
    displayed = []
    monkeypatch.setattr("IPython.display.display", lambda what, raw=False: displayed.append(what))
    explorer.show({"net": network}, images, _choice(), seed=0)
    (what,) = displayed
    said = capsys.readouterr().out
    if widgets == "1":
        assert "application/vnd.jupyter.widget-view+json" in what
        png = base64.b64decode(what["image/png"])
        assert said == ""
    else:
        png = what._repr_png_()
        assert "A still picture" in said
        assert "E(x, y)" in said
    assert Image.open(io.BytesIO(png)).width > 300
