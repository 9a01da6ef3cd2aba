"""How functions of tensors are compiled here."""

import atexit
import os
import platform
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from limbeck.runtime.disk import try_folder
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.kept import cache_root
from limbeck.runtime.leftovers import new_passing_folder, remove

LIMIT = 64
OPTIONS = {
    # As it comes, the compiler writes whatever many places read to memory, masks of one byte an element among them, and a pass
    # with such a mask is ten times slower than one that computes it again.
    **{f"realize_{kind}_threshold": 2000 for kind in ("reads", "acc_reads", "opcount")},
    # What the processor can do stands in its flags. The compiler would build, load and run a library for each kind of instruction
    # once more, in every new cache: a fifth of the time of the first compilation.
    "cpp.vec_isa_ok": True,
}


def compiled(function: Callable[..., Any], cuda_graphs: bool = True, side_by_side: bool = False) -> Callable[..., Any]:
    """`function` through `torch.compile`, at its first call: one graph, one for every shape, on CUDA a CUDA graph unless refused.

    A CUDA graph writes its results where the last call's lie: who keeps results over calls takes none.

    Args:
        function: of tensors.
        cuda_graphs: whether it may become one.
        side_by_side: for the CPU, so that several threads can be in it at once: outside Python's lock.
    """
    import torch._dynamo  # as slow to import as torch, and most processes compile nothing

    keep_compiled_code()
    # Eight graphs of one function are torch's limit, and one function here serves all networks and sizes of a process.
    for limit in ("recompile_limit", "cache_size_limit"):  # its name since torch 2.7, and before
        if getattr(torch._dynamo.config, limit, LIMIT) < LIMIT:
            setattr(torch._dynamo.config, limit, LIMIT)
    options = {**OPTIONS, "triton.cudagraphs": cuda_graphs and not side_by_side, "cpp_wrapper": side_by_side}
    known = torch._inductor.list_options()
    return torch.compile(function, fullgraph=True, dynamic=False, options={key: options[key] for key in options if key in known})


def keep_compiled_code() -> None:
    """Have compiled code kept in our cache, or where the user has named another place, so that the next process finds it.

    Every kind of processor has a folder there. Torch finds a compiled graph again by its code and versions alone: what was written
    for AVX-512 would be taken on a processor with AVX2, or where `ATEN_CPU_CAPABILITY` asks for that, and give wrong numbers.
    """
    place = _named() or cache_root() / "compiled"
    if place.name != processor():
        try:
            try_folder(place / processor())
        except OSError:  # nothing can be kept there: this process has a place of its own
            place = _passing()
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(place / processor())


def _named() -> Path | None:
    """The place that the user has named. Torch's compiler names one itself when it is imported, which a reboot may empty."""
    named = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or "/")
    of_torch = named.parent == Path(tempfile.gettempdir()) and named.name.startswith("torchinductor_")
    return None if of_torch or named == Path("/") else named


@cache
def _passing() -> Path:
    """A folder that ends with the process; nobody else can have put code into it."""
    folder = new_passing_folder()
    atexit.register(remove, folder)
    return folder


@cache
def processor() -> str:
    """A name for the instructions that compiled code may use here."""
    known = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        known = next(line for line in lines if line.lower().startswith(("flags", "features")))
    capability = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "-")
    return f"{capability}-{fingerprint(sorted(known.split()))[:8]}"
