"""MNIST and what is laid out like it (Fashion-MNIST, KMNIST): idx files, plain or compressed with gzip.

    {train,t10k}-images-idx3-ubyte[.gz]      0 0 8 3, then N, H, W as big-endian 32-bit numbers, then the pixels
    {train,t10k}-labels-idx1-ubyte[.gz]      0 0 8 1, then N, then the classes

The folder itself, or the `raw/` in it (or in a folder in it) that other libraries make. The files do not say what the classes are
called: "0" to "9", or Fashion-MNIST's ten garments where the folder's path says "fashion".
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from limbeck.data.arrays import assembled
from limbeck.data.columns import say_unread
from limbeck.data.folder import refuse_several
from limbeck.data.imageset import ImageSet
from limbeck.data.settings import DataSettings
from limbeck.runtime.bounded import Limited, opened
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
STEMS = {"train": "train", "test": "t10k"}
MOST_BYTES = 2**30  # of a file, unpacked: the largest, of EMNIST and QMNIST, have 550 MB


def find_idx(root: Path) -> dict[str, Path] | None:
    """The four files by `train images`, `train labels`, `test images`, `test labels`; None where one is not there.

    Raises:
        UsageError: when they are there in several folders, and not in `root` itself.
    """
    for places in ([root], [root / "raw", *root.glob("*/raw")]):
        found = {folder: files for folder in places if (files := _files(folder))}
        refuse_several(root, found)
        if found:
            return next(iter(found.values()))
    return None


def _files(folder: Path) -> dict[str, Path] | None:
    found = {f"{part} {what}": _find(folder, stem, what) for part, stem in STEMS.items() for what in ("images", "labels")}
    held = {name: path for name, path in found.items() if path}
    return held if len(held) == len(found) else None


def _find(folder: Path, stem: str, what: str) -> Path | None:
    rank = 3 if what == "images" else 1
    names = (f"{stem}-{what}{mark}idx{rank}-ubyte{suffix}" for mark in "-." for suffix in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def load_idx(settings: DataSettings, files: dict[str, Path], progress: Progress) -> ImageSet:
    """The images in the files that `find_idx` has found.

    Raises:
        UsageError: when a file is broken, or images and labels differ in number.
    """
    say_unread(settings, progress)
    images, labels = {}, {}
    for part in STEMS:
        images[part] = read_idx(files[f"{part} images"], 3)[:, None]
        labels[part] = read_idx(files[f"{part} labels"], 1).astype(np.int64)
        if len(images[part]) != len(labels[part]) or images[part].size == 0:
            counts = f"{len(images[part])} images and {len(labels[part])} labels"
            raise UsageError(f"data.source: {settings.source!r} has {counts} to {'train' if part == 'train' else 'test'} on")
    fashion = "fashion" in "/".join(files["train images"].parts[-4:-1]).lower()
    ten = all(values.max() < len(FASHION) for values in labels.values())
    return ImageSet.of(*assembled(settings, images, labels, FASHION if fashion and ten else None, progress))


def read_idx(path: Path, rank: int) -> np.ndarray:
    """The uint8 array of that rank in an idx file.

    Raises:
        UsageError: when it cannot be read or holds something else.
    """
    try:
        with opened(path) as file:
            source = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            content = Limited(source, MOST_BYTES).read()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
        raise UsageError(f"data.source: the file '{path}' cannot be read: {reason}") from error
    begin = 4 + 4 * rank
    if content[:4] != bytes((0, 0, 8, rank)) or len(content) < begin:
        raise UsageError(f"data.source: the file '{path}' is no idx file of {rank} dimensions of bytes")
    shape = tuple(int(side) for side in np.frombuffer(content[4:begin], dtype=">u4"))
    size = int(np.prod(shape, dtype=object))
    if len(content) - begin != size:
        sides = "×".join(map(str, shape))
        raise UsageError(f"data.source: the file '{path}' has {len(content) - begin} bytes of data, not the {size} of {sides}")
    return np.frombuffer(content, dtype=np.uint8, offset=begin).reshape(shape)
