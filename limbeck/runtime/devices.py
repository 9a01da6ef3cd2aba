"""Which device to compute on, what it can do, and what the results were computed with.

All that differs between a CPU and a GPU is asked for here. Torch's `meta` device, whose tensors have shapes and no values, stands
in for a GPU: it refuses tensors of the CPU as one does, and costs nothing.
"""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from limbeck.runtime.cgroup import memory_left
from limbeck.runtime.determinism import statement
from limbeck.runtime.errors import require
from limbeck.runtime.missing import NotInstalled
from limbeck.runtime.version import VERSION

# What convolutions in bf16 take of the time of single precision, measured: on AVX2, and on an Intel Xeon with AVX-512's
# instructions for bf16 and no AMX (family 6, model 207): single convolutions twice, whole iterations five to six times.
WITHOUT_BF16, HALF_RATE_BF16 = "10 to 30 times", "two to six times"
STAND_IN = torch.device("meta")
STAND_IN_MEMORY = 24 * 2**30  # bytes that the stand-in says it has: a usual card's


def resolve_device(name: str) -> torch.device:
    """The device of that name; `auto` takes CUDA where there is one.

    Raises:
        UsageError: when the name is unknown or the device absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        present = device.type in ("cpu", "cuda")
    except (RuntimeError, AssertionError):
        present = False
    require(present, "engine.device", name, "auto, cpu or a CUDA device that is present here")
    return device


def same_device(one: str, other: str) -> bool:
    """Whether two names mean one device: `cuda` is `cuda:0`."""
    a, b = torch.device(one), torch.device(other)
    return (a.type, a.index or 0) == (b.type, b.index or 0)


def on_gpu(device: torch.device) -> bool:
    """Whether to compute as on a GPU, in large batches and with several networks in step: on one, or on what stands in for it."""
    return device.type != "cpu"


def has_values(device: torch.device) -> bool:
    """Whether tensors there have values to look at, and work a time that it takes: not on the stand-in."""
    return device.type != STAND_IN.type


def all_true(mask: Tensor) -> bool:
    """Whether all of it is true; where there are no values nothing speaks against it."""
    return not has_values(mask.device) or bool(mask.all())


def memory_of(device: torch.device) -> tuple[int, int]:
    """Bytes that can still be had on the device, and that it has: of the memory that this process may take for the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    if not has_values(device):
        return STAND_IN_MEMORY, STAND_IN_MEMORY
    free, total = _memory_of_machine()
    left, most = memory_left() or (free, total)
    return min(free, left), min(total, most)


def _memory_of_machine() -> tuple[int, int]:
    """The same of the machine's memory; without psutil, which the parts do not need, what caches hold counts as taken."""
    try:
        import psutil

        memory = psutil.virtual_memory()
        return int(memory.available), int(memory.total)
    except NotInstalled:
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")


def allocated(device: torch.device, anew: bool = False) -> tuple[int, int]:
    """Bytes of this process's tensors on a CUDA device, and the most that they were, since the last call that counts `anew`."""
    synchronize(device)
    if anew:
        torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that a clock tells its time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def new_step(device: torch.device) -> None:
    """Say that CUDA graphs may write over what they gave before."""
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()


def to_host(tensor: Tensor) -> Tensor:
    """A copy of it that waits in the host's memory, for the same device's later work; itself where it is there already."""
    if tensor.device.type == "cpu":
        return tensor
    pinned = tensor.device.type == "cuda"
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
    return host.copy_(tensor, non_blocking=True) if has_values(tensor.device) else host


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Convolutions and matrix products in `dtype` inside; on the stand-in, which knows none, as they come."""
    return torch.autocast(device.type, dtype) if has_values(device) else nullcontext()


def fast_bf16(device: torch.device) -> bool:
    """Whether products in bf16 are faster than in single precision on the device."""
    return not slow_bf16(device)


def slow_bf16(device: torch.device) -> str:
    """What convolutions in bf16 take of the time of single precision, in words; empty where they are faster."""
    if device.type == "cuda":
        return "" if torch.cuda.get_device_capability(device)[0] >= 8 else WITHOUT_BF16
    if not has_values(device):
        return ""
    # What is allowed counts, not only what the processor has: the variables are how a machine is made to work as an older one.
    capped = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    allowed = capped in ("", "ALL", "DEFAULT") or any(word in capped for word in ("BF16", "FP16", "AMX", "AVX10"))
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    found = {name for name, value in able.items() if name.endswith("bf16") and value}
    if not (found and allowed) or torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        return WITHOUT_BF16
    return HALF_RATE_BF16 if found == {"avx512_bf16"} and "intel" in str(able.get("cpu_name", "")).lower() else ""


def device_to_plan(name: str) -> torch.device:
    """The device of that name; of a CUDA device that is not there, what stands in for it."""
    absent = re.fullmatch(r"cuda(:\d+)?", name) and not torch.cuda.is_available()
    return STAND_IN if absent else resolve_device(name)


def repeatable(device: torch.device, tf32: bool = False) -> None:
    """Make cuDNN choose the same algorithms every time, in full single precision or in TF32, for this process.

    Some operations of the augmentation still add in an order that CUDA chooses: on a GPU a resumed run equals an uninterrupted
    one to rounding, on the CPU to the bit.
    """
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside the block torch is as where nobody has set anything, but for the number of threads; afterwards it is as it was before.

    Of the caller's it sets aside gradient and inference mode, autocasting and the default type; it brings back these, the number of
    threads, the state of chance on the CPU, and what `repeatable` sets.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    kind, threads, chance = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state()
    flags = cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32
    plain = (torch.autocast(device, enabled=False) for device in ("cpu", "cuda"))
    with torch.inference_mode(False), torch.enable_grad(), next(plain), next(plain):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(kind)
            torch.set_num_threads(threads)
            torch.set_rng_state(chance)
            cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = flags


def one_thread() -> AbstractContextManager[None]:
    """Inside the block torch computes on one thread of the CPU: sums then round alike on any number of cores."""
    return so_many_threads(1)


@contextmanager
def so_many_threads(number: int) -> Iterator[None]:
    """Inside the block torch computes on that many threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, to be stored beside every result."""
    return {
        "limbeck": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "determinism": statement(device).to_dict(),
    }
