"""Work that is spread over processes: jobs that compute side by side, a stream of pieces, and shares of processes that never meet.

Small networks gain little from a second thread, so that two jobs side by side are nearly twice as fast as one after the other.
Their processes are loky's: they import nothing of the caller's script, so that a script needs no guard, and they stay for the next
jobs. Large arrays reach them by way of a memory-mapped file. Pieces of a stream, which need no torch, are computed by processes
that are forked at once.
"""

import atexit
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from limbeck.runtime.disk import WORDS
from limbeck.runtime.errors import Failure, require
from limbeck.runtime.interruption import Interrupted, end_children, ignore_all, kept_from_children
from limbeck.runtime.leftovers import SHARED, new_passing_folder, passing_folder, remove
from limbeck.runtime.notices import Notice, received, watched

J = TypeVar("J")
R = TypeVar("R")
ROOMY = 2e9  # bytes that shared memory must have free
LOOK_EVERY = 0.5  # seconds between two looks at whether one's parent lives
PLACES = ("LIMBECK_CACHE", "TORCHINDUCTOR_CACHE_DIR")  # variables that say where things are kept


@dataclass(frozen=True, slots=True)
class Shard:
    """The items number, number + count, … of all: one of `count` shares, `number` from 1."""

    number: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> "Shard":
        """`2/4`, the second of four.

        Raises:
            UsageError: for anything else.
        """
        matched = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        require(matched is not None and 1 <= int(matched[1]) <= int(matched[2]), "--shard", text, "of the form i/n with 1 ≤ i ≤ n")
        assert matched is not None
        return Shard(int(matched[1]), int(matched[2]))

    def takes(self, number: int) -> bool:
        """Whether the item of that number (from 0) is among them."""
        return number % self.count == self.number - 1

    def of(self, total: int) -> list[int]:
        """The numbers of its items among 0, …, total − 1."""
        return list(range(self.number - 1, total, self.count))


def put_environment(values: Mapping[str, str | None]) -> None:
    """Set the variables of this process; None removes one."""
    for name, value in values.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def cores() -> int:
    """The cores that this process may use; `$LOKY_MAX_CPU_COUNT` where that is fewer."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get("LOKY_MAX_CPU_COUNT", "")
    return max(1, min(allowed, int(named))) if named.isdigit() else allowed


def side_by_side(function: Callable[[J], R], jobs: Sequence[J], processes: int) -> Iterator[R]:
    """The results of `function` for every job, in order, computed by this process and `processes` − 1 others.

    This process begins with the last job at once, the others with the first ones as soon as they have started. When it is
    interrupted, or its own job fails, the others end with theirs unfinished.

    Args:
        function: of a module's top level.
        jobs: what it is called with; picklable.
        processes: how many compute at a time, at least 1.
    """
    from joblib import Parallel, delayed

    left, done, places = deque(enumerate(jobs)), dict[int, R](), {name: os.environ.get(name) for name in PLACES}
    failed: list[BaseException] = []

    def handed_out() -> Iterator[Any]:
        while left:
            with suppress(IndexError):  # this process took the last one meanwhile
                yield delayed(_numbered)(os.getpid(), places, function, *left.popleft())

    def collect() -> None:
        # Of one process joblib makes none; only so many jobs are under way as are to compute.
        try:
            with kept_from_children():
                _start_trackers()
            with kept_from_children(), _workers(max(2, processes - 1)):
                others = Parallel(return_as="generator_unordered", pre_dispatch=processes - 1)
                done.update((number, received(found)) for number, found in others(handed_out()))
        except BaseException as error:  # noqa: BLE001 (raised where the results are wanted)
            failed.append(error)

    collector = threading.Thread(target=collect, daemon=True)
    if processes > 1:
        collector.start()
    try:
        while left and not failed:
            with suppress(IndexError):
                number, job = left.pop()
                done[number] = function(job)
        if processes > 1:
            collector.join()
    except BaseException:
        left.clear()
        if processes > 1:
            _end_workers(collector)
        raise
    if failed:
        raise _told_apart(failed[0])
    yield from (done[number] for number in range(len(jobs)))


def _start_trackers() -> None:
    """Start the processes that tidy up after workers first: to do so undoes what is blocked in some versions."""
    from joblib.externals.loky.backend import resource_tracker as of_loky

    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()
        of_loky.ensure_running()


def _workers(count: int) -> Any:
    """A context manager: so many processes of joblib's."""
    from joblib import parallel_config

    own, folder = os.getpid(), str(_shared_folder())
    how = {"n_jobs": count, "inner_max_num_threads": 1, "mmap_mode": "c", "temp_folder": folder}
    try:
        # The folder is among what they begin with, so that those of another one are not taken again.
        return parallel_config(backend="loky", **how, initializer=_become_worker, initargs=(own, folder))
    except TypeError:  # joblib before 1.5 has no such thing: they become workers with their first job
        return parallel_config(backend="loky", **how)


_shared: dict[tuple[int, Path | None], Path] = {}


def _shared_folder() -> Path:
    """Where this process puts arrays for its workers: in shared memory, where there is room, as joblib would.

    A folder of our own says whose it is, so that one that was left behind is known as such.
    """
    named, process = os.environ.get("JOBLIB_TEMP_FOLDER"), os.getpid()
    roomy = SHARED.is_dir() and os.access(SHARED, os.W_OK) and shutil.disk_usage(SHARED).free > ROOMY
    root = Path(named) if named else SHARED if roomy else None
    if (known := _shared.get((process, root))) is not None and known.is_dir():
        return known
    made = _shared[process, root] = new_passing_folder(root)
    atexit.register(lambda: remove(made) if os.getpid() == process else None)  # not in a child, which knows it too
    return made


def _end_workers(collector: threading.Thread) -> None:
    """End the processes that compute for this one; joblib, whose results fail with that, tidies up in the collector's thread."""
    end_children(grace=1.5, among=lambda words: any("loky" in word for word in words))
    collector.join(3.0)


def _told_apart(error: BaseException) -> BaseException:
    """The same, or what it stands for: where arrays that processes share find no room, only a traceback in words is left."""
    said = re.search(r"\[Errno (\d+)\]", str(error.__cause__)) if error.__cause__ is not None else None
    if said is None or isinstance(error, OSError) or (number := int(said[1])) not in WORDS:
        return error
    shared = OSError(number, os.strerror(number), str(_shared_folder().parent))
    shared.__cause__ = error
    return shared


def _numbered(
    parent: int, places: dict[str, str | None], function: Callable[[J], R], number: int, job: J
) -> tuple[int, tuple[R, list[Notice]]]:
    if os.getpid() != parent:
        _become_worker(parent)
    # A process that stayed from earlier jobs keeps things where this one does (`kept.elsewhere`).
    put_environment(places)
    _worker.working = True
    try:
        return number, watched(function, job)
    finally:
        _worker.working = False


class _Worker:
    """What a process of joblib's knows of itself."""

    ready, working = False, False


_worker = _Worker()


def _become_worker(parent: int, folder: str = "") -> None:
    """Have this process end its job when its parent asks for that, which alone gets the signals, and itself when that is gone."""
    if _worker.ready:
        return
    _worker.ready = True

    def stop(number: int, frame: object) -> None:
        if _worker.working:
            raise Interrupted(number)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    ignore_all()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


@contextmanager
def spread(work: Callable[[J], R], pieces: Iterable[J], workers: int | None) -> Iterator[Iterator[R]]:
    """An iterator over `work(piece)`, in the order of the pieces, computed by `workers` processes (None: one a core).

    The processes start on entry: enter this before anything that starts a thread, such as a progress bar. A single piece, or a
    single worker, is computed here. Of pieces that are made on demand only a few more than there are processes are ever held.

    Raises:
        Failure: when a process is killed.
    """
    count = workers or cores()
    if isinstance(pieces, Sized):
        count = min(count, len(pieces))
    if count <= 1:
        yield map(work, pieces)
        return
    # Forked processes do not import the user's script again, which would need a guard around its every statement; they touch
    # neither torch nor a GPU. Where forking is unsafe the platform's own way is taken.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_process)
    try:
        rest = iter(pieces)
        first = list(islice(rest, 3 * count))
        with kept_from_children():
            under_way = deque(pool.submit(watched, work, piece) for piece in first)
        yield _in_order(pool, work, under_way, rest)
    except BrokenProcessPool as error:
        raise Failure("data.workers: a process that decodes images was killed; fewer of them need less memory") from error
    except BaseException:
        # What they have not handed over is made anew in any case; a slow disk could keep them for long.
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, work: Callable[[J], R], under_way: deque["Future[tuple[R, list[Notice]]]"], rest: Iterator[J]
) -> Iterator[R]:
    while under_way:
        result = received(under_way.popleft().result())
        under_way.extend(pool.submit(watched, work, piece) for piece in islice(rest, 1))
        yield result


def _start_process() -> None:
    """What a process does before its first piece: leave signals for the whole group to the parent alone."""
    ignore_all()
    _end_with_parent()


def _end_with_parent() -> None:
    """Let this process end when its parent is killed: orphans would wait for ever and hold the cache's lock, which they inherit."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
