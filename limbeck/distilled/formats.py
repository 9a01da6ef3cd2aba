"""Arrays in files that others wrote: `.pt` files of research code, `.npz` archives of NumPy.

Nothing is unpickled but what `torch.load(weights_only=True)` builds, which are tensors, numbers (NumPy's too, as plain ones), text,
lists and dictionaries. What a file declares is compared with what it holds and with the free memory before room is made for it.

    (X, Y), [X, Y] or (X, Y, η)                                a `.pt` file
    {"images": X, "labels": Y}, with "lr" if it is known       a `.pt` file
    {"data": [X, Y]} or {"data": [[X, Y], …]}                  a `.pt` file of gradient or distribution matching
    images_best.pt, labels_best.pt, lr_best.pt                 a folder of trajectory matching; or images_best_*.pt, …; or
                                                               ema_images_best.pt, …, the average of the images over iterations
"""

import re
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.unpickle import SCALARS
from limbeck.runtime.bounded import check_array, check_sums, json_of, opened, read_bytes, unpacked_size
from limbeck.runtime.checked import unwritable
from limbeck.runtime.errors import UsageError, one_line
from limbeck.runtime.memory import free_memory

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
AVERAGES = ("ema_images_best.pt", "ema_images_best_*.pt")
BEST = re.compile(r"(ema_)?images_best(_.*)?\.pt")
MOST_NAMES = 5
MOST_JSON = 2**26  # bytes
HOW = "torch.save({'images': X, 'labels': Y, 'lr': η}, FILE) writes one that can be read"


@dataclass(frozen=True, eq=False)
class Raw:
    """What a file holds, as it holds it.

    Args:
        images: of any shape; floats or integers.
        labels: the same.
        syn_lr: η; None where the file does not say it.
        class_names: what the labels count; None where the file does not say it.
        notes: what had to be chosen to read it, a sentence each.
    """

    images: Tensor
    labels: Tensor
    syn_lr: float | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def refusal(path: Path, reason: str) -> UsageError:
    """The error that says what is wrong with the file or folder `path`."""
    return UsageError(f"path: {str(path)!r} {reason}")


def shown(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:MOST_NAMES]) + (f" and {len(quoted) - MOST_NAMES} more" if len(quoted) > MOST_NAMES else "")


def within(folder: Path, file: Path) -> Path:
    """`file`, once it is an ordinary file inside `folder`.

    Raises:
        UsageError: when it is none, or a link that leads out of the folder.
    """
    name = shown([str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)])
    try:
        inside = file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links; a name with a zero byte
        raise refusal(folder, f"holds {name}, which leads nowhere") from error
    if not inside:
        raise refusal(folder, f"holds {name}, which leads out of it")
    if not file.is_file():
        raise refusal(folder, f"lacks the file {name}")
    return file


def check_room(path: Path, size: int) -> None:
    """Raise `UsageError` unless `size` bytes of memory are free."""
    if size > (free := free_memory(torch.device("cpu"))):
        raise refusal(path, f"needs {size / 1e9:.1f} GB of memory, where {free / 1e9:.1f} GB are free")


def read_pt(path: Path) -> Raw:
    """The set in a `.pt` file.

    Raises:
        UsageError: when the file is broken, holds more than plain tensors, or does not have one of the forms above.
    """
    held: Any = load(path)
    notes: tuple[str, ...] = ()
    if isinstance(held, Mapping) and "images" not in held and "data" in held:
        held = held["data"]  # the pair itself, or one for each experiment, of which the first is taken
        if isinstance(held, (list, tuple)) and len(held) > 0 and isinstance(held[0], (list, tuple)):
            notes = (f"the first of the {len(held)} sets in the file is taken",) if len(held) > 1 else ()
            held = held[0]
    if isinstance(held, Mapping):
        if missing := [name for name in ("images", "labels") if name not in held]:
            raise refusal(path, f"lacks {' and '.join(missing)}; {HOW}")
        images, labels, rate = held["images"], held["labels"], held.get("lr", held.get("syn_lr"))
        names = held.get("class_names")
    elif isinstance(held, (list, tuple)) and len(held) in (2, 3):
        images, labels, rate, names = held[0], held[1], held[2] if len(held) == 3 else None, None
    else:
        raise refusal(path, f"holds {_kind(held)}, not images and labels; {HOW}")
    named = None if names is None else names_of(path, names)
    raw = Raw(tensor_of(path, "images", images), tensor_of(path, "labels", labels), _rate(path, rate), named, notes)
    check_room(path, 4 * (raw.images.numel() + raw.labels.numel()))
    return raw


def best_files(folder: Path) -> list[Path]:
    """The files of images that trajectory matching leaves in a folder; none where it is another kind of folder.

    Where averages lie beside the images, these are meant.
    """
    found = (sorted(folder.glob(pattern)) for pattern in ("images_best.pt", "images_best_*.pt", *AVERAGES))
    return next(filter(None, found), [])


def read_best(folder: Path, images_file: Path | None = None) -> tuple[Raw, list[Path]]:
    """The set in a folder of `images_best.pt`, `labels_best.pt` and, if it is there, `lr_best.pt`; and these files.

    Args:
        folder: where they lie.
        images_file: the one of images; None takes the only one.

    Raises:
        UsageError: as `read_pt`; and when it cannot be told which files belong together.
    """
    found = [images_file] if images_file else best_files(folder)
    if len(found) != 1:
        raise refusal(folder, f"holds {len(found)} sets of images ({shown(path.name for path in found)}); give one of these files")
    average, _, ending = found[0].name.partition("images_best")
    labels, rate = (
        _beside(folder, f"{average}{stem}", ending) or _beside(folder, stem, ending) for stem in ("labels_best", "lr_best")
    )
    if labels is None:
        raise refusal(folder, f"holds {found[0].name} but not {average}labels_best{ending}")
    files = [within(folder, file) for file in (found[0], labels, rate) if file is not None]
    images, targets = (tensor_of(file, file.stem, load(file)) for file in files[:2])
    check_room(folder, 4 * (images.numel() + targets.numel()))
    aside = [] if average else sorted(path for pattern in AVERAGES for path in folder.glob(pattern))
    notes = tuple(f"{found[0].name} is taken, not the average in {path.name}" for path in aside)
    return Raw(images, targets, _rate(files[2], load(files[2])) if rate else None, notes=notes), files


def _beside(folder: Path, stem: str, ending: str) -> Path | None:
    """The file of that stem with the same ending, else the only one of that stem."""
    if (same := folder / f"{stem}{ending}").exists():
        return same
    others = sorted(folder.glob(f"{stem}.pt")) + sorted(folder.glob(f"{stem}_*.pt"))
    if len(others) > 1:
        raise refusal(
            folder, f"lacks {stem}{ending} and holds {shown(path.name for path in others)} instead; leave one of them there"
        )
    return others[0] if others else None


def load(path: Path) -> Any:
    """What a `.pt` file holds.

    Raises:
        UsageError: when it is broken, or holds what only code could make.
    """
    try:
        with opened(path) as file:
            check_room(path, unpacked_size(file))
            check_sums(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch tells about odd files at length, on standard error
            with torch.serialization.safe_globals(SCALARS):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # a file that is no good makes torch raise whatever its bytes lead to
        if named := re.search(r"GLOBAL (\S+) was not an allowed|Trying to load unsupported GLOBAL (\S+)", str(error)):
            what = (named[1] or named[2])[:60]
            raise refusal(path, f"holds more than tensors ({what}), which could run code when it is read; {HOW}") from error
        raise refusal(path, f"cannot be read as a file of tensors: {one_line(error, 120)}") from error


def tensor_of(path: Path, name: str, value: Any) -> Tensor:
    """`value`, once it is an ordinary tensor of numbers, or a list of whole ones.

    Raises:
        UsageError: when it is not.
    """
    if isinstance(value, list) and value and all(type(item) is int and abs(item) < 2**63 for item in value):
        return torch.tensor(value, dtype=torch.int64)
    if not isinstance(value, Tensor):
        raise refusal(path, f"holds {_kind(value)} as {name}; a tensor is accepted")
    plain = value.layout == torch.strided and not value.is_nested and value.device.type == "cpu"
    if not plain or value.dtype not in FLOATS + INTEGERS:
        raise refusal(path, f"holds {name} as a tensor of {value.dtype} on {value.device}; dense floats or integers are accepted")
    return value.detach()


def json_values(file: Path, *keys: str, hint: str = "") -> tuple[Any, ...]:
    """What the JSON object in a file says under these keys, which may be anything; `...` where it says nothing.

    Raises:
        UsageError: when it is none, or too large; the message ends with the hint.
    """
    if (size := file.stat().st_size) > MOST_JSON:
        raise refusal(file, f"has {size / 1e6:.0f} MB; at most {MOST_JSON / 1e6:.0f} MB are accepted")
    try:
        held = json_of(read_bytes(file, MOST_JSON))
    except ValueError as error:
        raise refusal(file, f"cannot be read as JSON{hint}") from error
    if not isinstance(held, dict):
        raise refusal(file, f"is no JSON object{hint}")
    return tuple(held.get(key, ...) for key in keys)


def _rate(path: Path, value: Any) -> float | None:
    if isinstance(value, Tensor):
        value = tensor_of(path, "lr", value)
        value = value.item() if value.numel() == 1 else f"{value.numel()} numbers"
    return None if value is None else step_size(path, value)


def step_size(path: Path, value: Any) -> float:
    """η, once it is a number above 0.

    Raises:
        UsageError: when it is not.
    """
    try:
        rate = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else nan
    except OverflowError as error:
        raise refusal(path, "holds a step size beyond double precision; a finite number above 0 is accepted") from error
    if not (isfinite(rate) and rate > 0):
        said = " ".join(str(value)[:60].split())
        raise refusal(path, f"holds the step size {said}; a finite number above 0 is accepted")
    return rate


def names_of(path: Path, names: Any) -> tuple[str, ...]:
    """The names of classes, once they are a list of text.

    Raises:
        UsageError: when they are not.
    """
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise refusal(path, f"holds {_kind(names)} as class_names; a list of text is accepted")
    if broken := [name for name in names if unwritable(name)]:
        raise refusal(path, f"holds class_names with {shown(broken[:1])}, which is no Unicode text")
    return tuple(names)


def array_names(path: Path) -> set[str]:
    """The names of the arrays in an `.npz` archive.

    Raises:
        UsageError: when the archive is broken.
    """
    with _archive(path) as (_, members):
        return set(members)


def read_arrays(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` archive, of those names that it has.

    Raises:
        UsageError: when the archive is broken, or an array has Python objects or claims more than the archive holds.
    """
    with _archive(path) as (archive, members):
        return {name: _array(path, archive, name, info) for name, info in members.items() if name in names}


@contextmanager
def _archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """An archive and its arrays by name; whatever goes wrong with it inside the block is a refusal."""
    try:
        with opened(path) as file:
            if not zipfile.is_zipfile(file):
                raise refusal(path, "is no .npz archive of arrays, as numpy.savez writes one")
            unpacked_size(file)
        with zipfile.ZipFile(path) as archive:
            found = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            for info in archive.infolist():
                archive.open(info).close()  # where an archive lists a name that its member has not, that is noticed here
            yield archive, {info.filename.removesuffix(".npy"): info for info in found}
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # zipfile, the decompressors and numpy raise whatever the bytes of a broken file lead to
        raise refusal(path, f"cannot be read: {one_line(error, 120)}") from error


def _array(path: Path, archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)
        if version not in headers:
            raise ValueError(f"{name} is in an unknown format")
        shape, _, dtype = headers[version](file)
    if dtype.hasobject:
        raise refusal(
            path, f"holds Python objects as {name}, which could run code when they are read; numbers and text are accepted"
        )
    size = check_array(name, shape, dtype.itemsize, info.file_size)
    check_room(path, size * max(1, 4 // max(dtype.itemsize, 1)))
    with archive.open(info) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        file.read()  # to the end, where its checksum is compared
    return array


def _kind(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, (list, tuple, dict)) else ""
    return f"{type(value).__name__}{size}"
