"""Room on disks: set aside before it is written to, and words for what is wrong where it cannot be had.

A file that was only made longer has holes. To fill these through a memory map on a full disk kills the process without a word, so
that nothing here writes through one, and what is to be written is set aside first where its size is known.
"""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
# What the disk itself says, and no mistake in a path that somebody has given.
WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "files may not become so large here (ulimit -f)",
    errno.ESTALE: "the folder has vanished",
    errno.ENOTCONN: "the file system has gone",
    errno.ENODEV: "the device has gone",
    errno.ENXIO: "the device has gone",
    errno.EIO: "the device does not answer",
}
OF_PLACES = {errno.EACCES: "it may not be written to", errno.EPERM: "it may not be written to", errno.ENOTDIR: "it is no folder"}
_UNABLE = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)
_BLOCK = 2**22
_KEEP_SIZE = 1  # of fallocate(2)


def of_disk(error: BaseException) -> bool:
    """Whether it is the disk that fails, and nothing that was asked for."""
    return isinstance(error, OSError) and error.errno in WORDS


def why(error: OSError) -> str:
    """What is wrong, in words."""
    return {**WORDS, **OF_PLACES}.get(error.errno or 0) or error.strerror or str(error)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Has errors of the disk inside the block name the file, where the system does not: it names none when a disk is full."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or (str(path) if of_disk(error) else None)
        raise


def allocate(descriptor: int, size: int) -> None:
    """Have the disk set aside the first `size` bytes of a file, so that writing them later cannot fail for want of room.

    Raises:
        OSError: when there is no room.
    """
    if size <= 0:
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:  # another system; a file system that can only be written to
        if isinstance(error, OSError) and error.errno not in _UNABLE:
            raise
        _fill(descriptor, size)


def _fill(descriptor: int, size: int) -> None:
    """Write zeros behind what the file holds."""
    at, zeros = os.fstat(descriptor).st_size, bytes(min(_BLOCK, size))
    while at < size:
        at += os.pwrite(descriptor, zeros[: size - at], at)
    os.fsync(descriptor)


def nearest(path: Path) -> Path:
    """`path`, or what is there of the way to it: where it lies, or will lie."""
    path = path.expanduser().absolute()
    return next((place for place in (path, *path.parents) if place.exists()), path)


def device(path: Path) -> int:
    """A number of the file system that `path` lies in, or will lie in."""
    return nearest(path).stat().st_dev


def free(path: Path) -> int:
    """Bytes that are free where `path` lies, or will lie."""
    return shutil.disk_usage(nearest(path)).free


def try_folder(folder: Path) -> None:
    """Write a file where `folder` is, or will be made, and take it away again.

    Raises:
        OSError: when that cannot be done.
    """
    with tempfile.NamedTemporaryFile(dir=nearest(folder), prefix=".limbeck-") as file:
        file.write(b".")
        file.flush()
        os.fsync(file.fileno())


def lacks_room(path: Path, size: int) -> str:
    """What is wrong with writing `size` bytes where `path` lies; empty where there is room.

    What a quota leaves is nowhere to be read: it shows when the bytes are set aside, which takes no time where that is possible.
    """
    if (left := free(path)) < size:
        return f"{in_words(left)} are free"
    with suppress(OSError, AttributeError, TypeError), tempfile.TemporaryFile(dir=nearest(path)) as file:
        set_aside = ctypes.CDLL(None, use_errno=True).fallocate
        set_aside.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        if size > 0 and set_aside(file.fileno(), _KEEP_SIZE, 0, size) and (number := ctypes.get_errno()) in FULL:
            return WORDS[number]
    return ""


def in_words(size: float) -> str:
    """A number of bytes, such as 1.2 GB."""
    for unit, bytes_of in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_of:
            return f"{size / bytes_of:.1f} {unit}"
    return f"{size:.0f} bytes"
