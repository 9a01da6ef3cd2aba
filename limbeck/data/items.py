"""Images that are objects in Python: arrays, map-style data sets, those of Hugging Face. Items are read one after the other into
one array of bytes; equal images and labels have equal fingerprints, whatever door they came through.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from limbeck.data.arrays import Assembled, ClassNames, Layout, array_of, assembled, levels_of, pixels
from limbeck.data.columns import IMAGE_COLUMNS, LABEL_COLUMNS, columns_of, labelled, left_out, say_unread, splits_of
from limbeck.data.decode import SHOWN, Lost, notes_on, together
from limbeck.data.levels import Levels, Span, found_levels, say, span_of, wanted_levels
from limbeck.data.picture import is_grey, picture
from limbeck.data.resize import resized, resized_array, wanted_sides
from limbeck.data.settings import DataSettings
from limbeck.data.split import room_for
from limbeck.runtime.errors import UsageError, one_line, require
from limbeck.runtime.progress import NoProgress, Progress

ARRAYS = ("numpy", "torch", "tensorflow", "jax")  # formats of a `datasets.Dataset` that turn its items into arrays


def of_arrays(
    parts: Mapping[str, tuple[Any, Any]],
    names: ClassNames | None,
    settings: DataSettings,
    progress: Progress = NoProgress(),
    layout: Layout = "auto",
) -> Assembled:
    """What an `ImageSet` is made from, of arrays x and y by what follows these letters: `""`, `_test`, `_val`."""
    parts = {suffix: pair for suffix, pair in parts.items() if not suffix or any(value is not None for value in pair)}
    for suffix, (x, y) in parts.items():
        for letter, value, other in (("x", x, "y"), ("y", y, "x")):
            require(value is not None, f"{letter}{suffix}", value, f"an array, beside {other}{suffix}")
    settings = replace(settings, source="arrays")
    say_unread(settings, progress)
    levels = levels_of({f"x{suffix}: given ": x for suffix, (x, _) in parts.items()}, settings, progress)
    called = {suffix: suffix[1:] or "train" for suffix in parts}
    images = {called[suffix]: pixels(f"x{suffix}: given ", x, layout, levels) for suffix, (x, _) in parts.items()}
    labels = {called[suffix]: y for suffix, (_, y) in parts.items()}
    said = {part: f"y{suffix}: given " for suffix, part in called.items()}
    return assembled(settings, images, labels, names, progress, said, levels)


def of_datasets(
    parts: Mapping[str, Any], names: ClassNames | None, settings: DataSettings, progress: Progress = NoProgress()
) -> Assembled:
    """What an `ImageSet` is made from, of map-style data sets by split, `train` and perhaps `test` and `val`."""
    settings = replace(settings, source=type(_innermost(parts["train"])).__name__)
    given = wanted_levels(settings)
    read = {part: _read(part, dataset, settings, given, progress) for part, dataset in parts.items() if dataset is not None}
    levels = None
    if spans := [span for held in read.values() for span in held.deep.values()]:
        levels = given or found_levels(spans)
    for part, held in read.items():
        for number in held.deep if given is None and levels is not None else ():  # only now is it known what is black and white
            held.images[held.rows[number]] = _item(part, parts[part], number, settings, levels)[0]
    lost = [one for held in read.values() for one in held.lost]
    count = sum(len(held.rows) for held in read.values())
    say(notes_on(lost, spans, levels, count, given is not None), settings.source, progress)
    images, labels = {part: held.images for part, held in read.items()}, {part: held.labels for part, held in read.items()}
    usual = True
    if settings.image_field is not None or settings.label_field is not None:
        if isinstance(item := parts["train"][next(iter(read["train"].rows))], Mapping):
            usual = settings.label_field in (None, *_first(item, LABEL_COLUMNS))
        else:
            say_unread(settings, progress)
    if names is None and usual:  # a data set has names for its usual labels
        names = _names_of(parts["train"], labels["train"])
    channels = max(array.shape[1] for array in images.values())
    images = {part: array if array.shape[1] == channels else array.repeat(channels, 1) for part, array in images.items()}
    return assembled(settings, images, labels, names, progress, {part: f"{part}: given " for part in images}, levels)


def of_hub(dataset: Any, names: ClassNames | None, settings: DataSettings, progress: Progress = NoProgress()) -> Assembled:
    """What an `ImageSet` is made from, of a `datasets.Dataset` or `DatasetDict`."""
    parts = splits_of(dataset, "dataset") if isinstance(dataset, Mapping) else {"train": dataset}
    if endless := [part for part in parts.values() if not hasattr(part, "__len__")]:
        raise UsageError(f"dataset: {unlisted('an ' + type(endless[0]).__name__)}")
    if len(parts["train"]) == 0:
        raise UsageError("dataset: has no rows to train on")
    parts = {name: part.with_format(None) if part.format["type"] in ARRAYS else part for name, part in parts.items()}
    image, label, own = columns_of(parts["train"], "dataset", settings)
    kept = labelled(parts, label, "dataset")
    if isinstance(dataset, Mapping) and (left := left_out(dataset, parts, kept)):
        progress.say(f"dataset: of the splits {', '.join(left)} no image is taken")
    called = {found: name for found, name in ((image, "image"), (label, "label")) if found != name}
    columns = {part: held.select_columns([image, label]).rename_columns(called) for part, held in kept.items()}
    settings = replace(settings, image_field=None, label_field=None)
    return of_datasets(columns, own if names is None else names, settings, progress)


def is_array(value: Any) -> bool:
    """Whether it is NumPy's array or torch's tensor."""
    return isinstance(value, (np.ndarray, torch.Tensor))


def has_items(value: Any) -> bool:
    """Whether it has a length and items, as map-style data sets do."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, bytes, type, ModuleType))


def unlisted(what: str) -> str:
    """What is said of something that has no items."""
    return f"{what} has no items by number; a list of its pairs (image, label) is accepted, and of a DataLoader its `dataset`"


def _innermost(dataset: Any) -> Any:
    """What a `Subset` is of, or a `ConcatDataset` begins with."""
    while not hasattr(dataset, "classes"):
        inner = getattr(dataset, "dataset", None) or next(iter(getattr(dataset, "datasets", ())), None)
        if inner is None:
            break
        dataset = inner
    return dataset


def _names_of(dataset: Any, labels: Sequence[Any]) -> tuple[str, ...] | None:
    """The names that torchvision's data sets have as `classes`, where labels are numbers that fit them."""
    names = getattr(_innermost(dataset), "classes", None)
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if all(isinstance(label, int) and 0 <= label < len(names) for label in labels) else None


class _Items(NamedTuple):
    """What was read of a data set.

    Args:
        images: uint8 with shape (N, C, H, W).
        labels: N of them.
        rows: the row of each item, by its number.
        deep: how far the numbers of items reach that are more than bytes.
        lost: what was lost of some.
    """

    images: np.ndarray
    labels: list[Any]
    rows: dict[int, int]
    deep: dict[int, Span]
    lost: list[Lost]


def _read(part: str, dataset: Any, settings: DataSettings, levels: Levels | None, progress: Progress) -> _Items:
    """The items of a data set; without `levels` those that are more than bytes are blank."""
    if not has_items(dataset):
        raise UsageError(f"{part}: {unlisted('a ' + type(dataset).__name__)}")
    require(len(dataset) > 0, part, type(dataset).__name__, "a data set with items")
    images, labels, bad = np.empty((0, 0, 0, 0), dtype=np.uint8), list[Any](), list[str]()
    rows, deep, lost = dict[int, int](), dict[int, Span](), list[Lost]()
    with progress.stage(f"images to {'train' if part == 'train' else part}", len(dataset)) as stage:
        for number in range(len(dataset)):
            try:
                one, label, losses, span = _item(part, dataset, number, settings, levels)
            except UsageError as error:
                if not settings.skip_bad:
                    raise
                bad.append(f"item {number}: {one_line(error.__cause__ or error)}")
                continue
            if not labels:
                images = room_for(len(dataset), one.shape, settings.source)
            if one.shape[1:] != images.shape[2:]:
                sizes = f"{images.shape[2]}×{images.shape[3]}, item {number} {one.shape[1]}×{one.shape[2]}"
                raise UsageError(
                    f"size: None does not bring images of several sizes together ({part}: {sizes}); give (height, width)"
                )
            if len(one) > images.shape[1]:  # the first with colour
                images = images.repeat(3, 1)
            images[len(labels)] = one
            rows[number] = len(labels)
            deep.update({number: span} if span else {})
            lost += [Lost(kind, 1, [f"{part}: item {number}"]) for kind in losses]
            labels.append(label)
            stage.advance()
    if bad:
        progress.say(f"{part}: {len(bad)} of {len(dataset)} items are left out ({'; '.join(bad[:SHOWN])})")
    require(len(labels) > 0, part, type(dataset).__name__, "a data set with items that can be read")
    return _Items(images[: len(labels)], labels, rows, deep, together(lost))


def _item(
    part: str, dataset: Any, number: int, settings: DataSettings, levels: Levels | None
) -> tuple[np.ndarray, Any, tuple[str, ...], Span | None]:
    """An item's image, uint8 (C, H, W), label, what was lost, and how far its numbers reach where they are more than bytes."""
    try:
        image, label = _pair(dataset[number], settings)
        made, losses, span = _image(image, wanted_sides(settings), settings.crop, levels)
    except UsageError as error:
        raise UsageError(f"{part}: item {number}: {error}") from error
    except Exception as error:  # a data set's own code may raise whatever it likes
        raise UsageError(
            f"{part}: item {number}: {one_line(error)}; data.skip_bad=true, in Python skip_bad=True, leaves it out"
        ) from error
    return made, label, losses, span


def _pair(item: Any, settings: DataSettings) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        image = _value(item, "data.image_field", settings.image_field, IMAGE_COLUMNS)
        return image, _label(_value(item, "data.label_field", settings.label_field, LABEL_COLUMNS))
    require(isinstance(item, (tuple, list)) and len(item) >= 2, "type", type(item).__name__, "a pair (image, label)")
    return item[0], _label(item[1])


def _value(item: Mapping[Any, Any], key: str, field: str | None, known: Sequence[str]) -> Any:
    """What a dictionary has under the name that a user gives, or under the first of those that are known."""
    value = next((item[name] for name in _first(item, known if field is None else (field,))), None)
    there = sorted(map(str, item))
    require(value is not None or field is not None, "keys", there, "with an `image` and a `label`")
    require(value is not None, key, field, f"a key that has a value, of {', '.join(there)}")
    return value


def _first(item: Mapping[Any, Any], known: Sequence[str]) -> list[str]:
    """The first of these names that a dictionary has, alone; none where it has none."""
    return [name for name in known if name in item][:1]


def _label(value: Any) -> int | str:
    if isinstance(value, str):
        return value
    array = array_of(value)
    require(array.size == 1 and array.dtype.kind in "biu", "label", value, "a whole number or text")
    return int(array.reshape(()))


def _image(
    image: Any, sides: tuple[int, int] | None, crop: str, levels: Levels | None
) -> tuple[np.ndarray, tuple[str, ...], Span | None]:
    """uint8 with shape (C, H, W); blank where numbers are more than bytes and there are no `levels`."""
    from PIL import Image

    if isinstance(image, Image.Image):
        seen = picture(image, is_grey(image), levels)
        return resized(seen.image, *(sides or (seen.image.height, seen.image.width)), crop), seen.losses, seen.span
    require(is_array(image), "image", type(image).__name__, "a Pillow image, a tensor or an array")
    layout: Layout = "NHW" if image.ndim == 2 else "NCHW" if isinstance(image, torch.Tensor) else "auto"
    array = array_of(image)
    whole = array.dtype.kind in "biu" and array.dtype != np.uint8
    span = span_of(array) if array.size and (whole or (levels and array.dtype.kind == "f")) else None
    made: np.ndarray = pixels("its image is given ", array[None], layout, levels or (Levels(0, 1) if whole else None))[0]
    if whole and levels is None:
        made = np.zeros_like(made)
    return made if sides in (None, made.shape[1:]) else resized_array(made, *sides, crop), (), span
