"""Executors by name, as commands and calls have them."""

from contextlib import AbstractContextManager, nullcontext

from limbeck.runtime.errors import require
from limbeck.runtime.executor.current import using
from limbeck.runtime.executor.interface import Executor
from limbeck.runtime.executor.local import Local
from limbeck.runtime.executor.on_ray import Ray

NAMES = ("local", "ray")


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
