"""`write_report`: a page of whatever lies at some paths: a run, several runs and sets, a comparison, a benchmark, complexities.

What a folder is is seen from its files. Whoever adds a kind of study adds a line to `KINDS` and a function that makes its
`Collection`.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from limbeck.distilled.set import DistilledSet
from limbeck.report.collection import Collection
from limbeck.report.contents import is_run
from limbeck.report.html import write_report as write_run
from limbeck.report.several import page_of
from limbeck.runtime.disk import of_disk
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import read_json, write_text
from limbeck.runtime.located import here, origin

PAGE = "report.html"
SEVERAL = "limbeck-report.html"
OURS = b'<meta name="generator" content="Limbeck">'
EARLIER = " – Limbeck</title>".encode()  # of reports of before
HEAD = 2**16  # bytes in which one of the two stands


def _of_runs(paths: Sequence[Path]) -> Collection:
    from limbeck.report.of_runs import runs

    return runs(paths)


def _of_comparison(paths: Sequence[Path]) -> Collection:
    from limbeck.report.of_grids import comparison

    return comparison(paths[0])


def _of_benchmark(paths: Sequence[Path]) -> Collection:
    from limbeck.report.of_grids import comp_dd

    return comp_dd(paths[0])


def _of_complexity(paths: Sequence[Path]) -> Collection:
    from limbeck.report.of_complexity import complexities

    return complexities(paths)


@dataclass(frozen=True)
class Kind:
    """What a folder can be.

    Args:
        name: in words, with its article.
        holds: whether a folder is that.
        show: the content of the page of one or several.
        several: whether several go on one page.
        place: whether the page of one lies in its folder.
    """

    name: str
    holds: Callable[[Path], bool]
    show: Callable[[Sequence[Path]], Collection]
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


RUN = "a run"
KINDS = (
    Kind("a benchmark of comp-dd", lambda path: (path / "comp-dd.json").is_file(), _of_benchmark),
    Kind("a comparison", lambda path: (path / "comparison.json").is_file(), _of_comparison),
    Kind("a result of complexity", lambda path: (path / "complexity.json").is_file(), _of_complexity, several=True),
    Kind("a benchmark of comp-dd", partial(_has_cells, subsets=True), _of_benchmark),
    Kind("a comparison", partial(_has_cells, subsets=False), _of_comparison),
    Kind("a distilled set", DistilledSet.is_at, _of_runs, several=True, place=False),
    Kind(RUN, is_run, _of_runs, several=True),
)
ACCEPTED = "a run folder, a distilled set, or the folder of a comparison, of comp-dd or of complexity"


def write_report(*paths: Path | str, output: Path | str | None = None) -> Path:
    """Write the page of a run, of several runs and distilled sets, or of the folder of a study; its path.

    Args:
        paths: folders: runs and distilled sets, as many as wanted; or one that `limbeck compare` or `limbeck comp-dd` has written,
            or some of `limbeck complexity`.
        output: the page; None takes `report.html` in the folder of a run or a study, and `limbeck-report.html` in the current
            folder for several, for a set alone, to which no file is added, and for what a URL names. A file that is no page of
            Limbeck's is kept.

    Raises:
        UsageError: when a folder is none of these, they do not go together, or the page cannot be written there.

    Example:
        >>> import torch
        >>> from limbeck import SmallSet
        >>> from limbeck.data.preprocessing import Identity
        >>> small = SmallSet.of_classes(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), 2, syn_lr=0.01)
        >>> held = DistilledSet(set=small, preprocessing=Identity(), class_names=("ant", "bee"))
        >>> print(write_report(held.save("a"), held.save("b")))
        limbeck-report.html
    """
    require(len(paths) > 0, "PATH", None, ACCEPTED)
    places = [Path(here("PATH", str(path))) for path in paths]
    kinds = [kind_of(path) for path in places]
    if twice := next((path for number, path in enumerate(places) if path.resolve() in map(Path.resolve, places[:number])), None):
        raise UsageError(f"PATH: {str(twice)!r} is given twice")
    first = kinds[0]
    for path, kind in zip(places, kinds, strict=True):
        if kind.show is not first.show:
            raise UsageError(
                f"PATH: {str(places[0])!r} is {first.name} and {str(path)!r} is {kind.name}; only run folders and distilled sets "
                "go together"
            )
    require(len(places) == 1 or first.several, "PATH", str(places[-1]), f"possible beside another: {first.name} has its own page")
    alone = len(places) == 1 and first.place and origin(places[0]) is None  # a copy from elsewhere stays what it is
    target = Path(output) if output is not None else places[0] / PAGE if alone else Path(SEVERAL)
    check_target(target)
    try:
        if len(places) == 1 and first.name == RUN:
            return write_run(places[0], target)
        write_text(target, page_of(first.show(places)))
    except OSError as error:
        if of_disk(error):
            raise
        raise UsageError(f"--output: {str(target)!r} cannot be written: {error.strerror or error}") from error
    return target


def kind_of(path: Path) -> Kind:
    """What a folder is.

    Raises:
        UsageError: when it is nothing that a page can be made of.
    """
    if not path.exists():
        raise UsageError(f"PATH: {str(path)!r} is not there; {ACCEPTED} is accepted")
    found = next((kind for kind in KINDS if path.is_dir() and kind.holds(path)), None)
    if found is None:
        raise UsageError(f"PATH: {str(path)!r} is not {ACCEPTED}")
    return found


def check_target(path: Path) -> None:
    """Raise `UsageError` where something else than a page of ours is."""
    if not path.exists():
        return
    require(path.is_file(), "--output", str(path), "a file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UsageError(f"--output: {str(path)!r} cannot be read: {error.strerror}") from error
    if not (OURS in head or EARLIER in head):
        raise UsageError(f"--output: {str(path)!r} is there, and no page of Limbeck's; name another file")
