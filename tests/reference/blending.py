"""Scenes pixel by pixel: what is drawn over a background, given the ink and the candidates for its colour."""

import numpy as np


def blended(background: np.ndarray, ink: np.ndarray, colours: np.ndarray, contrast: float) -> np.ndarray:
    """One image (3, H, W) as floats, for a background (H, W, 3) in 0 … 255, ink (H, W) in [0, 1] and colours (n, 3) in [0, 1]."""
    height, width = ink.shape
    under = [sum(ink[y, x] * background[y, x, c] for y in range(height) for x in range(width)) / ink.sum() / 255 for c in range(3)]
    distances = [(sum((colour[c] - under[c]) ** 2 for c in range(3)) / 3) ** 0.5 for colour in colours]
    first = next((i for i, distance in enumerate(distances) if distance >= contrast), int(np.argmax(distances)))
    image = np.empty((3, height, width))
    for c in range(3):
        for y in range(height):
            for x in range(width):
                image[c, y, x] = (1 - ink[y, x]) * background[y, x, c] + ink[y, x] * 255 * colours[first, c]
    return image
