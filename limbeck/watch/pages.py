"""The pages that a watch shows: the list of runs, and each run's report with a line on how it is doing.

A page is made again only when there is something new to see, and so rarely that making pages takes a small share of the time,
whatever they hold.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from limbeck.report.contents import Run, read_run
from limbeck.report.html import page_of
from limbeck.report.page import Part, render
from limbeck.runtime.errors import UsageError, reason
from limbeck.runtime.records import Record
from limbeck.watch.look import Line, Looks

SHARE = 0.03  # of a core's time that making pages anew may take, of all runs together
EVERY = 2000
_making = Lock()  # figures are drawn by one thread at a time


@dataclass(frozen=True)
class Shown:
    """A page as it was made, from what (`Watched.mark`), and whether it only says why it could not be made."""

    mark: str
    text: str
    failed: bool = False


@dataclass(frozen=True)
class Live:
    """What the part of a page is made of that is kept up to date: the run's line, which state of it the page shows, and how often
    it asks for more, in milliseconds."""

    line: Line
    mark: str
    every: int


@dataclass(frozen=True)
class Listed(Record):
    """The rows of the list, and how often the page asks for them, in milliseconds."""

    lines: tuple[Line, ...]
    every: int


class Pages:
    """Makes and keeps pages.

    Args:
        looks: of the runs.
        share: of a core's time that making them anew may take.
        every: milliseconds between two questions of a page.
        clock, cost: seconds that have passed, and those of this thread's work.
    """

    def __init__(
        self,
        looks: Looks,
        share: float = SHARE,
        every: int = EVERY,
        clock: Callable[[], float] = time.monotonic,
        cost: Callable[[], float] = time.thread_time,
    ) -> None:
        self.looks, self.share, self.clock, self.cost = looks, share, clock, cost
        self._shown: dict[int, Shown] = {}
        self.every = every
        self._due = 0.0  # when a page may be made anew

    def mark(self, number: int) -> str:
        """What the page of a run would show if it were asked for now: the newest state, or still the last one that was made."""
        shown = self._shown.get(number)
        return shown.mark if shown is not None and self.clock() < self._due else self.looks.runs[number].mark

    def page(self, number: int) -> str:
        """The page of a run."""
        with _making:
            mark, shown = self.mark(number), self._shown.get(number)
            if shown is None or shown.mark != mark or (shown.failed and self.clock() >= self._due):
                began = self.cost()
                shown = self._shown[number] = self._made(number, mark)
                self._due = max(self._due, self.clock() + (self.cost() - began) / self.share)
            return shown.text

    def _made(self, number: int, mark: str) -> Shown:
        run, live = self.looks.runs[number], Live(self.looks.line(number), mark, self.every)
        part: Part[Run] = Part("live", "how it is doing", lambda _: live, ("watch.js.j2",), ("watch.css.j2",))
        try:
            return Shown(mark, page_of(read_run(run.path), before=(part,)))
        except UsageError:
            failed, why = False, f"There is no run in {run.name} yet. This page shows it once it has begun."
        except Exception as error:  # whatever such files lead to
            failed, why = True, f"The page of {run.name} cannot be made: {reason(error)}"
        alone: Part[Live] = Part("live", "how it is doing", lambda held: held, ("watch.js.j2",), ("watch.css.j2",))
        return Shown(mark, render((alone,), live, title=run.name, notices=[why]), failed)

    def listing(self) -> str:
        """The list of all runs."""
        part: Part[Listed] = Part("runs", "the runs", lambda held: held, ("watch.js.j2",), ("watch.css.j2",))
        return render((part,), Listed(self.lines(), self.every), title="Runs", facts=[f"{len(self.looks.runs)} watched"])

    def lines(self) -> tuple[Line, ...]:
        """What is to be said of all runs."""
        return tuple(self.looks.line(number) for number in range(len(self.looks.runs)))
