"""The executor of the moment, and executors by name, as commands and calls have them.

What is computed does not depend on it, so that it is no part of any setting or value.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from limbeck.runtime.errors import require
from limbeck.runtime.executor.interface import Executor
from limbeck.runtime.executor.local import Local
from limbeck.runtime.executor.on_ray import Ray

NAMES = ("local", "ray")
_inside: list[Executor] = []  # the innermost last
_here = Local()


def current() -> Executor:
    """The executor inside of whose block this is; processes of this machine outside of any."""
    return _inside[-1] if _inside else _here


@contextmanager
def using(executor: Executor) -> Iterator[None]:
    """Inside the block jobs run there."""
    with executor:
        _inside.append(executor)
        try:
            yield
        finally:
            _inside.pop()


def executor_of(name: str, address: str | None = None, cpus: int | None = None, gpus: float | None = None) -> Executor:
    """The executor of that name.

    Args:
        name: one of `NAMES`.
        address: of a cluster; None: see `Ray`.
        cpus: threads that a job takes there; None: one.
        gpus: GPUs, or the share of one; None: none.

    Raises:
        UsageError: when the name is unknown, or says nothing that the others could belong to.
    """
    require(name in NAMES, "--executor", name, f"one of {', '.join(NAMES)}")
    if name == "ray":
        return Ray(address, cpus or 1, gpus or 0.0)
    for option, value in (("--address", address), ("--cpus", cpus), ("--gpus", gpus)):
        require(value is None, option, value, "accepted without --executor ray")
    return Local()


def executing(executor: Executor | str | None) -> AbstractContextManager[None]:
    """Inside the block jobs run there; None leaves them where they would run."""
    if executor is None:
        return nullcontext()
    named = isinstance(executor, (Executor, str))
    require(named, "executor", executor, f"an Executor, nor one of {', '.join(NAMES)}")
    return using(executor_of(executor) if isinstance(executor, str) else executor)
