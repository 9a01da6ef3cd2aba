"""Jobs as tasks of a Ray cluster, or of processes of Ray's on this machine.

What a job raises goes to whoever asked; a worker that dies, or a node that is lost, costs the jobs that it had, which Ray begins
again, `RETRIES` times at most. Results lie where processes of this machine would have put them.
"""

import logging
import os
import re
import shutil
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any

from limbeck.runtime.errors import Failure, UsageError, one_line, require
from limbeck.runtime.executor.environment import cores, places, put_environment
from limbeck.runtime.executor.interface import Cluster, J, Process, R, S, Tick, new_log
from limbeck.runtime.executor.packing import packed
from limbeck.runtime.executor.ray_worker import Call, Command, Counter, Outcome, entry, flags_of_gpu, run_command, versions
from limbeck.runtime.interruption import KINDS
from limbeck.runtime.leftovers import SHARED, new_passing_folder, part, remove

RETRIES = 5  # of a job whose worker died
UNDER_WAY = 1000  # jobs that Ray is given at a time
LOOK_EVERY = 0.3  # seconds between two looks at how far jobs have come
ANSWERS_IN = 5.0  # seconds that a cluster has to answer
LEAST_STORE, MOST_STORE = 100 * 2**20, 8 * 2**30  # bytes of shared memory for what is sent
LONGEST = 43  # letters of a folder in which Ray can have its sockets, whose paths have 107 at most
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a job without GPUs sees none
    "RAY_enable_metrics_collection": "0",
    "RAY_task_oom_retries": str(RETRIES),  # else a job that no node has the memory for would be tried for ever
}


@dataclass(eq=False)
class Ray(Cluster):
    """A cluster.

    Args:
        address: `HOST:PORT` of its head, whose node this process must be on one of; `auto`: one that runs on this machine. None
            takes `$RAY_ADDRESS`; where there is none, processes are started here, and end with the block.
        cpus: threads that a job takes.
        gpus: GPUs that a job takes, or a share of one: 0.25 lets four jobs share it.
        processors: that processes which are started here have; None: the cores of this process.

    Raises:
        UsageError: for numbers out of range.

    Example:
        >>> cluster = Ray(gpus=0.25)  # `limbeck.evaluate(…, executor=cluster)` trains its networks there, four on a GPU
        >>> cluster.in_step(8)  # networks of a job, where a whole GPU has room for eight
        2
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0
    processors: int | None = None
    _ray: Any = None
    _task: Any = None
    _counter: Any = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _depth: int = 0
    _here: bool = False  # whether the processes were started here

    def __post_init__(self) -> None:
        require(isinstance(self.cpus, int) and self.cpus >= 1, "--cpus", self.cpus, "a whole number from 1")
        good = self.gpus >= 0 and (self.gpus <= 1 or float(self.gpus).is_integer())
        require(good, "--gpus", self.gpus, "at least 0, and a whole number above 1")

    def __enter__(self) -> "Ray":
        self._depth += 1
        if self._depth > 1:
            return self
        self._ray = _library()
        try:
            if not self._ray.is_initialized():  # else it is the caller's, and stays
                self._stack.callback(self._ray.shutdown)
                self._stack.enter_context(_in_a_line())
                self._begin()
            self._check_room()
        except BaseException:
            self._depth = 0
            self._stack.close()
            raise
        self._task = self._ray.remote(entry())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._depth -= 1
        if self._depth:
            return
        if self._counter is not None:
            self._ray.kill(self._counter)
        self._counter = None
        self._stack.close()

    def in_step(self, most: int) -> int:
        """See `Executor`."""
        return max(1, int(most * min(1.0, self.gpus or 1.0)))

    def commands(self, asked: int | None, total: int) -> int:
        """See `Executor`."""
        return asked or total

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
        with _marked(writes) as mark:
            yield from self._results(self._call(mark), function, shared, jobs, told)

    def start(self, words: Sequence[str], log: Path, at_once: int) -> Process:
        """See `Executor`."""
        log = log.absolute()
        new_log(log).close()
        command = Command(tuple(words), log, os.getcwd(), self.cpus)
        return self._apart(run_command, command, log)

    def apart(self, function: Callable[[None, J, Tick], int], job: J, log: Path) -> Process:
        """See `Cluster`."""
        log = log.absolute()
        new_log(log).close()
        return self._apart(function, job, log)

    def _apart(self, function: Any, job: Any, log: Path) -> Process:
        return _Remote(self, self._handed_over(self._call(log), function, job, [], None, "", 0), log)

    def _call(self, mark: Path | None) -> Call:
        return Call(places(), os.getcwd(), self.cpus, mark, flags_of_gpu() if self.gpus else ())

    def _handed_over(self, call: Call, function: Any, job: Any, held: Sequence[Any], counter: Any, run: str, number: int) -> Any:
        """A reference to the outcome of a job."""
        task = self._task.options(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES)
        return task.remote(versions(), packed((call, function, job), whole=True), held, counter, run, number)

    def _results(
        self, call: Call, function: Any, shared: Any, jobs: Sequence[Any], told: Callable[[int], None] | None
    ) -> Iterator[Any]:
        ray, run = self._ray, token_hex(8)
        held, whole = [ray.put(packed(shared))], False
        counter = None if told is None else self._counting()
        left, under_way, done = list(range(len(jobs)))[::-1], dict[Any, int](), dict[int, Any]()
        shown, following = 0, 0
        try:
            while following < len(jobs):
                while left and len(under_way) < UNDER_WAY:
                    number = left.pop()
                    under_way[self._handed_over(call, function, jobs[number], held, counter, run, number)] = number
                ready = ray.wait(list(under_way), num_returns=1, timeout=LOOK_EVERY)[0]
                for reference in ready:
                    number, outcome = under_way.pop(reference), self.outcome(reference)
                    if outcome.again and not whole:  # not every node sees what arrays lie in
                        held, whole = [ray.put(packed(shared, whole=True))], True
                    if outcome.again:
                        left.append(number)
                    else:
                        done[number] = outcome.taken()
                if told is not None and (not ready or len(done) + following == len(jobs)):
                    now = self._counted(run)
                    if now > shown:
                        told(now - shown)
                        shown = now
                while following in done:
                    yield done.pop(following)
                    following += 1
        finally:
            for reference in under_way:  # of a run that came to its end there are none
                with suppress(Exception):
                    ray.cancel(reference, force=True)

    def _counting(self) -> Any:
        if self._counter is None:
            self._counter = self._ray.remote(Counter).options(num_cpus=0, max_restarts=-1).remote()
        return self._counter

    def _counted(self, run: str) -> int:
        with suppress(Exception):  # a count is not worth a run
            return int(self._ray.get(self._counter.count.remote(run), timeout=ANSWERS_IN))
        return 0

    def outcome(self, reference: Any) -> Outcome:
        """What came of a job that has ended.

        Raises:
            UsageError: where Limbeck is not installed.
            Failure: when its worker died again and again, or somebody else ended it.
        """
        errors = self._ray.exceptions
        try:
            found = self._ray.get(reference)
        except errors.OutOfMemoryError as error:
            said = "its node had no memory left; jobs of more --cpus are fewer at a time"
            raise Failure(f"--executor ray: a job was begun {RETRIES + 1} times, and {said}") from error
        except errors.WorkerCrashedError as error:
            said = f"--executor ray: a job was begun {RETRIES + 1} times, and its worker died each time"
            raise Failure(f"{said}; what is finished is kept") from error
        except errors.RayError as error:
            last = str(error).strip().rpartition("\n")[2].strip()
            raise Failure(f"--executor ray: {last[:300] or type(error).__name__}; what is finished is kept") from error
        if isinstance(found, str):
            raise UsageError(f"--executor ray: {found}")
        assert isinstance(found, Outcome)
        return found

    def _begin(self) -> None:
        """Find the cluster, or start processes here."""
        address = self.address or os.environ.get("RAY_ADDRESS") or None
        self._here = address is None
        how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        if address is None:
            require(self.cpus <= self._cores, "--cpus", self.cpus, f"at most {self._cores}, the cores of this machine")
            how |= {"num_cpus": self._cores, "object_store_memory": _store(), "include_dashboard": False}
            folder = new_passing_folder()
            self._stack.callback(remove, folder)
            how |= {"_temp_dir": str(folder)} if len(str(folder)) <= LONGEST else {}
        else:
            if address != "auto":
                _check_answers(address)
            how["address"] = address
        paths = {} if address else {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        before = {name: os.environ.get(name) for name in (*QUIET, *paths)}
        put_environment({**QUIET, **paths})
        try:
            with _own_handlers():
                self._ray.init(**how)
        except Exception as error:  # noqa: BLE001 (of no class of its own where a busy machine is too slow for Ray's processes)
            if address is None:
                raise Failure(f"--executor ray: Ray could not be started here: {one_line(error)}") from error
            said = "no cluster runs on this machine" if address == "auto" else f"cannot be used ({one_line(error)})"
            raise UsageError(f"--address: {address!r}: {said}; `ray start --head` begins one") from error
        finally:
            put_environment(before)

    def _check_room(self) -> None:
        """Say where no node has what a job takes; here none will come."""
        held = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(one.get("CPU", 0) >= self.cpus and one.get("GPU", 0) >= self.gpus for one in held):
            return
        most = max((one.get("GPU", 0) for one in held), default=0)
        require(not self._here or self.gpus <= most, "--gpus", self.gpus, f"at most {most:g}, the GPUs of this machine")
        said = "no node of the cluster has %d CPUs and %g GPUs for a job yet; jobs wait for one"
        logging.getLogger("limbeck").warning(said, self.cpus, self.gpus)

    @property
    def _cores(self) -> int:
        return self.processors or cores()


@dataclass(eq=False)
class _Remote:
    """A command that a worker runs."""

    executor: Ray
    reference: Any
    log: Path
    status: int | None = None

    def poll(self) -> int | None:
        if self.status is None and self.wait(0.0):
            try:
                self.status = int(self.executor.outcome(self.reference).taken())
            except (Failure, UsageError) as error:
                with self.log.open("a", encoding="utf-8") as log:
                    log.write(f"limbeck: failed: {error}\n")
                self.status = 1
        return self.status

    def interrupt(self) -> None:
        self.executor._ray.cancel(self.reference)

    def wait(self, seconds: float) -> bool:
        return bool(self.executor._ray.wait([self.reference], timeout=seconds)[0])

    def kill(self) -> None:
        self.executor._ray.cancel(self.reference, force=True)


def _library() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor: ray needs the extra ray: pip install 'limbeck[ray]'") from error
    return ray


def _check_answers(address: str) -> None:
    """Raise `UsageError` unless something that speaks HTTP/2, as heads of clusters do, answers at HOST:PORT in time."""
    host, _, port = address.rpartition(":")
    require(
        bool(host) and port.isdecimal() and 0 < int(port) < 65536 and "/" not in host, "--address", address, "HOST:PORT, or auto"
    )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWERS_IN) as connection:
            connection.settimeout(ANSWERS_IN)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))  # and no settings
            answer = connection.recv(9)
    except OSError as error:
        raise UsageError(f"--address: {address!r}: no head of a cluster answers there ({one_line(error)})") from error
    require(len(answer) > 3 and answer[3] == 4, "--address", address, "the head of a cluster of Ray's")


def _store() -> int:
    """Bytes of shared memory to use."""
    free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else MOST_STORE
    return max(LEAST_STORE, min(MOST_STORE, int(0.3 * free)))


@contextmanager
def _marked(folder: Path | None) -> Iterator[Path | None]:
    """A file in the folder that is there inside the block: whoever sees it sees this folder, and no other of the name."""
    if folder is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with part(folder.absolute() / "executor") as mark:
        mark.touch()
        yield mark


@contextmanager
def _in_a_line() -> Iterator[None]:
    """What the cluster reports inside the block is a warning of a line; Ray would print paragraphs, and cannot be asked not to."""
    from ray._private import worker

    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = reported
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def reported(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
    """Warn of what a cluster reports, in the place of Ray's own function that prints it."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(map(str, data["lines"]))).strip()
    if re.match(r"Task \S+ failed\. There are", text):  # its worker died, which is reported too
        return
    died = re.match(r"A worker died|.*[Ww]orkers? .*killed due to memory", text)
    warnings.warn("a worker of the cluster died; its jobs are begun again" if died else text.partition("\n")[0], stacklevel=2)


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Whatever a library does to signals inside the block is undone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in KINDS}
    try:
        yield
    finally:
        for one, handler in before.items():
            if handler is not None:
                signal.signal(one, handler)
