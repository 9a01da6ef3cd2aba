"""Images in files, in archives or in memory to pixels.

What a process does with its images is here, apart from everything that imports torch: where processes are spawned rather than
forked, each of them imports this module anew.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from limbeck.data.levels import Levels, Span, told
from limbeck.data.picture import LOSSES, is_grey, orientation_of, picture
from limbeck.data.resize import resized
from limbeck.runtime.bounded import check_ordinary, opened
from limbeck.runtime.disk import naming
from limbeck.runtime.errors import UsageError
from limbeck.runtime.notices import about

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 64
SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
SHOWN = 3  # images that an error names one by one


class ArchiveFile(NamedTuple):
    """An image inside an archive that is not compressed: `size` bytes from `offset` on."""

    archive: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"


class Bytes(NamedTuple):
    """An image file in memory; `name` is what messages call it."""

    content: bytes
    name: str

    def __str__(self) -> str:
        return self.name


Item = Path | ArchiveFile | Bytes


class Header(NamedTuple):
    """What a file says about its image before it is decoded: the sides as they are to be seen, and whether it has no colour."""

    height: int
    width: int
    grey: bool


class Unreadable(NamedTuple):
    """An image that cannot be read: its row among those asked for, what it is called, and why."""

    row: int
    name: str
    reason: str


class Lost(NamedTuple):
    """A key of `LOSSES`, how many images it concerns, and what the first of them are called."""

    kind: str
    number: int
    names: list[str]


class DecodedPart(NamedTuple):
    """Consecutive rows that are decoded: the checksum (CRC-32) of their pixels, and which of them are blank instead.

    `lost` is of which images something was lost, `spans` how far those of more than eight bits reach; these are blank too where
    there are no `levels`.
    """

    first: int
    size: int
    checksum: int
    bad: list[Unreadable]
    lost: list[Lost] = []
    spans: list[Span] = []
    levels: Levels | None = None


class Whole(NamedTuple):
    """One decoded image: uint8 (3, H, W), whether it has no colour, what was lost, and how far more than bytes reach."""

    pixels: np.ndarray
    grey: bool
    losses: tuple[str, ...] = ()
    span: Span | None = None


class _Failed(Exception):
    """Why an image cannot be read."""


def read_headers(items: Sequence[Item]) -> list[Header | None]:
    """The headers of images; None where one cannot be read."""
    return [_header(item) for item in items]


def _header(item: Item) -> Header | None:
    try:
        with _opened(item) as image:
            width, height = image.size
            turned = orientation_of(image)[0] >= 5
            return Header(width if turned else height, height if turned else width, is_grey(image))
    except _Failed:
        return None


def decode_into(storage: Path, crop: str, levels: Levels | None, piece: tuple[int, Sequence[Item]]) -> DecodedPart:
    """Decode images into consecutive rows of the array (N, C, H, W) in the .npy file `storage`, resized to its H and W.

    Args:
        storage: an existing uint8 .npy file.
        crop: `squash` or `centre`.
        levels: what is black and white in images of more than eight bits; None leaves these blank and says how far they reach.
        piece: the first row, and the images.

    Returns:
        The rows that were written; where an image cannot be read, all zeros.
    """
    first, items = piece
    bad, lost, spans, sum_of_bits = list[Unreadable](), list[Lost](), list[Span](), 0
    with naming(storage), storage.open("r+b") as file:
        channels, height, width = row_shape(file)
        file.seek(first * channels * height * width, os.SEEK_CUR)
        for row, item in enumerate(items, first):
            pixels = np.zeros((channels, height, width), dtype=np.uint8)
            try:
                with _opened(item) as image:
                    found = picture(image, channels == 1, levels, partial(_open, item))
                    pixels[...] = resized(found.image, height, width, crop)
            except _Failed as error:
                pixels[...] = 0
                bad.append(Unreadable(row, printable(item), str(error)))
            else:
                lost += [Lost(kind, 1, [printable(item)]) for kind in found.losses]
                spans += [found.span] if found.span else []
            # Written, not stored through a memory map: on a full disk that would kill the process.
            file.write(pixels.data)
            sum_of_bits = zlib.crc32(pixels.data, sum_of_bits)
    return DecodedPart(first, len(items), sum_of_bits, bad, together(lost), spans, levels)


def row_shape(file: BinaryIO) -> tuple[int, int, int]:
    """(C, H, W) of the rows of an .npy file (N, C, H, W) that is open at its beginning, and then at its first row."""
    np.lib.format.read_magic(file)
    channels, height, width = np.lib.format.read_array_header_1_0(file)[0][1:]
    return channels, height, width


def together(lost: Iterable[Lost]) -> list[Lost]:
    """One of each kind."""
    found: dict[str, Lost] = {}
    for kind, number, names in lost:
        before = found.get(kind, Lost(kind, 0, []))
        found[kind] = Lost(kind, before.number + number, (before.names + names)[:SHOWN])
    return list(found.values())


def notes_on(lost: Iterable[Lost], spans: Sequence[Span], levels: Levels | None, total: int, given: bool) -> list[str]:
    """What is to be said of decoded images, a line for each kind of loss."""
    notes = told(spans, levels, total, given) if spans and levels else []
    for kind, number, names in sorted(together(lost), key=lambda one: list(LOSSES).index(one.kind)):
        shown = ", ".join(names) + (", …" if number > len(names) else "")
        notes.append(f"warning: {number} of {total} images {'is' if number == 1 else 'are'} {LOSSES[kind]} ({shown})")
    return notes


def printable(item: Item | str) -> str:
    """What messages and files call an image, or a file, though its name may be no Unicode text."""
    return str(item).encode(errors="backslashreplace").decode()


def checksum(rows: np.ndarray) -> int:
    """CRC-32 of the pixels of consecutive rows."""
    return zlib.crc32(np.ascontiguousarray(rows).data)


def decode_all(sides: tuple[int, int] | None, crop: str, items: Sequence[Item], levels: Levels | None = None) -> list[Whole | str]:
    """Images one by one, each whole, or the reason why it cannot be read.

    Args:
        sides: (height, width) to bring them to; None keeps each as it is.
        crop: `squash` or `centre`.
        items: the images.
        levels: as for `decode_into`.
    """
    decoded: list[Whole | str] = []
    for item in items:
        try:
            with _opened(item) as image:
                grey, found = is_grey(image), picture(image, False, levels, partial(_open, item))
                height, width = sides or (found.image.height, found.image.width)
                decoded.append(Whole(resized(found.image, height, width, crop), grey, found.losses, found.span))
        except _Failed as error:
            decoded.append(str(error))
    return decoded


def refuse(bad: Sequence[Unreadable], total: int) -> UsageError:
    """The error that names the first few images that cannot be read, and how many there are."""
    shown = "; ".join(f"'{name}': {reason}" for _, name, reason in bad[:SHOWN])
    if len(bad) == 1:
        return UsageError(f"data.source: cannot read the image {shown}; data.skip_bad=true leaves it out")
    rest = "; …" if len(bad) > SHOWN else ""
    return UsageError(f"data.source: cannot read {len(bad)} of {total} images ({shown}{rest}); data.skip_bad=true leaves them out")


@contextmanager
def _opened(item: Item) -> Iterator["Image"]:
    """The image; whatever goes wrong with it inside the block is a `_Failed` that says why."""
    import PIL.Image

    try:
        if isinstance(item, Path):
            check_ordinary(item)
        with about(printable(item)), _open(item) as image:
            yield image
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error and more over broken files
        broken = isinstance(error, PIL.UnidentifiedImageError)
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = "it holds no image of a known format" if broken else " ".join(told.split()) or type(error).__name__
        raise _Failed(reason) from error


def _open(item: Item) -> "Image":
    import PIL.Image

    return PIL.Image.open(item if isinstance(item, Path) else BytesIO(_content(item)))


def _content(item: ArchiveFile | Bytes) -> bytes:
    if isinstance(item, Bytes):
        return item.content
    with opened(item.archive) as file:
        file.seek(item.offset)
        content = file.read(item.size)
    if len(content) != item.size:
        raise OSError("its archive is cut short")
    return content
