"""Jobs for the tests of executors, which workers import."""

import logging
import os
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck.runtime.errors import UsageError
from limbeck.runtime.executor import Tick
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.kept import Kept, cache_root
from limbeck.runtime.locks import lock


def note(path: Path, line: str) -> None:
    """Add a line, which other processes may do at the same time."""
    with path.open("ab") as file:
        file.write(f"{line}\n".encode())


def where(shared: int, job: int, tick: Tick) -> tuple[int, str, str, str, int]:
    """A sum, and where and how it was computed."""
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
    made = Kept.json(cache_root() / "squares" / f"{job}.json")
    with lock(made.path):
        if made.held() is None:
            time.sleep(0.1)
            write_json(made.path, {"square": job * job})
            note(log, f"made {job} {os.getpid()}")
    tick()
    return int(read_json(made.path)["square"])


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
