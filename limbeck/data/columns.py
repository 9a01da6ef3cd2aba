"""Which splits and columns of a Hugging Face dataset hold images and their classes.

Splits: `train`, or the only one; `test` where it has labels, else `validation`, is tested on, and where there are both the best
checkpoint is chosen on `validation`.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol, TypeVar

from limbeck.data.decode import CHUNK
from limbeck.data.settings import DataSettings
from limbeck.runtime.checked import unwritable
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.progress import Progress

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "jpeg")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "cls", "target", "json")
EVALUATION = ("test", "validation", "valid", "val", "dev")


class Rows(Protocol):
    """What is asked of a dataset, in memory or a stream: its rows by column, and what kinds the columns are."""

    @property
    def features(self) -> Mapping[str, Any] | None: ...
    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...
    def skip(self, n: int) -> "Rows": ...


R = TypeVar("R", bound=Rows)


def splits_of(found: Mapping[str, R], named: str) -> dict[str, R]:
    """The splits, `train` first and then those that evaluation may use."""
    train = "train" if "train" in found else next(iter(found)) if len(found) == 1 else None
    if train is None:
        raise UsageError(f"data.source: {named!r} has the splits {', '.join(found)}, and none is called train")
    return {"train": found[train], **{name: found[name] for name in EVALUATION if name in found and name != train}}


def left_out(found: Iterable[str], parts: Mapping[str, R], kept: Mapping[str, R]) -> list[str]:
    """The splits of which no image is taken: they have other names, no labels, or there are two to evaluate on already.

    Args:
        found: the names of all.
        parts: those that `splits_of` has taken.
        kept: what `labelled` has made of them.
    """
    used = {name for name, part in parts.items() if any(part is one for one in kept.values())}
    return [name for name in found if "train" in used and name not in used] if len(set(found)) > 1 else []


def columns_of(part: Rows, named: str, settings: DataSettings) -> tuple[str, str, tuple[str, ...] | None]:
    """The columns with the image and with the class, and the names of the classes where there are any."""
    features, row = part.features or {}, dict[str, Any]()
    for other in islice(part, CHUNK):  # until every column has shown something else than null
        row = {**other, **{name: value for name, value in row.items() if value is not None}}
        if all(value is not None for value in row.values()):
            break
    if not row:
        raise UsageError(f"data.source: {named!r} has no rows to train on")
    images = [name for name in row if type(features.get(name)).__name__ == "Image"] or [
        name for name in row if isinstance(row[name], bytes) or (isinstance(row[name], Mapping) and "bytes" in row[name])
    ]
    labels = [name for name in row if type(features.get(name)).__name__ == "ClassLabel"] or [
        name for name in row if name in LABEL_COLUMNS and isinstance(row[name], (int, str, Mapping))
    ]
    fields = (settings.image_field, settings.label_field)
    for what, columns, known, field in zip(
        ("images", "classes"), (images, labels), (IMAGE_COLUMNS, LABEL_COLUMNS), fields, strict=True
    ):
        key = "data.image_field" if what == "images" else "data.label_field"
        columns.sort(key=lambda name, known=known: known.index(name) if name in known else len(known))  # type: ignore[misc]
        if not columns and field is None:
            raise UsageError(f"data.source: {named!r} has no column of {what}; its columns are {', '.join(row)}: {key} names one")
        if field is not None:
            require(field in row, key, field, f"a column of {named!r}, which has {', '.join(row)}")
            columns.insert(0, field)
    names = getattr(features.get(labels[0]), "names", None)
    return images[0], labels[0], tuple(names) if names else None


def labelled(parts: Mapping[str, R], label: str, named: str) -> dict[str, R]:
    """`train`, `test` and `val`: the parts that have labels, for test images are often published without (−1)."""
    firsts = {part: (row[label] for row in islice(held, CHUNK) if row.get(label) is not None) for part, held in parts.items()}
    usable = [part for part, values in firsts.items() if label_of(next(values, None), named) not in (None, -1)]
    if "train" not in usable:
        raise UsageError(f"data.source: {named!r} has no labels in its training rows")
    return {part: parts[name] for part, name in zip(("train", "test", "val"), usable, strict=False)}


def label_of(value: Any, named: str) -> int | str | None:
    """The class that a row says, itself or in an object of JSON."""
    if isinstance(value, Mapping):  # webdataset's KEY.json
        value = next((value[key] for key in ("label", "cls", "class") if key in value), None)
    if isinstance(value, bool) or not isinstance(value, (int, str, type(None))):
        raise UsageError(f"data.source: {named!r} has the label {value!r}; whole numbers and text are accepted")
    if isinstance(value, str) and unwritable(value):
        raise UsageError(f"data.source: {named!r} has the label {value!r}, which is no Unicode text")
    return value


def say_unread(settings: DataSettings, progress: Progress, keys: Iterable[str] = ("image_field", "label_field")) -> None:
    """Say which of `data.image_field` and `data.label_field` are given for a source in which nothing has names."""
    for key in keys:
        if getattr(settings, key) is not None:
            progress.say(f"data.{key}: is not read, for {settings.source!r} has no fields with names")
