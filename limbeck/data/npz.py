"""Images in an `.npz` file: `x_train`, `y_train`, `x_test`, `y_test` and, if you like, `class_names`. Nothing is unpickled."""

import lzma
import zipfile
import zlib
from pathlib import Path

import numpy as np

from limbeck.data.arrays import assembled, check_names, pixels
from limbeck.data.imageset import ImageSet
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError, one_line
from limbeck.runtime.progress import Progress

NEEDED = ("x_train", "y_train", "x_test", "y_test")
BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def load_npz(settings: DataSettings, progress: Progress) -> ImageSet:
    """The images in the file `settings.source`; without `class_names` the classes are called "0", "1", ….

    Raises:
        UsageError: when the file is broken, an array is missing or holds something else, labels leave 0 … K−1, there are fewer
            than two classes, or a class has no training image.
    """
    source, arrays = settings.source, _read(settings.source)
    images = {part: pixels(f"data.source: {source!r} holds x_{part} ", arrays[f"x_{part}"]) for part in ("train", "test")}
    labels = {part: arrays[f"y_{part}"] for part in images}
    names = None if "class_names" not in arrays else _class_names(source, arrays["class_names"])
    return ImageSet.of(*assembled(settings, images, labels, names, progress))


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
        raise _refusal(source, f"cannot be read: {one_line(error)}") from error


def _class_names(source: str, names: np.ndarray) -> tuple[str, ...]:
    if names.dtype.kind not in "US" or names.ndim != 1:
        raise _refusal(source, f"holds class_names as {names.dtype} with shape {names.shape}; text with shape (K,) is accepted")
    if len(names) < 2:
        raise _refusal(source, f"holds {len(names)} class_names; at least two are needed")
    texts = tuple(name.decode(errors="replace") if isinstance(name, bytes) else name for name in names.tolist())
    try:
        check_names(texts)
    except UsageError as error:
        raise _refusal(source, f"holds {error}") from error
    return texts


def _refusal(source: str, reason: str) -> UsageError:
    return UsageError(f"data.source: {source!r} {reason}")
