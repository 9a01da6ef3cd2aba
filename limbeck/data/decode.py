"""Image files to pixels, in several processes.

What a process does with its files is here, apart from everything that imports torch: where processes are spawned rather than
forked, each of them imports this module anew.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from limbeck.data.resize import squash
from limbeck.runtime.errors import Failure, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 64
SUFFIXES = frozenset((".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION = 0x0112

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Header(NamedTuple):
    """What a file says about its image before it is decoded: the sides as they are to be seen, and whether it has no colour."""

    height: int
    width: int
    grey: bool


def read_headers(paths: Sequence[Path]) -> list[Header]:
    """The headers of image files.

    Raises:
        UsageError: naming the first file that cannot be read.
    """
    headers = []
    for path in paths:
        with _opened(path) as image:
            width, height = image.size
            turned = _orientation(image) >= 5
            headers.append(Header(width if turned else height, height if turned else width, image.mode in GREY_MODES))
    return headers


def decode_into(storage: Path, piece: tuple[int, Sequence[Path]]) -> int:
    """Decode files into consecutive rows of the array (N, C, H, W) in the .npy file `storage`, resized to its H and W.

    Args:
        storage: an existing uint8 .npy file.
        piece: the first row, and the files.

    Returns:
        How many files there were.

    Raises:
        UsageError: naming the first file that cannot be read.
    """
    first, paths = piece
    images = np.lib.format.open_memmap(storage, mode="r+")
    channels, height, width = images.shape[1:]
    for row, path in enumerate(paths, first):
        with _opened(path) as image:
            images[row] = squash(_upright(image, grey=channels == 1), height, width)
    images.flush()
    return len(paths)


@contextmanager
def spread(work: Callable[[Piece], Result], pieces: Sequence[Piece], workers: int | None) -> Iterator[Iterator[Result]]:
    """An iterator over `work(piece)`, in the order of the pieces, computed by `workers` processes (None: one a core).

    The processes start on entry: enter this before anything that starts a thread, such as a progress bar. A single piece, or a
    single worker, is computed here.

    Raises:
        Failure: when a process is killed.
    """
    count = min(workers or _cores(), len(pieces))
    if count <= 1:
        yield map(work, pieces)
        return
    # Forked processes do not import the user's script again, which would need a guard around its every statement; they touch
    # neither torch nor a GPU. Where forking is unsafe the platform's own way is taken.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_process)
    try:
        futures = [pool.submit(work, piece) for piece in pieces]
        yield (future.result() for future in futures)
    except BrokenProcessPool as error:
        raise Failure("data.workers: a process that decodes images was killed; fewer of them need less memory") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_process() -> None:
    """What a process does before its first piece: leave Ctrl-C, which reaches all of them, to the parent alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()


def _end_with_parent() -> None:
    """Let this process end when its parent is killed: orphans would wait for ever and hold the cache's lock, which they inherit."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _opened(path: Path) -> Iterator["Image"]:
    """The image in a file; whatever goes wrong with it becomes a `UsageError` that names the file."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            yield image
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error and more over broken files
        broken = isinstance(error, PIL.UnidentifiedImageError)
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = "it holds no image of a known format" if broken else " ".join(told.split()) or type(error).__name__
        raise UsageError(f"data.source: cannot read the image '{path}': {reason}") from error


def _upright(image: "Image", grey: bool) -> "Image":
    """The image as it is to be seen, on white where it is transparent, in mode L or RGB."""
    import PIL.Image

    orientation = _orientation(image)
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
