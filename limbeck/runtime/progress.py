"""Progress with time left: rich bars in a terminal, plain lines elsewhere, nothing where nothing is wanted.

Everything is written to standard error, so that standard output stays free for `--json`.
"""

import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from limbeck.runtime.terminal import console, harmless


class Stage(ABC):
    """One stage that is under way."""

    @abstractmethod
    def advance(self, steps: int = 1, **facts: Any) -> None:
        """Count `steps` more; `facts` (such as `loss=0.93`) are shown beside the bar."""


class Progress(ABC):
    """Where stages report.

    Example:
        >>> from contextlib import contextmanager
        >>> class Names(Progress):
        ...     @contextmanager
        ...     def stage(self, name, total, done=0):
        ...         print(name)
        ...         yield NoStage()
        ...
        ...     def say(self, message):
        ...         print(message)
        >>> with Names().stage("distil", 10) as stage:
        ...     stage.advance()
        distil
    """

    @abstractmethod
    def stage(self, name: str, total: int, done: int = 0) -> Any:
        """A context manager that yields a `Stage` of `total` steps, `done` of which were done before."""

    @abstractmethod
    def say(self, message: str) -> None:
        """Show one line."""


class NoStage(Stage):
    """Counts nothing."""

    def advance(self, steps: int = 1, **facts: Any) -> None: ...


class NoProgress(Progress):
    """Shows nothing."""

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        yield NoStage()

    def say(self, message: str) -> None: ...


class LogStage(Stage):
    """Written to the log when it ends."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.facts = total, done, dict[str, Any]()

    def advance(self, steps: int = 1, **facts: Any) -> None:
        self.done += steps
        self.facts |= facts


class LogProgress(Progress):
    """Through `logging`, as the logger `limbeck`: stages and notes at INFO, warnings at WARNING. The default in Python.

    `logging.basicConfig(level=logging.INFO)` shows all, `logging.getLogger("limbeck").setLevel(logging.ERROR)` nothing.
    """

    logger = logging.getLogger("limbeck")

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        began, stage = time.monotonic(), LogStage(total, done)
        yield stage
        self.logger.info("%s: %d/%d in %s%s", name, stage.done, total, _clock(time.monotonic() - began), _facts(stage.facts))

    def say(self, message: str) -> None:
        warning = message.startswith("warning: ")
        message = harmless(message)
        self.logger.log(logging.WARNING if warning else logging.INFO, message.removeprefix("warning: ").removeprefix("note: "))


class PlainStage(Stage):
    """A line every ten seconds and one at the end."""

    def __init__(self, name: str, total: int, done: int, every: float = 10.0) -> None:
        self.name, self.total, self.first, self.done, self.every = name, total, done, done, every
        self.began = self.last = time.monotonic()
        self.facts: dict[str, Any] = {}

    def advance(self, steps: int = 1, **facts: Any) -> None:
        self.done += steps
        self.facts |= facts
        now = time.monotonic()
        if now - self.last >= self.every and self.done < self.total:
            self.last = now
            left = (now - self.began) / max(self.done - self.first, 1) * (self.total - self.done)
            _print(f"{self.name}: {self.done}/{self.total}, {_clock(left)} left{_facts(self.facts)}")

    def close(self) -> None:
        """Say that the stage has ended, and after how long."""
        _print(f"{self.name}: {self.done}/{self.total} in {_clock(time.monotonic() - self.began)}{_facts(self.facts)}")


class PlainProgress(Progress):
    """Plain lines, for logs and pipes."""

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        stage = PlainStage(name, total, done)
        yield stage
        stage.close()

    def say(self, message: str) -> None:
        _print(message)


class RichStage(Stage):
    """A bar with the time left and the latest facts."""

    def __init__(self, bars: Any, name: str, total: int, done: int) -> None:
        self.bars, self.facts = bars, dict[str, Any]()
        self.task = bars.add_task(name, total=total, completed=done, facts="")

    def advance(self, steps: int = 1, **facts: Any) -> None:
        self.facts |= facts
        self.bars.update(self.task, advance=steps, facts=_facts(self.facts).removeprefix(", "))


class RichProgress(Progress):
    """Bars in a terminal."""

    def __init__(self) -> None:
        self.console = console(stderr=True)

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeElapsedColumn())
        with Bars(*columns, TimeRemainingColumn(), TextColumn("{task.fields[facts]}"), console=self.console) as bars:
            yield RichStage(bars, name, total, done)

    def say(self, message: str) -> None:
        self.console.print(message, markup=False)


def default_progress() -> Progress:
    """Bars where standard error is a terminal, plain lines where it is not."""
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


def _print(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _facts(facts: dict[str, Any]) -> str:
    return "".join(f", {key} {value:.4g}" if isinstance(value, float) else f", {key} {value}" for key, value in facts.items())
