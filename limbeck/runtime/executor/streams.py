"""Pieces of a stream, such as images to decode, computed by processes that are forked at once and touch neither torch nor a GPU.

The pool is the standard library's. Joblib's would hold all results that are made before they are asked for; with torch's loader
the caller's process would import torch and handle the ends of all of its children.
"""

import multiprocessing
import os
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
from limbeck.runtime.executor.environment import cores
from limbeck.runtime.interruption import ignore_all, kept_from_children
from limbeck.runtime.notices import Notice, received, watched

J = TypeVar("J")
R = TypeVar("R")


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
