"""The classes of a source, and how a user chooses among them: by index, WordNet id or name (`data.classes`).

In shards, and in lists beside images, they are told by labels, numbers or text, one for each image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from limbeck.data.annotations import read_text
from limbeck.runtime.checked import unwritable
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress

Label = int | str
LISTS = ("classes.txt", "classnames.txt", "class_names.txt")


@dataclass(frozen=True)
class Classes:
    """K classes in the order of their labels.

    Args:
        names: what they are called.
        others: what else each is called, such as its WordNet id; empty where there is nothing else.
    """

    names: tuple[str, ...]
    others: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def words(self, k: int) -> tuple[str, ...]:
        """All that class `k` is called."""
        return (self.names[k], *(self.others[k] if self.others else ()))

    def choose(self, wanted: Sequence[int | str] | None, source: str) -> np.ndarray:
        """The labels of the chosen classes, int64, in the order of `wanted` (None: all).

        Raises:
            UsageError: when one is no class of the source, could be several, or is named twice.
        """
        if wanted is None:
            return np.arange(len(self))
        chosen = [self._find(item, source) for item in wanted]
        if twice := [wanted[i] for i, k in enumerate(chosen) if k in chosen[:i]]:
            raise UsageError(f"data.classes: {twice[0]!r} names a class for the second time")
        return np.array(chosen, dtype=np.int64)

    def take(self, chosen: np.ndarray) -> "Classes":
        """Only those, in that order."""
        return Classes(tuple(self.names[k] for k in chosen), tuple(self.others[k] for k in chosen) if self.others else ())

    def _find(self, wanted: int | str, source: str) -> int:
        if isinstance(wanted, int):
            if not 0 <= wanted < len(self):
                raise UsageError(
                    f"data.classes: {wanted} is not an index of the {len(self)} classes of {source!r}, 0 … {len(self) - 1}"
                )
            return wanted
        found = [k for k, name in enumerate(self.names) if name == wanted] or [
            k for k in range(len(self)) if wanted in self.words(k)
        ]
        if len(found) > 1:
            could = " or ".join(f"{k} ({', '.join(dict.fromkeys((self.names[k], *self._ids(k))))})" for k in found)
            raise UsageError(f"data.classes: {wanted!r} could be {could} of {source!r}; give an index")
        if not found:
            raise UsageError(f"data.classes: {wanted!r} is not a class of {source!r}{self._hint(wanted)}")
        return found[0]

    def _ids(self, k: int) -> tuple[str, ...]:
        """What class `k` is called that only it is."""
        return tuple(word for word in self.words(k) if sum(word in self.words(other) for other in range(len(self))) == 1)[:2]

    def _hint(self, wanted: str) -> str:
        words = {word.casefold(): word for k in range(len(self)) for word in self.words(k)}
        near = get_close_matches(wanted.casefold(), words, n=1)
        if near:
            return f"; did you mean {words[near[0]]!r}?"
        shown = ", ".join(map(repr, self.names[:10]))
        return f", which has {shown}{f' and {len(self) - 10} more' if len(self) > 10 else ''}"


def relabelled(labels: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions, ascending, of the images of the chosen classes, and their labels counted in the order of `chosen`."""
    places = np.full(int(labels.max(initial=-1)) + 1, -1)
    known = chosen < len(places)
    places[chosen[known]] = np.flatnonzero(known)
    positions = np.flatnonzero(places[labels] >= 0)
    return positions, places[labels[positions]]


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
        UsageError: for fewer than two classes, numbers and text, text that cannot be written, images to evaluate on of a class
            without training images, and a list of names that does not fit.
    """
    train = set(parts["train"])
    if len({isinstance(label, str) for held in parts.values() for label in held}) > 1:
        raise UsageError(f"data.source: {source!r} has labels that are numbers, and others that are text")
    known = sorted(train, key=lambda label: (isinstance(label, str), label))
    if len(known) < 2:
        raise UsageError(f"data.source: {source!r} has one class, {known[0]!r}; at least two are needed")
    if foreign := [label for held in parts.values() for label in held if label not in train]:
        raise UsageError(f"data.source: {source!r} has images of the class {foreign[0]!r} to evaluate on but none to train on")
    if broken := [label for label in known if isinstance(label, str) and unwritable(label)]:
        raise UsageError(f"data.source: {source!r} has the label {broken[0]!r}, which is no Unicode text")
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
    elif 0 not in known and len(known) < len(lines):
        progress.say(f"note: {source}: labels count from 0, which is {lines[0]!r} in '{listed.name}' and has no image")
    if outside := [label for label in known if not first <= int(label) < len(lines) + first]:
        raise UsageError(f"data.source: the file '{listed}' has {len(lines)} names, none for the class {outside[0]}")
    return tuple(lines[int(label) - first] for label in known)
