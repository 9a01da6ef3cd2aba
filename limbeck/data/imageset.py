"""`ImageSet`: uint8 images with labels in three fixed splits, train, validation and test.

A split is a choice of rows from a storage (N_all, C, H, W) that lies in memory or in a memory-mapped file; several splits may
share one storage, so that dividing images never copies them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch

from limbeck.runtime.fingerprint import array_fingerprint, fingerprint

SHOWN = 10  # classes, and images of each, in a notebook


@dataclass(frozen=True, eq=False)
class Split:
    """N labelled images.

    Args:
        storage: uint8 with shape (N_all, C, H, W), in memory or memory-mapped.
        rows: int64 with shape (N,), the row of `storage` that each image of the split is.
        labels: int64 with shape (N,), in 0 … K−1.
        boxes: int64 with shape (N, 4), the object's top, left, bottom and right (the last two exclusive); None where unknown.
        names: what each row of `storage` is called in the source, as `encoded`; None where rows have no names.

    >>> split = whole(np.zeros((4, 3, 8, 8), dtype=np.uint8), np.array([0, 1, 0, 1]))
    >>> len(split.take(split.of_class(1))), split.images(np.array([2])).shape
    (2, torch.Size([1, 3, 8, 8]))
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


@dataclass(frozen=True, eq=False, repr=False)
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

    @staticmethod
    def from_arrays(
        x: Any,
        y: Any,
        x_test: Any = None,
        y_test: Any = None,
        *,
        x_val: Any = None,
        y_val: Any = None,
        class_names: Sequence[str] | Mapping[Any, str] | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        layout: Literal["auto", "NCHW", "NHWC", "NHW"] = "auto",
    ) -> ImageSet:
        """Images in NumPy's arrays or torch's tensors.

        Args:
            x: training images, (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3: bytes, or floats p in [0, 1], of which
                round(255 p) is kept.
            y: their labels: integers or text, (N,) or (N, 1), or one-hot rows (N, K).
            x_test, y_test: what is only ever measured on; without them a fifth of each class, drawn by the seed.
            x_val, y_val: what the best checkpoint is chosen on; without them `val_fraction` of the training images.
            class_names: in the order of their numbers; or by label, {3: "cat", 5: "dog"}. None takes text for names.
            val_fraction: share of each class kept apart; 0 keeps none.
            seed: of what is drawn.
            layout: what the dimensions of images are, where their shape leaves a doubt.

        Raises:
            UsageError: naming the argument that cannot be used as it is.

        >>> from sklearn.datasets import load_digits
        >>> digits = load_digits()
        >>> x, y = digits.images / 16, digits.target
        >>> ImageSet.from_arrays(x[:1500], y[:1500], x[1500:], y[1500:])
        ImageSet('arrays', 1350 + 150 + 297 images 1×8×8, 10 classes)
        """
        parts = {"": (x, y), "_test": (x_test, y_test), "_val": (x_val, y_val)}
        return _door("of_arrays")(parts, class_names, layout, val_fraction=val_fraction, seed=seed)

    @staticmethod
    def from_dataset(
        train: Any,
        test: Any = None,
        *,
        val: Any = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        size: int | tuple[int, int] | None = None,
        class_names: Sequence[str] | Mapping[Any, str] | None = None,
        skip_bad: bool = False,
    ) -> ImageSet:
        """Images of a map-style `torch.utils.data.Dataset`, or of anything with a length and items (image, label).

        Args:
            train: its items are pairs, or dictionaries with an image and a label. Images are Pillow's, tensors (C, H, W) or (H, W),
                or arrays (H, W, C), (C, H, W) or (H, W); bytes, or floats p in [0, 1], of which round(255 p) is kept.
            test, val: as the arrays of `from_arrays`.
            val_fraction, seed: as there.
            size: side of the images in pixels, or (height, width), that all are brought to; None keeps one size.
            class_names: as there; None takes `train.classes`, where a dataset has such names.
            skip_bad: leave items out that cannot be read.

        Raises:
            UsageError: naming the argument, and the item, that cannot be used as it is.

        >>> black, white = torch.zeros(3, 8, 8), torch.ones(3, 8, 8)
        >>> ImageSet.from_dataset([(black, "night"), (white, "day")] * 10, val_fraction=0)
        ImageSet('list', 16 + 0 + 4 images 3×8×8, 2 classes)
        """
        parts = {"train": train, "test": test, "val": val}
        return _door("of_datasets")(parts, class_names, val_fraction=val_fraction, seed=seed, size=size, skip_bad=skip_bad)

    @staticmethod
    def from_hub(
        dataset: Any,
        *,
        val_fraction: float = 0.1,
        seed: int = 0,
        size: int | tuple[int, int] | None = None,
        class_names: Sequence[str] | Mapping[Any, str] | None = None,
        skip_bad: bool = False,
    ) -> ImageSet:
        """Images of a `datasets.Dataset` or `DatasetDict` of Hugging Face that is in Python already; `"hf:NAME"` is loaded by name.

        Splits and columns are found as those of `hf:NAME` are (`hub.py`); the other arguments are those of `from_dataset`.
        """
        return _door("of_hub")(dataset, class_names, val_fraction=val_fraction, seed=seed, size=size, skip_bad=skip_bad)

    def without_validation(self) -> ImageSet:
        """The same with what was held out of the training images among them again; validation images of their own are left out."""
        train, val = self.train, self.val
        if len(val) == 0:
            return self
        if train.storage is val.storage:
            rows, labels = np.concatenate([train.rows, val.rows]), np.concatenate([train.labels, val.labels])
            boxes = None if train.boxes is None or val.boxes is None else np.concatenate([train.boxes, val.boxes])
            train = replace(train, rows=rows, labels=labels, boxes=boxes).take(np.argsort(rows, kind="stable"))
        parts = (train, val.take(np.arange(0)), self.test, self.class_names)
        return ImageSet(*parts, self.source, content_fingerprint(*parts))

    def __repr__(self) -> str:
        counts = " + ".join(str(len(split)) for split in (self.train, self.val, self.test))
        return f"ImageSet({self.source!r}, {counts} images {'×'.join(map(str, self.shape))}, {self.num_classes} classes)"

    def _repr_html_(self) -> str:
        """The classes in a notebook: how many images each has to train, to choose and to test on, and the first few."""
        from limbeck.runtime.tables import table

        rows: list[tuple[str, ...]] = [("class", "train", "val", "test", "")]
        for k, name in enumerate(self.class_names[:SHOWN]):
            counts = (str(len(split.of_class(k))) for split in (self.train, self.val, self.test))
            rows.append((name, *counts, self._strip(k)))
        if (more := self.num_classes - SHOWN) > 0:
            rows.append((f"… and {more} more", "", "", "", ""))
        return f"<p>{escape(repr(self))}</p>{table(rows)}"

    def _strip(self, k: int) -> str:
        """The first few training images of a class, side by side."""
        from PIL.Image import fromarray

        from limbeck.runtime.tables import picture

        levels = self.train.images(self.train.of_class(k)[:SHOWN]).permute(2, 0, 3, 1).flatten(1, 2).numpy()
        return picture(fromarray(levels[..., 0] if levels.shape[2] == 1 else levels), min(64, max(32, self.shape[1])))

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train.storage.shape[1:]
        return channels, height, width


def _door(name: str) -> Callable[..., ImageSet]:
    """The function of that name in `objects.py`, which stands above this file and is looked up when it is called."""
    found: Callable[..., ImageSet] = getattr(import_module("limbeck.data.objects"), name)
    return found


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
