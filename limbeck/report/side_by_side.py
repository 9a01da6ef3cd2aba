"""The same classes of several sets beside each other: for each a sheet of tiles, of which the page shows some classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.distilled.contrast import Contrast
from limbeck.distilled.set import DistilledSet
from limbeck.report.pictures import MOST_CLASSES, MOST_PER_CLASS
from limbeck.report.sheets import Sheet, resized, within
from limbeck.report.sortable import Facts
from limbeck.runtime.records import Record
from limbeck.runtime.tables import uri

BUDGET = 6_000_000  # bytes of pixels of all sets together
SIDES = (64, 48, 32, 24, 16)  # of tiles, the largest first
FEWEST = 3  # images of a class, rather than smaller tiles
SHOWN_FIRST = 10  # classes


@dataclass(frozen=True)
class Shelf(Record):
    """A set for the page.

    Args:
        name: of the run or set.
        facts: that it is filtered by.
        image: the sheet, a data URI.
        height, width: of a tile.
        columns: tiles beside each other.
        places: of every class of the page, the numbers of its tiles; empty where the set does not have it.
        contrast: with which one it is shown, where that is not the pixels' own.
    """

    name: str
    facts: Facts
    image: str
    height: int
    width: int
    columns: int
    places: tuple[tuple[int, ...], ...]
    contrast: str = ""


@dataclass(frozen=True)
class Shelves(Record):
    """Sets beside each other: the classes that they have, how many of those are shown at first, and a note on what is left out."""

    classes: tuple[str, ...]
    first: int
    shelves: tuple[Shelf, ...]
    note: str = ""


def shelves(sets: Sequence[tuple[str, Facts, DistilledSet]]) -> Shelves | None:
    """Sets by name, with their facts, for the page; None where there are none.

    Classes are the same where their names are. What would make the page too large is left out, which the note says.
    """
    if not sets:
        return None
    names = list(dict.fromkeys(name for _, _, held in sets for name in held.class_names))
    shown = names[:MOST_CLASSES]
    side, each = _fitting(sets, len(shown))
    made, cut = [], 0
    for name, facts, held in sets:
        own: dict[str, list[int]] = {}
        for k, label in enumerate(held.classes.tolist()):
            own.setdefault(held.class_names[label], []).append(k)
        taken = [own.get(label, [])[:each] for label in shown]
        cut = max(cut, max((len(rows) for rows in own.values()), default=0))
        positions = tuple(k for rows in taken for k in rows)
        sheet = Sheet(positions, within(*held.shape[1:], side), max(1, round(len(positions) ** 0.5)))
        pixels = held.preprocessing.inverse(held.images.float())
        contrast = Contrast.of(pixels)
        tiles = [resized(levels, sheet.size) for levels in contrast.levels(pixels[list(positions)])]
        image = uri(sheet.lay(tiles, tiles[0].mode)) if tiles else ""
        numbers = iter(range(len(positions)))
        places = tuple(tuple(next(numbers) for _ in rows) for rows in taken)
        made.append(Shelf(name, dict(facts), image, *sheet.size, sheet.columns, places, contrast.short))
    return Shelves(tuple(shown), min(len(shown), SHOWN_FIRST), tuple(made), _note(len(names), len(shown), cut, each, side, sets))


def _fitting(sets: Sequence[tuple[str, Facts, DistilledSet]], classes: int) -> tuple[int, int]:
    """The side of a tile, and how many images of a class: as many and as large as there is room for."""
    most = min(MOST_PER_CLASS, max(held.ipc for *_, held in sets))
    for side in SIDES:
        pixels = sum(held.shape[0] * _area(within(*held.shape[1:], side)) for *_, held in sets)
        each = BUDGET // (pixels * classes)
        if each >= min(FEWEST, most) or side == SIDES[-1]:
            return side, max(1, min(most, each))
    raise AssertionError("the last side is taken")


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _note(names: int, shown: int, most: int, each: int, side: int, sets: Sequence[tuple[str, Facts, DistilledSet]]) -> str:
    """What is left out, in sentences."""
    said = []
    if shown < names:
        said.append(f"The first {shown} of {names} classes can be shown.")
    if each < most:
        said.append(f"Of a class the first {each} of up to {most} images are shown.")
    if any(max(held.shape[1:]) > side for *_, held in sets):
        said.append(f"Images are reduced to {side} pixels.")
    return " ".join(said)
