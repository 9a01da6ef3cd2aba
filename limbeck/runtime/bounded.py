"""Reading what anybody may have written: opened only where it is an ordinary file, and believed only within bounds.

    files      no pipe, device or folder, whatever a link leads to; at most so many bytes
    JSON       at most `MOST_JSON` bytes, `MOST_VALUES` values, `DEEPEST` levels, whole numbers of 64 bits
    archives   what a member declares against what it holds, and against the archive's size

What is beyond them raises ValueError, what is no ordinary file OSError, before room is made for it: so do files that are broken.
"""

import errno
import io
import json
import math
import os
import re
import stat
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from limbeck.runtime.disk import in_words

MOST_JSON = 2**28  # bytes: a thousand classes had a million cells of confusion in every evaluation of earlier versions
MOST_VALUES = 2**24
DEEPEST = 64
MOST_TEXT = 2**30  # bytes of a list of images
RATIO, ALWAYS = 200, 2**28  # an archive may hold so many times its own bytes, and always this many

_CHUNK = 2**16
_LONG = re.compile(rb"\d{20}"), re.compile(r"\d{20}")


def check_ordinary(path: Path | str) -> None:
    """Raise OSError unless `path` is, or leads to, an ordinary file: to open a pipe would wait, and some devices never end."""
    _check_mode(os.stat(path).st_mode, path)


def opened(path: Path | str) -> BinaryIO:
    """The ordinary file at `path`, to be read.

    Raises:
        OSError: when there is none.
    """
    check_ordinary(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    file = _Reader(io.FileIO(os.open(path, flags)))
    try:
        _check_mode(os.fstat(file.fileno()).st_mode, path)  # it may have been another one
    except OSError:
        file.close()
        raise
    return file


class _Reader(io.BufferedReader):
    """Makes room for what is there to be read, however much is asked for."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _CHUNK:
            size = min(size, max(_CHUNK, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def _check_mode(mode: int, path: Path | str) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def inside(folder: Path, name: str) -> Path:
    """The file of that name in a folder.

    Raises:
        ValueError: when it is a link that leads out of the folder, or nowhere.
    """
    path = folder / name
    try:
        stays = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle of links
        stays = False
    if not stays:
        raise ValueError(f"{name} is a link that leads out of the folder; a copy without links (cp -rL) is accepted")
    return path


def read_bytes(path: Path | str, most: int) -> bytes:
    """The content of the ordinary file at `path`.

    Raises:
        OSError: when there is none.
        ValueError: when it has more than `most` bytes.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
    if size > most or len(content) > most:
        raise ValueError(f"it has more than the {in_words(most)} that are accepted")
    return content


def read_text(path: Path | str, most: int = MOST_TEXT, encoding: str = "utf-8") -> str:
    """The same as text.

    Raises:
        UnicodeDecodeError: when it is none; it is a ValueError.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path, most)), encoding=encoding).read()


def read_json(path: Path | str) -> Any:
    """The value in the JSON file at `path`, as `json_of` reads it."""
    return json_of(read_bytes(path, MOST_JSON))


def json_of(content: bytes | str) -> Any:
    """The value in a text of JSON.

    Raises:
        ValueError: when it is none, or beyond a bound.
    """
    if len(content) > MOST_JSON:
        raise ValueError(f"it has more than the {in_words(MOST_JSON)} that are accepted")
    marks = (content.count(mark) for mark in b",:[{") if isinstance(content, bytes) else (content.count(mark) for mark in ",:[{")
    if sum(marks) > MOST_VALUES:
        raise ValueError(f"it has more than the {MOST_VALUES} values that are accepted")
    long = _LONG[0].search(content) if isinstance(content, bytes) else _LONG[1].search(content)
    try:
        value = json.loads(content, parse_int=_whole) if long else json.loads(content)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    return value


def _whole(text: str) -> int:
    number = int(text)
    if number.bit_length() > 64:
        raise ValueError("it has a whole number of more than 64 bits")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list))]
        level = [part for parts in inner for part in parts if isinstance(part, (dict, list))]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"it is nested deeper than the {DEEPEST} levels that are accepted")


def unpacked_size(file: BinaryIO) -> int:
    """The bytes that all members of an archive take; 0 where the file is no archive.

    Raises:
        ValueError: when it declares more than an archive of its size holds.
    """
    if not zipfile.is_zipfile(file):
        return 0
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        declared, most = sum(info.file_size for info in archive.infolist()), max(ALWAYS, RATIO * size)
    if declared > most:
        raise ValueError(
            f"it declares {in_words(declared)} in an archive of {in_words(size)}; at most {in_words(most)} are accepted"
        )
    return declared


def check_sums(file: BinaryIO) -> None:
    """Raise ValueError where a member of an archive is not what was written; what is no archive has no checksums."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if (name := archive.testzip()) is not None:
                raise ValueError(f"it has changed since it was written: {name} does not match its checksum")


def check_array(name: str, shape: tuple[int, ...], itemsize: int, held: int) -> int:
    """The bytes of an array with that shape.

    Raises:
        ValueError: when there are not so many in the `held` bytes of its file.
    """
    count = math.prod(shape) if all(length >= 0 for length in shape) else held + 1
    if max(count, count * itemsize) > held:
        raise ValueError(f"{name} has the shape {shape}, which is more than is in the file")
    return count * itemsize


class Limited(io.RawIOBase):
    """What a decompressor gives, until it is more than `most` bytes.

    Raises:
        ValueError: when it is more.
    """

    def __init__(self, source: Any, most: int) -> None:
        self.source, self.most, self.done = source, most, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = self.most - self.done
        content: bytes = self.source.read(left + 1 if size is None or size < 0 else min(size, left + 1))
        self.done += len(content)
        if self.done > self.most:
            raise ValueError(f"it unpacks to more than the {in_words(self.most)} that are accepted")
        return content
