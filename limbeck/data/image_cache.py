"""Decoded image files, kept as one memory-mapped array (N, C, H, W) per list of files and size.

A folder of the cache is either whole or absent, and is found again by the files' paths, sizes and times of change: a second run
decodes nothing, and images larger than the memory are no obstacle.
"""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from limbeck.data.decode import CHUNK, Header, decode_into, read_headers, spread
from limbeck.runtime.cache import cache_root, lock
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import new_folder, read_json, write_json
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.progress import Progress

FORMAT = 1  # counts up when the same files would be decoded to other pixels


def decoded(
    files: Sequence[Path], sides: tuple[int, int] | None, workers: int | None, progress: Progress
) -> tuple[np.ndarray, str]:
    """The images in `files`, from the cache or put there now.

    Args:
        files: at least one.
        sides: (height, width) to squash all to; None wants them to have one size already.
        workers: processes; None takes all cores.
        progress: where the decoding reports.

    Returns:
        uint8 with shape (N, C, H, W), memory-mapped, C = 1 where no file has colour and 3 otherwise; and its `array_fingerprint`.

    Raises:
        UsageError: when a file cannot be read, or sizes differ and `sides` is None.
        Failure: when the disk is too small.
    """
    place = cache_root() / "images" / fingerprint(FORMAT, sides, [_identity(path) for path in files])
    if held := _open(place, len(files)):
        return held
    with lock(place):
        held = _open(place, len(files))  # another process may have been faster
        if held is None:
            for leftover in (*place.parent.glob(f".{place.name}.*.part"), *place.parent.glob(f".{place.name}.*.old")):
                shutil.rmtree(leftover)  # of a run that was killed: while this one holds the lock, nobody is writing
            _fill(place, files, sides, workers, progress)
            held = _open(place, len(files))
    assert held is not None
    return held


def _identity(path: Path) -> tuple[str, int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise UsageError(f"data.source: cannot read the image '{path}': {error.strerror}") from error
    return str(path), state.st_size, state.st_mtime_ns


def _open(place: Path, count: int) -> tuple[np.ndarray, str] | None:
    try:
        content = read_json(place / "content.json")["content"]
        images = np.load(place / "images.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    sound = images.dtype == np.uint8 and images.ndim == 4 and len(images) == count
    return (images, content) if sound else None


def _fill(place: Path, files: Sequence[Path], sides: tuple[int, int] | None, workers: int | None, progress: Progress) -> None:
    chunks = [(start, files[start : start + CHUNK]) for start in range(0, len(files), CHUNK)]
    headers: list[Header] = []
    with spread(read_headers, [paths for _, paths in chunks], workers) as found, progress.stage("headers", len(files)) as stage:
        for part in found:
            headers += part
            stage.advance(len(part))
    shape = (len(files), 1 if all(header.grey for header in headers) else 3, *(sides or _common_sides(files, headers)))
    _check_room(place.parent, int(np.prod(shape)))
    with new_folder(place) as folder:
        storage = folder / "images.npy"
        images = np.lib.format.open_memmap(storage, mode="w+", dtype=np.uint8, shape=shape)
        images.flush()
        with spread(partial(decode_into, storage), chunks, workers) as counts, progress.stage("images", len(files)) as stage:
            for count in counts:
                stage.advance(count)
        write_json(folder / "content.json", {"content": array_fingerprint(images)})
        with storage.open("rb") as file:
            os.fsync(file.fileno())


def _common_sides(files: Sequence[Path], headers: Sequence[Header]) -> tuple[int, int]:
    height, width, _ = headers[0]
    for path, other in zip(files, headers, strict=True):
        if (other.height, other.width) != (height, width):
            sizes = f"'{files[0]}' is {height}×{width}, '{path}' {other.height}×{other.width}"
            raise UsageError(f"data.size: None does not bring images of several sizes together ({sizes}); give [height, width]")
    return height, width


def _check_room(folder: Path, size: int) -> None:
    """Writing to a memory map on a full disk would kill the process without a word."""
    if (free := shutil.disk_usage(folder).free) < size:
        wanted = f"decoded images need {size / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free"
        raise Failure(f"{wanted}: set $LIMBECK_CACHE to a larger place, or a smaller data.size")
