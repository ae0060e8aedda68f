"""The energy plane over the epochs of a training run, as a GIF."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.lines import Line2D
from matplotlib.quiver import Quiver
from PIL import Image

from helpers import files, style
from helpers.frames import groups, needed, size
from helpers.planes import COLUMNS, Columns, draw_arrows, plane, plane_legend, plane_limits, spaced
from helpers.saving import Origin, checked, describe

if TYPE_CHECKING:
    from helpers.parameters import Parameters
MOST_BYTES = 3_000_000  # of a GIF, which the report page holds whole


def energy_plane_animation(
    frame: pd.DataFrame,
    *,
    epoch: str = "epoch",
    index: str = "image",
    panels: str | None = None,
    order: Sequence[str] | None = None,
    columns: Columns = COLUMNS,
    n_arrows: int = 150,
    titles: Mapping[str, str] | None = None,
) -> FuncAnimation:
    """`plots.energy_plane` at each epoch: the same images, the same limits throughout (ebm, Fig. 1 b–d, animated).

    `frame` has one row for each epoch, image (`index`) and panel. At most `n_arrows` images are shown, evenly spaced
    among those of the first epoch. Over each panel stand the epoch and the mean of ΔE(x) = E(x) − E(x*) of the
    images shown.
    """
    needed(frame, [epoch, index, *columns.all])
    epochs = sorted(set(frame[epoch]))
    parts = {name: _shown(part, index, n_arrows) for name, part in groups(frame, panels, order).items()}
    rows = {(name, t): part[part[epoch] == t].sort_values(index) for name, part in parts.items() for t in epochs}
    limits = plane_limits(pd.concat(parts.values()), columns)
    with style.in_style():
        figure = style.canvas(3.05 * len(parts) + 0.35, 3.45)
        axes = dict(zip(parts, figure.subplots(1, len(parts), squeeze=False).ravel(), strict=True))
        drawn = {}
        for name, ax in axes.items():
            plane(ax, limits)
            ax.set_title("0\n0", fontsize=8.5)  # room for two lines
            drawn[name] = draw_arrows(ax, rows[name, epochs[0]], columns=columns, n_arrows=n_arrows)
        plane_legend(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # arranged once, not anew for each frame

    def draw(number: int) -> list[Any]:
        for name, ax in axes.items():
            _move(drawn[name], rows[name, epochs[number]], columns)
            head = (titles or {}).get(name, style.label(name)) + ", " if name else ""
            ax.set_title(_title(f"{head}epoch {epochs[number]}", rows[name, epochs[number]], columns), fontsize=8.5)
        return [artist for one in drawn.values() for artist in one]

    return quiet(FuncAnimation(figure, draw, frames=len(epochs), blit=False, cache_frame_data=False))


def quiet(animation: FuncAnimation) -> FuncAnimation:
    """`animation`, about which Matplotlib will not warn where it was asked for and not saved."""
    vars(animation)["_draw_was_started"] = True
    return animation


def _move(drawn: tuple[Quiver, Line2D, Line2D], rows: pd.DataFrame, columns: Columns) -> None:
    arrows, before, after = drawn
    natural, adversarial = rows[[columns.x, columns.y]].to_numpy(), rows[[columns.x_adv, columns.y_adv]].to_numpy()
    before.set_data(*natural.T)
    after.set_data(*adversarial.T)
    arrows.set_offsets(natural)
    arrows.set_UVC(*(adversarial - natural).T)


def _title(head: str, rows: pd.DataFrame, columns: Columns) -> str:
    mean = float(np.mean(rows[columns.x] - rows[columns.x_adv]))
    return f"{head}\n{size(rows)}, mean $\\Delta E(x)$ = {mean:+.2f} nat"


def _shown(part: pd.DataFrame, index: str, n_arrows: int) -> pd.DataFrame:
    images = list(dict.fromkeys(part[index]))
    chosen = {images[row] for row in spaced(len(images), n_arrows)}
    return part[part[index].isin(chosen)]


class FewColours(PillowWriter):
    """Pillow's GIF writer with one palette of 64 colours for all frames: a third of the size, and no flicker."""

    _frames: list[Image.Image]  # what PillowWriter has grabbed

    def finish(self) -> None:
        """Write the file; the last frame stands for a second and a half."""
        stills = [frame.convert("RGB") for frame in self._frames]
        sample = [stills[round(i)] for i in np.linspace(0, len(stills) - 1, min(4, len(stills)))]
        sheet = Image.new("RGB", (sample[0].width, sample[0].height * len(sample)))
        for row, still in enumerate(sample):
            sheet.paste(still, (0, row * still.height))
        palette = sheet.quantize(64, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        _with_white(palette)
        flat = [still.quantize(palette=palette, dither=Image.Dither.NONE) for still in stills]
        times = [int(1000 / self.fps)] * (len(flat) - 1) + [1500]
        flat[0].save(self.outfile, save_all=True, append_images=flat[1:], duration=times, loop=0, optimize=False)


def _with_white(palette: Image.Image) -> None:
    """Make the palette's lightest colour white: the mean of a box of near-whites would tint the whole background."""
    values = palette.getpalette() or []
    lightest = max(range(0, len(values), 3), key=lambda place: sum(values[place : place + 3]))
    values[lightest : lightest + 3] = [255, 255, 255]
    palette.putpalette(values)


class Gif:
    """A saved animation, shown where it is the last value of a cell."""

    def __init__(self, path: Path, alt: str) -> None:
        self.path, self.alt = path, alt

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.path.read_bytes()).decode("ascii")
        return f'<img src="data:image/gif;base64,{data}" alt="{html.escape(self.alt, quote=True)}">'


def save_animation(
    animation: FuncAnimation,
    p: Parameters,
    name: str,
    record: Origin,
    *,
    caption: str,
    alt: str | None = None,
    fps: int = 4,
) -> Gif:
    """Write `name`.gif and `name`.figure.json; as the last line of a cell it shows the animation.

    ValueError where the GIF is larger than 3 MB: show fewer frames, images or arrows.
    """
    origin = checked(name, record, caption)
    with style.in_style(), files.atomic(p.folder / f"{name}.gif") as path:
        animation.save(path, writer=FewColours(fps=fps), dpi=100)
        if (bytes_ := path.stat().st_size) > MOST_BYTES:
            limit, got = f"{MOST_BYTES / 1e6:.1f} MB", f"{bytes_ / 1e6:.1f} MB"
            raise ValueError(f"{name}.gif: expected at most {limit}, got {got}; show fewer frames, images or arrows")
    describe(p, "figure", name, origin=origin, caption=caption, alt=alt, made=[f"{name}.gif"])
    return Gif(p.folder / f"{name}.gif", alt or caption)
