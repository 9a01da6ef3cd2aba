"""Images for the page, as data URIs.

A page must stay small enough to be sent to somebody: what is shown is limited by number and by bytes, and what is left out is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from limbeck.accuracy import percent
from limbeck.distilled.preview import picture, quantise
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.tables import uri

MOST_PER_CLASS, MOST_CLASSES, LARGEST_SIDE = 10, 100, 128
BUDGET = 3_000_000  # bytes of pixels


@dataclass(frozen=True)
class Shown:
    """Which images are shown: `positions` by class, and of how many."""

    names: tuple[str, ...]
    positions: tuple[tuple[int, ...], ...]
    totals: tuple[int, ...]
    classes: int

    @property
    def note(self) -> str:
        """What is left out, in a sentence, or nothing."""
        more = [f"{len(self.names)} of {self.classes} classes"] if len(self.names) < self.classes else []
        most, shown = max(self.totals), max(len(row) for row in self.positions)
        more += [f"{shown} of up to {most} images of a class"] if shown < most else []
        return f"Shown are {' and '.join(more)}." if more else ""

    @property
    def side(self) -> int:
        """How wide an image is drawn: the fewer there are, the wider."""
        count = sum(len(row) for row in self.positions)
        return 90 if count <= 24 else 64 if count <= 60 else 44


def choose(classes: np.ndarray, names: Sequence[str], image_bytes: int) -> Shown:
    """The first images of the first classes, at most `MOST_PER_CLASS` of each and `BUDGET` bytes in all."""
    shown = max(1, min(len(names), MOST_CLASSES, BUDGET // image_bytes))
    per_class = max(1, min(MOST_PER_CLASS, BUDGET // (shown * image_bytes)))
    rows = [np.flatnonzero(classes == k).tolist() for k in range(shown)]
    return Shown(tuple(names[:shown]), tuple(tuple(row[:per_class]) for row in rows), tuple(len(row) for row in rows), len(names))


@dataclass(frozen=True)
class Tile:
    """An image of a class for the page: a data URI, and its label in words."""

    source: str
    label: str


@dataclass(frozen=True)
class Gallery:
    """Images by the name of their class, how large they are, how wide they are drawn, and a note on what is left out."""

    groups: tuple[tuple[str, tuple[Tile, ...]], ...]
    height: int
    width: int
    side: int
    note: str


def gallery(held: DistilledSet) -> Gallery:
    """The distilled set for the page."""
    channels, height, width = held.shape
    size = within(height, width, LARGEST_SIDE)
    shown = choose(held.classes.cpu().numpy(), held.class_names, channels * size[0] * size[1])
    levels, labels = quantise(held.to_pixels()), held.probabilities().cpu()
    groups = (
        (name, tuple(Tile(uri(resized(levels[i], size)), _label(labels[i], held.class_names)) for i in positions))
        for name, positions in zip(shown.names, shown.positions, strict=True)
    )
    return Gallery(tuple(groups), *size, shown.side, shown.note)


def within(height: int, width: int, largest: int) -> tuple[int, int]:
    """Height and width, reduced in proportion so that neither is above `largest`."""
    scale = min(1.0, largest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(levels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The picture of a uint8 image (H, W, C) at `size` (height, width)."""
    image = picture(levels)
    return image if size == levels.shape[:2] else image.resize((size[1], size[0]), Image.Resampling.BOX)


def _label(probabilities: Tensor, names: Sequence[str]) -> str:
    """The one to three likeliest classes of a label, with their shares."""
    values, order = probabilities.topk(min(3, len(names)))
    return ", ".join(f"{names[k]} {percent(p)}" for p, k in zip(values.tolist(), order.tolist(), strict=True) if p >= 0.005)
