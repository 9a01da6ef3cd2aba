"""One opened image as it is to be seen, in bytes; and what of it is lost on the way.

more than 8 bits     by what is black and white (`levels.py`); without that only how far the numbers reach is found out
transparent          laid on white
turned by EXIF       turned upright
anything else        in mode L or RGB
"""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from limbeck.data.levels import Levels, Span, shares, span_of

if TYPE_CHECKING:
    from PIL.Image import Image

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
DEEP_COLOUR = re.compile(r"(RGBA?|RGBX|LA);16([BLN])")  # how the decoder is told to take the upper half of every number
ORIENTATION, SAMPLE_FORMAT, SAMPLES = 0x0112, 339, 277  # tags of EXIF and TIFF
HEAD = 4096  # bytes of a file in which AVIF says how deep it is

# What is lost, by what is said of the images that it concerns.
LOSSES = {
    "transparent": "transparent: laid on white",
    "frames": "of several frames or pages: the first is taken",
    "inks": "in CMYK: converted to RGB without a colour profile",
    "profile": "with a colour profile other than sRGB, which is not applied",
    "depth": "of more than 8 bits, of which the upper 8 are taken",
    "channels": "of more channels than colours: the further ones are left out",
    "exif": "with an EXIF block that is broken: how they are turned is not known",
}


class Picture(NamedTuple):
    """An image in mode L or RGB.

    Args:
        image: what is to be seen; blank where `span` waits for levels.
        losses: what was lost, by keys of `LOSSES`.
        span: how far its numbers reach, where they are more than bytes.
    """

    image: "Image"
    losses: tuple[str, ...]
    span: Span | None


def is_grey(image: "Image") -> bool:
    """Whether an image that has been opened has no colour."""
    return image.mode in GREY_MODES or _rawmode(image).startswith("LA;")


def picture(image: "Image", grey: bool, levels: Levels | None, again: Callable[[], "Image"] | None = None) -> Picture:
    """The image as it is to be seen.

    Args:
        image: opened, not decoded yet.
        grey: make one channel of it instead of three.
        levels: what is black and white where numbers are more than bytes.
        again: opens it once more; without that, and of some formats, only the upper half of colours of 16 bits is read.
    """
    import PIL.Image

    (orientation, known), losses, span = orientation_of(image), known_losses(image), None
    losses += [] if known else ["exif"]
    if (deep := _numbers(image, again)) is not None:
        numbers, opacity = deep
        span = span_of(numbers)
        made = shares(numbers, levels) * 255 if levels else np.zeros(numbers.shape)
        image = PIL.Image.fromarray(np.rint(made).astype(np.uint8))
        if opacity is not None:
            image.putalpha(PIL.Image.fromarray(opacity))
    elif DEEP_COLOUR.fullmatch(_rawmode(image)):
        losses.append("depth")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        if clear.getchannel("A").getextrema() != (255, 255):
            losses.append("transparent")
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
    return Picture(image.transpose(turns[orientation]) if orientation in turns else image, tuple(losses), span)


def _numbers(image: "Image", again: Callable[[], "Image"] | None) -> tuple[np.ndarray, np.ndarray | None] | None:
    """What the file holds where that is more than bytes, (H, W) or (H, W, 3), and how opaque it is, uint8; else nothing."""
    if image.mode == "F" or image.mode.startswith("I"):
        image.load()  # NumPy would hide that the file is cut short
        unsigned = image.mode == "I" and image.format == "TIFF" and _tag(image, SAMPLE_FORMAT, 1) == 1
        numbers = np.asarray(image).view(np.uint32) if unsigned else np.asarray(image)
        return numbers, _clear(numbers, image)
    if again is None or not (deep := DEEP_COLOUR.fullmatch(_rawmode(image))):
        return None
    kind, order = deep.groups()
    if kind == "LA":  # decoded as if it were four channels: the upper and the lower half of the grey, then of the opacity
        four = np.asarray(_decoded_as(image, "RGBA")).astype(np.uint16)
        return four[..., 0] * 256 + four[..., 1], four[..., 2].astype(np.uint8)
    lower = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[order]
    image.load()
    below = np.asarray(_decoded_as(again(), f"{kind};16{lower}"))
    above = np.asarray(image)
    numbers = above[..., :3].astype(np.uint16) * 256 + below[..., :3]
    return numbers, above[..., 3] if kind == "RGBA" else _clear(numbers, image)


def _clear(numbers: np.ndarray, image: "Image") -> np.ndarray | None:
    """How opaque numbers are of which one is transparent, as PNG has it."""
    clear = image.info.get("transparency")
    same = None if clear is None else np.equal(numbers, clear)
    return None if same is None else np.where(same if same.ndim == 2 else same.all(-1), 0, 255).astype(np.uint8)


def _decoded_as(image: "Image", rawmode: str) -> "Image":
    """The image, decoded as if its numbers lay in the file in that way."""
    decoders = list[Any]()
    for tile in image.tile:  # type: ignore[attr-defined]
        *place, args = tile
        decoders.append(tile._make((*place, rawmode if isinstance(args, str) else (rawmode, *args[1:]))))
    image.tile = decoders  # type: ignore[attr-defined]
    image.load()
    return image


def known_losses(image: "Image") -> list[str]:
    """What is lost of an image that has not been decoded yet, as far as its header says."""
    found = []
    with suppress(Exception):  # a broken second frame does not make the first unreadable
        if getattr(image, "is_animated", False) and image.format != "MPO":  # a photograph, and what its camera needs besides
            found.append("frames")
    profile = image.info.get("icc_profile") or b""
    if image.mode == "CMYK":
        found.append("inks")
    elif profile and not any(name in profile for name in (b"sRGB", "sRGB".encode("utf-16-be"))):
        found.append("profile")
    if image.format == "TIFF" and _tag(image, SAMPLES, 1) > len(image.getbands()):
        found.append("channels")
    if _more_than_bytes(image):
        found.append("depth")
    return found


def orientation_of(image: "Image") -> tuple[int, bool]:
    """The EXIF orientation, 1 … 8, of an image that has not been decoded yet, and whether it is known."""
    if image.format not in ("JPEG", "MPO", "WEBP", "PNG", "AVIF"):
        return 1, True  # Pillow turns TIFF by itself
    block = image.info.get("exif")
    if not block:
        return 1, True  # asking further would decode a whole PNG, only to look behind its pixels
    try:
        tags = image.getexif()
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return 1, False
    orientation = tags.get(ORIENTATION, 1)
    known = bool(tags) or block.removeprefix(b"Exif\0\0")[:2] in (b"II", b"MM")
    return (orientation if orientation in range(1, 9) else 1), known


def _more_than_bytes(image: "Image") -> bool:
    """Whether a decoder gives bytes of what has more than 8 bits."""
    if image.format == "PPM":
        return image.mode == "RGB" and any(isinstance(value, int) and value > 255 for value in _decoders(image))
    if image.format == "AVIF" and (file := getattr(image, "fp", None)):
        file.seek(0)
        box = file.read(HEAD).partition(b"av1C")[2]
        return len(box) > 2 and bool(box[2] & 0x40)
    return _rawmode(image).startswith("CMYK;16")


def _rawmode(image: "Image") -> str:
    """How the decoder is told that pixels lie in the file."""
    return next((value for value in _decoders(image) if isinstance(value, str)), "")


def _decoders(image: "Image") -> tuple[Any, ...]:
    """What the decoder is told, in the order of its arguments."""
    tiles = getattr(image, "tile", None) or [(None, None, None, ())]
    return tiles[0][3] if isinstance(tiles[0][3], tuple) else (tiles[0][3],)


def _tag(image: "Image", tag: int, default: int) -> int:
    found = getattr(image, "tag_v2", {}).get(tag, default)
    return int(found[0] if isinstance(found, tuple) else found)
