"""Grids of images beside each other: what several methods made of the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from helpers import style
from helpers.pictures import as_picture

GAP = 0.08  # between two images, as a share of an image's side


def image_blocks(
    blocks: Mapping[str, ArrayLike],
    *,
    n_columns: int,
    row_labels: Sequence[str] = (),
    wrap: int | None = None,
    size: float = 0.36,
) -> Figure:
    """One grid for each of `blocks`, beside each other under their names: all rows mean the same, as `row_labels` say.

    A block is images (N, C, H, W) in [0, 1] or uint8, row by row, `n_columns` in a row; all blocks have as many.
    An image is `size` inches wide. With `wrap` so many blocks stand in a line, and the others follow below.
    """
    arrays = {name: np.asarray(images) for name, images in blocks.items()}
    shapes = {name: one.shape for name, one in arrays.items()}
    if not arrays or len({shape[:1] for shape in shapes.values()}) > 1:
        raise ValueError(f"blocks: expected at least one, all of as many images, got {shapes}")
    n = len(next(iter(arrays.values())))
    if n_columns < 1 or n % n_columns:
        raise ValueError(f"n_columns: expected whole rows of {n} images, got {n_columns} in a row")
    across = min(wrap or len(arrays), len(arrays))
    n_lines, n_rows = -(-len(arrays) // across), n // n_columns
    with style.in_style():
        width = across * (size * n_columns * (1 + GAP) + 0.15) + (0.9 if row_labels else 0.1)
        figure = style.canvas(
            width, n_lines * (size * n_rows * (1 + GAP) + (0.5 if any(", " in name for name in arrays) else 0.3))
        )
        axes = figure.subplots(n_lines, across, squeeze=False)
        for ax in axes.flat[len(arrays) :]:
            ax.set_visible(False)
        for place, (name, images) in enumerate(arrays.items()):
            ax = axes.flat[place]
            _block(ax, images, n_columns=n_columns)
            ax.set_title(name.replace(", ", ",\n"), size=8.5, pad=4)
            if place % across == 0 and row_labels:
                ax.set_yticks((np.arange(n_rows) + 0.5) * (1 + GAP), row_labels)
                ax.tick_params(length=0, labelleft=True)
    return figure


def _block(ax: Axes, images: np.ndarray, *, n_columns: int) -> None:
    """The images as one picture on white, in units of an image's height."""
    h, w = images.shape[2:]
    gap = max(1, round(GAP * h))
    n_rows = len(images) // n_columns
    sheet = np.ones((n_rows * (h + gap), n_columns * (w + gap), 3))
    for place, image in enumerate(images):
        row, column = divmod(place, n_columns)
        top, left = row * (h + gap), column * (w + gap)
        sheet[top : top + h, left : left + w] = as_picture(image)
    extent = (0, n_columns * (1 + GAP), n_rows * (1 + GAP), 0)
    ax.imshow(sheet, interpolation="nearest", vmin=0, vmax=1, extent=extent, aspect=h / w)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
