"""A count that many processes of this machine add to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from limbeck.runtime.leftovers import passing_folder


class Ticks:
    """A count that many processes add to: the length of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self) -> None:
        """Count one more."""
        with suppress(OSError), self.path.open("ab") as file:  # a count is not worth what is counted
            file.write(b".")

    def count(self) -> int:
        """How many there have been, as far as is known."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


@contextmanager
def ticks(show: Callable[[int], None], every: float = 0.5) -> Iterator[Ticks]:
    """A count whose growth `show` is told from time to time, and a last time at the end."""
    with passing_folder() as folder:
        counter, shown, over = Ticks(folder / "ticks"), 0, threading.Event()
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
