"""Tables that the reader of a page sorts, filters and downloads: what stands in a cell, what it sorts by, and its interval."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from limbeck.accuracy import Accuracy, Comparison, points

MISSING = "–"
# What rows can be filtered by, in this order, and what that is called.
FACTS = {
    "method": "Method",
    "ipc": "Images per class",
    "seed": "Seed",
    "subset": "Subset",
    "source": "Images",
    "network": "Network",
}
Facts = Mapping[str, str]


@dataclass(frozen=True)
class Value:
    """What stands in a cell.

    Args:
        text: for people.
        number: what it sorts by, and what a download has; None where the text is all there is, or nothing is known.
        ends: of its interval, in the same unit.
        drawn: whether a drawn column shows it: what lies far from all others would leave these no room.
    """

    text: str = MISSING
    number: float | None = None
    ends: tuple[float, float] | None = None
    drawn: bool = True

    @property
    def missing(self) -> bool:
        """Whether nothing is known."""
        return self.text == MISSING and self.number is None


@dataclass(frozen=True)
class Column:
    """What a column is called; `words` are sorted as such, `drawn` intervals on one scale, with a line at `zero`."""

    title: str
    words: bool = False
    drawn: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Row:
    """Cells under the columns, and the facts that the row is filtered by."""

    cells: tuple[Value, ...]
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """Where a mean and its interval lie, in percent of the width."""

    at: float
    left: float
    width: float


@dataclass(frozen=True)
class SortableTable:
    """Rows under columns.

    Args:
        name: of letters, digits and hyphens, another for every table of a page.
        title: above it.
        columns: the first one names the row.
        rows: in the order that they are shown in first.
        caption: a sentence below it.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str = ""

    def __post_init__(self) -> None:
        assert all(len(row.cells) == len(self.columns) for row in self.rows), self.name

    def scale(self, number: int) -> tuple[float, float] | None:
        """From where to where a drawn column goes; None where it has nothing to draw."""
        column = self.columns[number]
        held = [one for row in self.rows if (one := row.cells[number]).drawn]
        known = [x for one in held for x in (one.number, *(one.ends or ())) if x is not None and math.isfinite(x)]
        if not column.drawn or not known:
            return None
        low, high = min([*known, *([0.0] if column.zero else [])]), max([*known, *([0.0] if column.zero else [])])
        margin = (high - low) / 20 or 1.0
        return low - margin if low < 0 else max(low - margin, 0.0), high + margin

    def drawn(self, number: int, value: Value) -> Drawn | None:
        """Where the value lies on the scale of its column."""
        scale = self.scales[number]
        if scale is None or value.number is None or not value.drawn or not math.isfinite(value.number):
            return None
        low, high = (_share(end, scale) for end in value.ends or (value.number, value.number))
        return Drawn(_share(value.number, scale), low, round(high - low, 2))

    def zero(self, number: int) -> float | None:
        """Where zero lies, if a line is to be drawn there."""
        scale = self.scales[number]
        return _share(0.0, scale) if scale is not None and self.columns[number].zero else None

    @cached_property
    def scales(self) -> tuple[tuple[float, float] | None, ...]:
        """That of every column."""
        return tuple(self.scale(number) for number in range(len(self.columns)))


def filters(rows: Sequence[Facts]) -> dict[str, list[str]]:
    """What can be filtered by: facts with at least two values, which are in the order of their numbers or of the rows."""
    found: dict[str, list[str]] = {}
    for fact in FACTS:
        values = list(dict.fromkeys(row[fact] for row in rows if fact in row))
        if len(values) > 1:
            found[fact] = sorted(values, key=int) if all(value.isdecimal() for value in values) else values
    return found


def of_share(share: float | None) -> Value:
    """A fraction, in percent."""
    return Value() if share is None or math.isnan(share) else Value(f"{100 * share:.1f}", 100 * share)


def of_accuracy(found: Accuracy, most: float = 100.0) -> Value:
    """Mean in percent with its interval, which of two networks may end where no accuracy does: it is cut there.

    Args:
        found: an accuracy, or another share.
        most: percent that it can be.
    """
    if not found.known:
        return Value()
    if found.all_failed:
        return Value("failed")
    low, high = (min(max(100 * end, 0.0), most) for end in found.ci95 or (found.mean, found.mean))
    return Value(found.with_margin, 100 * found.mean, None if found.ci95 is None else (low, high))


def of_difference(found: Comparison | None) -> Value:
    """Points with their interval."""
    if found is None:
        return Value()
    ends = None if found.ci95 is None else (100 * found.ci95[0], 100 * found.ci95[1])
    return Value(points(found.mean), 100 * found.mean, ends)


def of_number(value: float | None, form: Callable[[Any], str] | str = ".4g") -> Value:
    """A number as `form` writes it."""
    if value is None or not math.isfinite(value):
        return Value()
    return Value(format(value, form) if isinstance(form, str) else form(value), float(value))


def of_words(text: str | None) -> Value:
    """Words, or nothing."""
    return Value(text) if text else Value()


def of_whole(text: str | None) -> Value:
    """A whole number in words; words that are none as they are."""
    return of_number(int(text), "d") if text is not None and text.isdecimal() else of_words(text)


def _share(value: float, scale: tuple[float, float]) -> float:
    """Where a value lies on a scale, in percent of it."""
    return round(100 * (min(max(value, scale[0]), scale[1]) - scale[0]) / (scale[1] - scale[0]), 2)
