"""The page of a `Collection`."""

from collections.abc import Callable
from itertools import groupby

from limbeck.report.collection import Collection, Verdict
from limbeck.report.differences import Differences
from limbeck.report.page import Part, render


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
