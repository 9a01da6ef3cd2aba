"""Whatever a process writes for a while: files and folders that are to take another's place, folders for what is passing.

Their names say whose they are, so that what a process has left that was killed is known from what another one is writing, and the
next one that comes by removes it:

    .checkpoint.safetensors.5f3a90c1-4711-90417-x3k2p0ab.part      beside its place
    limbeck-5f3a90c1-4711-90417-x3k2p0ab                           where the system has its temporary files

Of what belongs to a machine that cannot be asked whether the process runs only that is removed which has not changed for two days.
"""

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from limbeck.runtime.owner import Owner, mark_runs

LONGEST = 160  # bytes of a name that are kept in that of its part: names have 255 at most
SHARED = Path("/dev/shm")  # files that are memory
FOREIGN = 2 * 24 * 3600.0  # seconds after which nobody is writing any more what nobody has changed
_MARKED = re.compile(r"(?:\..*\.|limbeck-)([0-9a-f]{8}-\d+-\d+)-[0-9a-f]{8}(?:\.part)?", re.DOTALL)
_EARLIER = re.compile(r"\..*\.[a-z0-9_]{8}\.part", re.DOTALL)  # as earlier versions named them, which does not say whose they are

# By process, because a child begins with what its parent knew.
_own: set[tuple[int, Path]] = set()
_looked_at: set[tuple[int, str]] = set()


@contextmanager
def part(path: Path) -> Iterator[Path]:
    """A name beside `path` for what is to take its place; whatever still bears it at the end of the block is removed."""
    tidy_once(path.parent)
    with _passing(path.with_name(f".{os.fsencode(path.name)[:LONGEST].decode(errors='ignore')}.{_mark()}.part")) as made:
        yield made


@contextmanager
def passing_folder(root: Path | None = None) -> Iterator[Path]:
    """A folder that is there inside the block, under `root` or where the system has its temporary files."""
    with _passing(new_passing_folder(root)) as made:
        yield made


def new_passing_folder(root: Path | None = None) -> Path:
    """The same for the rest of this process; whoever asks for it removes it by `remove`."""
    tidy_passing()
    made = (root or Path(tempfile.gettempdir())) / f"limbeck-{_mark()}"
    made.mkdir(mode=0o700, parents=True)
    _own.add((os.getpid(), made))
    return made


def remove(path: Path) -> None:
    """Remove a file or folder of this process, if it is there."""
    _remove(path)
    _own.discard((os.getpid(), path))


def remove_all() -> None:
    """Remove all that this process is writing: it ends now."""
    for process, path in list(_own):
        if process == os.getpid():
            _remove(path)


def tidy_once(folder: Path) -> None:
    """The same as `tidy`, once a folder and process: looking through it at every file that is written would take long."""
    key = os.getpid(), str(folder)
    if key not in _looked_at:
        _looked_at.add(key)
        tidy(folder)


def tidy_passing() -> None:
    """The same where the system has its temporary files and its shared memory."""
    for folder in (Path(tempfile.gettempdir()), SHARED):
        tidy_once(folder)


def tidy(folder: Path, alone: bool = False) -> None:
    """Remove what processes have left in a folder that were killed.

    Args:
        folder: it may be absent, or not be writable.
        alone: whether nobody else is writing there now; what earlier versions have left goes then, too.
    """
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return
    for name in names:
        marked = _MARKED.fullmatch(name)
        if (marked and _is_left(marked[1], folder / name)) or (alone and not marked and _EARLIER.fullmatch(name)):
            _remove(folder / name)


def _is_left(mark: str, path: Path) -> bool:
    runs = mark_runs(mark)
    if runs is not None:
        return not runs
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > FOREIGN
    return False


@contextmanager
def _passing(path: Path) -> Iterator[Path]:
    _own.add((os.getpid(), path))
    try:
        yield path
    finally:
        remove(path)


def _mark() -> str:
    return f"{Owner.here().mark}-{token_hex(4)}"


def _remove(path: Path) -> None:
    with suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
