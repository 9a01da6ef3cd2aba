"""What processes that work for this one must have in common with it."""

import os
from collections.abc import Mapping

from limbeck.runtime.interruption import ENDS_WITH

PLACES = ("LIMBECK_CACHE", "TORCHINDUCTOR_CACHE_DIR")  # variables that say where things are kept


def places() -> dict[str, str | None]:
    """Where this process keeps things."""
    return {name: os.environ.get(name) for name in PLACES}


def put_environment(values: Mapping[str, str | None]) -> None:
    """Set the variables of this process; None removes one."""
    for name, value in values.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def cores() -> int:
    """The cores that this process may use; `$LOKY_MAX_CPU_COUNT` where that is fewer."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get("LOKY_MAX_CPU_COUNT", "")
    return max(1, min(allowed, int(named))) if named.isdigit() else allowed


def share_of(number: int, threads: int) -> dict[str, str]:
    """Variables of a process that is to take so many threads, and whose end is that of the process `number`."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    own = min(threads, int(given)) if given.isdecimal() and int(given) else threads
    return {ENDS_WITH: str(number), "OMP_NUM_THREADS": str(own), "LOKY_MAX_CPU_COUNT": str(threads)}
