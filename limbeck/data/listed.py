"""Classes that are told by labels, numbers or text, one for each image: in shards, and in lists beside images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from limbeck.data.annotations import read_text
from limbeck.data.classes import Classes
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress

Label = int | str
LISTS = ("classes.txt", "classnames.txt", "class_names.txt")


def classes_of(
    parts: Mapping[str, Sequence[Label]], folder: Path, source: str, progress: Progress
) -> tuple[Classes, dict[str, np.ndarray]]:
    """The classes, those of the training images in order, and the labels of every part, int64 with shape (N,).

    Args:
        parts: labels by split, `train` among them.
        folder: where a list may name numbered classes.
        source: what messages call it.
        progress: where it is said that numbers count from 1.

    Raises:
        UsageError: for fewer than two classes, numbers and text, images to evaluate on of a class without training images, and a
            list of names that does not fit.
    """
    train = set(parts["train"])
    if len({isinstance(label, str) for held in parts.values() for label in held}) > 1:
        raise UsageError(f"data.source: {source!r} has labels that are numbers, and others that are text")
    known = sorted(train, key=lambda label: (isinstance(label, str), label))
    if len(known) < 2:
        raise UsageError(f"data.source: {source!r} has one class, {known[0]!r}; at least two are needed")
    if foreign := [label for held in parts.values() for label in held if label not in train]:
        raise UsageError(f"data.source: {source!r} has images of the class {foreign[0]!r} to evaluate on but none to train on")
    place = {label: k for k, label in enumerate(known)}
    names = _names(known, folder, source, progress)
    return Classes(names), {part: np.array([place[label] for label in held], dtype=np.int64) for part, held in parts.items()}


def _names(known: Sequence[Label], folder: Path, source: str, progress: Progress) -> tuple[str, ...]:
    listed = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    if listed is None or isinstance(known[0], str):
        return tuple(map(str, known))
    lines = [line.strip() for line in read_text(listed).splitlines() if line.strip()]
    if len(set(lines)) != len(lines):
        raise UsageError(f"data.source: the file '{listed}' names a class twice")
    first = 1 if list(known) == list(range(1, len(lines) + 1)) else 0
    if first:
        progress.say(f"note: {source}: labels count from 1 to {len(lines)}: 1 is the first name in '{listed.name}'")
    if outside := [label for label in known if not first <= int(label) < len(lines) + first]:
        raise UsageError(f"data.source: the file '{listed}' has {len(lines)} names, none for the class {outside[0]}")
    return tuple(lines[int(label) - first] for label in known)
