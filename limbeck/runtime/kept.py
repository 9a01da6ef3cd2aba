"""Kept work: what is dear to make is made once, under the fingerprint of all that determines it, and found again.

    <root>/<kind>/<fingerprint>.safetensors, .json, or a folder

One process makes it while others wait; what is found damaged when it is read is made anew.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from limbeck.runtime.executor import PLACES, put_environment
from limbeck.runtime.files import read_json, read_tensors, write_json, write_tensors
from limbeck.runtime.fingerprint import encodable, fingerprint
from limbeck.runtime.leftovers import tidy_once
from limbeck.runtime.locks import lock

T = TypeVar("T")


def cache_root() -> Path:
    """`$LIMBECK_CACHE`, else `$XDG_CACHE_HOME/limbeck`, else `~/.cache/limbeck`."""
    if named := os.environ.get("LIMBECK_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "limbeck"


@contextmanager
def elsewhere(root: Path) -> Iterator[None]:
    """Inside the block, everything is kept under `root`, compiled code too, also by worker processes that get work there."""
    before = {name: os.environ.get(name) for name in PLACES}
    put_environment(dict(zip(PLACES, (str(root), str(root / "compiled")), strict=True)))
    try:
        yield
    finally:
        put_environment(before)


def place(kind: str, identity: Any) -> Path:
    """The file of tensors that `identity` determines."""
    return cache_root() / kind / f"{fingerprint(identity)}.safetensors"


def get(path: Path, held: Callable[[], T | None], make: Callable[[], object]) -> T:
    """What `held` finds at `path`; where that is nothing, `make` puts it there first, in one process at a time."""
    if (found := held()) is None:
        with lock(path):
            if (found := held()) is None:  # another process may have been faster
                make()
                found = held()
    assert found is not None, f"{path} was removed while it was used"
    return found


@dataclass(frozen=True)
class Kept(Generic[T]):
    """One file of kept work.

    Args:
        path: where.
        read: what it holds; raises some error where it is damaged.
        write: it, at once or not at all.
        sound: whether what was read can be what is wanted.
    """

    path: Path
    read: Callable[[Path], T]
    write: Callable[[Path, T], None]
    sound: Callable[[T], bool] = lambda value: True

    @staticmethod
    def tensors(path: Path, sound: Callable[[dict[str, Tensor]], bool], about: Any = None) -> "Kept[dict[str, Tensor]]":
        """Tensors by name, and what their file notes about them."""
        return Kept(path, lambda path: read_tensors(path)[0], lambda path, held: write_tensors(path, held, about), sound)

    @staticmethod
    def json(path: Path) -> "Kept[dict[str, Any]]":
        """An object of JSON."""
        return Kept(path, _read_checked, lambda path, value: write_json(path, {**value, "digest": fingerprint(encodable(value))}))

    def held(self) -> T | None:
        """What is there; None where nothing is, or something damaged, which is said."""
        tidy_once(self.path.parent)
        with suppress(Exception):  # a file can be broken in many ways
            if self.sound(value := self.read(self.path)):
                return value
        if self.path.exists():
            _say_damaged(self.path)
        return None

    def get(self, make: Callable[[], T]) -> T:
        """What is there, made and kept first where nothing is."""
        return get(self.path, self.held, lambda: self.write(self.path, make()))

    def grown(self, enough: Callable[[T], bool], more: Callable[[T | None], Iterator[T]]) -> T:
        """What is there, once it is `enough`: until then `more` goes on from it, and everything that it yields is kept."""

        def held() -> T | None:
            found = self.held()
            return found if found is not None and enough(found) else None

        def grow() -> None:
            for value in more(self.held()):
                self.write(self.path, value)

        return get(self.path, held, grow)


@cache
def _say_damaged(path: Path) -> None:
    logging.getLogger("limbeck").warning("%s is damaged; what it held is made anew", path)


def _read_checked(path: Path) -> dict[str, Any]:
    value = dict(read_json(path))
    if value.pop("digest", None) not in (None, fingerprint(value)):
        raise ValueError("it has changed")
    return value
