"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) as they are distributed: 60 000 images of 32×32, in batches.

    binary     cifar-10-batches-bin/{data_batch_1 … 5,test_batch}.bin, batches.meta.txt     a record: class, 3072 pixels
               cifar-100-binary/{train,test}.bin, fine_label_names.txt                      coarse class, class, 3072 pixels
    pickled    cifar-10-batches-py/{data_batch_1 … 5,test_batch}, batches.meta
               cifar-100-python/{train,test}, meta

The folder, the folder that it lies in, or the `.tar.gz` that it comes in. Pixels are by channel, row and column. The pickles are
read by `unpickle.py`, which runs nothing. The 20 coarse classes of CIFAR-100 are taken by `data.label_field=coarse_labels`.
"""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Container
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from limbeck.data.arrays import assembled
from limbeck.data.columns import say_unread
from limbeck.data.folder import refuse_several
from limbeck.data.imageset import ImageSet
from limbeck.data.settings import DataSettings
from limbeck.data.unpickle import Forbidden, read_pickle
from limbeck.runtime.bounded import Limited, opened, read_bytes
from limbeck.runtime.disk import in_words
from limbeck.runtime.errors import UsageError, one_line, require
from limbeck.runtime.progress import Progress

PIXELS = 3 * 32 * 32
MOST_BYTES = 2**28  # of a file: the largest that belongs to CIFAR has 155 MB
MOST_UNPACKED = 2**29  # of an archive: CIFAR's have 186 MB

Read = Callable[[str], bytes]


class Layout(NamedTuple):
    """One of the four: its files, the lists of class names, and how wide a binary record's labels are (0: pickled).

    `coarse` is the list of the names of coarse classes, empty where there are none.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label_bytes: int
    coarse: str = ""


TEN = tuple(f"data_batch_{i}" for i in range(1, 6))
FINE, COARSE = "fine_labels", "coarse_labels"
LAYOUTS = (
    Layout("cifar-10-batches-py", TEN, ("test_batch",), "batches.meta", 0),
    Layout("cifar-10-batches-bin", tuple(f"{name}.bin" for name in TEN), ("test_batch.bin",), "batches.meta.txt", 1),
    Layout("cifar-100-python", ("train",), ("test",), "meta", 0, "meta"),
    Layout("cifar-100-binary", ("train.bin",), ("test.bin",), "fine_label_names.txt", 2, "coarse_label_names.txt"),
)


def find_cifar(root: Path) -> tuple[Path, Layout] | None:
    """The folder at `root`, or the one in it under its usual name, that is laid out like CIFAR; None where there is none.

    Raises:
        UsageError: when there are several in it.
    """
    for places in ([(root, layout) for layout in LAYOUTS], [(root / layout.folder, layout) for layout in LAYOUTS]):
        found = {at: layout for at, layout in places if all((at / name).is_file() for name in (*layout.train, *layout.test))}
        refuse_several(root, found)
        if found:
            return next(iter(found.items()))
    return None


def load_cifar(settings: DataSettings, folder: Path, layout: Layout, progress: Progress) -> ImageSet:
    """The images in a folder that `find_cifar` has found.

    Raises:
        UsageError: when a file is broken, or is a pickle that asks for more than arrays and plain values.
    """

    def read(name: str) -> bytes:
        try:
            return read_bytes(folder / name, MOST_BYTES)
        except (OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or one_line(error)
            raise UsageError(f"data.source: the file '{folder / name}' cannot be read: {reason}") from error

    there = {name for name in (layout.names, layout.coarse) if (folder / name).is_file()}
    return _image_set(settings, layout, read, there, progress)


def load_cifar_archive(settings: DataSettings, archive: Path, progress: Progress) -> ImageSet:
    """The same from the archive that CIFAR is distributed in; nothing is unpacked to the disk.

    Raises:
        UsageError: as `load_cifar`, or when the archive holds something else.
    """
    wanted = {name for layout in LAYOUTS for name in (*layout.train, *layout.test, layout.names, layout.coarse)}
    held: dict[str, bytes] = {}
    try:
        with opened(archive) as file:
            unpacked = Limited(_decompressed(file), MOST_UNPACKED)
            members = tarfile.open(fileobj=unpacked, mode="r|")  # noqa: SIM115 (there is nothing to be closed)
            for member in members:
                if member.size > MOST_UNPACKED:  # to go past it would take for ever
                    raise ValueError(f"it declares a file of {in_words(member.size)}")
                name = PurePosixPath(member.name).name
                if name in wanted and member.isfile() and member.size <= MOST_BYTES:
                    content = members.extractfile(member)
                    assert content is not None, "it is a regular file"
                    held[name] = content.read()
            unpacked.read()  # to its end, where its checksum is compared
    except Exception as error:  # a broken archive makes tarfile and the decompressors raise whatever its bytes lead to
        reason = one_line(error)
        raise UsageError(f"data.source: {settings.source!r} cannot be read as a tar archive ({reason})") from error
    found = [layout for layout in LAYOUTS if {*layout.train, *layout.test} <= held.keys()]
    if len(found) == 1:
        return _image_set(settings, found[0], held.__getitem__, held, progress)
    what = f" of {' and '.join(layout.folder for layout in found)}" if found else ", but not one of CIFAR-10 or CIFAR-100"
    raise UsageError(f"data.source: {settings.source!r} is an archive{what}; unpack it to a folder")


def _decompressed(file: BinaryIO) -> Any:
    """What a file holds that gzip, bzip2 or xz has compressed; of another file itself."""
    begin = file.read(6)
    file.seek(0)
    if begin.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    return bz2.BZ2File(file) if begin.startswith(b"BZh") else lzma.LZMAFile(file) if begin == b"\xfd7zXZ\0" else file


def _image_set(settings: DataSettings, layout: Layout, read: Read, there: Container[str], progress: Progress) -> ImageSet:
    say_unread(settings, progress, ("image_field",) if layout.coarse else ("image_field", "label_field"))
    field = FINE
    if layout.coarse and settings.label_field is not None:
        field = settings.label_field
        require(field in (FINE, COARSE), "data.label_field", field, f"{FINE} or {COARSE}, which CIFAR-100 has")
    images, labels = {}, {}
    for part, files in (("train", layout.train), ("test", layout.test)):
        batches = [_batch(name, read(name), layout.label_bytes, field) for name in files]
        images[part] = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
        labels[part] = np.concatenate([values for _, values in batches]).astype(np.int64)
        if len(labels[part]) == 0:
            raise UsageError(f"data.source: {settings.source!r} has no images in {files[0]}")
    listed = layout.coarse if field == COARSE else layout.names
    names = _names(listed, read(listed), field, layout.label_bytes > 0) if listed in there else None
    return ImageSet.of(*assembled(settings, images, labels, names, progress))


def _batch(name: str, content: bytes, label_bytes: int, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3072) and classes (n,), fine or coarse ones, in one file."""
    if label_bytes:
        size = label_bytes + PIXELS
        if len(content) % size:
            raise _refusal(name, f"has {len(content)} bytes, which is no whole number of records of {size}")
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, size)
        return records[:, label_bytes:], records[:, 0 if field == COARSE else label_bytes - 1]
    held = _unpickled(name, content)
    fields = ("labels", FINE) if field == FINE else (COARSE,)
    pixels, values = _held(held, "data"), _held(held, *fields)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise _refusal(name, f"holds no pixels of 8 bits with shape (n, {PIXELS}) as 'data'")
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list) or len(values) != len(pixels) or not all(isinstance(value, int) for value in values):
        raise _refusal(name, f"holds no list of {len(pixels)} whole numbers as {' or '.join(map(repr, fields))}")
    if values and not -(2**31) <= min(values) <= max(values) < 2**31:
        raise _refusal(name, "holds labels that are no classes")
    return pixels, np.array(values, dtype=np.int64)


def _names(name: str, content: bytes, field: str, plain: bool) -> tuple[str, ...]:
    if plain:
        words = [line.strip() for line in content.decode("utf-8", errors="replace").splitlines() if line.strip()]
    else:
        lists = ("label_names", "fine_label_names") if field == FINE else ("coarse_label_names",)
        found = _held(_unpickled(name, content), *lists)
        found = found if isinstance(found, list) else []
        words = [word.decode("utf-8", errors="replace") if isinstance(word, bytes) else str(word) for word in found]
    if not words or len(set(words)) != len(words):
        raise _refusal(name, "holds no list of distinct class names")
    return tuple(words)


def _unpickled(name: str, content: bytes) -> dict[Any, Any]:
    try:
        held = read_pickle(BytesIO(content))
    except Forbidden as error:
        raise _refusal(name, f"is refused as a pickle: {error}") from error
    if not isinstance(held, dict):
        raise _refusal(name, f"holds a {type(held).__name__} where a dict is expected")
    return held


def _held(values: dict[Any, Any], *names: str) -> Any:
    """What is held under one of the names, as text or as Python 2's bytes."""
    keys = [key for name in names for key in (name, name.encode())]
    return next((values[key] for key in keys if key in values), None)


def _refusal(name: str, reason: str) -> UsageError:
    return UsageError(f"data.source: the file {name!r} {reason}")
