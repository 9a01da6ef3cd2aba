"""Images that come as arrays: in an `.npz` file, or decoded from one of the formats of small data sets (`cifar.py`, `idx.py`).

The file has `x_train`, `y_train`, `x_test`, `y_test` and, if you like, `class_names`. Pixels are uint8 with shape (N, H, W),
(N, H, W, C) or (N, C, H, W), C = 1 or 3; labels are integers 0 … K−1 with shape (N,). Nothing in the file is ever unpickled.
"""

import lzma
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from limbeck.data.classes import Classes, relabelled
from limbeck.data.imageset import ImageSet, whole
from limbeck.data.resize import resized, wanted_sides
from limbeck.data.settings import DataSettings
from limbeck.data.split import divide
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress

NEEDED = ("x_train", "y_train", "x_test", "y_test")
BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def load_arrays(settings: DataSettings, progress: Progress) -> ImageSet:
    """The images in the file `settings.source`; without `class_names` the classes are called "0", "1", ….

    Raises:
        UsageError: when the file is broken, an array is missing or holds something else, labels leave 0 … K−1, there are fewer
            than two classes, or a class has no training image.
    """
    arrays = _read(settings.source)
    images = {part: _images(settings.source, f"x_{part}", arrays[f"x_{part}"]) for part in ("train", "test")}
    labels = {part: _labels(settings.source, part, arrays) for part in ("train", "test")}
    return from_arrays(settings, images, labels, _class_names(settings.source, arrays.get("class_names")), progress)


def from_arrays(
    settings: DataSettings,
    images: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    names: tuple[str, ...] | None,
    progress: Progress,
) -> ImageSet:
    """The `ImageSet` of images in memory.

    Args:
        settings: what to choose, the size, and what `divide` reads.
        images: of `train` and `test`, uint8 with shape (N, C, H, W).
        labels: of `train` and `test`, int64 with shape (N,).
        names: of the classes; None calls them "0", "1", ….
        progress: where the resizing reports.

    Raises:
        UsageError: as `load_arrays`.
    """
    count = int(labels["train"].max()) + 1 if names is None else len(names)
    for part, values in labels.items():
        if values.min() < 0 or values.max() >= count:
            found = f"holds labels from {values.min()} to {values.max()} in y_{part}"
            raise _refusal(settings.source, f"{found}; {f'0 … {count - 1}' if count > 0 else '0 and up'} is accepted")
    if count < 2:
        raise _refusal(settings.source, "has one class; at least two are needed")
    if (bare := _first_absent(labels["train"])) < count:
        raise _refusal(settings.source, f"has no training image of class {bare}{f' ({names[bare]!r})' if names else ''}")
    if images["train"].shape[1] != images["test"].shape[1]:
        channels = " and ".join(f"x_{part} {array.shape[1]}" for part, array in images.items())
        raise _refusal(settings.source, f"has different numbers of channels: {channels}")
    classes = Classes(names or tuple(str(k) for k in range(count)))
    if settings.classes is not None:
        chosen = classes.choose(settings.classes, settings.source)
        kept = {part: relabelled(values, chosen) for part, values in labels.items()}
        images = {part: images[part][positions] for part, (positions, _) in kept.items()}
        labels, classes = {part: values for part, (_, values) in kept.items()}, classes.take(chosen)
        if len(labels["test"]) == 0:
            raise _refusal(settings.source, "has no test image of the classes in data.classes")
    images = _resized(images, settings, progress)
    train, test = (whole(images[part], labels[part]) for part in ("train", "test"))
    return divide(settings, train, test, classes.names)


def _read(source: str) -> dict[str, np.ndarray]:
    try:
        path = Path(source).expanduser()
        # NumPy takes whatever it does not know for a pickle, and advises to unpickle it.
        with path.open("rb") as raw:
            if not zipfile.is_zipfile(raw):
                raise _refusal(source, "is no .npz archive of arrays, as numpy.savez writes one")
        with np.load(path, allow_pickle=False) as file:
            if missing := [name for name in NEEDED if name not in file]:
                raise _refusal(source, f"lacks {', '.join(missing)}")
            arrays = {name: file[name] for name in (*NEEDED, "class_names") if name in file}
            if foreign := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise _refusal(source, f"holds {foreign[0]} as something else than an array")
            return arrays
    except UsageError:
        raise
    except BROKEN as error:
        raise _refusal(source, f"cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from error


def _images(source: str, name: str, array: np.ndarray) -> np.ndarray:
    """uint8 with shape (N, C, H, W)."""
    if array.dtype != np.uint8:
        hint = "; multiply pixels in [0, 1] by 255 and round them" if array.dtype.kind == "f" else ""
        raise _refusal(source, f"holds {name} as {array.dtype}; uint8 is accepted{hint}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4 or array.shape[1] not in (1, 3):
        accepted = "(N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3, is accepted"
        raise _refusal(source, f"holds {name} with shape {array.shape}; {accepted}")
    if array.size == 0:
        raise _refusal(source, f"holds {name} with shape {array.shape}, which is empty")
    return np.ascontiguousarray(array)


def _labels(source: str, part: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    labels, count = arrays[f"y_{part}"], len(arrays[f"x_{part}"])
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        found = f"holds y_{part} as {labels.dtype} with shape {labels.shape}"
        raise _refusal(source, f"{found}; integers with shape ({count},) are accepted")
    return labels.astype(np.int64)


def _first_absent(labels: np.ndarray) -> int:
    """The smallest class that has no image; found without counting up to a label that may be absurdly large."""
    present = np.unique(labels)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    return int(gaps[0]) if len(gaps) else len(present)


def _class_names(source: str, names: np.ndarray | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if names.dtype.kind not in "US" or names.ndim != 1:
        raise _refusal(source, f"holds class_names as {names.dtype} with shape {names.shape}; text with shape (K,) is accepted")
    texts = tuple(name.decode(errors="replace") if isinstance(name, bytes) else name for name in names.tolist())
    if len(texts) < 2:
        raise _refusal(source, f"holds {len(texts)} class_names; at least two are needed")
    if broken := [name for name in texts if any("\ud800" <= letter <= "\udfff" for letter in name)]:
        raise _refusal(source, f"holds the class name {broken[0]!r}, which is no Unicode text")
    if len(set(texts)) != len(texts):
        raise _refusal(source, "holds class_names that are not distinct")
    return texts


def _resized(images: Mapping[str, np.ndarray], settings: DataSettings, progress: Progress) -> Mapping[str, np.ndarray]:
    from PIL.Image import fromarray

    sides = wanted_sides(settings)
    shapes = {array.shape[2:] for array in images.values()}
    if sides is None and len(shapes) == 2:
        sizes = " and ".join(f"x_{part} {array.shape[2]}×{array.shape[3]}" for part, array in images.items())
        raise UsageError(f"data.size: None does not bring images of several sizes together ({sizes}); give [height, width]")
    if sides is None or shapes == {sides}:
        return images
    made = {part: np.empty((*array.shape[:2], *sides), dtype=np.uint8) for part, array in images.items()}
    with progress.stage("resizing", sum(map(len, images.values()))) as stage:
        for part, array in images.items():
            for row, image in enumerate(array):
                pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
                made[part][row] = resized(fromarray(pixels), *sides, settings.crop)
                stage.advance()
    return made


def _refusal(source: str, reason: str) -> UsageError:
    return UsageError(f"data.source: {source!r} {reason}")
