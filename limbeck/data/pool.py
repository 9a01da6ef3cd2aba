"""Work spread over several processes, in order, with a bounded number of pieces under way."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from typing import TypeVar

from limbeck.runtime.errors import Failure

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@contextmanager
def spread(work: Callable[[Piece], Result], pieces: Iterable[Piece], workers: int | None) -> Iterator[Iterator[Result]]:
    """An iterator over `work(piece)`, in the order of the pieces, computed by `workers` processes (None: one a core).

    The processes start on entry: enter this before anything that starts a thread, such as a progress bar. A single piece, or a
    single worker, is computed here. Of pieces that are made on demand only a few more than there are processes are ever held.

    Raises:
        Failure: when a process is killed.
    """
    count = workers or _cores()
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
        under_way = deque(pool.submit(work, piece) for piece in islice(rest, 3 * count))
        yield _in_order(pool, work, under_way, rest)
    except BrokenProcessPool as error:
        raise Failure("data.workers: a process that decodes images was killed; fewer of them need less memory") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, work: Callable[[Piece], Result], under_way: deque["Future[Result]"], rest: Iterator[Piece]
) -> Iterator[Result]:
    while under_way:
        result = under_way.popleft().result()
        under_way.extend(pool.submit(work, piece) for piece in islice(rest, 1))
        yield result


def _start_process() -> None:
    """What a process does before its first piece: leave Ctrl-C, which reaches all of them, to the parent alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()


def _end_with_parent() -> None:
    """Let this process end when its parent is killed: orphans would wait for ever and hold the cache's lock, which they inherit."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
