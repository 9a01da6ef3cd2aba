"""Images that come as arrays: NumPy's, torch's, in an `.npz` file (`npz.py`), or decoded from a small data set.

pixels   uint8; floats in [0, 1], of which round(255 p) is kept; other numbers by what is black and white in them (`levels.py`);
         (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3
labels   integers or text, (N,) or (N, 1), or one-hot rows (N, K)
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from limbeck.data.classes import Classes, relabelled
from limbeck.data.levels import ROUNDING, Levels, found_levels, say, shares, span_of, told, wanted_levels
from limbeck.data.resize import resized_array, wanted_sides
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split, divide, room_for, tested, whole
from limbeck.runtime.checked import unwritable
from limbeck.runtime.disk import in_words
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.memory import free_memory
from limbeck.runtime.progress import NoProgress, Progress

Layout = Literal["auto", "NCHW", "NHWC", "NHW"]
ClassNames = Sequence[str] | Mapping[Any, str]
Assembled = tuple[Split, Split, Split, tuple[str, ...], str, str | None, Levels | None]

LAYOUTS: dict[str, tuple[int, ...]] = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)}
BLOCK = 1024  # images in floats at a time


def assembled(
    settings: DataSettings,
    images: Mapping[str, np.ndarray],
    labels: Mapping[str, Any],
    names: ClassNames | None,
    progress: Progress = NoProgress(),
    said: Mapping[str, str] | None = None,
    levels: Levels | None = None,
) -> Assembled:
    """What `ImageSet.of` makes a set from, of images in memory: those to train, validate and test on, class names and source.

    Args:
        settings: what to choose, the size, and what `divide` reads.
        images: of `train` and, where there are any, `test` and `val`, uint8 with shape (N, C, H, W); without `test` a fifth of each
            class is held out for it.
        labels: of these, and
        names: of the classes, as for `numbered`.
        progress: where the resizing reports.
        said: begins messages about the labels of each; None says that the source holds them.
        levels: what was black and white in images of more than eight bits.

    Raises:
        UsageError: for labels that leave 0 … K−1, fewer than two classes, a class without a training image, and images that differ
            in size or channels.
    """
    if len({array.shape[1] for array in images.values()}) > 1:
        channels = " and ".join(f"x_{part} {array.shape[1]}" for part, array in images.items())
        raise _refusal(settings.source, f"has different numbers of channels: {channels}")
    said = {part: f"data.source: {settings.source!r} holds y_{part} " for part in images} | dict(said or {})
    numbers, called, note = numbered(
        {said[part]: labels[part] for part in images}, [len(array) for array in images.values()], names
    )
    labels, classes = dict(zip(images, numbers, strict=True)), Classes(called)
    if note:
        progress.say(f"note: {settings.source}: {note}")
    splits = {part: whole(images[part], labels[part]) for part in images}
    if settings.classes is not None:
        chosen = classes.choose(settings.classes, settings.source)
        splits, classes = {part: _of_classes(split, chosen) for part, split in splits.items()}, classes.take(chosen)
        if len(splits.get("test", [0])) == 0:
            raise _refusal(settings.source, "has no test image of the classes in data.classes")
        splits = {part: split for part, split in splits.items() if len(split) or part != "val"}
    splits = tested(_resized(splits, settings, progress), settings)
    return *divide(settings, splits["train"], splits["test"], splits.get("val")), classes.names, settings.source, None, levels


def _of_classes(split: Split, chosen: np.ndarray) -> Split:
    """The images of these classes, in memory on their own; what is memory-mapped stays on the disk."""
    positions, labels = relabelled(split.labels, chosen)
    mapped = isinstance(split.storage, np.memmap)
    return replace(split.take(positions), labels=labels) if mapped else whole(split.storage[positions], labels)


def levels_of(arrays: Mapping[str, Any], settings: DataSettings, progress: Progress = NoProgress()) -> Levels | None:
    """What is black and white in images that are no bytes, which is said; None where all are bytes, or floats that are pixels.

    Args:
        arrays: of all parts, by what begins messages.
        settings: `range`, and what the source is called.
        progress: where it is said.

    Raises:
        UsageError: when one part holds bytes and another what bytes cannot be, or floats and whole numbers are mixed.
    """
    wide = {what: array for what, array in ((what, array_of(values)) for what, values in arrays.items()) if array.dtype != np.uint8}
    given, whole = wanted_levels(settings), any(array.dtype.kind in "biu" for array in wide.values())
    usable = [array for array in wide.values() if array.dtype.kind in "biuf" and array.size]
    if not usable or (given is None and not whole):
        return None
    if given is None and len(wide) == len(arrays) and all(array.dtype == np.bool_ for array in usable):
        return Levels(0, 1)
    try:
        spans = [span_of(image) for array in usable for image in array]
    except ValueError:
        return given  # `pixels` names the array
    levels = given or found_levels(spans)
    if given is None and len(wide) < len(arrays) and levels != (0, 255):
        what, array = next(iter(wide.items()))
        key = _range_key(what)
        stretched = f"{key}=[{levels.black:.6g},{levels.white:.6g}]"
        others = f"bytes elsewhere; {key}=255 takes both alike, {stretched} stretches these"
        raise UsageError(f"{what}as {array.dtype} with numbers from {levels}, and {others}")
    total = sum(len(array_of(values)) for values in arrays.values())
    say(told(spans, levels, total, given is not None), settings.source, progress)
    return levels


def pixels(what: str, values: Any, layout: Layout = "auto", levels: Levels | None = None) -> np.ndarray:
    """Images as uint8 with shape (N, C, H, W), C = 1 or 3: an array of their own, unless they are bytes in a memory-mapped file.

    Args:
        what: begins messages, such as "x: given ".
        values: NumPy's array or torch's tensor: bytes, or floats p in [0, 1], which become round(255 p).
        layout: what the dimensions are; `auto` finds out where it can.
        levels: what is black and white in numbers that are no bytes; None takes floats alone, and 0 and 1 in them.

    Raises:
        UsageError: for another type or shape, numbers that are no pixels, more than there is memory for, and where the layout
            leaves a doubt.
    """
    array = _channels_first(what, array_of(values), layout)
    if array.size == 0:
        raise UsageError(f"{what}with shape {array.shape}, which is empty")
    if array.dtype == np.uint8:
        if isinstance(array, np.memmap):
            return array
    elif array.dtype.kind not in ("f" if levels is None else "biuf"):
        raise UsageError(f"{what}as {array.dtype}; bytes, floats in [0, 1] and whole numbers are accepted")
    if len(array) > 1:  # a data set with a million items asks for each of them
        check_room(f"{what}with shape {array.shape}, ", array.size, "; uint8 in a folder of .npy files stays on the disk")
    if array.dtype == np.uint8:
        return np.array(array, order="C")
    made = np.empty(array.shape, dtype=np.uint8)
    for begin in range(0, len(array), BLOCK):
        made[begin : begin + BLOCK] = _bytes(what, array[begin : begin + BLOCK], levels, begin)
    return made


def check_room(what: str, size: int, advice: str = "") -> None:
    """Raise `UsageError`, which begins with `what`, unless so many bytes of memory are free."""
    if size > (free := free_memory(torch.device("cpu"))):
        raise UsageError(f"{what}which needs {in_words(size)} of memory, where {in_words(free)} are free{advice}")


def array_of(values: Any) -> np.ndarray:
    """What holds numbers or text as NumPy's array; tensors come from whatever device they are on."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asanyarray(values)


def holds_letters(array: np.ndarray) -> bool:
    """Whether an array of text holds letters alone: of a broken file the numbers may be beyond all that there are."""
    if array.dtype.kind != "U" or array.size == 0 or array.dtype.itemsize == 0:
        return True
    numbers = np.ascontiguousarray(array).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    return int(numbers.max()) <= sys.maxunicode


def _channels_first(what: str, array: np.ndarray, layout: Layout) -> np.ndarray:
    require(layout in ("auto", "NHW", *LAYOUTS), "layout", layout, "auto, NCHW, NHWC or NHW")
    if array.ndim == 3 and layout in ("auto", "NHW"):
        return array[:, None]
    fitting = [name for name in LAYOUTS if array.ndim == 4 and array.shape[name.index("C")] in (1, 3)]
    if layout == "auto" and len(fitting) == 2:
        raise UsageError(
            f"{what}with shape {array.shape}, which may be NCHW or NHWC: in Python, layout='NCHW' or layout='NHWC' says which"
        )
    if not fitting or layout not in ("auto", *fitting):
        wanted = "(N, H, W), (N, H, W, C) or (N, C, H, W)" if layout == "auto" else f"({', '.join(layout)})"
        raise UsageError(f"{what}with shape {array.shape}; {wanted}, C = 1 or 3, is accepted")
    turned: np.ndarray = array.transpose(LAYOUTS[fitting[0] if layout == "auto" else layout])
    return turned


def _bytes(what: str, part: np.ndarray, levels: Levels | None, first: int) -> np.ndarray:
    """round(255 p), p the share of white, of images from number `first` on."""
    low, high = float(part.min()), float(part.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        odd = first + int((~np.isfinite(part)).reshape(len(part), -1).any(1).argmax())
        raise UsageError(f"{what}with numbers that are not finite, the first in image {odd}")
    if levels is None and not -ROUNDING <= low <= high <= 1 + ROUNDING:
        out = "leave the normalisation out, which Limbeck does itself" if low < 0 else "divide by what white is, such as 255"
        key, white = _range_key(what), _white(high)
        said = f"or say what is white, {key}={white}" if low >= 0 else f"or what is black and white, {key}=[{low:.4g},{high:.4g}]"
        raise UsageError(f"{what}with floats from {low:.4g} to {high:.4g}, which are no pixels in [0, 1]; {out}, {said}")
    made: np.ndarray = np.rint(shares(part, levels or Levels(0, 1)) * 255).astype(np.uint8)
    return made


def _range_key(what: str) -> str:
    """What `data.range` is called where those are who the message is for."""
    return "data.range" if what.startswith("data.") else "range"


def _white(high: float) -> int:
    """The number that is probably white where the greatest is `high`: 2ⁿ − 1 for bytes and wider ones."""
    return max(255, 2 ** math.ceil(math.log2(high + 1)) - 1) if high > 16 else math.ceil(high)


def numbered(
    labels: Mapping[str, Any], counts: Sequence[int], names: ClassNames | None = None
) -> tuple[list[np.ndarray], tuple[str, ...], str]:
    """Labels as numbers of classes, int64 with shape (N,), the names of the classes, and what is to be noted about them.

    Args:
        labels: by what begins messages, such as "y: given ", those of training first: integers or text with shape (N,) or (N, 1),
            or one-hot rows (N, K).
        counts: how many images each of them belongs to.
        names: of the classes in the order of their numbers, which count from 0, or all from 1; or by label, {3: "cat", 5: "dog"}.
            None takes labels of text for names, in alphabetical order, and calls numbers "0", "1", ….

    Raises:
        UsageError: for labels of another form, or that the classes have not; for less than two classes, and one without a training
            image.
    """
    flat = {what: _flat(what, array_of(values), count) for (what, values), count in zip(labels.items(), counts, strict=True)}
    first, own = next(iter(flat.items()))
    present, text = np.unique(own), own.dtype.kind == "U"
    note = ""
    if not text and not isinstance(names, Mapping) and _from_one(list(flat.values()), present, names):
        called_so = names or tuple(map(str, present.tolist()))
        names, note = dict(zip(present.tolist(), called_so, strict=True)), f"labels count from 1 to {len(present)}: 1 is class 0"
    if names is None and not text and int(present[0]) < 0:
        odd = int(own.argmin())
        raise UsageError(
            f"{first}with labels from {present[0]} to {present[-1]}; 0 and up is accepted, and item {odd} has {own[odd]}"
        )
    if isinstance(names, Mapping):
        keys, called = list(names), tuple(names.values())
    elif names is None:
        keys = present.tolist() if text else list(range(min(int(present[-1]), len(present)) + 1))
        called = tuple(map(str, keys))
    else:
        called = tuple(names)
        keys = list(called) if text else list(range(len(called)))
    check_names(called)
    place, there = {key: k for k, key in enumerate(keys)}, set(present.tolist())
    bare = [k for k, key in enumerate(keys) if key not in there]
    if bare and (names is None or there <= place.keys()):
        hint = "" if names is not None else "; in Python, class_names={label: name, …} names the labels that there are"
        called_so = f" ({called[bare[0]]!r})" if called[bare[0]] != str(bare[0]) else ""
        raise UsageError(f"{first}without a training image of class {bare[0]}{called_so}{hint}")
    if len(keys) < 2:
        raise UsageError(f"{first}with one class; at least two are needed")
    found = []
    for what, values in flat.items():
        kinds, which = np.unique(values, return_inverse=True)
        if unknown := [kind for kind in kinds.tolist() if kind not in place]:
            accepted = f"0 … {len(keys) - 1}" if keys == list(range(len(keys))) else ", ".join(map(repr, keys))
            labelled = f"the label {unknown[0]!r}" if values.dtype.kind == "U" else f"labels from {kinds[0]} to {kinds[-1]}"
            odd = int((values == unknown[0]).argmax())
            raise UsageError(f"{what}with {labelled}; {accepted} is accepted, and item {odd} has {unknown[0]!r}")
        found.append(np.array([place[kind] for kind in kinds.tolist()], dtype=np.int64)[which.reshape(-1)])
    return found, called, note


def _from_one(labels: Sequence[np.ndarray], present: np.ndarray, names: Sequence[str] | None) -> bool:
    """Whether numbers are 1 … K, where every class has a training image."""
    count = len(present) if names is None else len(names)
    counted = len(present) == count and int(present[0]) == 1 and int(present[-1]) == count
    return counted and all(values.dtype.kind != "U" and values.min() >= 1 and values.max() <= count for values in labels)


def _flat(what: str, array: np.ndarray, count: int) -> np.ndarray:
    """Integers or text with shape (N,)."""
    if array.dtype.kind == "O" and all(isinstance(value, str) for value in array.flat):
        array = array.astype(np.str_)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and array.dtype.kind in "biuf" and len(array) == count:
        if not (np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all()):
            raise UsageError(f"{what}with shape {array.shape} and other rows than one-hot ones; argmax(1) makes classes of them")
        return np.asarray(array.argmax(1))
    if array.dtype.kind not in "biuU" or array.shape != (count,):
        accepted = f"integers or text with shape ({count},) or ({count}, 1), or one-hot rows, are accepted"
        raise UsageError(f"{what}as {array.dtype} with shape {array.shape}; {accepted}")
    if array.dtype.kind == "U":
        if not holds_letters(array):
            raise UsageError(f"{what}with what is no Unicode text")
        return array
    if array.dtype.kind == "u" and int(array.max()) >= 2**63:
        raise UsageError(f"{what}with labels from {array.min()} to {array.max()}; less than 2⁶³ is accepted")
    return array.astype(np.int64)


def check_names(names: Sequence[Any]) -> None:
    """Raise `UsageError` unless these are distinct names that can be written."""
    if odd := [name for name in names if not isinstance(name, str)]:
        raise UsageError(f"class_names: {odd[0]!r} is no text")
    if broken := [name for name in names if unwritable(name)]:
        raise UsageError(f"class_names: {broken[0]!r} is no Unicode text")
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UsageError(f"class_names: {twice[0]!r} names two classes")


def _resized(splits: dict[str, Split], settings: DataSettings, progress: Progress) -> dict[str, Split]:
    sides = wanted_sides(settings)
    shapes = {split.storage.shape[2:] for split in splits.values()}
    if sides is None and len(shapes) > 1:
        sizes = " and ".join(f"x_{part} {'×'.join(map(str, split.storage.shape[2:]))}" for part, split in splits.items())
        raise UsageError(f"data.size: None does not bring images of several sizes together ({sizes}); give [height, width]")
    if sides is None or shapes == {sides}:
        return splits
    made = {part: room_for(len(split), (split.storage.shape[1], *sides), settings.source) for part, split in splits.items()}
    with progress.stage("resizing", sum(map(len, splits.values()))) as stage:
        for part, split in splits.items():
            for image, row in zip(made[part], split.rows, strict=True):
                image[...] = resized_array(split.storage[row], *sides, settings.crop)
                stage.advance()
    return {part: replace(split, storage=made[part], rows=np.arange(len(split))) for part, split in splits.items()}


def _refusal(source: str, reason: str) -> UsageError:
    return UsageError(f"data.source: {source!r} {reason}")
