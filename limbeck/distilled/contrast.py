"""How a set's images are shown: as pixels, by the inverse of their preprocessing, with one contrast for the whole set.

Distilled images are free to leave what a camera can record. Where at most `FEW` of their values p are below 0 (black) or above 1
(white), these are cut off. Where more are, and an eye would see black and white alone, the set is shown with less contrast,

    level = 255 (p − low) / (high − low)        low = min(0, q), high = max(1, q'),

where all but `FEW` of the values lie between the quantiles q and q'. The contrast is never raised, all channels have the same, so
that colours stay, and whoever shows a set says which it is.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from limbeck.accuracy import percent
from limbeck.data.preprocessing import Normalise, Preprocessing, Whiten
from limbeck.distilled.small_set import NamedSet

FEW = 0.01
HALF = 0.5 / 255  # of a level: what rounding takes away is not cut off
LOOKED_AT = 2**22  # values, evenly, that quantiles are taken of


@dataclass(frozen=True)
class Contrast:
    """From what to what values are shown.

    Args:
        low: what is shown as the darkest; 0 where the contrast is that of the pixels.
        high: what is shown as the brightest; 1 likewise.
        outside: the share of the set's values that are darker than black or brighter than white.
        cut: the share that is cut off as it is shown.
    """

    low: float = 0.0
    high: float = 1.0
    outside: float = 0.0
    cut: float = 0.0

    @classmethod
    def of(cls, pixels: Tensor) -> "Contrast":
        """The contrast for a set of these pixels, finite floats of any shape, not clamped."""
        outside = _beyond(pixels, 0.0, 1.0)
        if outside <= FEW:
            return cls(outside=outside, cut=outside)
        values = pixels.detach().flatten()
        some = values[:: -(-len(values) // LOOKED_AT)].double().cpu().numpy()
        q, above = np.quantile(some, [FEW / 2, 1 - FEW / 2])
        low, high = min(0.0, float(q)), max(1.0, float(above))
        return cls(low, high, outside, _beyond(pixels, low, high))

    @property
    def reduced(self) -> bool:
        """Whether it is less than that of the pixels."""
        return (self.low, self.high) != (0.0, 1.0)

    def levels(self, pixels: Tensor) -> np.ndarray:
        """Float pixels (N, C, H, W), not clamped, as uint8 with shape (N, H, W, C), rounded to the nearest of the levels."""
        shown = (pixels - self.low) / (self.high - self.low) if self.reduced else pixels
        levels: np.ndarray = (shown.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return levels

    def cuts(self, pixels: Tensor) -> float:
        """The share of these values that is cut off where they are shown with this contrast."""
        return _beyond(pixels, self.low, self.high)

    @property
    def short(self) -> str:
        """That the contrast is another than that of the pixels, or nothing."""
        return f"Shown from {_number(self.low)} to {_number(self.high)}." if self.reduced else ""

    def __str__(self) -> str:
        if not self.reduced:
            cut = ", and cut off" if self.cut else ""
            return f"The contrast is the images' own: {_share(self.cut)} darker than black or brighter than white{cut}."
        return (
            f"{_share(self.outside).capitalize()} darker than black (0) or brighter than white (1), so that all images of the set "
            f"are shown with less contrast, from {_number(self.low)} to {_number(self.high)}; {_share(self.cut)} cut off."
        )


def shown(held: NamedSet) -> tuple[np.ndarray, Contrast]:
    """The images of a set as people expect them, uint8 with shape (N, H, W, C), and with which contrast they are shown."""
    pixels = held.preprocessing.inverse(held.set.images.float())
    contrast = Contrast.of(pixels)
    return contrast.levels(pixels), contrast


def told(preprocessing: Preprocessing, contrast: Contrast) -> str:
    """How images are shown, in sentences."""
    taken = "whitened" if isinstance(preprocessing, Whiten) else "normalised" if isinstance(preprocessing, Normalise) else ""
    undone = f"Networks take these images {taken}; they are shown as pixels. " if taken else ""
    return f"{undone}{contrast}"


def _beyond(pixels: Tensor, low: float, high: float) -> float:
    """The share of values that lie outside, by more than rounding."""
    margin = HALF * (high - low)
    return float(((pixels < low - margin) | (pixels > high + margin)).double().mean())


def _share(share: float) -> str:
    """A share of values, so that what is there is never told as nothing."""
    if share == 0:
        return "no value is"
    return f"{'less than 0.1 %' if share < 0.001 else percent(share)} of the values are"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
