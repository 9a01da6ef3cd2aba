"""`ImageSet`: uint8 images with labels in three fixed splits, train, validation and test; and how objects in Python become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np

from limbeck.data.arrays import ClassNames, Layout, array_of
from limbeck.data.items import has_items, is_array, of_arrays, of_datasets, of_hub, unlisted
from limbeck.data.levels import Levels
from limbeck.data.named_arrays import Held, find_named, of_named
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.progress import LogProgress, NoProgress, Progress

SHOWN = 10  # classes, and images of each, in a notebook
ACCEPTED = (
    "an ImageSet, arrays (x, y, x_test, y_test), a map-style Dataset or (train, test) of them, a datasets.Dataset or DatasetDict, "
    "a path or name, and package.module:Name are accepted"
)


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
        levels: what was black and white in images of more than eight bits; None where there are none.
    """

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    source: str
    fingerprint: str
    levels: Levels | None = None

    @classmethod
    def of(
        cls,
        train: Split,
        val: Split,
        test: Split,
        class_names: tuple[str, ...],
        source: str,
        content: str | None = None,
        levels: Levels | None = None,
    ) -> ImageSet:
        """The set of these splits; `content` is the `array_fingerprint` of their one storage, where it is known already."""
        splits = (train, val, test)
        storages = {id(split.storage): split.storage for split in splits}
        pixels = [content] if content else [array_fingerprint(storage) for storage in storages.values()]
        rows = [array_fingerprint(split.rows, split.labels) for split in splits]
        return cls(*splits, class_names, source, fingerprint(pixels, class_names, rows), levels)

    @staticmethod
    def from_arrays(
        x: Any,
        y: Any,
        x_test: Any = None,
        y_test: Any = None,
        *,
        x_val: Any = None,
        y_val: Any = None,
        class_names: ClassNames | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        layout: Layout = "auto",
        range: float | tuple[float, float] | None = None,
    ) -> ImageSet:
        """Images in NumPy's arrays or torch's tensors.

        Args:
            x: training images, (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3: bytes, floats p in [0, 1], of which
                round(255 p) is kept, or numbers in another `range`.
            y: their labels: integers or text, (N,) or (N, 1), or one-hot rows (N, K).
            x_test, y_test: what is only ever measured on; without them a fifth of each class, drawn by the seed.
            x_val, y_val: what the best checkpoint is chosen on; without them `val_fraction` of the training images.
            class_names: in the order of their numbers; or by label, {3: "cat", 5: "dog"}. None takes text for names.
            val_fraction: share of each class kept apart; 0 keeps none.
            seed: of what is drawn.
            layout: what the dimensions of images are, where their shape leaves a doubt.
            range: the number that is white, or those that are black and white; None takes 0 and 1 in floats, and finds out what
                whole numbers reach.

        Raises:
            UsageError: naming the argument that cannot be used as it is.

        >>> from sklearn.datasets import load_digits
        >>> digits = load_digits()
        >>> x, y = digits.images / 16, digits.target
        >>> ImageSet.from_arrays(x[:1500], y[:1500], x[1500:], y[1500:])
        ImageSet('arrays', 1350 + 150 + 297 images 1×8×8, 10 classes)
        """
        parts = {"": (x, y), "_test": (x_test, y_test), "_val": (x_val, y_val)}
        settings = DataSettings(val_fraction=val_fraction, seed=seed, range=range)
        return ImageSet.of(*of_arrays(parts, class_names, settings, LogProgress(), layout))

    @staticmethod
    def from_dataset(
        train: Any,
        test: Any = None,
        *,
        val: Any = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        size: int | tuple[int, int] | None = None,
        class_names: ClassNames | None = None,
        skip_bad: bool = False,
        range: float | tuple[float, float] | None = None,
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
            range: as there.

        Raises:
            UsageError: naming the argument, and the item, that cannot be used as it is.

        >>> import torch
        >>> black, white = torch.zeros(3, 8, 8), torch.ones(3, 8, 8)
        >>> ImageSet.from_dataset([(black, "night"), (white, "day")] * 10, val_fraction=0)
        ImageSet('list', 16 + 0 + 4 images 3×8×8, 2 classes)
        """
        parts = {"train": train, "test": test, "val": val}
        settings = DataSettings(val_fraction=val_fraction, seed=seed, size=size, skip_bad=skip_bad, range=range)
        return ImageSet.of(*of_datasets(parts, class_names, settings, LogProgress()))

    @staticmethod
    def from_hub(
        dataset: Any,
        *,
        val_fraction: float = 0.1,
        seed: int = 0,
        size: int | tuple[int, int] | None = None,
        class_names: ClassNames | None = None,
        skip_bad: bool = False,
        range: float | tuple[float, float] | None = None,
    ) -> ImageSet:
        """Images of a `datasets.Dataset` or `DatasetDict` of Hugging Face that is in Python already; `"hf:NAME"` is loaded by name.

        Splits and columns are found as those of `hf:NAME` are (`hub.py`); the other arguments are those of `from_dataset`.
        """
        settings = DataSettings(val_fraction=val_fraction, seed=seed, size=size, skip_bad=skip_bad, range=range)
        return ImageSet.of(*of_hub(dataset, class_names, settings, LogProgress()))

    def without_validation(self) -> ImageSet:
        """The same with what was held out of the training images among them again; validation images of the source's own stay."""
        train, val = self.train, self.val
        if not val.held_out:
            return self
        rows, labels = np.concatenate([train.rows, val.rows]), np.concatenate([train.labels, val.labels])
        boxes = None if train.boxes is None or val.boxes is None else np.concatenate([train.boxes, val.boxes])
        train = replace(train, rows=rows, labels=labels, boxes=boxes).take(np.argsort(rows, kind="stable"))
        return ImageSet.of(train, val.take(np.arange(0)), self.test, self.class_names, self.source, levels=self.levels)

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


def load_object(source: Any, settings: DataSettings, progress: Progress = NoProgress()) -> ImageSet:
    """The images that `source` is, under the other keys of `settings`.

    Raises:
        UsageError: when it is something else, or cannot be used as it is.
    """
    if isinstance(source, ImageSet):
        for key in ("size", "classes", "per_class"):
            value = getattr(settings, key)
            require(value is None, f"data.{key}", value, "null: an ImageSet is taken as it is")
        return source if settings.val_fraction > 0 else source.without_validation()
    if type(source).__module__.partition(".")[0] == "datasets":
        return ImageSet.of(*of_hub(source, None, settings, progress))
    if isinstance(source, Mapping) and any(map(is_array, source.values())):
        arrays = {str(name): array_of(array) for name, array in source.items() if is_array(array)}
        settings = replace(settings, source="arrays")
        named = find_named({name: Held(array.shape, array.dtype) for name, array in arrays.items()}, settings, progress)
        return ImageSet.of(*of_named(named, arrays.__getitem__, settings, progress))
    pairs = isinstance(source, (tuple, list)) and all(isinstance(part, (tuple, list)) and len(part) == 2 for part in source)
    if pairs and len(source) <= 3 and all(is_array(x) and np.ndim(x) >= 3 and np.ndim(y) >= 1 for x, y in source):
        source = tuple(array for pair in source for array in pair)  # ((x, y), (x_test, y_test)), as Keras gives them
    if isinstance(source, Sequence) and source and all(is_array(part) for part in source[::2]):
        require(len(source) in (2, 4, 6), "data.source", f"{len(source)} arrays", "x, y, x_test, y_test")
        parts = zip(("", "_test", "_val"), zip(source[::2], source[1::2], strict=True), strict=False)
        return ImageSet.of(*of_arrays(dict(parts), None, settings, progress))
    if has_items(source) and not isinstance(source, (Mapping, tuple)):
        return ImageSet.of(*of_datasets({"train": source}, None, settings, progress))
    if isinstance(source, (tuple, list)) and len(source) in (2, 3) and all(map(has_items, source)):
        return ImageSet.of(*of_datasets(dict(zip(("train", "test", "val"), source, strict=False)), None, settings, progress))
    if isinstance(source, Mapping) and "train" in source and source.keys() <= {"train", "test", "val"}:
        return ImageSet.of(*of_datasets(source, None, settings, progress))
    if hasattr(source, "__iter__"):
        raise UsageError(f"data.source: {unlisted('a ' + type(source).__name__)}")
    raise UsageError(f"data.source: {type(source).__name__} is none of what is known; {ACCEPTED}")
