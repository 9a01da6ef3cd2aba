"""Progress with time left: rich bars in a terminal, plain lines elsewhere, nothing where nothing is wanted.

Everything is written to standard error, so that standard output stays free for `--json`.
"""

import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from limbeck.runtime.terminal import console, harmless

BAR = 12  # letters of a bar in a terminal


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
        ended = f"{stage.done}/{total} in {_clock(time.monotonic() - began)}"
        self.logger.info("%s: %s", name, ", ".join([ended, *_facts(stage.facts)]))

    def say(self, message: str) -> None:
        warning = message.startswith("warning: ")
        message = harmless(message)
        self.logger.log(logging.WARNING if warning else logging.INFO, message.removeprefix("warning: ").removeprefix("note: "))


class Pace:
    """How long the rest of a stage will take: as long, step by step, as what was done since it began here.

    What comes between steps, such as evaluations, counts; what an earlier process has done does not.

    Args:
        total, done: steps of the stage, and those that were done before.
    """

    def __init__(self, total: int, done: int) -> None:
        self.total, self.first, self.done, self.began = total, done, done, time.monotonic()

    @property
    def passed(self) -> float:
        """Seconds since the stage began here."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float | None:
        """Seconds; None before the first step."""
        here = self.done - self.first
        return self.passed / here * max(self.total - self.done, 0) if here > 0 else None


class PlainStage(Stage):
    """A line every ten seconds, later on rarer ones, so that a log of days stays short, and one at the end."""

    def __init__(self, name: str, total: int, done: int, every: float = 10.0) -> None:
        self.name, self.every, self.pace = name, every, Pace(total, done)
        self.last = 0.0
        self.facts: dict[str, Any] = {}

    def advance(self, steps: int = 1, **facts: Any) -> None:
        pace = self.pace
        pace.done += steps
        self.facts |= facts
        if pace.passed - self.last >= max(self.every, pace.passed / 60) and pace.done < pace.total:
            self.last = pace.passed
            left = [] if pace.left is None else [f"{_clock(pace.left)} left"]
            _print(f"{self.name}: {', '.join([f'{pace.done}/{pace.total}', *left, *_facts(self.facts)])}")

    def close(self) -> None:
        """Say that the stage has ended, and after how long."""
        pace = self.pace
        _print(f"{self.name}: {', '.join([f'{pace.done}/{pace.total} in {_clock(pace.passed)}', *_facts(self.facts)])}")


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
        self.bars, self.facts, self.pace = bars, dict[str, Any](), Pace(total, done)
        self.task = bars.add_task(name, total=total, completed=done, told=self.told)

    def advance(self, steps: int = 1, **facts: Any) -> None:
        self.facts |= facts
        self.pace.done += steps
        self.bars.update(self.task, advance=steps)

    def told(self, width: int) -> str:
        """What stands behind the bar, where there is room for so many letters."""
        pace = self.pace
        ended = pace.done >= pace.total
        time_left = f"in {_clock(pace.passed)}" if ended else "" if pace.left is None else f"{_clock(pace.left)} left"
        passed = [] if ended else [f"{_clock(pace.passed)} so far"]
        return fitted([f"{pace.done}/{pace.total}", time_left, *_facts(self.facts), *passed], width)


def fitted(parts: Sequence[str], width: int) -> str:
    """The first of those parts that have room in one line of that width, and the very first in any case; empty ones are none."""
    line, *rest = filter(None, parts)
    for part in rest:
        if len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line


class RichProgress(Progress):
    """Bars in a terminal, each in one line however narrow it is."""

    def __init__(self) -> None:
        self.console = console(stderr=True)

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
        from rich.progress import Progress as Bars
        from rich.text import Text

        screen = self.console

        class Told(ProgressColumn):
            def render(self, task: Task) -> Text:
                # Each column has a space on its right.
                room = screen.width - len(task.description) - BAR - 3
                return Text(task.fields["told"](room), no_wrap=True, overflow="ellipsis")

        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=BAR), Told())
        with Bars(*columns, console=screen) as bars:
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


def _facts(facts: dict[str, Any]) -> list[str]:
    return [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in facts.items()]
