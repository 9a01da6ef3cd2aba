"""Jobs for the tests of executors, which workers import: most without torch, so that a worker is soon there again."""

import logging
import os
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.runtime.errors import UsageError
from limbeck.runtime.executor import Tick
from limbeck.runtime.leftovers import part
from limbeck.runtime.locks import lock


def note(path: Path, line: str) -> None:
    """Add a line, which other processes may do at the same time."""
    with path.open("ab") as file:
        file.write(f"{line}\n".encode())


def where(shared: int, job: int, tick: Tick) -> tuple[int, str, str, str, int]:
    """A sum, and where and how it was computed."""
    import torch

    from limbeck.runtime.kept import cache_root

    tick()
    if job == 1:
        warnings.warn("a piece 1 is odd", UserWarning, stacklevel=1)
        logging.getLogger("limbeck").warning("job %d says so", job)
    return shared + job, str(os.getpid()), os.environ.get("OMP_NUM_THREADS", ""), str(cache_root()), torch.get_num_threads()


def refuse(log: Path, job: int, tick: Tick) -> int:
    note(log, f"{job}")
    if job == 2:
        raise UsageError("ipc: 2 is not wanted")
    time.sleep(0.05)
    return job


class Odd(Exception):
    """One that cannot be made again of what it was made of."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}\nin two lines")


def odd(shared: None, job: int, tick: Tick) -> int:
    raise Odd(1, job)


def total(array: np.ndarray, job: int, tick: Tick) -> tuple[float, bool]:
    return float(array.sum()) + job, getattr(array, "_mmap", None) is not None


def kept(log: Path, job: int, tick: Tick) -> int:
    """What is kept once it is made, as experts and blocks of images are."""
    note(log, f"begun {job} {os.getpid()}")
    path = Path(os.environ["LIMBECK_CACHE"]) / f"{job}.txt"
    with lock(path):
        if not path.exists():
            time.sleep(0.1)
            with part(path) as temporary:
                temporary.write_text(str(job * job))
                os.replace(temporary, path)
            note(log, f"made {job} {os.getpid()}")
    tick()
    return int(path.read_text())


def die(log: Path, job: int, tick: Tick) -> int:
    note(log, f"{job}")
    os.kill(os.getpid(), signal.SIGKILL)
    return job


def wait(log: Path, job: int, tick: Tick) -> int:
    note(log, f"{job} {os.getpid()}")
    time.sleep(600)
    return job


def lines(log: Path) -> list[Sequence[Any]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []
