"""Independent jobs in processes of one thread each.

Small networks gain little from a second thread, so that two jobs side by side are nearly twice as fast as one after the other.
The processes are loky's: they import nothing of the caller's script, so that a script needs no guard, and they stay for the next
jobs. Large arrays reach them by way of a memory-mapped file.
"""

import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

J = TypeVar("J")
R = TypeVar("R")


def side_by_side(function: Callable[[J], R], jobs: Sequence[J], processes: int) -> Iterator[R]:
    """The results of `function` for every job, in order, computed by this process and `processes` − 1 others.

    This process begins with the last job at once, the others with the first ones as soon as they have started.

    Args:
        function: of a module's top level.
        jobs: what it is called with; picklable.
        processes: how many compute at a time, at least 1.
    """
    from joblib import Parallel, delayed, parallel_config

    left, done = deque(enumerate(jobs)), dict[int, R]()
    failed: list[BaseException] = []

    def handed_out() -> Iterator[Any]:
        while left:
            with suppress(IndexError):  # this process took the last one meanwhile
                yield delayed(_numbered)(function, *left.popleft())

    def collect() -> None:
        # Of one process joblib makes none; only so many jobs are under way as are to compute.
        try:
            with parallel_config(backend="loky", n_jobs=max(2, processes - 1), inner_max_num_threads=1, mmap_mode="c"):
                others = Parallel(return_as="generator_unordered", pre_dispatch=processes - 1)
                done.update(others(handed_out()))
        except BaseException as error:  # noqa: BLE001 (raised where the results are wanted)
            failed.append(error)

    collector = threading.Thread(target=collect, daemon=True)
    if processes > 1:
        collector.start()
    while left and not failed:
        with suppress(IndexError):
            number, job = left.pop()
            done[number] = function(job)
    if processes > 1:
        collector.join()
    if failed:
        raise failed[0]
    yield from (done[number] for number in range(len(jobs)))


def _numbered(function: Callable[[J], R], number: int, job: J) -> tuple[int, R]:
    return number, function(job)


def cores() -> int:
    """The cores that this process may use; `$LOKY_MAX_CPU_COUNT` where that is fewer."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get("LOKY_MAX_CPU_COUNT", "")
    return max(1, min(allowed, int(named))) if named.isdigit() else allowed


class Ticks:
    """A count that many processes add to: the length of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self) -> None:
        """Count one more."""
        with self.path.open("ab") as file:
            file.write(b".")

    def count(self) -> int:
        """How many there have been."""
        return self.path.stat().st_size


@contextmanager
def ticks(show: Callable[[int], None], every: float = 0.5) -> Iterator[Ticks]:
    """A count whose growth `show` is told from time to time, and a last time at the end."""
    with tempfile.TemporaryDirectory() as folder:
        counter, shown, over = Ticks(Path(folder) / "ticks"), 0, threading.Event()
        counter.path.touch()

        def look() -> None:
            nonlocal shown
            now = counter.count()
            if now > shown:
                show(now - shown)
                shown = now

        def watch() -> None:
            while not over.wait(every):
                look()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield counter
        finally:
            over.set()
            watcher.join()
            look()
