"""Images in files, in archives or in memory to pixels.

What a process does with its images is here, apart from everything that imports torch: where processes are spawned rather than
forked, each of them imports this module anew.
"""

import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from limbeck.data.resize import resized
from limbeck.runtime.errors import UsageError
from limbeck.runtime.notices import about

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 64
SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
SIXTEEN_BITS_AS_I = ("PNG", "PPM")  # formats whose grey of 16 bits Pillow opens with 32
ORIENTATION = 0x0112
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


class DecodedPart(NamedTuple):
    """Consecutive rows that are decoded: the checksum (CRC-32) of their pixels, and which of them are blank instead."""

    first: int
    size: int
    checksum: int
    bad: list[Unreadable]


class _Failed(Exception):
    """Why an image cannot be read."""


def read_headers(items: Sequence[Item]) -> list[Header | None]:
    """The headers of images; None where one cannot be read."""
    return [_header(item) for item in items]


def _header(item: Item) -> Header | None:
    try:
        with _opened(item) as image:
            width, height = image.size
            turned = _orientation(image) >= 5
            return Header(width if turned else height, height if turned else width, image.mode in GREY_MODES)
    except _Failed:
        return None


def decode_into(storage: Path, crop: str, piece: tuple[int, Sequence[Item]]) -> DecodedPart:
    """Decode images into consecutive rows of the array (N, C, H, W) in the .npy file `storage`, resized to its H and W.

    Args:
        storage: an existing uint8 .npy file.
        crop: `squash` or `centre`.
        piece: the first row, and the images.

    Returns:
        The rows that were written; where an image cannot be read, all zeros.
    """
    first, items = piece
    images = np.lib.format.open_memmap(storage, mode="r+")
    channels, height, width = images.shape[1:]
    bad = []
    for row, item in enumerate(items, first):
        try:
            with _opened(item) as image:
                images[row] = resized(upright(image, grey=channels == 1), height, width, crop)
        except _Failed as error:
            images[row] = 0
            bad.append(Unreadable(row, printable(item), str(error)))
    return DecodedPart(first, len(items), checksum(images[first : first + len(items)]), bad)


def printable(item: Item | str) -> str:
    """What messages and files call an image, or a file, though its name may be no Unicode text."""
    return str(item).encode(errors="backslashreplace").decode()


def checksum(rows: np.ndarray) -> int:
    """CRC-32 of the pixels of consecutive rows."""
    return zlib.crc32(np.ascontiguousarray(rows).data)


def decode_all(sides: tuple[int, int] | None, crop: str, items: Sequence[Item]) -> list[tuple[np.ndarray, bool] | str]:
    """Images one by one: each as uint8 (3, H, W) and whether it has no colour, or the reason why it cannot be read.

    Args:
        sides: (height, width) to bring them to; None keeps each as it is.
        crop: `squash` or `centre`.
        items: the images.
    """
    decoded: list[tuple[np.ndarray, bool] | str] = []
    for item in items:
        try:
            with _opened(item) as image:
                grey, turned = image.mode in GREY_MODES, upright(image, grey=False)
                height, width = sides or (turned.height, turned.width)
                decoded.append((resized(turned, height, width, crop), grey))
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
        if isinstance(item, Path) and not stat.S_ISREG(item.stat().st_mode):
            raise _Failed("it is no regular file")  # to open a pipe would wait for somebody who writes to it
        with about(printable(item)), PIL.Image.open(item if isinstance(item, Path) else BytesIO(_content(item))) as image:
            yield image
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error and more over broken files
        broken = isinstance(error, PIL.UnidentifiedImageError)
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = "it holds no image of a known format" if broken else " ".join(told.split()) or type(error).__name__
        raise _Failed(reason) from error


def _content(item: ArchiveFile | Bytes) -> bytes:
    if isinstance(item, Bytes):
        return item.content
    with item.archive.open("rb") as file:
        file.seek(item.offset)
        return file.read(item.size)


def upright(image: "Image", grey: bool) -> "Image":
    """The image as it is to be seen, on white where it is transparent, in mode L or RGB; of an animated one the first frame."""
    import PIL.Image

    orientation = _orientation(image)
    if image.mode == "I" and image.format not in SIXTEEN_BITS_AS_I:
        raise ValueError("its pixels are whole numbers of 32 bits or with a sign; 8 or 16 bits are accepted")
    if image.mode.startswith("I"):
        # 16-bit grey: a plain conversion would cut everything above 255 to white.
        image = PIL.Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its pixels are floats; 8 or 16 bits are accepted")
    elif image.has_transparency_data:
        clear = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", clear.size, "white"), clear)
    image = image.convert("L" if grey else "RGB")
    turn = PIL.Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _orientation(image: "Image") -> int:
    """The EXIF orientation, 1 … 8, of an image that has not been decoded yet."""
    if image.format not in ("JPEG", "MPO", "WEBP", "PNG", "AVIF"):
        return 1  # Pillow turns TIFF by itself
    if "exif" not in image.info:
        return 1  # asking further would decode a whole PNG, only to look behind its pixels
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return 1
    return orientation if orientation in range(1, 9) else 1
