"""Bringing images to one size, bilinear and antialiased: squashed, as the field does, or with their aspect ratio kept."""

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


def resized(image: "Image", height: int, width: int, crop: str = "squash") -> np.ndarray:
    """A grey or colour image as uint8 with shape (C, height, width), C = 1 or 3.

    Args:
        image: in mode L or RGB.
        height, width: in pixels.
        crop: `squash` or `centre`, as `data.crop` says.
    """
    from PIL.Image import Resampling

    if image.size != (width, height):
        box = _centre(image, height, width) if crop == "centre" else None
        image = image.resize((width, height), Resampling.BILINEAR, box)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def resized_array(image: np.ndarray, height: int, width: int, crop: str = "squash") -> np.ndarray:
    """The same of an array, uint8 with shape (C, H, W)."""
    from PIL.Image import fromarray

    return resized(fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))), height, width, crop)


def _centre(image: "Image", height: int, width: int) -> tuple[float, float, float, float]:
    """The largest area in the middle that has the wanted shape: left, top, right, bottom."""
    scale = min(image.height / height, image.width / width)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    return max(left, 0.0), max(top, 0.0), min(left + scale * width, image.width), min(top + scale * height, image.height)
