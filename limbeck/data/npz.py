"""Images in an `.npz` file or in a folder of `.npy` files, by the names of arrays (`named_arrays.py`); nothing is unpickled."""

import lzma
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as layout

from limbeck.data.arrays import check_room
from limbeck.data.imageset import ImageSet
from limbeck.data.named_arrays import Held, find_named, of_named, role
from limbeck.data.settings import DataSettings
from limbeck.runtime.bounded import check_array, opened, unpacked_size
from limbeck.runtime.errors import UsageError, one_line
from limbeck.runtime.progress import Progress

BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def load_npz(settings: DataSettings, progress: Progress) -> ImageSet:
    """The images in the file `settings.source`; without `class_names` the classes are called "0", "1", ….

    Raises:
        UsageError: when the file is broken, an array is missing or holds something else, labels leave 0 … K−1, there are fewer
            than two classes, or a class has no training image.
    """
    source, path = settings.source, Path(settings.source).expanduser()
    try:
        # NumPy takes whatever it does not know for a pickle, and advises to unpickle it.
        with opened(path) as raw:
            if not zipfile.is_zipfile(raw):
                raise _refusal(source, "is no .npz archive of arrays, as numpy.savez writes one")
            unpacked_size(raw)
        with zipfile.ZipFile(path) as archive:
            held, members = {}, {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as member:
                    held[name], members[name] = _header(source, name, member, info.file_size), info

            def read(name: str) -> np.ndarray:
                check_room(f"data.source: {source!r} holds {name}, ", math.prod(held[name].shape) * held[name].dtype.itemsize)
                with archive.open(members[name]) as member:
                    found: np.ndarray = layout.read_array(member, allow_pickle=False)
                    member.read()  # to the end, where its checksum is compared
                return found

            return ImageSet.of(*of_named(find_named(held, settings, progress), read, settings, progress))
    except UsageError:
        raise
    except MemoryError as error:
        raise _refusal(source, "needs more memory than there is") from error
    except BROKEN as error:
        raise _refusal(source, f"cannot be read: {one_line(error)}") from error


def find_npy(root: Path, settings: DataSettings = DataSettings()) -> dict[str, Path]:
    """The `.npy` files in a folder by their names, where some are called as images and labels are, or as settings say."""
    found = {path.stem: path for path in sorted(root.glob("*.npy"))}
    kinds = {role(name, settings)[1] for name in found}
    return found if {"images", "labels"} <= kinds else {}


def load_npy(settings: DataSettings, files: dict[str, Path], progress: Progress) -> ImageSet:
    """The images in the files that `find_npy` has found; what is in bytes stays on the disk.

    Raises:
        UsageError: as `load_npz`.
    """
    held = {}
    for name, path in files.items():
        try:
            with opened(path) as file:
                held[name] = _header(settings.source, name, file, path.stat().st_size)
        except UsageError:
            raise
        except BROKEN as error:
            raise _refusal(settings.source, f"cannot be read: {path.name}: {one_line(error)}") from error

    def read(name: str) -> np.ndarray:
        try:
            found: np.ndarray = np.load(files[name], mmap_mode="r", allow_pickle=False)
            return found
        except BROKEN as error:
            raise _refusal(settings.source, f"cannot be read: {files[name].name}: {one_line(error)}") from error

    return ImageSet.of(*of_named(find_named(held, settings, progress), read, settings, progress))


def _header(source: str, name: str, file: IO[bytes], size: int) -> Held:
    """Shape and type of an array that is not read yet, of a file of so many bytes."""
    try:
        version = layout.read_magic(file)
        read = layout.read_array_header_1_0 if version == (1, 0) else layout.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # the words of a header are Python's, and lead to whatever they lead to
        raise _refusal(source, f"holds {name} as something else than an array") from error
    try:
        check_array(name, shape, dtype.itemsize, size)
    except ValueError as error:
        raise _refusal(source, f"is broken: {error}") from error
    return Held(shape, dtype)


def _refusal(source: str, reason: str) -> UsageError:
    return UsageError(f"data.source: {source!r} {reason}")
