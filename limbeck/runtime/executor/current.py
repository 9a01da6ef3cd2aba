"""The executor of the moment: what is computed does not depend on it, so that it is no part of any setting or value."""

from collections.abc import Iterator
from contextlib import contextmanager

from limbeck.runtime.executor.interface import Executor
from limbeck.runtime.executor.local import Local

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
