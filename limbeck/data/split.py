"""Labelled images, and seeded splits of them, class by class.

A split is a choice of rows from a storage (N_all, C, H, W) that lies in memory or in a memory-mapped file; several splits may
share one storage, so that dividing images never copies them.

Of n_k images of a class, max(1, round(share · n_k)) are held out, but never the last one: every class keeps an image to train on,
and a class with a single image holds none out. A share of 0 holds nothing out. Each class is drawn by a generator of its own, so
that adding images to one class moves no image of another.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch

from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.memory import check_memory
from limbeck.runtime.random import numpy_generator

SPLITS = {"train": "train", "training": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
TEST_SHARE = 0.2


class Labelled(Protocol):
    """What can be divided."""

    @property
    def labels(self) -> np.ndarray: ...
    def take(self: "L", positions: np.ndarray) -> "L": ...


L = TypeVar("L", bound=Labelled)


@dataclass(frozen=True, eq=False)
class Names:
    """What N rows are called: a million names in a list would be slow to hand to other processes.

    Args:
        content: all of them, UTF-8, one after the other.
        ends: int64 with shape (N,), where each ends.
    """

    content: bytes
    ends: np.ndarray

    def of(self, row: int) -> str:
        """What the row is called."""
        return self.content[self.ends[row - 1] if row else 0 : self.ends[row]].decode()


def encoded(names: Iterable[str]) -> Names:
    """Names together; what is no Unicode text in them becomes text."""
    each = [name.encode(errors="backslashreplace") for name in names]
    return Names(b"".join(each), np.cumsum([len(name) for name in each], dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Split:
    """N labelled images.

    Args:
        storage: uint8 with shape (N_all, C, H, W), in memory or memory-mapped.
        rows: int64 with shape (N,), the row of `storage` that each image of the split is.
        labels: int64 with shape (N,), in 0 … K−1.
        boxes: int64 with shape (N, 4), the object's top, left, bottom and right (the last two exclusive); None where unknown.
        names: what each row of `storage` is called in the source, as `encoded`; None where rows have no names.
        held_out: whether these were taken from the training images, of which the source keeps none apart itself.

    >>> split = whole(np.zeros((4, 3, 8, 8), dtype=np.uint8), np.array([0, 1, 0, 1]))
    >>> len(split.take(split.of_class(1))), split.images(np.array([2])).shape
    (2, torch.Size([1, 3, 8, 8]))
    """

    storage: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray | None = None
    names: Names | None = None
    held_out: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, index: np.ndarray | None = None) -> torch.Tensor:
        """The images at the positions `index` of the split (None: all), as a new uint8 tensor with shape (n, C, H, W)."""
        rows = self.rows if index is None else self.rows[index]
        return torch.from_numpy(np.ascontiguousarray(self.storage[rows]))

    def name(self, position: int) -> str | None:
        """What the image at that position is called in the source (a path, a member of a shard, a row); None without names."""
        return None if self.names is None else self.names.of(int(self.rows[position]))

    def of_class(self, k: int) -> np.ndarray:
        """The positions, within the split, of the images of class `k`, in ascending order."""
        return np.flatnonzero(self.labels == k)

    def take(self, positions: np.ndarray) -> "Split":
        """The split that holds only the images at `positions`; the storage is shared."""
        boxes = None if self.boxes is None else self.boxes[positions]
        return replace(self, rows=self.rows[positions], labels=self.labels[positions], boxes=boxes)


def whole(storage: np.ndarray, labels: np.ndarray, boxes: np.ndarray | None = None) -> Split:
    """The split that holds every row of `storage`, in order."""
    return Split(storage, np.arange(len(storage)), labels.astype(np.int64), boxes)


def room_for(count: int, shape: tuple[int, ...], source: str) -> np.ndarray:
    """Memory for so many images, uint8 with shape (N, C, H, W), that will be filled.

    Raises:
        UsageError: when that is more than is free.
    """
    what = f"holding {count} images of {'×'.join(map(str, shape))}"
    less = "data.per_class or a smaller data.size takes less"
    check_memory(math.prod((count, *shape)), torch.device("cpu"), f"data.source: {source!r}", what, less)
    return np.empty((count, *shape), dtype=np.uint8)


@dataclass(frozen=True)
class Wanted:
    """Which images to load of a source that nothing is trained on: no class has to have one in every split then.

    Args:
        parts: of `train`, `val` and `test`.
        per_class: images of each class from all of these together, drawn by `seed`; None takes all.
        seed: of the draw.
        glimpse: all images are wanted and divided as they always are, but no more than so many need be decoded: unless all of
            them were before, the others share these, as far as the source is made of single files.
    """

    parts: tuple[str, ...]
    per_class: int | None = None
    seed: int = 0
    glimpse: int | None = None

    def draw(self, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The positions, ascending, of those images in each of the parts that there are.

        Args:
            labels: of every part, int with shape (N,).
        """
        parts = [part for part in self.parts if part in labels]
        together = np.concatenate([labels[part] for part in parts]) if parts else np.arange(0)
        taken = np.zeros(len(together), dtype=bool)
        taken[cap(together, self.per_class, self.seed) if len(together) else []] = True
        ends = np.cumsum([len(labels[part]) for part in parts])
        return {part: np.flatnonzero(taken[end - len(labels[part]) : end]) for part, end in zip(parts, ends, strict=True)}


def hold_out(labels: np.ndarray, share: float, seed: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Divide images in two, stratified by class.

    Args:
        labels: int with shape (N,).
        share: of each class to hold out, in [0, 1).
        seed, key: name the draw.

    Returns:
        The positions kept and the positions held out, each ascending; together they are 0 … N−1.
    """
    held = np.zeros(len(labels), dtype=bool)
    for k in np.unique(labels) if share > 0 else ():
        members = np.flatnonzero(labels == k)
        count = min(max(1, int(share * len(members) + 0.5)), len(members) - 1)
        held[numpy_generator(seed, key, int(k)).permutation(members)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def tested(parts: Mapping[str, L], settings: DataSettings, *, only_looked_at: bool = False) -> dict[str, L]:
    """The parts of a source, with `test`: where it does not say, `TEST_SHARE` of each class of `train`.

    Raises:
        UsageError: when no class can spare an image, unless the images are only looked at.
    """
    if "test" in parts:
        return dict(parts)
    kept, held = hold_out(parts["train"].labels, TEST_SHARE, settings.seed, "test")
    if len(held) == 0 and not only_looked_at:
        raise UsageError(f"data.source: {settings.source!r} has one image in every class: none can be spared to test on")
    return {**parts, "train": parts["train"].take(kept), "test": parts["train"].take(held)}


def cap(labels: np.ndarray, per_class: int | None, seed: int) -> np.ndarray:
    """Positions, ascending, of at most `per_class` images of every class, drawn by `seed`; None keeps all."""
    if per_class is None:
        return np.arange(len(labels))
    classes = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    drawn = [numpy_generator(seed, "cap", i).permutation(members)[:per_class] for i, members in enumerate(classes)]
    return np.sort(np.concatenate(drawn))


def evenly(labels: np.ndarray, most: int) -> np.ndarray:
    """Positions, ascending, of at most `most` ≥ 1 images, spread evenly over those of each class, as many of every class as can be.

    A class with fewer than its part gives them all; where there are more classes than `most`, so many of them have one.
    """
    classes = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    shown = [classes[k * len(classes) // min(most, len(classes))] for k in range(min(most, len(classes)))]
    part = max(1, most // max(1, len(classes)))
    taken = [members[np.arange(min(part, len(members))) * len(members) // min(part, len(members))] for members in shown]
    return np.sort(np.concatenate(taken)) if taken else np.arange(0)


def divide(settings: DataSettings, train: Split, test: Split, val: Split | None = None) -> tuple[Split, Split, Split]:
    """The images to train, to validate and to test on.

    Args:
        settings: `per_class` caps the training images first; `val_fraction` of what remains becomes the validation split,
            which is empty where that is 0.
        train, test: the source's two parts.
        val: the source's own validation images, if it has any; nothing is then taken from `train`.

    Raises:
        UsageError: when no class can spare an image for validation.
    """
    train = train.take(cap(train.labels, settings.per_class, settings.seed))
    if val is not None:
        return train, val, test
    kept, held = hold_out(train.labels, settings.val_fraction, settings.seed, "val")
    if len(held) == 0 and settings.val_fraction > 0:
        raise UsageError(
            f"data.source: {settings.source!r} has one training image in every class: none can be spared to validate on; "
            "data.val_fraction=0 does without"
        )
    return train.take(kept), replace(train.take(held), held_out=True), test
