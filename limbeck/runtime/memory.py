"""How much memory there is, and how much a piece of work takes."""

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

import torch

T = TypeVar("T")
MIB = 2**20


class Taken(NamedTuple):
    """Bytes of tensors: the most that were held at once while some work ran, and what is held after it, both beyond before."""

    peak: int
    held: int


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on the device: of the machine's memory for the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(psutil.virtual_memory().available)


def total_memory(device: torch.device) -> int:
    """Bytes that the device has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    import psutil

    return int(psutil.virtual_memory().total)


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
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident()


def measure(work: Callable[[], T], device: torch.device) -> tuple[T, Taken]:
    """The result of `work`, and the tensors that it took."""
    return _measure_cuda(work, device) if device.type == "cuda" else _measure_cpu(work)


def _measure_cuda(work: Callable[[], T], device: torch.device) -> tuple[T, Taken]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = work()
    torch.cuda.synchronize(device)
    peak, after = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    return result, Taken(peak - before, after - before)


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
    with suppress(OSError, AttributeError, TypeError):  # another C library
        library = ctypes.CDLL(None)
        trim_threshold, mmap_threshold = -1, -3
        library.mallopt(mmap_threshold, 32 * MIB)  # the most that is accepted
        library.mallopt(trim_threshold, 2**31 - 1)
