"""Pictures inside a page: smaller copies as data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat

SHARP = 160.0  # dots per inch of the copy in the page, sharp on most screens; the file beside it has 200
CSS_DPI = 110  # at which inches become the pixels of a page
MOST_PIXELS = 40_000_000
MOST_CHANGE = 1.5  # levels of 255 that few colours may change a channel by, on average


def picture(path: Path) -> dict[str, Any]:
    """`image` (data URI), `width` and `height` in pixels of the page, for a PNG or GIF; ValueError for what is neither.

    A PNG of 200 dpi is brought to 160 dpi, and to 256 colours where they do, if that makes it smaller; a GIF is
    taken as it is.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=("PNG", "GIF")) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError(f"{opened.width} × {opened.height} pixels")
            kind, (width, height) = str(opened.format).lower(), opened.size
            if kind == "gif" and not content.endswith(b";"):
                raise ValueError("it is cut short")
            if kind == "png":
                dpi = float(opened.info.get("dpi", (CSS_DPI,))[0])
                content = min(content, _smaller(opened, dpi), key=len)
                width, height = (round(side * CSS_DPI / dpi) for side in (width, height))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path.name}: expected a whole PNG or GIF, got: {error}") from error
    data = base64.b64encode(content).decode("ascii")
    return {"image": f"data:image/{kind};base64,{data}", "width": width, "height": height}


def _smaller(opened: Image.Image, dpi: float) -> bytes:
    flat = opened.convert("RGB")
    if dpi > SHARP:
        size = tuple(max(1, round(side * SHARP / dpi)) for side in flat.size)
        flat = flat.resize(size, Image.Resampling.LANCZOS)  # type: ignore[arg-type]
    # The octree keeps the few strong colours of a chart as they are, where median cut mixes them with grey.
    few = flat.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    change = ImageStat.Stat(ImageChops.difference(flat, few.convert("RGB"))).mean
    buffer = io.BytesIO()
    (few if max(change) <= MOST_CHANGE else flat).save(buffer, "PNG")  # photographs keep their colours
    return buffer.getvalue()
