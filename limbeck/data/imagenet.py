"""ImageNet (ILSVRC 2012) and the published subsets of it, from a folder that a user has (`docs/data.md`).

The validation images are what one tests on, since ILSVRC's test images have no labels. Labels are in the published order of a
subset, or in that of ImageNet's indices.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from limbeck.data.annotations import LISTS, by_class, find_list, read_words
from limbeck.data.classes import Classes
from limbeck.data.columns import say_unread
from limbeck.data.decode import Item
from limbeck.data.files import Files, load_files
from limbeck.data.folder import images_under, list_classes, readable, subfolders
from limbeck.data.hub import load_hub
from limbeck.data.imageset import ImageSet
from limbeck.data.registry import ImageNetClass, find_subset, imagenet_classes, wnids, words_of
from limbeck.data.settings import DataSettings
from limbeck.data.split import Wanted
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress

VARIABLE = "LIMBECK_IMAGENET"
INSIDE = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")


def load_imagenet(settings: DataSettings, progress: Progress, wanted: Wanted | None = None) -> ImageSet:
    """The classes that `settings.source` names: `imagenet` (all) or `imagenet:SUBSET`; of those, what `data.classes` chooses.

    Raises:
        UsageError: when the subset is unknown, no root is named, a class is missing in it, or flat validation images have no list.
    """
    _, colon, name = settings.source.partition(":")
    subset = find_subset(name) if colon else None
    listed = subset.classes if subset else imagenet_classes()
    named, key = _named_root(settings)
    if subset and subset.note:
        progress.say(f"{subset.name}: {subset.note}")
    if named.startswith("hf:"):
        return load_hub(settings, progress, named, listed, wanted)
    say_unread(settings, progress)
    root = _find_root(named, key)
    others = tuple(
        (entry.wnid, *words_of(entry.wnid), *words) for entry, words in zip(listed, _synonyms(root, listed), strict=True)
    )
    classes = Classes(tuple(entry.name for entry in listed), others)
    chosen = classes.choose(settings.classes, settings.source)
    entries = [listed[k] for k in chosen]
    parts = {"train": _class_folders(root / "train", entries, key)}
    if wanted is None or "test" in wanted.parts:
        parts["test"] = _val(root, entries, key)
    else:
        parts["test"] = Files([], np.arange(0))
    return load_files(replace(settings, classes=None), parts, classes.take(chosen), progress, wanted, root)


def _named_root(settings: DataSettings) -> tuple[str, str]:
    """What the user calls the root, and where."""
    if settings.root:
        return settings.root, "data.root"
    if named := os.environ.get(VARIABLE):
        return named, f"${VARIABLE}"
    raise UsageError(
        f"data.root: None names no folder, and {settings.source!r} needs the one that holds ImageNet's train/ and val/: "
        f"set data.root, or the environment variable {VARIABLE}"
    )


def _find_root(named: str, key: str) -> Path:
    """The folder that holds `train/`."""
    with readable(key, named):
        root = Path(named).expanduser().resolve()
        for inside in INSIDE:
            if (root / inside / "train").is_dir():
                return root / inside
        what = "has no folder train/ with a folder of images per class" if root.is_dir() else "is not a folder that exists"
    raise UsageError(f"{key}: {named!r} {what}")


def _synonyms(root: Path, listed: Sequence[ImageNetClass]) -> list[tuple[str, ...]]:
    """What else the classes are called in the list of synonyms that Kaggle's copy has; nothing where there is none."""
    places = (folder / "LOC_synset_mapping.txt" for folder in (root, *root.parents[:3]))
    found = next((path for path in places if path.is_file()), None)
    words = read_words(found) if found else {}
    return [words.get(entry.wnid, ()) for entry in listed]


def _class_folders(folder: Path, entries: Sequence[ImageNetClass], key: str) -> Files:
    present = subfolders(folder)
    if missing := [entry for entry in entries if entry.wnid not in present]:
        first = f"{missing[0].wnid} (class {missing[0].index}, {missing[0].name})"
        rest = f" nor of {len(missing) - 1} others" if len(missing) > 1 else ""
        raise UsageError(f"{key}: '{folder}' has no folder of {first}{rest}")
    return list_classes(folder, tuple(entry.wnid for entry in entries))


def _val(root: Path, entries: Sequence[ImageNetClass], key: str) -> Files:
    with readable(key, str(root)):
        folder = next((root / name for name in ("val", "validation") if (root / name).is_dir()), None)
    if folder is None:
        raise UsageError(f"{key}: '{root}' has train/ but no val/ beside it")
    if set(subfolders(folder)) & set(wnids()):
        return _class_folders(folder, entries, key)
    annotation = find_list(root, folder)
    if annotation is None:
        raise UsageError(f"{key}: the images in '{folder}' are not in class folders, and none of {', '.join(LISTS)} is there")
    groups = by_class(annotation, images_under(folder), wnids(), {entry.wnid for entry in entries})
    return files_of(groups, [entry.wnid for entry in entries], folder)


def files_of(groups: dict[str, list[Path]], order: Sequence[str], folder: Path) -> Files:
    """The files of the classes in that order.

    Raises:
        UsageError: when a class has none; the message calls them those in `folder`.
    """
    if bare := [wnid for wnid in order if wnid not in groups]:
        raise UsageError(f"data.source: '{folder}' has no image of the class {bare[0]}")
    items: list[Item] = [file for wnid in order for file in groups[wnid]]
    return Files(items, np.repeat(np.arange(len(order)), [len(groups[wnid]) for wnid in order]))
