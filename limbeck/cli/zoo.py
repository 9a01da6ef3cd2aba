"""`limbeck zoo`: the distilled sets of the zoo, each with the figure of its card; `limbeck evaluate zoo:NAME` finds it again."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import Command
from limbeck.runtime.errors import Failure, UsageError, reason
from limbeck.runtime.terminal import console

if TYPE_CHECKING:
    from limbeck.distilled.card import Figure

COLUMNS = ("name", "method", "data", "images", "accuracy")  # with which a row has room in 80 columns


@dataclass(frozen=True)
class Shown:
    """A set of the zoo.

    Args:
        method, data, network: that it was made by, from and for.
        images: how many.
        figure: of its card; None where it has none.
        licence: of its images.
    """

    method: str
    data: str
    images: int
    network: str
    figure: "Figure | None"
    licence: str

    @property
    def row(self) -> tuple[str, ...]:
        """What a table shows of it, behind its name."""
        figure = "–" if self.figure is None else str(self.figure.accuracy)
        return (self.method, self.data, str(self.images), figure)


@dataclass(frozen=True)
class Zoo:
    """Its sets by name."""

    sets: Mapping[str, Shown]


def add_arguments(parser: ArgumentParser) -> None:
    """None but those of every command."""


def run(_: Namespace) -> Zoo:
    from limbeck.runtime.zoo import names

    return Zoo({name: _shown(name) for name in names()})


def _shown(name: str) -> Shown:
    """What the metadata of a set say; its tensors are not read."""
    from limbeck.distilled.card import FIGURE, LICENCE, Figure
    from limbeck.distilled.contents import METADATA, SET
    from limbeck.runtime.files import read_json
    from limbeck.runtime.zoo import place

    try:
        said = read_json(place("zoo", name) / METADATA, SET)
        settings: Mapping[str, Any] = said.get("settings") or {}
        figure = None if said.get(FIGURE) is None else Figure.from_dict(said[FIGURE])
        data, network = str((settings.get("data") or {}).get("source", "–")), str(settings.get("network", "–"))
        return Shown(str(said.get("method")), data, said["set"]["images"][0], network, figure, str(said.get(LICENCE, "unknown")))
    except UsageError:
        raise
    except Exception as error:  # a file that is no good leads to whatever its bytes lead to
        raise Failure(f"zoo: {name!r} cannot be read: {reason(error)}") from error


def show(found: Zoo) -> None:
    from limbeck.runtime.tables import Grid

    if not found.sets:
        print("the zoo holds nothing yet")
        return
    out = console(emoji=False, markup=False)
    out.print(Grid.of([COLUMNS, *((name, *one.row) for name, one in found.sets.items())]))
    of: dict[str, list[str]] = {}
    for name, one in found.sets.items():
        of.setdefault(one.licence, []).append(name)
    for licence, names in of.items():
        out.print(f"licence of {', '.join(names)}: {licence}", highlight=False)


COMMAND = Command(
    help="list the distilled sets of the zoo",
    add_arguments=add_arguments,
    run=run,
    show=show,
    examples={"limbeck zoo": "names, figures and licences; limbeck evaluate zoo:NAME finds a figure again"},
)
