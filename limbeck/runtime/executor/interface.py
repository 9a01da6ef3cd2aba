"""What an executor is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, TypeVar

from typing_extensions import Self

S = TypeVar("S")
J = TypeVar("J")
R = TypeVar("R")
TRIES = 10

Tick = Callable[[], None]  # what a job calls when it has come a step further


class Process(Protocol):
    """A command under way."""

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does."""

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, at the latest after so many seconds."""

    def kill(self) -> None:
        """End it at once."""


class Executor(ABC):
    """Where jobs run; as a context manager, while there are any.

    Whatever runs where, results are the same to the bit on processors of one kind, and lie in the same places.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    @abstractmethod
    def run(
        self,
        function: Callable[[S, J, Tick], R],
        shared: S,
        jobs: Sequence[J],
        *,
        at_once: int,
        told: Callable[[int], None] | None = None,
        writes: Path | None = None,
    ) -> Iterator[R]:
        """The results of `function(shared, job, tick)` for every job, in order.

        What a job raises is raised here, and the others end unfinished, as they do when this process is interrupted. A job whose
        process dies is begun again elsewhere where that is possible: what it writes must not be wrong when it is written again.

        Args:
            function: of a module's top level.
            shared: what all jobs have in common; it is sent once where that matters. Picklable, as the jobs and results.
            jobs: each for one thread of the CPU, or a share of a GPU.
            at_once: how many are worth computing at a time here; others decide by what they have.
            told: called with the number of further ticks, from time to time and perhaps in another thread.
            writes: a folder that jobs write to, so that whoever computes must see it.

        Raises:
            UsageError: when a job cannot run where it is to.
            Failure: when its process died again and again.
        """

    @abstractmethod
    def start(self, words: Sequence[str], log: Path, at_once: int) -> Process:
        """Start a command as a process of its own; it ends with this one.

        Args:
            words: of the command.
            log: where it writes both of its streams, in a folder that is made; whoever runs it must see that.
            at_once: how many run at a time here, and share the cores.
        """

    def in_step(self, most: int) -> int:
        """How many networks a job trains in step, where a whole device has room for `most`."""
        return most

    def commands(self, asked: int | None, total: int) -> int:
        """How many of `total` commands to start at a time, where so many were asked for; None: nobody said."""
        return asked or 1


class Cluster(Executor):
    """One whose jobs are all for others to do, however short they are."""

    @abstractmethod
    def apart(self, function: Callable[[None, J, Tick], int], job: J, log: Path) -> Process:
        """As `start`, for a function, whose result is the status.

        Args:
            function: of a module's top level.
            job: what it is called with, beside nothing that is shared.
            log: where it is said why it failed.
        """


def new_log(log: Path) -> BinaryIO:
    """The file, empty, to write to; its folder is made, and again where another process removes it meanwhile as empty."""
    for _ in range(TRIES):
        with suppress(FileNotFoundError, FileExistsError):
            log.parent.mkdir(parents=True, exist_ok=True)
            return log.open("wb")
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("wb")
