"""Python's own warnings as lines for people: one for a kind of event, with how often it came and to what.

    warning: Corrupt EXIF data. Expecting to read 4 bytes but only got 0. (PIL, 3 times: a.jpg, b.jpg, …)

A library's warning is a path, a category and a line of somebody's source, once for every place and text. Inside of `gathered` they
are counted instead, by category, library and text without its numbers and names; processes that do work of this one hand theirs
back with the result (`watched`). What only concerns whoever writes programs is not said at all. Filters stay as they are: where
warnings are errors they are raised, and whoever has set filters by `-W` or PYTHONWARNINGS sees what Python shows.
"""

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, TypeVar

from limbeck.runtime.terminal import harmless

J = TypeVar("J")
R = TypeVar("R")
EXAMPLES, LONGEST = 2, 300
OF_PROGRAMS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning, BytesWarning)
# What is so by design, and nobody who distils images can do anything about.
HARMLESS = re.compile(
    r"lr_scheduler\.step\(\)|torch\.meshgrid|Online softmax is disabled|TensorFloat32 tensor cores|is not writable|"
    r"worker stopped while some jobs|functools\.lru_cache"
)


def kind_of(text: str) -> str:
    """A message without its names, paths and numbers: equal for events of one kind."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\d[\d.,e+-]*", "#", text)


def by_kind(said: Mapping[str, str]) -> list[str]:
    """What is said of things by name, a line for each kind of message, in the first one's words and with examples."""
    of: dict[str, list[str]] = {}
    for name, message in said.items():
        of.setdefault(kind_of(message), []).append(name)
    lines = []
    for names in of.values():
        more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
        lines.append(f"{', '.join(names[:EXAMPLES])}{more}: {said[names[0]]}")
    return lines


@dataclass(frozen=True)
class Notice:
    """A kind of event.

    Args:
        text: of the first, in one line.
        origin: the library; empty for Limbeck's own.
        category: the class of warning, by name.
        count: how often.
        about: what the first ones concerned, where that is known.
    """

    text: str
    origin: str
    category: str
    count: int = 1
    about: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[str, str, str]:
        """Equal for events of one kind."""
        return self.category, self.origin, kind_of(self.text)

    def joined(self, other: "Notice") -> "Notice":
        """Both together, said in this one's words."""
        about = tuple(dict.fromkeys((*self.about, *other.about)))[: EXAMPLES + 1]
        return replace(self, count=self.count + other.count, about=about)

    def __str__(self) -> str:
        """A line, with examples where there are any."""
        times = f"{self.count} times" if self.count > 1 else ""
        shown = ", ".join(self.about[:EXAMPLES]) + (", …" if len(self.about) > EXAMPLES else "")
        told = ": ".join(part for part in (times, shown) if part)
        more = ", ".join(part for part in (self.origin, told) if part)
        return f"warning: {self.text}" + (f" ({more})" if more else "")


class _Gathering:
    """What has been warned of, by kind."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str, str], Notice] = {}
        self.about: str | None = None

    def show(self, message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        """In the place of `warnings.showwarning`."""
        text = " ".join(str(message).split())[:LONGEST] or category.__name__
        if not issubclass(category, OF_PROGRAMS) and not HARMLESS.search(text):
            self.take([Notice(text, _origin(filename, category), category.__name__, 1, (self.about,) if self.about else ())])

    def take(self, found: Sequence[Notice]) -> None:
        """Count them."""
        for one in found:
            self.held[one.kind] = self.held[one.kind].joined(one) if one.kind in self.held else one


_under_way: list[_Gathering] = []  # the innermost last


@contextmanager
def gathered(say: Callable[[str], None]) -> Iterator[None]:
    """Gather Python's warnings inside the block and `say` at its end, however it ends, a line for each kind.

    Inside of another such block, or where somebody has set filters for the whole process, nothing is changed.
    """
    if _under_way or sys.warnoptions:
        yield
        return
    with _gathering() as found:
        try:
            yield
        finally:
            for one in found.held.values():
                say(str(one))


def logged(line: str) -> None:
    """Say a line by `logging`, as the logger `limbeck`: what gathers in Python's calls is said so."""
    logging.getLogger("limbeck").warning(harmless(line.removeprefix("warning: ")))


@contextmanager
def about(name: str) -> Iterator[None]:
    """Warnings inside the block concern what is called so."""
    if not _under_way:
        yield
        return
    gathering = _under_way[-1]
    before, gathering.about = gathering.about, name
    try:
        yield
    finally:
        gathering.about = before


def watched(work: Callable[[J], R], job: J) -> tuple[R, list[Notice]]:
    """`work(job)`, done for another process, and what was warned of meanwhile."""
    if sys.warnoptions:
        return work(job), []
    with _gathering() as found:
        return work(job), list(found.held.values())


def received(result: tuple[R, list[Notice]]) -> R:
    """The result of `watched` work; its warnings are counted here, or said again where nobody gathers any."""
    value, found = result
    if _under_way:
        _under_way[-1].take(found)
    else:
        for one in found:
            warnings.warn(str(one).removeprefix("warning: "), stacklevel=2)
    return value


@contextmanager
def _gathering() -> Iterator[_Gathering]:
    found = _Gathering()
    with warnings.catch_warnings():
        # Behind all filters that there are: each event counts, not the first of a place.
        warnings.simplefilter("always", append=True)
        warnings.showwarning = found.show
        _under_way.append(found)
        try:
            yield found
        finally:
            _under_way.remove(found)


def _origin(filename: str, category: type[Warning]) -> str:
    """The library that warns: whose class the warning is, or whose file it came from."""
    of_class = category.__module__.partition(".")[0]
    if of_class not in ("builtins", "limbeck"):
        return of_class
    parts = PurePath(filename).parts
    if "limbeck" in parts:
        return ""
    places = [at for at, part in enumerate(parts) if part in ("site-packages", "dist-packages")]
    return parts[places[-1] + 1].removesuffix(".py") if places and places[-1] + 1 < len(parts) else PurePath(filename).stem
