"""Which bits repeat: what is promised of a result, how that is had, and the statement of it beside every result.

Draws are keyed and sums are in the order of the code, so that on one processor, with one version of torch, a computation on one
thread of the CPU repeats to the bit: in a fresh process, another folder, another time zone and locale. What several threads share
out is summed in another order on another number of them. `engine.deterministic` therefore takes one thread for every operation;
micro-batches beside each other, and trainings in processes, which are whole computations of one thread each, take the other cores,
and are as many however many cores there are.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from limbeck.runtime.ranks import Ranks
from limbeck.runtime.records import Record

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
ELSEWHERE = "in a fresh process, another folder, another time zone and another locale"


@dataclass(frozen=True, kw_only=True)
class Determinism(Record):
    """The statement.

    Args:
        asked: whether `engine.deterministic` was.
        threads: that one operation on the CPU could share.
        lanes: micro-batches beside each other; None where there was no engine, as the next two.
        micro_batch: images of each; None also where a batch was taken whole.
        compiled: whether the student's step was.
        instructions: that torch's own kernels on the CPU used.
        torch: its version.
        device: that computed.
        flags: of torch, by name.
        same: where a repetition has the same bits.
        other: where it need not have.
    """

    asked: bool
    threads: int
    lanes: int | None = None
    micro_batch: int | None = None
    compiled: bool | None = None
    instructions: str
    torch: str
    device: str
    flags: Mapping[str, Any]
    same: tuple[str, ...]
    other: tuple[str, ...]

    LEFT_OUT: ClassVar = ("lanes", "micro_batch", "compiled")


_inside: list[bool] = []  # of such a block


def deterministic() -> bool:
    """Whether this is inside of `repeating`, where that is wanted."""
    return bool(_inside)


@contextmanager
def repeating(wanted: bool) -> Iterator[None]:
    """Inside the block, where `wanted`, one thread computes each operation, and torch takes algorithms that repeat.

    It warns of operations that it has none for.
    """
    if not wanted:
        yield
        return
    from threadpoolctl import threadpool_limits  # which scikit-learn needs

    threads, enabled = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault(WORKSPACE, ":4096:8")  # without it cuBLAS's sums may differ
    with threadpool_limits(1):
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        _inside.append(True)
        try:
            yield
        finally:
            _inside.pop()
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(enabled, warn_only=warns)


def statement(device: torch.device, engine: Any = None) -> Determinism:
    """What repeats of what is computed now on the device, by an engine of that arrangement where there is one."""
    asked, threads, instructions = deterministic(), torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    cudnn, on_cpu = torch.backends.cudnn, device.type == "cpu"
    same, other = [ELSEWHERE] if on_cpu else [], [f"with another version than torch {torch.__version__}"]
    if on_cpu:
        (same if asked else other).append("on another number of threads and cores")
        other.append(f"on a processor with other instructions than {instructions}")
    else:
        other.append("on another device")
        other.append("in operations for which CUDA chooses the order of sums, such as the gradients of the augmentation's shifts")
    if not Ranks.here().alone:
        other.append("with another number of processes")
    if engine is not None and engine.compiled:
        other.append("where the compiler fails, or is another one")
    flags = {
        "use_deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn.deterministic": cudnn.deterministic,
        "cudnn.benchmark": cudnn.benchmark,
        "cudnn.allow_tf32": cudnn.allow_tf32,
        "cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
    }
    return Determinism(
        asked=asked,
        threads=threads,
        lanes=None if engine is None else engine.lanes,
        micro_batch=None if engine is None else engine.micro_batch,
        compiled=None if engine is None else engine.compiled,
        instructions=instructions,
        torch=torch.__version__,
        device=str(device) if on_cpu else torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        flags=flags,
        same=tuple(same),
        other=tuple(other),
    )
