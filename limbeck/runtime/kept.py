"""Kept work: what is dear to make is made once, under the fingerprint of all that determines it, and found again.

    <root>/<kind>/<fingerprint>.safetensors, .json, or a folder

One process makes it while others wait; what is found damaged when it is read is made anew. Where nothing can be written, what is
there is read all the same, and what was made is used without being kept.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from limbeck.runtime.disk import why
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.executor import PLACES, put_environment
from limbeck.runtime.files import read_json, read_tensors, write_json, write_tensors
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.leftovers import tidy_once
from limbeck.runtime.locks import lock
from limbeck.runtime.sealed import Damaged, FileKind

if TYPE_CHECKING:
    from torch import Tensor

KEPT = FileKind("kept work")
T = TypeVar("T")
TRIES = 3
_unkept: dict[Path, Any] = {}  # what could not be written, for as long as this process lives


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
    """What `held` finds at `path`; where that is nothing, `make` puts it there first, in one process at a time.

    Raises:
        UsageError: when nothing is there and nothing can be written there.
        Failure: when it is removed again and again.
    """
    if (found := held()) is not None:
        return found
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(path))
        except OSError as error:
            raise unusable_cache(error) from error
        for _ in range(TRIES):
            if (found := held()) is None:  # another process may have been faster
                make()
                found = held()
            if found is not None:
                return found
    raise Failure(f"{str(path)!r} was removed {TRIES} times while it was made; the same command makes it again")


def unusable_cache(error: OSError) -> UsageError:
    """What to say of a cache in which nothing can be written."""
    named = "which LIMBECK_CACHE names" if os.environ.get("LIMBECK_CACHE") else "the default"
    said = f"LIMBECK_CACHE: nothing can be kept in {str(cache_root())!r}, {named}: {why(error)}"
    return UsageError(f"{said}; LIMBECK_CACHE=DIR names a place where files can be written")


@contextmanager
def if_possible(path: Path) -> Iterator[None]:
    """Inside the block something is written that nothing depends on: what the disk refuses is said once, and work goes on."""
    try:
        yield
    except OSError as error:
        _say_unkept(str(path.parent), why(error))


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
    def tensors(path: Path, sound: "Callable[[dict[str, Tensor]], bool]", about: Any = None) -> "Kept[dict[str, Tensor]]":
        """Tensors by name, and what their file notes about them."""
        of = _of(path)
        return Kept(
            path,
            lambda path: read_tensors(path, kind=KEPT, of=of)[0],
            lambda path, held: write_tensors(path, held, about, KEPT, of),
            sound,
        )

    @staticmethod
    def json(path: Path) -> "Kept[dict[str, Any]]":
        """An object of JSON."""
        return Kept(path, _read_object, lambda path, value: write_json(path, value, KEPT, _of(path)))

    def held(self) -> T | None:
        """What is there; None where nothing is, or something damaged, which is said."""
        tidy_once(self.path.parent)
        if self.path in _unkept:
            return cast(T, _unkept[self.path])
        with suppress(Exception):  # a file can be broken in many ways
            if self.sound(value := self.read(self.path)):
                return value
        if self.path.exists():
            say_damaged(self.path)
        return None

    def get(self, make: Callable[[], T]) -> T:
        """What is there, made and kept first where nothing is."""

        def more(_: T | None) -> Iterator[T]:
            yield make()

        return self.grown(lambda value: True, more)

    def grown(self, enough: Callable[[T], bool], more: Callable[[T | None], Iterator[T]]) -> T:
        """What is there, once it is `enough`: until then `more` goes on from it, and what it yields is kept, where it can be."""
        found = self.held()
        if found is not None and enough(found):
            return found
        with ExitStack() as stack:
            alone = False
            with if_possible(self.path):
                stack.enter_context(lock(self.path))
                alone, found = True, self.held()  # another process may have been faster
            if found is None or not enough(found):
                for made in more(found):
                    found = made
                    self._keep(made, alone)
                again = self.held()  # as whoever finds it will read it
                found = found if again is None else again
        assert found is not None, "what grows yields something"
        return found

    def _keep(self, value: T, alone: bool) -> None:
        if alone:
            with if_possible(self.path):
                self.write(self.path, value)
                _unkept.pop(self.path, None)
                return
        _unkept[self.path] = value


@cache
def say_damaged(path: Path) -> None:
    """Say, once, that what is kept there is not what was written."""
    logging.getLogger("limbeck").warning("%s is damaged; what it held is made anew", path)


@cache
def _say_unkept(folder: str, reason: str) -> None:
    said = "%s cannot be written to (%s): what is made is used, and not kept; LIMBECK_CACHE=DIR names another place"
    logging.getLogger("limbeck").warning(said, folder, reason)


def _read_object(path: Path) -> dict[str, Any]:
    value = dict(read_json(path, KEPT, _of(path)))
    if value.pop("digest", None) not in (None, fingerprint(value)):  # as an earlier version wrote it
        raise Damaged("it has changed since it was written")
    return value


def _of(path: Path) -> str:
    """What a file of kept work belongs to: where it lies, below the cache's root, is what determines it."""
    return f"{path.parent.name}/{path.stem}"
