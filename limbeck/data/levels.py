"""Images of more than eight bits: which of their numbers are black and white.

    byte of v     round(255 (v − black) / (white − black)), within 0 … 255

Both are what `data.range` says, or else what all such images of a source reach together, training and test images alike, whichever
of them `data.classes` and `data.per_class` take, so that one number means one grey everywhere (of a stream, which is not seen as a
whole, all images of the classes that are taken):

    floats, none outside of [0, 1]                             0 and 1
    none outside of 0 … 255, and one of 128 or above           0 and 255: bytes that are kept in wider numbers
    others                                                     the least and the greatest of them
"""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress

ROUNDING = 1e-6  # by which a float may leave [0, 1]
HALF = 128  # bytes that reach no further are rather numbers of another kind
COARSE = 32  # grey levels of a typical image, below which it is said how few they are


class Levels(NamedTuple):
    """The numbers that are black and white."""

    black: float
    white: float

    def __str__(self) -> str:
        return f"{self.black:.6g} … {self.white:.6g}"


class Span(NamedTuple):
    """The least and the greatest number of one image, or of many, and whether they are floats."""

    low: float
    high: float
    floats: bool


def wanted_levels(settings: DataSettings) -> Levels | None:
    """What `data.range` asks for; None leaves it to the images."""
    if settings.range is None or isinstance(settings.range, tuple):
        return None if settings.range is None else Levels(*settings.range)
    return Levels(0.0, settings.range)


def found_levels(spans: Iterable[Span]) -> Levels:
    """What the images say that reach that far.

    Raises:
        UsageError: when some are floats and others are not.

    >>> found_levels([Span(12, 3071, False), Span(0, 4001, False)])
    Levels(black=0, white=4001)
    """
    held = list(spans)
    if len({span.floats for span in held}) > 1:
        raise UsageError(
            "data.range: null finds no range in common for images of whole numbers and others of floats; "
            f"data.range={max(span.high for span in held):.6g} would take that for white in both"
        )
    low, high = min(span.low for span in held), max(span.high for span in held)
    if held[0].floats and low >= -ROUNDING and high <= 1 + ROUNDING:
        return Levels(0.0, 1.0)
    if low >= 0 and HALF <= high <= 255:
        return Levels(0.0, 255.0)
    return Levels(low, high if high > low else low + 1)


def span_of(values: np.ndarray) -> Span:
    """How far the numbers of one image, or of several, reach.

    Raises:
        ValueError: when one is not finite.
    """
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("it has numbers that are not finite")
    return Span(low, high, values.dtype.kind == "f")


def shares(values: np.ndarray, levels: Levels) -> np.ndarray:
    """0 for black to 1 for white, in floats."""
    exact = values if values.dtype.kind == "f" and values.dtype.itemsize > 2 else values.astype(_wider(values.dtype))
    if levels != (0, 1):
        exact = (exact - levels.black) / (levels.white - levels.black)
    found: np.ndarray = exact.clip(0, 1)
    return found


def _wider(kind: np.dtype) -> type:
    return np.float32 if kind.kind == "f" else np.float64


def told(spans: Sequence[Span], levels: Levels, total: int, given: bool) -> list[str]:
    """What is said of images of more than eight bits: how many, which numbers are black and white, and whether that is coarse.

    Nothing of bytes that are kept in wider numbers: they are what they were.
    """
    if not given and levels == (0, 255) and not any(span.floats for span in spans):
        return []
    whole = f"{len(spans)} of {total} images have more than 8 bits"
    low, high = min(span.low for span in spans), max(span.high for span in spans)
    if given:
        cut = sum(span.low < levels.black or span.high > levels.white for span in spans)
        beyond = f"; {cut} of them have numbers outside, from {low:.6g} to {high:.6g}, which become black or white" if cut else ""
        return [f"{'warning' if cut else 'note'}: {whole}: {levels} is black to white, as data.range says{beyond}"]
    said = f"{whole} and numbers from {low:.6g} to {high:.6g}: {levels} is black to white, in 256 levels"
    typical = median(span.high - span.low for span in spans) / (levels.white - levels.black) * 256
    if typical >= COARSE:
        return [f"note: {said}"]
    few = f"of which a typical image has no more than {max(1, round(typical))}"
    usual = median(span.low for span in spans), median(span.high for span in spans)
    advice = f"; data.range=[{usual[0]:.6g},{usual[1]:.6g}] gives it all of them" if f"{usual[0]:.6g}" != f"{usual[1]:.6g}" else ""
    return [f"warning: {said}, {few}{advice}"]


def say(notes: Iterable[str], source: object, progress: Progress) -> None:
    """Say notes, such as `warning: 3 of 9 images …`, of that source."""
    for note in notes:
        kind, _, text = note.partition(": ")
        progress.say(f"{kind}: {source}: {text}")
