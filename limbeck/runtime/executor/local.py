"""Jobs as processes of this machine, side by side: loky's, by way of joblib, while this one works along.

They import nothing of the caller's script, so that a script needs no guard, and they stay for the next jobs. Large arrays reach
them by way of a memory-mapped file.
"""

import atexit
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Generic

from limbeck.runtime.disk import WORDS
from limbeck.runtime.errors import Failure
from limbeck.runtime.executor.environment import cores, places, put_environment, share_of
from limbeck.runtime.executor.interface import Executor, J, Process, R, S, Tick, new_log
from limbeck.runtime.executor.ticks import ticks
from limbeck.runtime.interruption import Interrupted, end_children, ignore_all, kept_from_children
from limbeck.runtime.leftovers import SHARED, new_passing_folder, remove
from limbeck.runtime.notices import Notice, received, watched

ROOMY = 2e9  # bytes that shared memory must have free
LOOK_EVERY = 0.5  # seconds between two looks at whether one's parent lives
STAY = 240.0  # seconds that workers stay for at least without a job; joblib ends them after 300


class Local(Executor):
    """Processes of this machine, this one among them."""

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
        """See `Executor`."""
        with ticks(told or (lambda count: None)) as counter:
            work = [_Work(function, shared, job, counter.add) for job in jobs]
            most = min(at_once, len(work))
            yield from map(_done, work) if most <= 1 else side_by_side(_done, work, most)

    def start(self, words: Sequence[str], log: Path, at_once: int) -> Process:
        """See `Executor`."""
        # In this process's group, so that an interrupt from the terminal or a batch queue reaches it too.
        environment = {**os.environ, **share_of(os.getpid(), max(1, cores() // at_once))}
        with new_log(log) as file:
            return _Child(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment))


@dataclass(frozen=True, eq=False)
class _Work(Generic[S, J, R]):
    function: Callable[[S, J, Tick], R]
    shared: S
    job: J
    tick: Tick


def _done(work: _Work[S, J, R]) -> R:
    return work.function(work.shared, work.job, work.tick)


@dataclass(frozen=True, eq=False)
class _Child:
    process: "subprocess.Popen[bytes]"

    def poll(self) -> int | None:
        return self.process.poll()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


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

    left, done, own = deque(enumerate(jobs)), dict[int, R](), places()
    failed: list[BaseException] = []

    def handed_out() -> Iterator[Any]:
        while left:
            with suppress(IndexError):  # this process took the last one meanwhile
                yield delayed(_numbered)(os.getpid(), own, function, *left.popleft())

    def collect() -> None:
        # Of one process joblib makes none; only so many jobs are under way as are to compute.
        try:
            with kept_from_children():
                _start_trackers()
            with kept_from_children(), _workers(max(2, processes - 1)):
                others = Parallel(return_as="generator_unordered", pre_dispatch=processes - 1)
                done.update((number, received(found)) for number, found in others(handed_out()))
            _seen[os.getpid()] = time.monotonic()
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


_seen: dict[int, float] = {}  # by the number of a process, for a child knows it too: when its workers ended their last jobs


def workers_wait() -> bool:
    """Whether this process has workers that wait for jobs, so that none need be started."""
    return time.monotonic() - _seen.get(os.getpid(), -STAY) < STAY


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
        # What they begin with says which these are: those of another folder, or that were ended, are not taken again.
        return parallel_config(backend="loky", **how, initializer=_become_worker, initargs=(own, folder, _worker.ended))
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
    _seen.pop(os.getpid(), None)
    _worker.ended += 1
    end_children(grace=1.5, among=lambda words: any("loky" in word for word in words))
    collector.join(3.0)


def _told_apart(error: BaseException) -> BaseException:
    """The same, or what it stands for: where arrays that processes share find no room, only a traceback in words is left."""
    if any(kind.__name__ in ("TerminatedWorkerError", "BrokenProcessPool") for kind in type(error).__mro__):
        failure = Failure("a process was killed, perhaps for its memory; with LOKY_MAX_CPU_COUNT=1 this one computes alone")
        failure.__cause__ = error
        return failure
    said = re.search(r"\[Errno (\d+)\]", str(error.__cause__)) if error.__cause__ is not None else None
    if said is None or isinstance(error, OSError) or (number := int(said[1])) not in WORDS:
        return error
    shared = OSError(number, os.strerror(number), str(_shared_folder().parent))
    shared.__cause__ = error
    return shared


def _numbered(
    parent: int, kept: dict[str, str | None], function: Callable[[J], R], number: int, job: J
) -> tuple[int, tuple[R, list[Notice]]]:
    if os.getpid() != parent:
        _become_worker(parent)
    # A process that stayed from earlier jobs keeps things where this one does (`kept.elsewhere`).
    put_environment(kept)
    _worker.working = True
    try:
        return number, watched(function, job)
    finally:
        _worker.working = False


class _Worker:
    """What a process of joblib's knows of itself, and how often it has ended workers of its own."""

    ready, working, ended = False, False, 0


_worker = _Worker()


def _become_worker(parent: int, folder: str = "", ended: int = 0) -> None:
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
