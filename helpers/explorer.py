"""Look at one image under attack, with sliders where a front end shows them and as a picture everywhere else.

`look` measures, `figure` draws, `sliders` connects the two to ipywidgets, `show` chooses for the front end at hand.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from helpers import attacks, energies, metrics, plots, records
from helpers.data import ImageSet


@dataclass(frozen=True)
class Choice:
    """What the sliders say. `row`: which image; `epsilon_255`: L∞ radius in 1/255; `targeted`: at the next class."""

    network: str
    row: int
    epsilon_255: float
    n_steps: int
    targeted: bool = False


def look(network: nn.Module, images: ImageSet, choice: Choice, *, seed: int) -> dict[str, np.ndarray]:
    """Attack one image by PGD on CE (last iterate, random start) and measure it before and after.

    The step is 2.5 ε / n_steps, so that the walk can cross the ball; with ε = 0 nothing moves. A targeted attack aims
    at the class after the true one. Returns "x", "x_adv" (C, H, W); "probabilities", "probabilities_adv" (K,); and
    the scalars "E", "E_y", "E_adv", "E_y_adv", "label", "target" (−1 where there is none).
    """
    part = images.subset(slice(choice.row, choice.row + 1))
    x, y = part.images(), part.labels
    clean = metrics.predictions(network, x, batch_size=1)
    goal = (y + 1) % clean.shape[1] if choice.targeted else y
    loss = attacks.targeted_cross_entropy(network) if choice.targeted else attacks.cross_entropy(network)
    epsilon = choice.epsilon_255 / 255
    x_adv = x
    if epsilon > 0:
        x_adv = attacks.pgd(
            loss,
            x,
            goal,
            norm="linf",
            epsilon=epsilon,
            step_size=2.5 * epsilon / choice.n_steps,
            n_steps=choice.n_steps,
            start="uniform",
            n_restarts=1,
            returns="last",
            seed=seed,
            index=part.index,
        )
    found: dict[str, Any] = {"label": y[0], "target": goal[0] if choice.targeted else torch.tensor(-1)}
    for suffix, point, logits in (("", x, clean), ("_adv", x_adv, metrics.predictions(network, x_adv, batch_size=1))):
        found |= {f"x{suffix}": point[0], f"probabilities{suffix}": logits.softmax(1)[0]}
        found |= {f"E{suffix}": energies.marginal(logits)[0], f"E_y{suffix}": energies.joint(logits, y.cpu())[0]}
    return {name: value.cpu().numpy() for name, value in found.items()}


def reading(seen: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> str:
    """What happened, in one line: classes and energies before and after.

    >>> half = {"probabilities": np.array([0.9, 0.1]), "probabilities_adv": np.array([0.2, 0.8])}
    >>> energy = {"E": -5.0, "E_adv": -8.0, "E_y": -4.9, "E_y_adv": -6.4}
    >>> reading(half | energy, ("cat", "dog"))
    'cat (90 %) became dog (80 %) · E(x) −5.00 → −8.00, lowered by 3.00 · E(x, y) −4.90 → −6.40, lowered by 1.50'
    """
    names = []
    for suffix in ("", "_adv"):
        probabilities = seen[f"probabilities{suffix}"]
        names.append(f"{classes[int(probabilities.argmax())]} ({100 * probabilities.max():.0f} %)")
    moves = []
    for label, key in (("E(x)", "E"), ("E(x, y)", "E_y")):
        before, after = float(seen[key]), float(seen[f"{key}_adv"])
        way = "lowered" if after < before else "raised"
        moves.append(f"{label} {before:.2f} → {after:.2f}, {way} by {abs(after - before):.2f}".replace("-", "−"))
    verb = "stayed" if names[0].split(" (")[0] == names[1].split(" (")[0] else "became"
    return " · ".join([f"{names[0]} {verb} {names[1]}", *moves])


def scalars(seen: Mapping[str, np.ndarray], **where: Any) -> list[records.Scalar]:
    """One `look` as scalars for a record: energies before ("natural") and after ("adversarial")."""
    rows = []
    for suffix, image in (("", "natural"), ("_adv", "adversarial")):
        rows.append(records.scalar("energy", float(seen[f"E{suffix}"]), n=1, image=image, **where))
        rows.append(records.scalar("joint_energy", float(seen[f"E_y{suffix}"]), n=1, image=image, **where))
    return rows


def pick(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The `look` that a record keeps under `name`/…"""
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}


def strip(arrays: Mapping[str, np.ndarray], names: Sequence[str], classes: tuple[str, ...]) -> Figure:
    """A picture of several `look`s of a record, one row for each name: before, perturbation, after, probabilities."""
    rows = [pick(arrays, name) for name in names]
    columns = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    return plots.attack_strip(
        columns["x"],
        columns["x_adv"],
        probabilities=columns["probabilities"],
        probabilities_adv=columns["probabilities_adv"],
        y=columns["label"],
        classes=classes,
        energies=columns["E"],
        energies_adv=columns["E_adv"],
        names=names,
    )


def figure(seen: Mapping[str, np.ndarray], classes: tuple[str, ...], *, name: str) -> Figure:
    """The picture of one `look` at the network `name`."""
    return strip({f"{name}/{key}": value for key, value in seen.items()}, [name], classes)


def png(drawing: Figure) -> bytes:
    """A figure as the bytes of a PNG, the same for the same figure."""
    stream = io.BytesIO()
    drawing.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


def sliders(networks: Mapping[str, nn.Module], images: ImageSet, start: Choice, *, seed: int) -> Any:
    """The explorer: an ipywidgets box whose picture follows network, image, ε, steps and target.

    `networks` by the name shown. The box has `.picture` (its `value` are the PNG's bytes), `.text` and `.controls`
    (widgets by the names of `Choice`), so that a program can move them as a hand does.
    """
    import ipywidgets as widgets

    wide = {"continuous_update": False, "style": {"description_width": "70px"}}
    controls = {
        "network": widgets.Dropdown(options=list(networks), value=start.network, description="network"),
        "row": widgets.IntSlider(start.row, 0, len(images) - 1, description="image", **wide),
        "epsilon_255": widgets.FloatSlider(
            start.epsilon_255, min=0, max=2.5 * start.epsilon_255, step=start.epsilon_255 / 8,
            description="ε · 255", readout_format=".3g", **wide,
        ),
        "n_steps": widgets.IntSlider(start.n_steps, 1, 5 * start.n_steps, description="steps", **wide),
        "targeted": widgets.Checkbox(start.targeted, description="targeted, at the next class", indent=False),
    }  # fmt: skip
    picture, text = widgets.Image(format="png"), widgets.HTML()

    def draw(_change: object = None) -> None:
        choice = Choice(**{name: control.value for name, control in controls.items()})
        seen = look(networks[choice.network], images, choice, seed=seed)
        picture.value = png(figure(seen, images.classes, name=choice.network))
        text.value = reading(seen, images.classes)

    draw()
    for control in controls.values():
        control.observe(draw, names="value")
    box = widgets.VBox([*controls.values(), text, picture])
    box.picture, box.text, box.controls = picture, text, controls
    return box


def live() -> bool:
    """Whether the front end shows widgets: JupyterLab or Notebook, VS Code, Colab; not papermill or nbconvert.

    COMPANION_WIDGETS=0 or 1 in the environment decides where this guess is wrong.
    """
    said = os.environ.get("COMPANION_WIDGETS")
    if said is not None:
        return said != "0"
    return "JPY_SESSION_NAME" in os.environ or "VSCODE_PID" in os.environ or "google.colab" in sys.modules


def show(networks: Mapping[str, nn.Module], images: ImageSet, start: Choice, *, seed: int) -> None:
    """Display the explorer, with its picture as what a front end falls back on; without widgets the picture alone."""
    from IPython.display import display

    if live():
        box = sliders(networks, images, start, seed=seed)
        fallback = {"image/png": base64.b64encode(box.picture.value).decode("ascii")}
        display({**box._repr_mimebundle_(), **fallback}, raw=True)
        return
    seen = look(networks[start.network], images, start, seed=seed)
    display(figure(seen, images.classes, name=start.network))
    print(reading(seen, images.classes))
    print("A still picture. In JupyterLab, VS Code or Colab this cell has sliders; COMPANION_WIDGETS=1 forces them.")
