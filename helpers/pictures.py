"""Figures that show images: a grid of them, and what an attack did to a few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from helpers import style


def as_picture(image: np.ndarray) -> np.ndarray:
    """(C, H, W) in [0, 1] or uint8, C 1 or 3, as (H, W, 3) in [0, 1] for Matplotlib."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"images: expected shape (N, C, H, W) with C = 1 or 3, got an image of {image.shape}")
    scaled = image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)
    if scaled.min() < -1e-6 or scaled.max() > 1 + 1e-6:
        raise ValueError(f"images: expected values in [0, 1], got {scaled.min():.4g} to {scaled.max():.4g}")
    return np.broadcast_to(np.moveaxis(np.clip(scaled, 0, 1), 0, -1), (*image.shape[1:], 3))


def _show(ax: Axes, picture: np.ndarray) -> None:
    ax.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def image_grid(
    images: ArrayLike,
    *,
    n_columns: int,
    titles: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    size: float = 0.85,
) -> Figure:
    """Images (N, C, H, W) in [0, 1] or uint8, row by row, `n_columns` in a row, each `size` inches wide.

    `titles` has one short text for each image, `row_labels` and `column_labels` one for each row and column.
    """
    pictures = [as_picture(image) for image in np.asarray(images)]
    if not pictures or n_columns < 1:
        raise ValueError(f"images: expected at least one and n_columns >= 1, got {len(pictures)} and {n_columns}")
    n_rows = -(-len(pictures) // n_columns)
    with style.in_style():
        height = size * n_rows * (1.22 if titles else 1.04) + (0.25 if column_labels else 0)
        figure = style.canvas(size * n_columns + (0.9 if row_labels else 0.1), height)
        axes = figure.subplots(n_rows, n_columns, squeeze=False)
        for place, ax in enumerate(axes.ravel()):
            if place >= len(pictures):
                ax.set_visible(False)
                continue
            _show(ax, pictures[place])
            row, column = divmod(place, n_columns)
            if place < len(titles):
                ax.set_title(titles[place], size=7, pad=2)
            elif row == 0 and column < len(column_labels):
                ax.set_title(column_labels[column], size=8, pad=3)
            if column == 0 and row < len(row_labels):
                ax.set_ylabel(row_labels[row], rotation=0, ha="right", va="center", size=8)
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    return figure


def attack_strip(
    x: ArrayLike,
    x_adv: ArrayLike,
    *,
    probabilities: ArrayLike,
    probabilities_adv: ArrayLike,
    y: ArrayLike,
    classes: Sequence[str],
    energies: ArrayLike,
    energies_adv: ArrayLike,
    names: Sequence[str] = (),
    n_classes_shown: int = 3,
) -> Figure:
    """What an attack did, one row for each image: x, x* − x magnified, x*, and the class probabilities p(y|x), p(y|x*).

    `x`, `x_adv` (N, C, H, W) in [0, 1]; `probabilities` (N, K); `y` (N,) true classes; `energies` (N,) are E(x). The
    perturbation is magnified until its largest component is black or white; the factor stands over it. `names`, one for
    each row, stand beside the rows where they are given: the networks, say.
    """
    x, x_adv = np.asarray(x, dtype=np.float64), np.asarray(x_adv, dtype=np.float64)
    if x.shape != x_adv.shape or x.ndim != 4:
        raise ValueError(f"x, x_adv: expected two arrays (N, C, H, W) of one shape, got {x.shape} and {x_adv.shape}")
    if names and len(names) != len(x):
        raise ValueError(f"names: expected one for each of {len(x)} rows, got {len(names)}")
    p, p_adv = np.asarray(probabilities), np.asarray(probabilities_adv)
    before, after, truth = np.asarray(energies), np.asarray(energies_adv), np.asarray(y)
    with style.in_style():
        figure = style.canvas(6.6, 1.45 * len(x) + 0.35)
        axes = figure.subplots(len(x), 4, squeeze=False, width_ratios=[1, 1, 1, 1.9])
        for i, row in enumerate(axes):
            change = x_adv[i] - x[i]
            factor = 0.5 / np.abs(change).max() if np.abs(change).max() > 0 else 1.0
            _show(row[0], as_picture(x[i]))
            _show(row[1], as_picture(np.clip(0.5 + factor * change, 0, 1)))
            _show(row[2], as_picture(x_adv[i]))
            row[0].set_title(f"$E(x)$ = {_number(before[i])} nat", size=8, color=style.NATURAL)
            row[1].set_title(f"$x^* - x$, × {factor:.3g}", size=8)
            row[2].set_title(f"$E(x^*)$ = {_number(after[i])} nat", size=8, color=style.ADVERSARIAL)
            beside = f"{style.label(names[i])}\n" if names else ""
            row[0].set_ylabel(f"{beside}y: {classes[int(truth[i])]}", size=8)
            _bars(row[3], p[i], p_adv[i], y=int(truth[i]), classes=classes, n=n_classes_shown)
        _probability_legend(figure)
    return figure


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _bars(ax: Axes, p: np.ndarray, p_adv: np.ndarray, *, y: int, classes: Sequence[str], n: int) -> None:
    """The `n` classes that are likeliest before or after, likeliest first; the true class in bold."""
    best = np.argsort(-np.maximum(p, p_adv), kind="stable")[:n]
    place = np.arange(len(best))
    ax.barh(place - 0.19, p[best], 0.36, color=style.NATURAL)
    ax.barh(place + 0.19, p_adv[best], 0.36, color=style.ADVERSARIAL)
    ax.set_yticks(place, [classes[int(k)] for k in best])
    for tick, k in zip(ax.get_yticklabels(), best, strict=True):
        tick.set_fontweight("bold" if k == y else "normal")
    ax.set(xlim=(0, 1), ylim=(len(best) - 0.5, -0.5), xticks=[0, 0.5, 1])
    ax.grid(axis="y", visible=False)


def _probability_legend(figure: Figure) -> None:
    handles = [Patch(color=style.NATURAL, label="$p(y|x)$"), Patch(color=style.ADVERSARIAL, label="$p(y|x^*)$")]
    figure.legend(handles=handles, loc="outside lower right", ncols=2)
