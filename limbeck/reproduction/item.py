"""What an item of the paper is: the rows of a grid, what is measured of its cells, and the claims with their tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from limbeck.reproduction.claims import At, Claim, Size, above

Places = Literal["main", "parts", "levels", "easy"]
EDF, DATM, FTD, MTT, RANDOM = map(At, ("edf", "datm", "ftd", "mtt", "random"))
ALONE = {"enhance.weighting": "none"}  # a criterion without weights
NETWORKS = ("ResNet18", "VGG11", "AlexNet")  # other architectures than the one that is distilled for


@dataclass(frozen=True)
class Row:
    """A method with what replaces its settings.

    Args:
        label: what it is called in tables and claims.
        method: its name.
        overrides: settings by dotted keys, as typed.
        also: numbers of images per class that it runs at beside those of its item, where the scale has them.
        without: those of its item that it does not run at.
    """

    label: str
    method: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    also: tuple[Size, ...] = ()
    without: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Item:
    """A table or a figure of the paper.

    Args:
        name: as it is asked for.
        title: in a few words.
        rows: of its grid.
        claims: with their tests.
        sizes: numbers of images per class, as a scale calls them; empty takes its main ones.
        places: the sources that it runs on, as a scale calls them.
        measures: of its cells, beside their accuracy (`measures.py`).
        shown: values that stand in its table, in this order.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    sizes: tuple[Size, ...] = ()
    places: Places = "main"
    measures: tuple[str, ...] = ()
    shown: tuple[str, ...] = ("accuracy",)


def own(*methods: str) -> tuple[Row, ...]:
    """Methods as they are."""
    return tuple(Row(name, name) for name in methods)


def of_edf(said: str, key: str, values: Sequence[object]) -> tuple[Row, ...]:
    """EDF with every value of one key."""
    return tuple(Row(f"{said}={value}", "edf", {key: str(value)}) for value in values)


def rows_at(said: str, values: Sequence[object]) -> list[At]:
    """Where the accuracies of those lie."""
    return [At(f"{said}={value}") for value in values]


def of_value(one: At, value: str) -> At:
    """Another value of the same cells."""
    return replace(one, value=value)


def easy(one: At) -> At:
    """The same of easy images."""
    return replace(one, place="easy")


def hard(one: At) -> At:
    """The same of hard images."""
    return replace(one, place="hard")


def better(a: At, b: At, text: str = "", section: str = "a") -> Claim:
    """That a row's accuracy is above another's."""
    said = text or f"{a.row.upper()} is better than {b.row.upper()}."
    return Claim(f"{a.row}-above-{b.row}", section, said, (above(a, b),))
