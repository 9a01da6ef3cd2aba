"""How much memory there is, and how much a piece of work takes."""

import ctypes
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from limbeck.runtime.devices import STAND_IN, allocated, has_values, memory_of, on_gpu
from limbeck.runtime.disk import in_words
from limbeck.runtime.errors import UsageError

T = TypeVar("T")
MIB = 2**20
GRAIN = 512  # bytes that CUDA's allocator gives at least


class Taken(NamedTuple):
    """Bytes of tensors: the most that were held at once while some work ran, and what is held after it, both beyond before."""

    peak: int
    held: int


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on the device: of the memory that this process may take for the CPU."""
    return memory_of(device)[0]


def check_memory(size: float, device: torch.device, setting: str, what: str, less: str) -> None:
    """Refuse what would not fit, before it is begun: the system would end the process without a word.

    Args:
        size: bytes that will be held at once, at least.
        device: where.
        setting: the key that asks for it, and its value: "engine.kind: 'unroll'".
        what: takes them.
        less: the settings that would take less, in words.

    Raises:
        UsageError: when less is free.
    """
    if size > (left := free_memory(device)):
        needs = f"{what} takes about {in_words(size)} of memory, of which {in_words(left)} are free"
        raise UsageError(f"{setting} is not possible here: {needs}; {less}")


def total_memory(device: torch.device) -> int:
    """Bytes that the device has."""
    return memory_of(device)[1]


def peak_resident() -> int:
    """The most bytes that this process has had in the machine's memory so far."""
    # On Linux the other figure starts at what the process that started this one had.
    with suppress(OSError, StopIteration), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    import resource  # not to be found on Windows

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024


def peak_memory(device: torch.device) -> int:
    """The most bytes so far: on CUDA of this process's tensors on the device, else of the process in the machine's memory."""
    return allocated(device)[1] if on_gpu(device) and has_values(device) else peak_resident()


def measure(work: Callable[[], T], device: torch.device) -> tuple[T, Taken]:
    """The result of `work`, and the tensors that it took; on the stand-in for a GPU, those that it would take there."""
    if not on_gpu(device):
        return _measure_cpu(work)
    if not has_values(device):
        with Count() as count:
            result = work()
        return result, Taken(count.peak, count.held)
    before = allocated(device, anew=True)[0]
    result = work()
    after, peak = allocated(device)
    return result, Taken(peak - before, after - before)


class Count(TorchDispatchMode):
    """Counts, while it is entered, the bytes of tensors that are made on a device without values, less those that are given up.

    What a library takes within one operation is not seen. Bytes are rounded up as CUDA's allocator does.

    Example:
        >>> with Count() as count:
        ...     total = torch.zeros(256, 256, device="meta").exp().sum()
        >>> count.peak, count.held
        (524288, 512)
    """

    def __init__(self, device: torch.device = STAND_IN) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.held, self.peak = device, 0, 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tree_map_only(torch.Tensor, partial(self._see, made=False), (args, kwargs))  # a view of an older one is no new one
        result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, partial(self._see, made=True), result)
        return result

    def _see(self, tensor: torch.Tensor, made: bool) -> None:
        if tensor.device.type != self.device.type:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, -(-storage.nbytes() // GRAIN) * GRAIN * made
        if key in self._seen:
            return

        def given_up(reference: object) -> None:
            self._seen.pop(key)
            self.held -= size

        self._seen[key] = weakref.ref(storage, given_up)
        self.held += size
        self.peak = max(self.peak, self.held)


def _measure_cpu(work: Callable[[], T]) -> tuple[T, Taken]:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler announces itself on standard error
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = work()
    changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return result, Taken(peak, held)


def reuse_freed_memory() -> None:
    """Let the C library keep what is freed for the next tensor, in this process.

    It gives large blocks back to the system at once, and getting them again costs a page fault for every 4 KiB: more time than
    many a compiled pass over such a block takes.
    """
    _set_malloc(mmap_threshold=32 * MIB, trim_threshold=2**31 - 1)  # the most that is accepted


@contextmanager
def freed_memory_reused() -> Iterator[None]:
    """Inside the block the same of blocks of any size, in any thread; after it the system has back what is free.

    Blocks above 32 MiB, as the activations of 256 images of 32×32 are, go back at once whatever the threshold, and a training that
    meets them spends up to a third of its time in page faults. Threads but the first have heaps of 64 MiB, which go back as soon
    as nothing is left in one unless so much is to be kept. Only for work that asks for the same sizes again and again: of others a
    heap keeps the gaps.
    """
    reuse_freed_memory()
    _set_malloc(mmap_max=0, top_pad=64 * MIB)
    try:
        yield
    finally:
        _set_malloc(mmap_max=65_536, top_pad=128 * 1024)  # as they were
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


_MALLOC = {"trim_threshold": -1, "top_pad": -2, "mmap_threshold": -3, "mmap_max": -4}  # of mallopt


def _set_malloc(**values: int) -> None:
    with suppress(OSError, AttributeError, TypeError):  # another C library
        library = ctypes.CDLL(None)
        for name, value in values.items():
            library.mallopt(_MALLOC[name], value)
