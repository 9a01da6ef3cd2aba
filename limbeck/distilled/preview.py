"""`preview.png`: every class a row of its images, the class's name at the left; small images enlarged without smoothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from limbeck.distilled.contrast import shown as contrasted
from limbeck.distilled.small_set import NamedSet

if TYPE_CHECKING:
    from PIL import Image, ImageFont

MOST_IMAGES, MOST_CLASSES = 20, 200
READABLE = 64  # pixels: a shorter side than this is enlarged by a whole number
GAP, TEXT = 4, 15
WIDEST_NAME = 240
INK, PAPER = (31, 35, 40), (255, 255, 255)


def quantise(pixels: Tensor) -> np.ndarray:
    """Float pixels (N, C, H, W) as uint8 with shape (N, H, W, C), rounded to the nearest of the levels 0 … 255."""
    levels: np.ndarray = (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return levels


def picture(levels: np.ndarray) -> Image.Image:
    """A uint8 image (H, W, C) for Pillow: colour for C = 3, else the mean over the channels in grey."""
    from PIL import Image

    if levels.shape[2] == 3:
        return Image.fromarray(np.ascontiguousarray(levels))
    return Image.fromarray(levels.mean(axis=2).round().astype(np.uint8))


def preview(held: NamedSet) -> Image.Image:
    """The picture of a distilled set: at most 20 images of each of at most 200 classes, and a note on what is left out."""
    from PIL import Image, ImageDraw

    (images, contrast), classes = contrasted(held), held.set.classes.cpu().numpy()
    shown = min(len(held.class_names), MOST_CLASSES)
    rows = [np.flatnonzero(classes == k)[:MOST_IMAGES] for k in range(shown)]
    factor = max(1, -(-READABLE // min(images.shape[1:3])))
    height, width = (side * factor for side in images.shape[1:3])
    labels = [_label(name, k) for k, name in enumerate(held.class_names[:shown])]
    name_width = max(_length(text, font) for text, font in labels) + 2 * GAP
    block = name_width + max(len(row) for row in rows) * (width + GAP) + 3 * GAP
    row_height = height + GAP
    # So that the sheet is about half as wide again as high.
    columns = min(shown, max(1, round(math.sqrt(1.5 * shown * row_height / block))))
    lines = -(-shown // columns)
    note = " ".join(filter(None, (_note(held, shown), contrast.short)))
    sheet = Image.new("RGB", (columns * block + GAP, lines * row_height + GAP + (2 * TEXT if note else 0)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for k, row in enumerate(rows):
        left, top = k // lines * block + GAP, k % lines * row_height + GAP
        text, font = labels[k]
        draw.text((left + name_width - 2 * GAP, top + height // 2), text, fill=INK, font=font, anchor="rm")
        for position, index in enumerate(row):
            tile = picture(images[index]).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + name_width + position * (width + GAP), top))
    if note:
        draw.text((2 * GAP, lines * row_height + TEXT // 2), note, fill=INK, font=_font("a"))
    return sheet


def _note(held: NamedSet, shown: int) -> str:
    more = [f"{len(held.class_names) - shown} more classes"] if shown < len(held.class_names) else []
    more += [f"up to {held.set.ipc - MOST_IMAGES} more images of a class"] if held.set.ipc > MOST_IMAGES else []
    return f"Not shown: {' and '.join(more)}." if more else ""


def _label(name: str, k: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The name on one line, cut to a sensible width, and a font that has its letters; else the class's number."""
    text = " ".join(name.split())
    font = _font(text)
    if font is None:
        text, font = f"class {k}", _font("a")
    assert font is not None  # "a" is in every font of matplotlib's
    if _length(text, font) > WIDEST_NAME:
        while text and _length(text + "…", font) > WIDEST_NAME:
            text = text[:-1]
        text += "…"
    return text, font


def _length(text: str, font: ImageFont.FreeTypeFont) -> int:
    return int(font.getlength(text)) + 1


def _font(text: str) -> ImageFont.FreeTypeFont | None:
    """The first font with every letter of `text`: the one that comes with matplotlib, then those of the system."""
    import matplotlib

    if found := _opened(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), text):
        return found
    from matplotlib.font_manager import findSystemFonts  # here, because importing it reads every font once

    return next(filter(None, (_opened(path, text) for path in sorted(findSystemFonts()))), None)


def _opened(path: str, text: str) -> ImageFont.FreeTypeFont | None:
    """The font in that file, unless it lacks a letter of `text` or cannot be used."""
    from matplotlib.ft2font import FT2Font
    from PIL import ImageFont

    try:
        return ImageFont.truetype(path, TEXT) if {ord(c) for c in text} <= FT2Font(path).get_charmap().keys() else None
    except (RuntimeError, OSError):
        return None
