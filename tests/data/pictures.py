"""Image files and folders of them, for the tests of the sources."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress

rng = np.random.default_rng(0)


class Said(NoProgress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def picture(path: Path, height: int = 10, width: int = 12, mode: str = "RGB") -> np.ndarray:
    """A random image, written losslessly; its pixels are returned."""
    pixels = rng.integers(0, 256, (height, width, 3) if mode == "RGB" else (height, width), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def fill(root: Path, **counts: int) -> Path:
    """Folders (`a__b` is a/b) with that many images each."""
    for name, count in counts.items():
        for i in range(count):
            picture(root / name.replace("__", "/") / f"{i:03}.png")
    return root


def png(pixels: np.ndarray) -> bytes:
    """A PNG file in memory."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def deep_png(width: int, height: int, lines: bytes, bits: int = 16, kind: int = 2, more: bytes = b"") -> bytes:
    """A PNG file, written by hand: of colour (`kind` 2), with opacity (6), grey (0), or grey with opacity (4)."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def load(source: Path | str, /, **keys: object) -> ImageSet:
    """The images of a source, decoded in this process."""
    return load_data(DataSettings(source=str(source), **{"workers": 1} | keys))


def refused(source: Path | str, /, **keys: object) -> str:
    """The message of one line with which a source is refused."""
    with pytest.raises(UsageError) as caught:
        load(source, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)
