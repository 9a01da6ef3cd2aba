"""The page of several runs, sets or studies: what it shows, whatever that was read from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from limbeck.report.differences import Differences
from limbeck.report.lines import Chart
from limbeck.report.page import Part, render
from limbeck.report.side_by_side import Shelves
from limbeck.report.sortable import FACTS, Facts, SortableTable, filters


@dataclass(frozen=True)
class Drawing:
    """A figure: a name of letters and hyphens, title, `<svg>` of ours, and a sentence."""

    name: str
    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Verdict:
    """A sentence on what was decided, under which heading it stands (none where it is empty), and what it is filtered by."""

    text: str
    heading: str = ""
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Filter:
    """What can be chosen: the fact, what it is called, its values."""

    fact: str
    title: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Collection:
    """The content of a page.

    Args:
        title: what is shown.
        facts: about it, in a few words each.
        warnings: what a reader must know first, a sentence each.
        verdicts: what was decided; those of one heading follow each other.
        tables: to be sorted and filtered.
        charts: curves of several runs.
        drawings: figures.
        sets: the same classes of sets side by side.
        settings: in which runs differ.
        notes: on how things were measured, a sentence each.
    """

    title: str
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    tables: tuple[SortableTable, ...] = ()
    charts: tuple[Chart, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    sets: Shelves | None = None
    settings: Differences = field(default_factory=Differences)
    notes: tuple[str, ...] = ()

    @property
    def filters(self) -> tuple[Filter, ...]:
        """What the page can be narrowed down to."""
        facts: list[Facts] = [row.facts for table in self.tables for row in table.rows]
        facts += [line.facts for chart in self.charts for line in chart.curves]
        facts += [shelf.facts for shelf in self.sets.shelves] if self.sets else []
        return tuple(Filter(fact, FACTS[fact], tuple(values)) for fact, values in filters(facts).items())


def brief(table: SortableTable, *unless: str) -> SortableTable:
    """The table without the columns in which nothing is known, and without those of `unless` that say the same in every row."""

    def says(k: int) -> bool:
        cells = [row.cells[k] for row in table.rows]
        if table.columns[k].title in unless:
            return len({cell.text for cell in cells}) > 1
        return not all(cell.missing for cell in cells)

    kept = [k for k in range(len(table.columns)) if k == 0 or says(k)]
    columns = tuple(table.columns[k] for k in kept)
    rows = tuple(replace(row, cells=tuple(row.cells[k] for k in kept)) for row in table.rows)
    return replace(table, columns=columns, rows=rows)


def common(titles_and_values: Iterable[tuple[str, str | None]]) -> tuple[str, ...]:
    """Of what is known of each of many, that which is the same in all: a word for each kind."""
    of: dict[str, dict[str | None, None]] = {}
    for kind, value in titles_and_values:
        of.setdefault(kind, {})[value] = None
    return tuple(value for values in of.values() if len(values) == 1 for value in values if value)


def gathered(said: Iterable[tuple[str, str]]) -> list[str]:
    """Sentences of several, by the name of each: one that many have in common is said once, with whom it concerns."""
    of: dict[str, list[str]] = {}
    for name, sentence in said:
        of.setdefault(sentence, []).append(name)
    return [f"{listed(names)}: {sentence}" for sentence, names in of.items()]


def listed(names: Sequence[str], most: int = 5) -> str:
    """The names, of many the first."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def parts() -> tuple[Part[Collection], ...]:
    """The parts of the page, in their order."""
    return (
        _part("filters", "the filters", lambda shown: shown.filters),
        _part("verdicts", "what was decided", _verdicts),
        _part("tables", "the tables", lambda shown: shown.tables),
        _part("lines", "the curves", lambda shown: shown.charts),
        _part("drawings", "the figures", lambda shown: shown.drawings),
        _part("shelves", "the images", lambda shown: shown.sets),
        _part("differences", "the settings", _settings),
        _part("remarks", "the notes", lambda shown: shown.notes),
    )


def page_of(shown: Collection) -> str:
    """The page as text."""
    return render(parts(), shown, title=shown.title, facts=shown.facts, notices=shown.warnings)


def _part(name: str, called: str, make: Callable[[Collection], object]) -> Part[Collection]:
    return Part(name, called, make, scripts=("tables.js.j2", "several.js.j2"), styles=("several.css.j2",))


def _verdicts(shown: Collection) -> list[tuple[str, list[Verdict]]]:
    """By their headings."""
    return [(heading, list(those)) for heading, those in groupby(shown.verdicts, key=lambda one: one.heading)]


def _settings(shown: Collection) -> Differences | None:
    return shown.settings if shown.settings.variants else None
