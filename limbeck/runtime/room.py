"""Room for what a run will write, looked for before it begins, and what is said where a disk fails later.

Before work begins a full disk is a `UsageError` that names the place and the key of another; while it goes on a `DiskFailure`.
What was finished is whole in both cases: every file is written beside its place first.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from limbeck.runtime import disk
from limbeck.runtime.errors import DiskFailure, UsageError
from limbeck.runtime.kept import cache_root, unusable_cache


class Need(NamedTuple):
    """What will be written: the folder, at least how many bytes, in words what they are, and the key that names another folder."""

    folder: Path
    size: int
    what: str
    key: str


def check_place(folder: Path, key: str) -> None:
    """Raise `UsageError` unless files can be written in the folder, which need not be there yet."""
    try:
        disk.try_folder(folder)
    except OSError as error:
        raise UsageError(f"{key}: {str(folder)!r} cannot be written: {disk.why(error)}; name another place") from error


def check_cache() -> None:
    """Raise `UsageError` unless the cache can be written to."""
    try:
        disk.try_folder(cache_root())
    except OSError as error:
        raise unusable_cache(error) from error


def check_room(needs: Sequence[Need]) -> None:
    """Raise `UsageError` unless there is room for all of them: those in one file system share what is free."""
    for number in {disk.device(need.folder) for need in needs if need.size > 0}:
        here = [need for need in needs if need.size > 0 and disk.device(need.folder) == number]
        total, largest = sum(need.size for need in here), max(here, key=lambda need: need.size)
        if not (lack := disk.lacks_room(largest.folder, total)):
            continue
        parts = ", ".join(f"{disk.in_words(need.size)} {need.what} in {str(need.folder)!r}" for need in here)
        keys = " or ".join(dict.fromkeys(f"{need.key}=DIR" for need in sorted(here, key=lambda need: -need.size)))
        said = f"at least {disk.in_words(total)} will be written ({parts}), but {lack}"
        raise UsageError(f"{largest.key}: {said}; make room, or name another place by {keys}")


def told(error: OSError) -> str:
    """What is wrong with a disk, in one line, and what can be done about it."""
    path = error.filename if isinstance(error.filename, (str, bytes)) else None
    if path is None:
        return f"{disk.why(error)}; make room"
    place = Path(os.fsdecode(path)).absolute()
    shared = Path(os.environ.get("JOBLIB_TEMP_FOLDER") or "/dev/shm")
    ways = {
        cache_root().absolute(): "LIMBECK_CACHE=DIR names another place for what is kept",
        shared: "JOBLIB_TEMP_FOLDER=DIR names another place for what processes share",
        **dict.fromkeys(_passing(place), "TMPDIR=DIR names another place for passing files"),
    }
    way = next((way for root, way in ways.items() if place.is_relative_to(root)), "")
    room = "make room there" if error.errno in disk.FULL else "make it usable"
    return f"{disk.why(error)}: {os.fsdecode(path)!r} could not be written; {room}" + (f", or {way}" if way else "")


def _passing(place: Path) -> list[Path]:
    """The folder for passing files, where the place is one of those that we make there."""
    folder = Path(tempfile.gettempdir())
    own = place.is_relative_to(folder) and place != folder and place.relative_to(folder).parts[0].startswith(("tmp", "limbeck-"))
    return [folder] if own or place == folder else []


def vanished(folder: Path) -> DiskFailure:
    """What to say of a folder that is not there any more."""
    return DiskFailure(f"{str(folder)!r} has vanished: it was removed, or its disk has gone; bring it back, or start anew")


@contextmanager
def disks_told() -> Iterator[None]:
    """Turns errors of disks inside the block into a `DiskFailure`."""
    try:
        yield
    except OSError as error:
        if not disk.of_disk(error):
            raise
        raise DiskFailure(told(error)) from error
