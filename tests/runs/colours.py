"""Images that are told apart by their colour."""

import numpy as np

from limbeck.data.imageset import ImageSet
from limbeck.data.split import whole


def images() -> ImageSet:
    """Noisy red, green and blue images, a batch of whose training is not full."""
    splits = []
    for seed, count in enumerate((7, 2, 3)):
        labels = np.arange(3).repeat(count)
        pixels = np.random.default_rng(seed).integers(0, 100, (3 * count, 3, 8, 8))
        pixels[np.arange(3 * count), labels] += 120
        splits.append(whole(pixels.astype(np.uint8), labels))
    return ImageSet(*splits, ("red", "green", "blue"), "colours", "fingerprint")
