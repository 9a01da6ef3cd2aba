"""What a job is to a worker of Ray's: what must be so that it may begin, and what it hands back.

Nothing of the job is unpacked before it is known that the worker has the same Limbeck and the same torch.
"""

import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from limbeck.runtime.errors import Failure, UsageError, one_line
from limbeck.runtime.executor.environment import put_environment, share_of
from limbeck.runtime.executor.interface import Tick
from limbeck.runtime.executor.packing import NotThere, unpacked
from limbeck.runtime.interruption import KINDS
from limbeck.runtime.notices import Notice, received, watched
from limbeck.runtime.version import VERSION

GRACE = 7.0  # seconds that a command has to end when it is asked to; it takes fewer
LOOK_EVERY = 0.1
Versions = tuple[tuple[str, str], ...]


@cache
def versions() -> Versions:
    """What must be the same wherever jobs of one executor run."""
    code = blake2b(digest_size=4)
    root = Path(__file__).parents[2]
    for path in sorted(root.rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return ("limbeck", f"{VERSION} (code {code.hexdigest()})"), ("torch", version("torch"))


def entry() -> Callable[..., Any]:
    """What a worker calls. It is sent by its content, so that it can say where Limbeck is not installed."""

    def begin(*given: Any) -> Any:
        try:
            from limbeck.runtime.executor.ray_worker import work
        except ImportError as error:
            import platform
            import sys

            return f"{platform.node()} cannot import limbeck with {sys.executable} ({error}); it must be installed on every node"
        return work(*given)

    return begin


@dataclass(frozen=True)
class Call:
    """How a job is to run.

    Args:
        places: variables that say where things are kept.
        folder: the current one.
        threads: of the CPU.
        mark: a file in the folder that it writes to, by which that is known.
        gpu: torch's flags for a GPU (`flags_of_gpu`); empty without one.
    """

    places: dict[str, str | None]
    folder: str
    threads: int
    mark: Path | None
    gpu: tuple[bool, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of a job: `value`, or an `error`, or that it must be sent again as a whole."""

    value: Any = None
    error: BaseException | None = None
    again: bool = False
    notices: list[Notice] = field(default_factory=list)
    said: list[tuple[int, str]] = field(default_factory=list)

    def taken(self) -> Any:
        """The value, here; what was logged and warned of meanwhile is said here, too."""
        for level, line in self.said:
            logging.getLogger("limbeck").log(level, "%s", line)
        if self.error is not None:
            raise self.error
        return received((self.value, self.notices))


class Counter:
    """How far jobs have come, wherever they run: of one that was begun anew only what it has done since."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[int, int]] = {}

    def begin(self, run: str, job: int) -> None:
        self.counts.setdefault(run, {})[job] = 0

    def add(self, run: str, job: int) -> None:
        self.counts[run][job] += 1

    def count(self, run: str) -> int:
        return sum(self.counts.get(run, {}).values())


def work(wanted: Versions, content: bytes, held: Sequence[Any], counter: Any, run: str, job: int) -> Outcome:
    """Do a job.

    Args:
        wanted: the versions of whoever asks.
        content: a `Call`, a function and a job, packed.
        held: where what all jobs of the run have in common is held; nothing: None is.
        counter: of ticks, an actor; None counts none.
        run: the name of the run.
        job: the number of the job in it.
    """
    import ray

    node = platform.node()
    for (name, own), (_, theirs) in zip(versions(), wanted, strict=True):
        if own != theirs:
            return Outcome(error=UsageError(f"--executor ray: {node} has {name} {own}, where jobs come from {theirs}"))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which cancelling needs, also where a shell has had it ignored
    call, function, given = unpacked(content)
    put_environment(call.places)
    with suppress(OSError):
        os.chdir(call.folder)
    if call.mark is not None and not call.mark.exists():
        said = f"{node} does not see {str(call.mark.parent)!r}; results need a folder on a disk that all nodes share"
        return Outcome(error=UsageError(f"--executor ray: {said} (LIMBECK_CACHE=DIR names it for what is kept)"))
    try:
        shared = _shared(held)
    except NotThere:
        return Outcome(again=True)
    put_flags_of_gpu(call.gpu)
    told = [] if counter is None else [counter.begin.remote(run, job)]

    def tick() -> None:
        if counter is not None:
            told[:] = [counter.add.remote(run, job)]

    with _listened() as heard:
        try:
            value, notices = watched(lambda one: function(shared, one, tick), given)
        except Exception as error:  # noqa: BLE001 (whoever asked is to have it)
            return Outcome(error=_portable(error), said=heard)
    with suppress(Exception):  # a count is not worth a job
        ray.get(told, timeout=5.0)
    return Outcome(value, notices=notices, said=heard)


_last: dict[str, Any] = {}  # of the run that this process last worked for, what its jobs have in common


def _shared(held: Sequence[Any]) -> Any:
    import ray

    if not held:
        return None
    name = held[0].hex()
    if name not in _last:
        _last.clear()
        _last[name] = unpacked(ray.get(held[0]))
    return _last[name]


@contextmanager
def _listened() -> Iterator[list[tuple[int, str]]]:
    """What Limbeck logs inside the block that somebody should see."""
    said: list[tuple[int, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append((record.levelno, record.getMessage()))

    logger, handler = logging.getLogger("limbeck"), Keep(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _portable(error: Exception) -> Exception:
    """The same, as whoever asked can have it."""
    from ray import cloudpickle

    with suppress(Exception):
        if type(cloudpickle.loads(cloudpickle.dumps(error))) is type(error):
            return error.with_traceback(None)
    return Failure(f"{type(error).__name__}: {one_line(error)}")


def flags_of_gpu() -> tuple[bool, ...]:
    """What this process has torch do on a GPU."""
    import torch

    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32


def put_flags_of_gpu(flags: tuple[bool, ...]) -> None:
    """Have this process do the same."""
    if flags:
        import torch

        cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32 = flags


@dataclass(frozen=True)
class Command:
    """A command to run: its words, the first the interpreter of whoever asks, and where it writes."""

    words: Sequence[str]
    log: Path
    folder: str
    threads: int


def run_command(shared: None, command: Command, tick: Tick) -> int:
    """Its exit status; when this is interrupted, it is."""
    if not Path(command.folder).is_dir():
        where = f"{platform.node()} does not see {command.folder!r}, the current folder"
        raise UsageError(f"--executor ray: {where}; a command must be called in one on a disk that all nodes share")
    words = [sys.executable, *command.words[1:]]
    environment = {**os.environ, **share_of(os.getpid(), command.threads)}
    with command.log.open("ab") as log:
        _wait_for_earlier(log.fileno())
        # Whoever starts workers may keep signals from them; a command is to get its own.
        before = signal.pthread_sigmask(signal.SIG_UNBLOCK, KINDS) if hasattr(signal, "pthread_sigmask") else None
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=command.folder)
        finally:
            if before is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        while (status := process.poll()) is None:
            time.sleep(LOOK_EVERY)
        return status
    except BaseException:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        process.kill()
        process.wait()
        raise


def _wait_for_earlier(log: int) -> None:
    """Wait until the same command, begun by a worker that has died, has ended with it: it writes to the same file."""
    with suppress(ImportError, OSError):  # a file system without such locks
        import fcntl

        fcntl.flock(log, fcntl.LOCK_EX)
