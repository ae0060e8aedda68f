"""Images that installed packages bring along, for a machine without a network: glyphs and patches of photographs.

    letters        A–Z and a–z of the DejaVu faces that come with Matplotlib, white on black, 32×32, one channel
    photographs    patches of 32×32 pixels, in colour, of the two photographs that come with scikit-learn

They are what a network of digits or of CIFAR-10 has not been trained on (`helpers.outside`), and no benchmark: few
images, few motifs. `helpers.data` loads them by name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Raw = tuple[Tensor, Tensor, tuple[str, ...]]

SIDE = 32  # of every image, in pixels
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
SERIF_STYLES = ("", "-Bold", "-Italic", "-BoldItalic")
# Train and test share no face: glyphs with serifs are for testing. The two Display faces have no letters.
FACES = {
    "train": tuple(f"{family}{style}" for family in ("DejaVuSans", "DejaVuSansMono") for style in STYLES),
    "test": tuple(f"DejaVuSerif{style}" for style in SERIF_STYLES),
}
DRAWN = 128  # pixels of an em when a glyph is drawn, before it is made small
FILLED = 28  # pixels of the frame that the longer side of a glyph fills, as NIST's characters fill theirs
PHOTOGRAPHS = ("china", "flower")
TEST_COLUMNS = 8  # of the 20 columns of patches in each photograph, those at its right


def read_letters(_root: Path, split: str) -> Raw:
    """Glyphs face by face in the order of `LETTERS`: 416 to train on, 208 with serifs to test.

    Each is scaled to the frame, its proportions kept, so c and C, say, differ little: as in EMNIST, which has such
    pairs too.
    """
    glyphs = [_glyph(face, letter) for face in FACES[split] for letter in LETTERS]
    return torch.stack(glyphs), torch.arange(len(LETTERS)).repeat(len(FACES[split])), LETTERS


def _glyph(face: str, letter: str) -> Tensor:
    """One letter (1, SIDE, SIDE) uint8, in the middle of its frame."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    font = ImageFont.truetype(str(path), DRAWN, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = font.getbbox(letter)
    drawn = Image.new("L", (round(right - left), round(bottom - top)))
    ImageDraw.Draw(drawn).text((-left, -top), letter, fill=255, font=font)
    drawn = drawn.crop(drawn.getbbox())
    scale = FILLED / max(drawn.size)
    small = drawn.resize([max(1, round(scale * side)) for side in drawn.size], Image.Resampling.BOX)
    frame = Image.new("L", (SIDE, SIDE))
    frame.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return torch.from_numpy(np.array(frame))[None]


def read_photographs(_root: Path, split: str) -> Raw:
    """Patches that do not overlap, row by row; their class is the photograph: 312 to train on, 208 to test.

    The 8 columns of patches at the right of each photograph are for testing, the 12 at its left for training.
    """
    from sklearn.datasets import load_sample_image

    found = [_patches(load_sample_image(f"{name}.jpg"), split) for name in PHOTOGRAPHS]
    labels = [torch.full((len(patches),), label) for label, patches in enumerate(found)]
    return torch.cat(found), torch.cat(labels), PHOTOGRAPHS


def _patches(photograph: np.ndarray, split: str) -> Tensor:
    """Patches (N, 3, SIDE, SIDE) of one photograph (H, W, 3) uint8; what is left over below and at the right goes."""
    x = torch.from_numpy(photograph.copy()).permute(2, 0, 1)
    grid = x.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE).permute(1, 2, 0, 3, 4)  # rows and columns first
    first_test = grid.shape[1] - TEST_COLUMNS
    chosen = grid[:, first_test:] if split == "test" else grid[:, :first_test]
    return chosen.flatten(0, 1).contiguous()
