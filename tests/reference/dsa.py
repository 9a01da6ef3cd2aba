"""Differentiable augmentation one pixel at a time, in float64, from the formulas of the operations."""

import math

import numpy as np


def color(image: np.ndarray, brightness: float, saturation: float, contrast: float) -> np.ndarray:
    """Brightness, then saturation, then contrast, of one image (C, H, W)."""
    image = image + brightness
    pixel_mean = image.mean(0)
    image = np.stack([pixel_mean + saturation * (channel - pixel_mean) for channel in image])
    return image.mean() + contrast * (image - image.mean())


def crop(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The image read at a shifted place, zero outside."""
    result = np.zeros_like(image)
    for i, j in np.ndindex(image.shape[1:]):
        if 0 <= i + down < image.shape[1] and 0 <= j + right < image.shape[2]:
            result[:, i, j] = image[:, i + down, j + right]
    return result


def cutout(image: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """The image with zeros in rows top … bottom − 1 and columns left … right − 1."""
    result = image.copy()
    for i, j in np.ndindex(image.shape[1:]):
        if top <= i < bottom and left <= j < right:
            result[:, i, j] = 0
    return result


def flip(image: np.ndarray, flipped: bool) -> np.ndarray:
    """The mirror image, if `flipped`."""
    width = image.shape[2]
    return np.stack([image[:, :, width - 1 - j] for j in range(width)], 2) if flipped else image


def scale(image: np.ndarray, down: float, right: float) -> np.ndarray:
    """The image read at places `down` and `right` times as far from its centre."""
    return _read(image, lambda y, x: (down * y, right * x))


def rotate(image: np.ndarray, angle: float) -> np.ndarray:
    """The image read at places turned by `angle` about its centre, in pixels."""
    cos, sin = math.cos(angle), math.sin(angle)
    return _read(image, lambda y, x: (cos * y + sin * x, -sin * y + cos * x))


def _read(image, where):
    channels, height, width = image.shape
    result = np.zeros_like(image)
    for i, j in np.ndindex(height, width):
        y, x = where(i - (height - 1) / 2, j - (width - 1) / 2)
        y, x = y + (height - 1) / 2, x + (width - 1) / 2
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    result[:, i, j] += (1 - abs(y - row)) * (1 - abs(x - column)) * image[:, row, column]
    return result
