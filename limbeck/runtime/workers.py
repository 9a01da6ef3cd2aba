"""Independent jobs in processes of one thread each.

Small networks gain little from a second thread, so that two jobs side by side are nearly twice as fast as one after the other.
The processes are loky's: they import nothing of the caller's script, so that a script needs no guard, and they stay for the next
jobs. Large arrays reach them by way of a memory-mapped file.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def in_workers(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Iterator[R]:
    """The results of `function` for every job, in order, each as soon as it and those before it are there.

    Args:
        function: of a module's top level.
        jobs: what it is called with; picklable.
        workers: how many processes.
    """
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", n_jobs=min(workers, len(jobs)), inner_max_num_threads=1, mmap_mode="c"):
        yield from Parallel(return_as="generator")(delayed(function)(job) for job in jobs)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
