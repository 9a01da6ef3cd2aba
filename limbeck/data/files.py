"""Images that are listed before they are decoded: files in folders, or members of archives."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from limbeck.data.classes import Classes, relabelled
from limbeck.data.decode import ArchiveFile, Item
from limbeck.data.image_cache import glimpsed
from limbeck.data.imageset import ImageSet
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split, Wanted, cap, divide, encoded, tested
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


def load_files(
    settings: DataSettings,
    parts: Mapping[str, Files],
    classes: Classes,
    progress: Progress,
    wanted: Wanted | None = None,
    root: Path | None = None,
) -> ImageSet:
    """The `ImageSet` of images that are listed.

    Args:
        settings: `classes`, `per_class`, `size`, `crop`, `skip_bad` and what `divide` reads.
        parts: `train` and, where the source has them, `test` and `val`; without `test`, 20 % of each class, drawn by the seed, are
            for testing.
        classes: of the source, in the order of the labels.
        progress: where to report.
        wanted: the images to decode, in the splits they are in, where nothing is trained on them; None decodes all.
        root: the folder that names of images begin under; None calls them by their whole paths.

    Raises:
        UsageError: when a class is not there, none can spare an image to test or validate on, an image cannot be read, or sizes
            differ and `data.size` is not given.
    """
    few = None if wanted is None else wanted.glimpse
    wanted = wanted if few is None else None
    listed = [item for files in parts.values() for item in files.items]
    chosen = classes.choose(settings.classes, settings.source)
    if settings.classes is not None:
        parts, classes = {part: files.choose(chosen) for part, files in parts.items()}, classes.take(chosen)
    parts = {part: files for part, files in parts.items() if files.items or part != "val"}
    parts = tested(parts, settings, only_looked_at=wanted is not None)
    # Only what will be used is decoded: of a million images a small `per_class` leaves few.
    capped = parts["train"].take(cap(parts["train"].labels, settings.per_class, settings.seed))
    parts = {"train": capped, **{part: files for part, files in parts.items() if part != "train"}}
    if wanted is not None:
        drawn = wanted.draw({part: files.labels for part, files in parts.items()})
        parts = {part: parts[part].take(positions) for part, positions in drawn.items()}
    items = [item for files in parts.values() for item in files.items]
    if not items:
        raise UsageError(f"data.source: {settings.source!r} has no {' or '.join(wanted.parts if wanted else parts)} images")
    held, at = glimpsed(items, few, settings, progress, listed)
    storage = held.images
    blank = np.zeros(len(storage), dtype=bool)
    blank[[row for row, _, _ in held.bad]] = True
    names = encoded(called(items[i], root) for i in np.unique(at, return_index=True)[1])
    splits, first = {}, 0
    for part, files in parts.items():
        split = Split(storage, at[first : first + len(files.items)], files.labels, names=names)
        splits[part] = split.take(np.flatnonzero(~blank[split.rows]))
        first += len(files.items)
    return replace(image_set_of(settings, splits, classes, held.content, wanted), levels=held.levels)


def called(item: Item, root: Path | None) -> str:
    """An image's name: its path, or its archive's and its own in it; both relative to `root` where they lie under it."""
    path = item if isinstance(item, Path) else item.archive if isinstance(item, ArchiveFile) else None
    if path is None or root is None or not path.is_relative_to(root):
        return str(item)
    short = path.relative_to(root).as_posix()
    return f"{short}: {item.name}" if isinstance(item, ArchiveFile) else short


def image_set_of(
    settings: DataSettings, splits: Mapping[str, Split], classes: Classes, content: str, wanted: Wanted | None
) -> ImageSet:
    """The `ImageSet` of splits of one storage; as they are, some empty or missing, where they are only looked at (`wanted`).

    Raises:
        UsageError: when a class has no training image, there is no image to test on, or `divide` refuses.
    """
    if wanted is not None:
        none = next(iter(splits.values())).take(np.arange(0))
        train, val, test = (splits.get(part, none) for part in ("train", "val", "test"))
        return ImageSet.of(train, val, test, classes.names, settings.source, content)
    train, test = splits["train"], splits["test"]
    bare = np.flatnonzero(np.bincount(train.labels, minlength=len(classes)) == 0)
    if len(bare):
        name = f"class {bare[0]} ({classes.names[bare[0]]!r})"
        raise UsageError(f"data.source: {settings.source!r} has no training image that can be read of {name}")
    if len(test) == 0:
        raise UsageError(f"data.source: {settings.source!r} has no image of its classes to test on that can be read")
    return ImageSet.of(*divide(settings, train, test, splits.get("val")), classes.names, settings.source, content)
