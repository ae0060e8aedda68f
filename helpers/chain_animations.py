"""Chains that become images, step by step, as a GIF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike

from helpers import style
from helpers.animations import quiet
from helpers.pictures import as_picture


def chain_animation(
    films: Mapping[str, ArrayLike], steps: Sequence[int], *, column_labels: Sequence[str] = (), size: float = 0.5
) -> FuncAnimation:
    """Images of chains over their steps, one row of them for each of `films`, one frame for each of `steps`.

    A film is (T, N, C, H, W) in [0, 1] or uint8, all of one T, the number of steps, and one N; its name stands beside
    its row. Images are `size` inches wide; `column_labels` has one text for each of the N. Above stands the step.
    """
    frames = {name: np.asarray(film) for name, film in films.items()}
    shapes = {name: film.shape for name, film in frames.items()}
    if {(len(shape), shape[0]) for shape in shapes.values()} != {(5, len(steps))} or len(
        {s[1] for s in shapes.values()}
    ) > 1:
        raise ValueError(f"films: expected shapes (T, N, C, H, W) with T = {len(steps)} steps and one N, got {shapes}")
    n_columns = next(iter(shapes.values()))[1]
    with style.in_style():
        figure = style.canvas(size * n_columns + 1.9, size * len(frames) * 1.05 + 0.55)
        axes = figure.subplots(len(frames), n_columns, squeeze=False)
        shown: dict[str, list[AxesImage]] = {}
        for row, (name, film) in zip(axes, frames.items(), strict=True):
            for ax, image in zip(row, film[0], strict=True):
                ax.set(xticks=[], yticks=[])
                ax.grid(visible=False)
                ax.spines[:].set_visible(False)
                shown.setdefault(name, []).append(ax.imshow(as_picture(image), interpolation="nearest", vmin=0, vmax=1))
            row[0].set_yticks([0.5 * (film.shape[3] - 1)], [name], size=8)
            row[0].tick_params(length=0)
        for ax, text in zip(axes[0], column_labels, strict=False):
            ax.set_title(text, size=8, pad=3)
        head = figure.suptitle(f"step {steps[0]}", size=9)
        # Letters are wider for their height at a GIF's resolution than at the one arranged for: some room at the left.
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0.02, rect=(0.02, 0, 0.98, 1))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # arranged once, not anew for each frame

    def draw(number: int) -> list[Any]:
        for name, film in frames.items():
            for artist, image in zip(shown[name], film[number], strict=True):
                artist.set_data(as_picture(image))
        head.set_text(f"step {steps[number]}")
        return [artist for row in shown.values() for artist in row]

    return quiet(FuncAnimation(figure, draw, frames=len(steps), blit=False, cache_frame_data=False))
