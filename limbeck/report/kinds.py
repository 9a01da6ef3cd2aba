"""What a folder can be, which is seen from its files, and what is made of it: a page, or figures.

Whoever adds a kind of study adds a line to `KINDS`, a function that makes its `Collection`, and one that makes its figures.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from limbeck.distilled.set import DistilledSet
from limbeck.figures.exhibit import Exhibit
from limbeck.report.collection import Collection
from limbeck.report.contents import is_run
from limbeck.runtime.errors import UsageError, reason
from limbeck.runtime.files import read_json


def _of_runs(paths: Sequence[Path]) -> Collection:
    from limbeck.report.of_runs import runs

    return runs(paths)


def _of_comparison(paths: Sequence[Path]) -> Collection:
    from limbeck.report.of_grids import comparison

    return comparison(paths[0])


def _of_benchmark(paths: Sequence[Path]) -> Collection:
    from limbeck.report.of_grids import comp_dd

    return comp_dd(paths[0])


def _of_reproduction(paths: Sequence[Path]) -> Collection:
    from limbeck.report.of_reproduction import reproduction

    return reproduction(paths[0])


def _of_complexity(paths: Sequence[Path]) -> Collection:
    from limbeck.report.of_complexity import complexities

    return complexities(paths)


def _figures_of_set(path: Path) -> list[Exhibit]:
    from limbeck.report.exhibits_of_runs import of_set

    return of_set(DistilledSet.load(path))


def _figures_of_run(path: Path) -> list[Exhibit]:
    from limbeck.report.contents import read_run
    from limbeck.report.exhibits_of_runs import of_run

    return of_run(read_run(path))


def _figures_of_comparison(path: Path) -> list[Exhibit]:
    from limbeck.report.exhibits_of_studies import of_comparison

    return of_comparison(path)


def _figures_of_benchmark(path: Path) -> list[Exhibit]:
    from limbeck.report.exhibits_of_studies import of_benchmark

    return of_benchmark(path)


def _figures_of_reproduction(path: Path) -> list[Exhibit]:
    from limbeck.report.of_reproduction import exhibits

    return exhibits(path)


def _figures_of_complexity(path: Path) -> list[Exhibit]:
    from limbeck.report.exhibits_of_studies import of_complexity

    return of_complexity(path)


def _figures_of_experts(path: Path) -> list[Exhibit]:
    from limbeck.report.exhibits_of_studies import of_experts

    return of_experts(path)


@dataclass(frozen=True)
class Kind:
    """What a folder can be.

    Args:
        name: in words, with its article.
        holds: whether a folder is that.
        show: the content of the page of one or several; None where there is no page of it.
        draw: the figures of one.
        several: whether several go on one page.
        place: whether the page of one lies in its folder.
    """

    name: str
    holds: Callable[[Path], bool]
    show: Callable[[Sequence[Path]], Collection] | None
    draw: Callable[[Path], list[Exhibit]]
    several: bool = False
    place: bool = True


def _has_cells(path: Path, *, subsets: bool) -> bool:
    """Whether a folder has finished cells of a grid, over subsets or not."""
    found = next((path / "cells").glob("*.json"), None)
    if found is None:
        return False
    with suppress(OSError, ValueError, LookupError, TypeError):
        return ("subset" in read_json(found)["facts"]) == subsets
    return not subsets


def _has(file: str, path: Path) -> bool:
    return (path / file).is_file()


def _has_experts(path: Path) -> bool:
    return next(path.glob("expert-*"), None) is not None


RUN = "a run"
COMP_DD, COMPARED = (_of_benchmark, _figures_of_benchmark), (_of_comparison, _figures_of_comparison)
KINDS = (
    Kind("a reproduction", partial(_has, "reproduction.json"), _of_reproduction, _figures_of_reproduction),
    Kind("a benchmark of comp-dd", partial(_has, "comp-dd.json"), *COMP_DD),
    Kind("a comparison", partial(_has, "comparison.json"), *COMPARED),
    Kind("a result of complexity", partial(_has, "complexity.json"), _of_complexity, _figures_of_complexity, several=True),
    Kind("a benchmark of comp-dd", partial(_has_cells, subsets=True), *COMP_DD),
    Kind("a comparison", partial(_has_cells, subsets=False), *COMPARED),
    Kind("a distilled set", DistilledSet.is_at, _of_runs, _figures_of_set, several=True, place=False),
    Kind("a store of experts", _has_experts, None, _figures_of_experts),
    Kind(RUN, is_run, _of_runs, _figures_of_run, several=True),
)
SHOWN = "a run folder, a distilled set, or the folder of a comparison, of comp-dd, of a reproduction or of complexity"
DRAWN = "a run folder, a distilled set, or the folder of a comparison, of comp-dd, of a reproduction, of complexity or of experts"


def kind_of(path: Path, accepted: str = SHOWN) -> Kind:
    """What a folder is.

    Raises:
        UsageError: when it is nothing that anything can be made of.
    """
    if not os.path.exists(path):
        raise UsageError(f"PATH: {str(path)!r} is not there; {accepted} is accepted")
    found = next((kind for kind in KINDS if path.is_dir() and kind.holds(path)), None)
    if found is None:
        raise UsageError(f"PATH: {str(path)!r} is not {accepted}")
    return found


@contextmanager
def as_usage(places: Sequence[Path], kind: Kind) -> Iterator[None]:
    """Say in a sentence what is wrong with folders whose files are whole, but hold something else than `kind` writes."""
    try:
        yield
    except (UsageError, OSError):
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = ", ".join(repr(str(path)) for path in places)
        raise UsageError(f"PATH: {said} holds something else than {kind.name}: {reason(error)}") from error
