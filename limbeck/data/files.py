"""Images that are listed before they are decoded: files in folders, or members of archives."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from limbeck.data.classes import Classes, relabelled
from limbeck.data.decode import Item
from limbeck.data.image_cache import decoded
from limbeck.data.imageset import ImageSet, Split
from limbeck.data.resize import wanted_sides
from limbeck.data.settings import DataSettings
from limbeck.data.split import cap, divide, hold_out_test
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress


@dataclass(frozen=True)
class Files:
    """Images that lie somewhere, and their labels, int64 with shape (N,)."""

    items: list[Item]
    labels: np.ndarray

    def take(self, positions: np.ndarray) -> "Files":
        """Only those at `positions`."""
        return Files([self.items[i] for i in positions], self.labels[positions])

    def choose(self, chosen: np.ndarray) -> "Files":
        """Only those of the chosen classes, whose labels are counted anew."""
        positions, labels = relabelled(self.labels, chosen)
        return Files([self.items[i] for i in positions], labels)


def load_files(settings: DataSettings, parts: Mapping[str, Files], classes: Classes, progress: Progress) -> ImageSet:
    """The `ImageSet` of images that are listed.

    Args:
        settings: `classes`, `per_class`, `size`, `crop`, `skip_bad` and what `divide` reads.
        parts: `train` and, where the source has them, `test` and `val`; without `test`, 20 % of each class, drawn by the seed, are
            for testing.
        classes: of the source, in the order of the labels.
        progress: where to report.

    Raises:
        UsageError: when a class is not there, none can spare an image to test or validate on, an image cannot be read, or sizes
            differ and `data.size` is not given.
    """
    chosen = classes.choose(settings.classes, settings.source)
    if settings.classes is not None:
        parts, classes = {part: files.choose(chosen) for part, files in parts.items()}, classes.take(chosen)
    parts = {part: files for part, files in parts.items() if files.items or part != "val"}
    if "test" not in parts:
        kept, held = hold_out_test(parts["train"].labels, settings)
        parts = {"train": parts["train"].take(kept), "test": parts["train"].take(held)}
    # Only what will be used is decoded: of a million images a small `per_class` leaves few.
    capped = parts["train"].take(cap(parts["train"].labels, settings.per_class, settings.seed))
    parts = {"train": capped, **{part: files for part, files in parts.items() if part != "train"}}
    items = [item for files in parts.values() for item in files.items]
    storage, content, bad = decoded(
        items, wanted_sides(settings), settings.workers, progress, crop=settings.crop, skip_bad=settings.skip_bad
    )
    blank = np.zeros(len(items), dtype=bool)
    blank[[row for row, _, _ in bad]] = True
    splits, first = {}, 0
    for part, files in parts.items():
        split = Split(storage, np.arange(first, first + len(files.items)), files.labels)
        splits[part] = split.take(np.flatnonzero(~blank[split.rows]))
        first += len(files.items)
    check_splits(settings.source, splits["train"], splits["test"], classes)
    return divide(settings, splits["train"], splits["test"], classes.names, splits.get("val"), content)


def check_splits(source: str, train: Split, test: Split, classes: Classes) -> None:
    """Refuse a class without a training image, and a source without an image to test on.

    Raises:
        UsageError: naming the first such class.
    """
    bare = np.flatnonzero(np.bincount(train.labels, minlength=len(classes)) == 0)
    if len(bare):
        name = f"class {bare[0]} ({classes.names[bare[0]]!r})"
        raise UsageError(f"data.source: {source!r} has no training image that can be read of {name}")
    if len(test) == 0:
        raise UsageError(f"data.source: {source!r} has no image of its classes to test on that can be read")
