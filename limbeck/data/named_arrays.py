"""Arrays by their names, as the field calls them.

x_train, y_train, x_test, y_test                 also X_train, trainX and the like
train_images, train_labels, val_images, …        MedMNIST's
data, target                                     of no split: a fifth of each class is held out to test on
class_names                                      what the classes are called
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from limbeck.data.arrays import Assembled, assembled, check_names, holds_letters, levels_of, pixels
from limbeck.data.settings import DataSettings
from limbeck.data.split import SPLITS
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress

IMAGES = ("x", "image", "images", "img", "imgs", "data", "input", "inputs", "pixels")
LABELS = ("y", "label", "labels", "target", "targets", "class", "cls")
NAMES = ("class_names", "classnames", "label_names")
KNOWN = (
    "x_train and y_train, train_images and train_labels, or data and target are read, with others for test and val; "
    "data.image_field and data.label_field name what is called otherwise"
)
SHOWN = 12  # arrays that a message names


class Held(NamedTuple):
    """What an array is, before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Named(NamedTuple):
    """The names of arrays: images and labels by split, `train` first, and the names of the classes, where they are there."""

    parts: dict[str, tuple[str, str]]
    class_names: str | None


def find_named(held: Mapping[str, Held], settings: DataSettings, progress: Progress) -> Named:
    """Which arrays hold what.

    Args:
        held: all arrays by name.
        settings: `source`, and the fields that a user has named.
        progress: where it is said what is left out.

    Raises:
        UsageError: when images, labels or what to test on are missing, or two arrays could be one of these; the message says what
            there is.
    """
    found: dict[tuple[str, str], str] = {}
    for name, (shape, _) in held.items():
        part, kind = role(name, settings)
        if kind == "images" and len(shape) < 3 and settings.image_field is None and _spatial(held, part, settings):
            continue  # such as scikit-learn's `data`, the same images in rows
        if kind and (other := found.setdefault((part, kind), name)) != name:
            key = "image" if kind == "images" else "label"
            field = _words(name)[1] if _words(name)[1] != _words(other)[1] else name  # of test images, too, where it can be
            raise _refusal(settings, f"has {other} and {name}, which could both be the {kind}; data.{key}_field={field} takes one")
    train = "train" if ("train", "images") in found else ""
    wanted = {"train": train, "test": "test", "val": "val"}
    parts = {}
    for part, own in wanted.items():
        pair = found.get((own, "images")), found.get((own, "labels"))
        if pair[0] and pair[1]:
            parts[part] = (pair[0], pair[1])
    if "train" not in parts or (train and len(parts) == 1):
        raise _refusal(settings, f"{_lacking(found, train)}; it holds {_described(held)}; {KNOWN}")
    for name in (name for (part, _), name in found.items() if part in ("test", "val") and part not in parts):
        progress.say(f"{settings.source}: {name} is left out, for it has no {'labels' if name in _images(found) else 'images'}")
    if list(parts) == ["train", "val"]:  # as of folders: what there is is tested on
        parts = {"train": parts["train"], "test": parts["val"]}
    return Named(parts, next((name for name in held if name.lower() in NAMES), None))


def of_named(named: Named, read: Callable[[str], Any], settings: DataSettings, progress: Progress) -> Assembled:
    """What an `ImageSet` is made from, of arrays that are read by their names.

    Raises:
        UsageError: when an array cannot be used.
    """
    holds = f"data.source: {settings.source!r} holds "
    arrays = {part: read(images) for part, (images, _) in named.parts.items()}
    said = {part: f"{holds}{images} " for part, (images, _) in named.parts.items()}
    levels = levels_of({said[part]: array for part, array in arrays.items()}, settings, progress)
    images = {part: pixels(said[part], array, levels=levels) for part, array in arrays.items()}
    labels = {part: read(own) for part, (_, own) in named.parts.items()}
    names = None if named.class_names is None else _class_names(settings, named.class_names, read(named.class_names))
    said = {part: f"{holds}{own} " for part, (_, own) in named.parts.items()}
    return assembled(settings, images, labels, names, progress, said, levels)


def role(name: str, settings: DataSettings) -> tuple[str, str]:
    """The split, empty where the name says none, and `images`, `labels` or neither."""
    part, rest = _words(name)
    for kind, field, known in (("images", settings.image_field, IMAGES), ("labels", settings.label_field, LABELS)):
        if (rest in known) if field is None else field.lower() in (name.lower(), rest):
            return part, kind
    return "", ""


def _words(name: str) -> tuple[str, str]:
    """The split that a name says, empty where it says none, and what else it says."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", re.sub(r"^([xyXY])(?=[A-Za-z])", r"\1_", name))
    words = [word.lower() for word in words]
    parts = [SPLITS[word] for word in words if word in SPLITS]
    return parts[0] if parts else "", "_".join(word for word in words if word not in SPLITS)


def _spatial(held: Mapping[str, Held], part: str, settings: DataSettings) -> bool:
    return any(len(shape) >= 3 and role(name, settings) == (part, "images") for name, (shape, _) in held.items())


def _images(found: Mapping[tuple[str, str], str]) -> set[str]:
    return {name for (_, kind), name in found.items() if kind == "images"}


def _lacking(found: Mapping[tuple[str, str], str], train: str) -> str:
    """What is missing, called as what is there is."""
    if not found:
        return "lacks images and labels"
    own = {kind: found.get((train, kind)) for kind in ("images", "labels")}
    if not all(own.values()):
        return f"lacks {' and '.join(kind for kind, name in own.items() if not name)} to train on"
    tests = [re.sub("train(ing)?", "test", str(name), flags=re.IGNORECASE) for name in own.values()]
    return f"lacks {', '.join(name for name in tests if name not in found.values())}"


def _described(held: Mapping[str, Held]) -> str:
    """Names, shapes and types of arrays."""
    shown = [f"{name} {'×'.join(map(str, shape)) or 'one'} {dtype}" for name, (shape, dtype) in list(held.items())[:SHOWN]]
    return ", ".join(shown) + (f" and {len(held) - SHOWN} more" if len(held) > SHOWN else "") if shown else "no array"


def _class_names(settings: DataSettings, called: str, names: Any) -> tuple[str, ...]:
    names = np.asarray(names)
    if not holds_letters(names):
        raise _refusal(settings, f"holds {called} with what is no Unicode text")
    if names.dtype.kind not in "US" or names.ndim != 1:
        raise _refusal(settings, f"holds {called} as {names.dtype} with shape {names.shape}; text with shape (K,) is accepted")
    if len(names) < 2:
        raise _refusal(settings, f"holds {len(names)} {called}; at least two are needed")
    texts = tuple(name.decode(errors="replace") if isinstance(name, bytes) else name for name in names.tolist())
    try:
        check_names(texts)
    except UsageError as error:
        raise _refusal(settings, f"holds {error}") from error
    return texts


def _refusal(settings: DataSettings, reason: str) -> UsageError:
    return UsageError(f"data.source: {settings.source!r} {reason}")
