"""One function for each kind of picture; a figure of the companion is one such call in its notebook.

Each takes tidy frames of a record and names of columns, and returns a figure that is shown where it is the last
value of a cell. E is energy in nats, lower is likelier; natural is blue, adversarial is orange, each method keeps
its own colour everywhere (`helpers.style`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy import special  # type: ignore[import-untyped]

from helpers import style
from helpers.animations import energy_plane_animation as energy_plane_animation
from helpers.animations import save_animation as save_animation
from helpers.boxes import boxes as boxes
from helpers.chain_animations import chain_animation as chain_animation
from helpers.chain_curves import energy_by_step as energy_by_step
from helpers.dots import interval_dots as interval_dots
from helpers.error_bars import interval_curves as interval_curves
from helpers.frames import groups, needed, size
from helpers.heat_maps import heat_map as heat_map
from helpers.image_blocks import image_blocks as image_blocks
from helpers.information_planes import information_plane as information_plane
from helpers.interval_panels import interval_panels as interval_panels
from helpers.ladders import ladder as ladder
from helpers.panel_marks import legend_below, mark_phases
from helpers.pictures import attack_strip as attack_strip
from helpers.pictures import image_grid as image_grid
from helpers.planes import energy_plane as energy_plane
from helpers.reliability import reliability as reliability
from helpers.ridges import ridges as ridges
from helpers.rungs import rungs as rungs
from helpers.saving import save as save
from helpers.strips import status_strip as status_strip
from helpers.weight_curves import weight_curve as weight_curve

ENERGY_ROWS = {"$E(x)$": ("E", "E_adv"), "$E(x, y)$": ("E_y", "E_y_adv")}


def paired_histogram(
    frame: pd.DataFrame,
    *,
    columns: str,
    rows: Mapping[str, tuple[str, str]] | None = None,
    order: Sequence[str] | None = None,
    n_bins: int = 60,
    wrap: int | None = None,
) -> Figure:
    """Histograms natural against adversarial: one row for each quantity, one column for each attack (ebm, Sec. 3).

    `frame` has one row for each image and attack; `columns` names the column with the attack; `rows` maps a label to
    the two columns (natural, adversarial), E(x) and E(x, y) where not given. All panels share their bins, those of a
    quantity their axes. In each panel stands on how many images the attack lowered the quantity. With `wrap` a row
    holds at most so many attacks, and the others follow below.
    """
    rows = ENERGY_ROWS if rows is None else rows
    needed(frame, [columns, *(name for pair in rows.values() for name in pair)])
    panels = groups(frame, columns, order)
    values = np.concatenate([frame[name].to_numpy() for pair in rows.values() for name in pair])
    bins = _bins(values, n_bins)
    width = min(wrap or len(panels), len(panels))
    n_bands = -(-len(panels) // width)
    with style.in_style():
        figure = style.canvas(max(3.6, 1.75 * width + 0.9), 1.75 * n_bands * len(rows) + 0.75)
        axes = figure.subplots(n_bands * len(rows), width, sharex=True, squeeze=False)
        for k, (attack, part) in enumerate(panels.items()):
            band = axes[k // width * len(rows) :, k % width]
            band[0].set_title(style.label(attack), pad=6)
            for ax, (name, pair) in zip(band, rows.items(), strict=False):
                _histogram(ax, part, pair=pair, bins=bins)
                ax.set_xlabel(style.quantity(name))
        for i in range(len(rows)):
            _share_height(axes[i :: len(rows)], len(panels))
        n = size(max(panels.values(), key=len))
        handles = [Patch(color=style.NATURAL, alpha=0.65), Patch(color=style.ADVERSARIAL, alpha=0.65)]
        figure.legend(handles, ["natural", f"adversarial      {n} in each panel"], loc="outside lower center", ncols=2)
    return figure


def _share_height(axes: np.ndarray, n_panels: int) -> None:
    """One height for the panels of a quantity, with room for the line on what was lowered; unused ones go."""
    used, unused = axes.flat[:n_panels], axes.flat[n_panels:]
    top = 1.16 * max(ax.get_ylim()[1] for ax in used)
    for k, ax in enumerate(used):
        ax.set_ylim(top=top)
        ax.tick_params(labelbottom=True, labelleft=k % axes.shape[1] == 0)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    for row in axes:
        row[0].set_ylabel("images")
    for ax in unused:
        ax.set_visible(False)


def _bins(values: np.ndarray, n_bins: int) -> list[float]:
    """Equal bins over all values, but for a few that lie so far out that they would squeeze the rest."""
    low, high = np.quantile(values, [0.01, 0.99])
    reach = 0.5 * (high - low)
    low, high = max(values.min(), low - reach), min(values.max(), high + reach)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    return list(np.linspace(low, high, n_bins + 1))


def _histogram(ax: Axes, part: pd.DataFrame, *, pair: tuple[str, str], bins: list[float]) -> None:
    natural, adversarial = part[pair[0]].to_numpy(), part[pair[1]].to_numpy()
    for values, colour in ((natural, style.NATURAL), (adversarial, style.ADVERSARIAL)):
        inside = np.clip(values, bins[0], bins[-1])  # the few beyond the axis are counted in the outermost bins
        ax.hist(inside, bins, histtype="stepfilled", color=colour, alpha=0.45, linewidth=0)
        ax.hist(inside, bins, histtype="step", color=colour, linewidth=0.8)
    lowered = float(100 * np.mean(adversarial < natural))
    ax.text(0.5, 0.985, f"lowered: {_percent(lowered)}", transform=ax.transAxes, ha="center", va="top", size=7.5)
    ax.grid(axis="x", visible=False)


def _percent(value: float) -> str:
    """A share in per cent that is only called 0 or 100 where it is.

    >>> _percent(99.96), _percent(100.0), _percent(33.25), _percent(0.004)
    ('> 99.9 %', '100 %', '33.2 %', '< 0.1 %')
    """
    if 99.95 <= value < 100:
        return "> 99.9 %"
    if 0 < value < 0.05:
        return "< 0.1 %"
    return f"{value:.0f} %" if value in (0.0, 100.0) else f"{value:.1f} %"


def curve_with_band(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    y_label: str,
    by: str,
    seed: str = "seed",
    x_label: str = "epoch",
    right: str | None = None,
    right_label: str = "",
    phases: Sequence[tuple[float, str]] = (),
    zero: bool = False,
) -> Figure:
    """Curves over training: thin line for each seed, mean with its 95 % t interval over seeds for each method.

    `frame` has one row for each method (`by`), `seed` and `x`. `right` is a second quantity on an axis of its own at
    the right, dashed. `phases` are (x, label): a dashed upright line where the phase starts. `zero` draws y = 0.
    """
    needed(frame, [x, by, seed])
    methods = groups(frame, by)
    palette = style.colours(methods)
    dashes: dict[str, Any] = style.lines(methods) if right is None else dict.fromkeys(methods, "-")
    with style.in_style():
        figure = style.canvas(6.2, 3.5)
        ax = figure.subplots()
        _curves(ax, methods, x=x, y=y, seed=seed, palette=palette, line=dashes, zero=zero)
        ax.set(xlabel=x_label, ylabel=y_label)
        handles = [_line(palette[name], dashes[name], label=style.label(name)) for name in methods]
        if zero:
            ax.axhline(0, color="#1A1A1A", linewidth=0.8, zorder=1.5)
        if right is not None:
            other = _right_axis(ax, right_label)
            dashed = dict.fromkeys(methods, style.DASHES[1])
            _curves(other, methods, x=x, y=right, seed=seed, palette=palette, line=dashed, zero=False)
            handles.append(_line(style.NEUTRAL, "-", label=_bare(y_label)))
            handles.append(_line(style.NEUTRAL, style.DASHES[1], label=_bare(right_label)))
        mark_phases(ax, phases)
        legend_below(figure, [*handles, *_band_handles(methods, seed)])
    return figure


def curve_panels(
    frame: pd.DataFrame,
    *,
    x: str,
    panels: Mapping[str, str],
    by: str,
    seed: str = "seed",
    x_label: str = "epoch",
    zero: Collection[str] = (),
) -> Figure:
    """`curve_with_band` for several quantities side by side, over the same `x`: one panel for each.

    `panels` maps a column of `frame` to the label of its axis; y = 0 is drawn, and in sight, for the columns in `zero`.
    """
    needed(frame, [x, by, seed, *panels])
    methods = groups(frame, by)
    palette, dashes = style.colours(methods), style.lines(methods)
    with style.in_style():
        figure = style.canvas(max(6.2, 3.3 * len(panels)), 3.4)
        for ax, (column, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            _curves(ax, methods, x=x, y=column, seed=seed, palette=palette, line=dashes, zero=column in zero)
            ax.set(xlabel=x_label, ylabel=label)
            if column in zero:
                ax.axhline(0, color="#1A1A1A", linewidth=0.8, zorder=1.5)
        handles = [_line(palette[name], dashes[name], label=style.label(name)) for name in methods]
        legend_below(figure, [*handles, *_band_handles(methods, seed)])
    return figure


def _line(colour: str, dashes: Any, *, label: str) -> Line2D:
    return Line2D([], [], color=colour, linestyle=dashes, label=label)


def _right_axis(ax: Axes, label: str) -> Axes:
    other = ax.twinx()
    other.set_ylabel(label)
    other.spines["right"].set_visible(True)
    other.grid(visible=False)
    return other


def _bare(text: str) -> str:
    return text.rsplit(" (", 1)[0]


def _band_handles(methods: Mapping[str, pd.DataFrame], seed: str) -> list[Patch | Line2D]:
    n = {len(set(part[seed])) for part in methods.values()}
    said = f"{min(n)}" if len(n) == 1 else f"{min(n)} to {max(n)}"
    if max(n) == 1:
        return [Line2D([], [], color="none", label="1 seed, no interval")]
    return [Patch(color=style.NEUTRAL, alpha=0.25, label=f"95 % t interval of the mean, {said} seeds")]


def _curves(
    ax: Axes,
    methods: Mapping[str, pd.DataFrame],
    *,
    x: str,
    y: str,
    seed: str,
    palette: Mapping[str, str],
    line: Mapping[str, Any],
    zero: bool,
) -> None:
    """Each method's seeds, mean and band; the axis is fitted to the seeds, so that a wide band never flattens them."""
    low, high = (0.0, 0.0) if zero else (np.inf, -np.inf)
    for name, part in methods.items():
        needed(part, [x, y])
        table = part.pivot_table(index=x, columns=seed, values=y, sort=True, dropna=False)
        for column in table if table.shape[1] > 1 else ():
            ax.plot(table.index, table[column], color=palette[name], linewidth=0.5, alpha=0.55, linestyle=line[name])
        mean, half = t_interval(table.to_numpy())
        ax.plot(table.index, mean, color=palette[name], linestyle=line[name], marker="." if len(table) < 9 else None)
        ax.fill_between(table.index, mean - half, mean + half, color=palette[name], alpha=0.18, linewidth=0)
        low, high = min(low, np.nanmin(table.to_numpy())), max(high, np.nanmax(table.to_numpy()))
    margin = 0.12 * (high - low) or 0.1 * max(1.0, abs(high))
    ax.set_ylim(low - margin, high + margin)
    ax.margins(x=0.01)
    if x == "epoch":  # which is counted
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the last axis and half width t_{n−1} s/√n of its Student interval; 0 where there is one value.

    >>> mean, half = t_interval(np.array([[1.0, 2.0, 3.0]]))
    >>> float(mean[0]), round(float(half[0]), 3)
    (2.0, 2.484)
    """
    n = np.sum(np.isfinite(values), axis=-1)
    mean = np.nanmean(values, axis=-1)
    if values.shape[-1] < 2:
        return mean, np.zeros_like(mean)
    spread = np.nanstd(values, axis=-1, ddof=1) / np.sqrt(n)
    return mean, np.nan_to_num(special.stdtrit(np.maximum(n - 1, 1), (1 + level) / 2) * spread)


def violin(
    frame: pd.DataFrame,
    *,
    by: str,
    left: str = "delta_E",
    right: str = "delta_E_y",
    left_label: str = r"$\Delta E(x)$",
    right_label: str = r"$\Delta E(x, y)$",
    above: Mapping[str, str] | None = None,
    above_label: str = "robust accuracy (%)",
    order: Sequence[str] | None = None,
    scale: str = "linear",
) -> Figure:
    """Split violins, one for each network (ebm, Fig. 3): left half ΔE(x), right half ΔE(x, y), both E(x) − E(x*).

    `above` is printed over each network, as a rule its robust accuracy with interval. Each half has the same width;
    a white bar marks the middle half of the images, a dot the median. `scale="symlog"` is linear to ±1 nat and
    logarithmic beyond, for networks that differ by an order of magnitude (densities are those on that axis).
    """
    needed(frame, [by, left, right])
    if scale not in ("linear", "symlog"):
        raise ValueError(f"scale: expected 'linear' or 'symlog', got {scale!r}")
    networks = groups(frame, by, order)
    with style.in_style():
        figure = style.canvas(max(4.9, 1.05 * len(networks) + 1.0), 3.7)
        ax = figure.subplots()
        _violin_axis(ax, list(networks), scale=scale)
        for place, (name, part) in enumerate(networks.items()):
            _half_violin(ax, part[left].to_numpy(), place=place, side=-1, colour=style.MARGINAL)
            _half_violin(ax, part[right].to_numpy(), place=place, side=1, colour=style.JOINT)
            ax.annotate((above or {}).get(name, ""), (place, 1.0), xycoords=("data", "axes fraction"), size=8,
                        xytext=(0, 3), textcoords="offset points", ha="center", va="bottom")  # fmt: skip
        if above:
            ax.set_title(textwrap.fill(above_label, int(13 * figure.get_figwidth())), loc="left", pad=18, size=8)
        n = size(max(networks.values(), key=len))
        handles = [Patch(color=style.MARGINAL), Patch(color=style.JOINT), Line2D([], [], color="none")]
        labels = [f"{left_label}, left", f"{right_label}, right", f"{n} each"]
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _violin_axis(ax: Axes, names: Sequence[str], *, scale: str) -> None:
    if scale == "symlog":
        ax.set_yscale("symlog", linthresh=1.0, linscale=0.7)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}")))
    ax.axhline(0, color="#1A1A1A", linewidth=0.9, zorder=1)
    ax.set_xticks(range(len(names)), [style.label(name).replace(", ", ",\n") for name in names])
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylabel("natural − adversarial energy (nat)")
    ax.grid(axis="x", visible=False)


def _half_violin(ax: Axes, values: np.ndarray, *, place: float, side: int, colour: str) -> None:
    from scipy import stats  # here, since it takes half a second and only violins need it

    transform = ax.yaxis.get_transform()
    t = transform.transform(values.astype(np.float64))
    grid = np.linspace(t.min(), t.max(), 200)
    if np.ptp(t) > 1e-9 * max(1.0, np.abs(t).max()) and len(t) > 2:
        density = stats.gaussian_kde(t)(grid)
    else:
        grid, density = np.array([t.mean()] * 2), np.ones(2)  # no spread: a short bar
    width = side * 0.42 * density / density.max()
    level = transform.inverted().transform(grid)
    ax.fill_betweenx(level, place, place + width, facecolor=colour, edgecolor="#1A1A1A", linewidth=0.5, zorder=2)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    ax.plot([place + side * 0.05] * 2, [low, high], color="white", linewidth=2.6, solid_capstyle="butt", zorder=3)
    ax.plot(place + side * 0.05, middle, "o", color="white", markeredgecolor="#1A1A1A", markersize=4,
            markeredgewidth=0.8, zorder=4)  # fmt: skip
