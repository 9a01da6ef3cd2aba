"""Bringing images to one size: squashed, not cropped, as the field does; bilinear and antialiased."""

from typing import TYPE_CHECKING

import numpy as np

from limbeck.data.settings import DataSettings

if TYPE_CHECKING:
    from PIL.Image import Image


def wanted_sides(settings: DataSettings) -> tuple[int, int] | None:
    """(height, width) in pixels that `data.size` asks for; None where images stay as they are."""
    if settings.size is None or isinstance(settings.size, int):
        return None if settings.size is None else (settings.size, settings.size)
    height, width = settings.size
    return height, width


def squash(image: "Image", height: int, width: int) -> np.ndarray:
    """A grey or colour image as uint8 with shape (C, height, width), C = 1 or 3."""
    from PIL.Image import Resampling

    if image.size != (width, height):
        image = image.resize((width, height), Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
