"""`ImageSet`: uint8 images with labels in three fixed splits, train, validation and test.

A split is a choice of rows from a storage (N_all, C, H, W) that lies in memory or in a memory-mapped file; several splits may
share one storage, so that dividing images never copies them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from limbeck.runtime.fingerprint import array_fingerprint, fingerprint


@dataclass(frozen=True, eq=False)
class Split:
    """N labelled images.

    Args:
        storage: uint8 with shape (N_all, C, H, W), in memory or memory-mapped.
        rows: int64 with shape (N,), the row of `storage` that each image of the split is.
        labels: int64 with shape (N,), in 0 … K−1.
        boxes: int64 with shape (N, 4), the object's top, left, bottom and right (the last two exclusive); None where unknown.
        names: what each row of `storage` is called in the source, as `encoded`; None where rows have no names.
    """

    storage: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray | None = None
    names: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, index: np.ndarray | None = None) -> torch.Tensor:
        """The images at the positions `index` of the split (None: all), as a new uint8 tensor with shape (n, C, H, W)."""
        rows = self.rows if index is None else self.rows[index]
        return torch.from_numpy(np.ascontiguousarray(self.storage[rows]))

    def name(self, position: int) -> str | None:
        """What the image at that position is called in the source (a path, a member of a shard, a row); None without names."""
        return None if self.names is None else bytes(self.names[self.rows[position]]).decode()

    def of_class(self, k: int) -> np.ndarray:
        """The positions, within the split, of the images of class `k`, in ascending order."""
        return np.flatnonzero(self.labels == k)

    def take(self, positions: np.ndarray) -> Split:
        """The split that holds only the images at `positions`; the storage is shared."""
        boxes = None if self.boxes is None else self.boxes[positions]
        return replace(self, rows=self.rows[positions], labels=self.labels[positions], boxes=boxes)


def whole(storage: np.ndarray, labels: np.ndarray, boxes: np.ndarray | None = None) -> Split:
    """The split that holds every row of `storage`, in order."""
    return Split(storage, np.arange(len(storage)), labels.astype(np.int64), boxes)


def encoded(names: Iterable[str]) -> np.ndarray:
    """Names as one array of bytes, UTF-8 with shape (N,): a million of them in a list would be slow to hand to other processes."""
    return np.array([name.encode(errors="backslashreplace") for name in names], dtype=np.bytes_)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images that everything else is made from.

    Args:
        train: what experts are trained on and the distilled set is made from.
        val: kept apart from the training images; the best checkpoint is chosen on it. Empty where none are kept (`val_fraction` 0).
        test: only ever measured on.
        class_names: K names, in the order of the labels.
        source: what the user called it.
        fingerprint: a hash of all pixels, labels, class names and of which image is in which split.
    """

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    source: str
    fingerprint: str

    def without_validation(self) -> ImageSet:
        """The same with the validation images among those to train on."""
        if len(self.val) == 0:
            return self
        assert self.train.storage is self.val.storage, "a split's two parts share their images"
        rows = np.concatenate([self.train.rows, self.val.rows])
        order = np.argsort(rows, kind="stable")
        train = Split(self.train.storage, rows[order], np.concatenate([self.train.labels, self.val.labels])[order])
        parts = (train, self.val.take(np.arange(0)), self.test, self.class_names)
        return ImageSet(*parts, self.source, content_fingerprint(*parts))

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train.storage.shape[1:]
        return channels, height, width


def content_fingerprint(train: Split, val: Split, test: Split, class_names: tuple[str, ...], content: str | None = None) -> str:
    """The fingerprint of an `ImageSet` of these splits.

    Args:
        train, val, test: the splits.
        class_names: in the order of the labels.
        content: `array_fingerprint` of the one storage, where it is known already; None computes it.
    """
    storages = {id(split.storage): split.storage for split in (train, val, test)}
    pixels = [content] if content else [array_fingerprint(storage) for storage in storages.values()]
    return fingerprint(pixels, class_names, [array_fingerprint(split.rows, split.labels) for split in (train, val, test)])
