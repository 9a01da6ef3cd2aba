"""What jobs have in common as bytes: arrays that lie in files go by their place where whoever unpacks them sees the same file."""

import io
import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np


class NotThere(Exception):
    """A file that something was packed by is not there, or is another one."""


def packed(value: Any, whole: bool = False) -> bytes:
    """Anything that can be pickled, functions included; `whole`: with the content of arrays that lie in files."""
    from ray import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            place = None if whole or not isinstance(obj, np.memmap) else Mapped.of(obj)
            return super().reducer_override(obj) if place is None else (_opened, (place,))

    buffer = io.BytesIO()
    Pickler(buffer).dump(value)
    return buffer.getvalue()


def unpacked(content: bytes) -> Any:
    """What was packed.

    Raises:
        NotThere: when a file is not there; packed as a whole it can be unpacked.
    """
    from ray import cloudpickle

    return cloudpickle.loads(content)


@dataclass(frozen=True)
class Mapped:
    """Where an array lies, and how to know the file."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str
    size: int
    changed: int  # in nanoseconds

    @staticmethod
    def of(array: np.memmap) -> "Mapped | None":
        """None for an array that is no part of a file in one piece, or whose file has gone."""
        held, name = getattr(array, "_mmap", None), array.filename
        if not isinstance(held, mmap.mmap) or name is None or not array.flags.c_contiguous or array.size == 0:
            return None
        try:
            now = os.stat(name)
        except OSError:
            return None
        # What is mapped begins at a page, and an array that is a part of another one says the offset of that.
        page = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
        begin = array.__array_interface__["data"][0] - np.frombuffer(held, np.uint8).__array_interface__["data"][0]
        return Mapped(os.path.abspath(name), page + begin, array.shape, array.dtype.str, now.st_size, now.st_mtime_ns)


def _opened(place: Mapped) -> np.memmap:
    try:
        now = os.stat(place.path)
        if (now.st_size, now.st_mtime_ns) != (place.size, place.changed):
            raise NotThere(place.path)
        return np.memmap(place.path, place.dtype, "c", place.offset, place.shape)
    except OSError as error:
        raise NotThere(place.path) from error
