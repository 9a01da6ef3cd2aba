"""The processes, ranks 0 … R − 1, that compute one run together; a world of one where torch.distributed is not started.

    torchrun --nproc-per-node 4 -m limbeck distill …

A batch is cut into contiguous slices, one a rank, of sizes that differ by one at most and may be 0. What is summed over ranks goes
through one flat buffer: an all-reduce of b bytes around a ring sends 2 b (R − 1) / R of them from every rank, and a broadcast b
from rank 0; `Ranks.sent` counts them.

Tensors go through the default process group (NCCL between GPUs, gloo between CPUs), which has a timeout. What takes one rank as
long as it takes while others wait, such as experts that rank 0 trains, goes through a second group of gloo's, which has none that
matters. A process that dies is noticed in both, by its connections.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from limbeck.runtime.errors import Failure, RankLost, UsageError, one_line
from limbeck.runtime.executor import cores
from limbeck.runtime.launch import started_together
from limbeck.runtime.notices import received, watched

T = TypeVar("T")
SAID = "limbeck/said"
PATIENCE = 0.5  # seconds that a process may take to end once its connections have, and others to ask whether they are to speak
RAISED_BY_ALL = "raised_by_all"  # an attribute of errors that all ranks raise at the same time
FOREVER = timedelta(days=365)
LOOK_EVERY = 0.02  # seconds between two looks at whether what is waited for has come, at most: a signal is heard meanwhile


@dataclass(frozen=True)
class Sum:
    """A sum over ranks that is under way."""

    buffer: Tensor
    work: Any = None

    def wait(self) -> Tensor:
        """The buffer with the sum in it, once it is there."""
        if self.work is not None:
            with noticed():
                self.work.wait()
        return self.buffer


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run; all of them call the same methods in the same order.

    Args:
        number: of this process, from 0.
        count: R.

    Example:
        >>> Ranks.here()
        Ranks(number=0, count=1)
        >>> [Ranks(number, 3).share(7) for number in range(3)]
        [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
        >>> [Ranks(number, 3).share(8, whole=2) for number in range(3)]
        [slice(0, 4, None), slice(4, 6, None), slice(6, 8, None)]
    """

    number: int = 0
    count: int = 1

    @staticmethod
    def here() -> "Ranks":
        """Those that this process has joined; itself alone where torch.distributed is not started."""
        if not (dist.is_available() and dist.is_initialized()):
            return Ranks()
        return Ranks(dist.get_rank(), dist.get_world_size())

    @staticmethod
    def sharing() -> "Ranks":
        """The same where all of them do the same, and so can share it (`together`); itself alone elsewhere."""
        return Ranks.here() if _together else Ranks()

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes."""
        return self.number == 0

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.count == 1

    @property
    def on_this_machine(self) -> int:
        """How many of them share this machine, as far as its starter says."""
        return 1 if self.alone else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def share(self, total: int, whole: int = 1) -> slice:
        """The part of `total` things that is this rank's; empty for the last ones where there are fewer things than ranks.

        Of every `whole` things that follow each other, such as the images of a class, none is parted from the others.
        """
        each, more = divmod(total // whole, self.count)
        start = self.number * each + min(self.number, more)
        return slice(whole * start, whole * (start + each + (self.number < more)))

    def sum_(self, *tensors: Tensor) -> None:
        """Put the sums over all ranks in the place of tensors of one kind, together in one flat buffer."""
        if self.alone:
            return
        if len(tensors) == 1 and tensors[0].is_contiguous():
            self.start_sum(tensors[0]).wait()
            return
        found = self.start_sum(torch.cat([tensor.reshape(-1) for tensor in tensors])).wait()
        for tensor, part in zip(tensors, found.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def start_sum(self, buffer: Tensor) -> Sum:
        """Begin to put the sum over all ranks in the place of a contiguous tensor, which nobody touches until it is waited for."""
        if self.alone:
            return Sum(buffer)
        _count(2 * buffer.nbytes * (self.count - 1) // self.count)
        with noticed():
            return Sum(buffer, dist.all_reduce(buffer, async_op=True))

    def broadcast_(self, *tensors: Tensor) -> None:
        """Put those of rank 0 in the place of contiguous tensors."""
        for tensor in () if self.alone else tensors:
            _count(tensor.nbytes if self.first else 0)
            with noticed():
                dist.broadcast(tensor, 0)

    def handed_out(self, tensor: Tensor | None, like: Tensor, total: int, whole: int = 1) -> Tensor:
        """This rank's share of the rows of a tensor that rank 0 has.

        Args:
            tensor: all rows, on rank 0; None elsewhere.
            like: some such rows, on the device on which they are to be.
            total: how many rows there are.
            whole: how many of them stay together.
        """
        own = like.new_empty(len(range(total)[self.share(total, whole)]), *like.shape[1:])
        if tensor is not None:
            for number in range(1, self.count):
                _count((part := tensor[Ranks(number, self.count).share(total, whole)].to(like).contiguous()).nbytes)
                with noticed():
                    dist.send(part, number)
            return own.copy_(tensor[self.share(total, whole)])
        with noticed():
            dist.recv(own, 0)
        return own

    def collected(self, tensor: Tensor, total: int, whole: int = 1) -> Tensor:
        """On rank 0 all `total` rows of what every rank has its share of, in the memory of the host; elsewhere just those."""
        host = tensor.detach().cpu().contiguous()
        if not self.first:
            _count(host.nbytes)
            with noticed():
                dist.send(host, 0, group=_waiting())
            return host
        found = host.new_empty(total, *host.shape[1:])
        found[self.share(total, whole)] = host
        for number in range(1, self.count):
            part = found[Ranks(number, self.count).share(total, whole)]
            with noticed():
                dist.recv(part, number, group=_waiting())  # rows, which are contiguous
        return found

    def any(self, *flags: bool) -> bool:
        """Whether one of them is so on some rank."""
        if self.alone:
            return True in flags
        found = torch.tensor([True in flags], dtype=torch.int32)
        with noticed():
            dist.all_reduce(found, dist.ReduceOp.MAX, group=_waiting())
        return bool(found)

    def told(self, work: Callable[[], T]) -> T:
        """What `work` gives rank 0, told to all, who wait for it however long it takes; what it raises there all raise.

        Args:
            work: called on rank 0 alone, which shares nothing of it; what it returns is pickled.
        """
        if self.alone:
            return work()
        value, error = _attempt(work) if self.first else (None, None)
        found = [(value, error and _portable(error))]
        self.wait()
        with noticed():
            dist.broadcast_object_list(found, 0, group=_waiting())
        if (error := error or found[0][1]) is not None:
            raise _raised_by_all(error)
        result: Any = value if self.first else found[0][0]
        return result  # type: ignore[no-any-return]

    def gathered(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives every rank, in their order, on all of them; an error of any is raised on all.

        Args:
            work: called on every rank, which shares nothing of it, and may take each its own time; what it returns is pickled, and
                what it warns of the first rank says.
        """
        if self.alone:
            return [work()]
        value, own = _attempt(lambda: watched(lambda job: job(), work))
        found: list[Any] = [None] * self.count
        self.wait()
        with noticed():
            dist.all_gather_object(found, (value, own and _portable(own)), group=_waiting())
        if errors := [error for error in (own, *(error for _, error in found)) if error is not None]:
            raise _raised_by_all(errors[0])
        return [received(each) if self.first else each[0] for each, _ in found]

    def wait(self) -> None:
        """Wait until all ranks are here, however long that takes; signals are heard meanwhile."""
        if self.alone:
            return
        with noticed():
            work, pause = dist.barrier(group=_waiting(), async_op=True), 1e-4
            while not work.is_completed():
                time.sleep(pause)
                pause = min(2 * pause, LOOK_EVERY)
            work.wait()

    def forget(self) -> None:
        """Let what is waited for be, on all ranks, and begin anew."""
        global _second
        _second = None

    @property
    def sent(self) -> int:
        """Bytes of tensors that this process has sent so far, by the formulae above."""
        return _sent


@contextmanager
def joined() -> Iterator[Ranks]:
    """Inside the block this process is one of those that were started together, if it was; each has a GPU, where there are some.

    Raises:
        Failure: where the others do not come.
    """
    if not started_together() or dist.is_initialized():
        yield Ranks.here()
        return
    backend, local = "gloo", int(os.environ.get("LOCAL_RANK", "0"))
    # Processes that a rank has compute for it take its share of the machine's cores.
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", str(max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))
    if torch.cuda.is_available() and dist.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        if local < torch.cuda.device_count():
            torch.cuda.set_device(local)  # what `cuda` means from here on
    store = _meeting()
    try:
        dist.init_process_group(backend, store=store, rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    except RuntimeError as error:
        raise Failure(f"the {os.environ['WORLD_SIZE']} processes of this run could not meet ({one_line(error, 120)})") from error
    _places[:] = Ranks.here().gathered(lambda: (socket.gethostname(), os.getpid()))
    yield Ranks.here()
    dist.destroy_process_group()  # not after an error: the others may wait for what only the end of this process tells them


@contextmanager
def leaving() -> Iterator[None]:
    """A block that all ranks enter: where it raises, the others, who may wait for this one, which lives on, are told.

    They raise `RankLost`; nobody need be told of what all raise.
    """
    try:
        yield
    except BaseException as error:
        if not hasattr(error, RAISED_BY_ALL):
            _leave()
        raise


def _leave() -> None:
    """Close this process's ends of what the second group waits by; the next who wait make another one."""
    global _second
    held, _second = _second, None
    if held is not None and held[0] is dist.group.WORLD and Ranks.here().count > 1:
        with suppress(RuntimeError, ValueError):
            dist.destroy_process_group(held[1])


def speaks() -> bool:
    """Whether this process is to say how the run ended: of those that were started together the first one that asks."""
    if not started_together():
        return True
    first, kept_by_us = os.environ["RANK"] == "0", os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
    if _store is None and kept_by_us:
        return first  # what has gone wrong before they met has gone wrong on all of them
    try:
        speaking, until = _meeting().add(SAID, 1) == 1, time.monotonic() + PATIENCE
        while first and kept_by_us and _meeting().add(SAID, 0) < int(os.environ["WORLD_SIZE"]) and time.monotonic() < until:
            time.sleep(LOOK_EVERY)  # the others ask, too, and with this process ends what they ask
    except (RuntimeError, Failure):  # who keeps it has ended: then rather twice than not at all
        return True
    return bool(speaking)


def ended() -> str:
    """Which rank of this machine has ended, in words; empty where none has, as far as is known."""
    import psutil

    for number, (host, pid) in enumerate(_places):
        if host != socket.gethostname():
            continue
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                continue
        return f"rank {number} of {len(_places)} has ended"
    return ""


@contextmanager
def noticed() -> Iterator[None]:
    """Inside the block, in which ranks talk to each other, an error means that one of them has ended.

    Raises:
        RankLost: in its place.
    """
    try:
        yield
    except RankLost:
        raise
    except RuntimeError as error:
        known, until = ended(), time.monotonic() + PATIENCE
        while not known and _places and time.monotonic() < until:
            time.sleep(LOOK_EVERY)
            known = ended()
        unknown = f"one of the {dist.get_world_size()} ranks has ended or cannot be reached ({one_line(error, 120)})"
        raise RankLost(f"{known or unknown}, and with it the run") from error


@contextmanager
def together(shared: bool = True) -> Iterator[None]:
    """Inside the block all ranks do the same at the same time, and networks that are to be trained are spread over them."""
    global _together
    before, _together = _together, shared
    try:
        yield
    finally:
        _together = before


_together = False
_places: list[tuple[str, int]] = []  # of every rank, its machine and process
_sent = 0
_store: Any = None
_second: tuple[Any, Any] | None = None  # the default group that the second one was made beside, and that


def _count(nbytes: int) -> None:
    global _sent
    _sent += nbytes


def _meeting() -> Any:
    """What the processes that were started together write to and read from."""
    global _store
    if _store is None:
        try:
            # What is started anew may find the store of the attempt before, with the places of processes that have ended in it.
            attempt = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')} of {os.environ['WORLD_SIZE']}"
            _store = dist.PrefixStore(f"limbeck attempt {attempt}", next(iter(rendezvous("env://")))[0])  # type: ignore[attr-defined]
        except RuntimeError as error:
            raise Failure(f"MASTER_ADDR: nobody answers at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}") from error
    return _store


def _waiting() -> Any:
    """The group that has all the time in the world."""
    global _second
    if _second is None or _second[0] is not dist.group.WORLD:
        _second = (dist.group.WORLD, dist.new_group(backend="gloo", timeout=FOREVER))
    return _second[1]


def _attempt(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        with together(False):
            return work(), None
    except Exception as error:  # noqa: BLE001 (it travels, and is raised once all know)
        return None, error


def _raised_by_all(error: Exception) -> Exception:
    setattr(error, RAISED_BY_ALL, True)
    return error


def _portable(error: Exception) -> Exception:
    """The same as other processes may raise it, who need not know its class."""
    return error if isinstance(error, (UsageError, Failure)) else Failure(f"{type(error).__name__}: {one_line(error)}")
