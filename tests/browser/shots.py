"""Pictures of parts of a page, compared with those that were made before.

Letters differ from one machine to the next, and with them where everything lies. What is compared are therefore only parts whose
size does not depend on letters, with all text made clear: the sheets of images, and the figures, whose layout is matplotlib's with
its own font. Both are reduced to a quarter first, so that how an edge is smoothed does not count, and two things must hold: the
levels differ little in the mean, and hardly any spot differs much. `python tests/browser/record.py` makes them anew.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "shots"
REDUCED, MEAN, SPOT, SHARE = 4, 4.0, 48, 0.02  # in levels of 256
CLEAR = "* { color: transparent !important; transition: none !important } svg text, svg text * { fill: transparent !important }"


def taken(page: Any, selector: str) -> Image.Image:
    """That part of a page, without letters, reduced."""
    page.add_style_tag(content=CLEAR)
    shot = page.locator(selector).first.screenshot(animations="disabled")
    return Image.open(io.BytesIO(shot)).convert("RGB").reduce(REDUCED)


def difference(one: Image.Image, other: Image.Image) -> str:
    """How two pictures differ, in words; empty where they are the same to the eye."""
    if any(abs(a - b) > 1 for a, b in zip(one.size, other.size, strict=True)):
        return f"the size is {one.size}, not {other.size}"
    size = tuple(map(min, one.size, other.size))
    first, second = (np.asarray(picture.crop((0, 0, *size)), dtype=float) for picture in (one, other))
    apart = np.abs(first - second).max(axis=2)
    if apart.mean() > MEAN or (apart > SPOT).mean() > SHARE:
        return f"levels differ by {apart.mean():.1f} in the mean, {(apart > SPOT).mean():.1%} of the spots by more than {SPOT}"
    return ""


def unlike(page: Any, selector: str, name: str) -> str:
    """How a part of a page differs from its picture made before."""
    with Image.open(FOLDER / f"{name}.png") as before:
        return difference(taken(page, selector), before.convert("RGB"))
