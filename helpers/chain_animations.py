"""Chains that become images, step by step, as a GIF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation
from numpy.typing import ArrayLike

from helpers import style
from helpers.animations import quiet
from helpers.pictures import as_picture


def chain_animation(
    pictures: ArrayLike,
    steps: Sequence[int],
    *,
    n_columns: int,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    size: float = 0.55,
) -> FuncAnimation:
    """Images of chains over their steps: `pictures` (T, N, C, H, W) in [0, 1] or uint8, one frame for each of `steps`.

    The N images of a frame are laid out row by row, `n_columns` in a row, each `size` inches wide; `row_labels` and
    `column_labels` have one text for each row and column. Over them stands the step.
    """
    frames = np.asarray(pictures)
    if frames.ndim != 5 or not len(frames) or len(frames) != len(steps):
        raise ValueError(
            f"pictures: expected shape (T, N, C, H, W) with T = {len(steps)} steps (at least one), got {frames.shape}"
        )
    n_rows = -(-frames.shape[1] // n_columns)
    with style.in_style():
        figure = style.canvas(size * n_columns + (1.3 if row_labels else 0.1), size * n_rows * 1.05 + 0.55)
        axes = figure.subplots(n_rows, n_columns, squeeze=False)
        shown = []
        for place, ax in enumerate(axes.ravel()):
            ax.axis("off")
            if place < frames.shape[1]:
                shown.append(ax.imshow(as_picture(frames[0, place]), interpolation="nearest", vmin=0, vmax=1))
        for ax, text in zip(axes[0], column_labels, strict=False):
            ax.set_title(text, size=8, pad=3)
        for ax, text in zip(axes[:, 0], row_labels, strict=False):
            ax.text(-0.15, 0.5, text, transform=ax.transAxes, ha="right", va="center", size=8)
        head = figure.suptitle("step 0", size=9)
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # arranged once, not anew for each frame

    def draw(number: int) -> list[Any]:
        for artist, image in zip(shown, frames[number], strict=True):
            artist.set_data(as_picture(image))
        head.set_text(f"step {steps[number]}")
        return [*shown, head]

    return quiet(FuncAnimation(figure, draw, frames=len(frames), blit=False, cache_frame_data=False))
