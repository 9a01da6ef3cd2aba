"""Which device to compute on, and what the results were computed with."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from limbeck.runtime.errors import require


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
    threads, and what `repeatable` sets.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    kind, threads, flags = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        (cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32),
    )
    plain = (torch.autocast(device, enabled=False) for device in ("cpu", "cuda"))
    with torch.inference_mode(False), torch.enable_grad(), next(plain), next(plain):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(kind)
            torch.set_num_threads(threads)
            cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = flags


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside the block torch computes on one thread of the CPU: sums then round alike on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, to be stored beside every result."""
    from importlib.metadata import version

    return {
        "limbeck": version("limbeck"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
