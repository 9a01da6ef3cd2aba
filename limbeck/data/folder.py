"""Images in folders, one folder per class.

Either `train/` stands beside `test/` or `val/` (beside both, `val/` is what the best checkpoint is chosen on), or the folder
holds the class folders itself: then 20 % of each class, drawn by the seed, are for testing.
"""

import os
from pathlib import Path
from typing import NoReturn
from unicodedata import normalize

import numpy as np

from limbeck.data.classes import Classes
from limbeck.data.decode import SUFFIXES, Item
from limbeck.data.files import Files, load_files
from limbeck.data.imageset import ImageSet
from limbeck.data.registry import known_names
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress


def load_folder(settings: DataSettings, progress: Progress) -> ImageSet:
    """The images under the folder `settings.source`; classes are sorted by name.

    Raises:
        UsageError: when there are no class folders or only one, a class is empty, train and test have other classes than each
            other, a file cannot be read, or sizes differ and `data.size` is not given.
    """
    parts, class_names = scan(Path(settings.source).expanduser().resolve(), settings.source)
    # Folders that are called n01440764 can be chosen as "tench", too.
    known = known_names()
    classes = Classes(class_names, tuple((known[name],) if name in known else () for name in class_names))
    return load_files(settings, parts, classes, progress)


def scan(root: Path, source: str) -> tuple[dict[str, Files], tuple[str, ...]]:
    """The image files under `root`, as `train` and, where the folder is so divided, `test` and `val`; and the class names.

    Raises:
        UsageError: as `load_folder`; the message calls the folder `source`.
    """
    if not (folders := subfolders(root)):
        raise UsageError(f"data.source: {source!r} has no class folders")
    # A class may be called "train" (it is a vehicle, too): what holds folders is a split, what holds images is a class.
    if "train" in folders and subfolders(folders["train"]) and not _has_images(folders["train"]):
        if not (others := [name for name in ("test", "val") if name in folders]):
            raise UsageError(f"data.source: {source!r} has train/ but neither test/ nor val/ beside it")
        parts = {"train": "train", "test": others[0], **({"val": "val"} if len(others) == 2 else {})}
    else:
        parts = {"train": ""}
    names = {part: tuple(subfolders(root / name)) for part, name in parts.items()}
    class_names = names["train"]
    if len(class_names) < 2:
        raise UsageError(f"data.source: {source!r} has one class folder, {class_names[0]!r}; at least two classes are needed")
    if unreadable := [name for name in class_names if not _is_text(name)]:
        raise UsageError(f"data.source: {source!r} has the class folder {unreadable[0]!r}, whose name is not UTF-8; rename it")
    for part, found in names.items():
        if odd := sorted(set(found) ^ set(class_names)):
            having, lacking = ("train", parts[part]) if odd[0] in class_names else (parts[part], "train")
            like = [name for name in {*found, *class_names} if name != odd[0] and _alike(name) == _alike(odd[0])]
            hint = f", which has {like[0]!r}: the names must agree to the letter" if like else ""
            raise UsageError(f"data.source: {source!r} has the class {odd[0]!r} in {having}/ but not in {lacking}/{hint}")
    return {part: list_classes(root / name, class_names) for part, name in parts.items()}, class_names


def list_classes(root: Path, folders: tuple[str, ...]) -> Files:
    """The images in the folders of that name under `root`, labelled in this order, each class sorted by path.

    Raises:
        UsageError: when one holds no images or cannot be read.
    """
    items: list[Item] = []
    labels: list[int] = []
    for label, name in enumerate(folders):
        if not (members := images_under(root / name)):
            raise UsageError(f"data.source: the class folder '{root / name}' holds no images")
        items += members
        labels += [label] * len(members)
    return Files(items, np.array(labels, dtype=np.int64))


def images_under(folder: Path) -> list[Path]:
    """The image files in a folder and the folders in it, sorted; links are followed, but never in a circle.

    Raises:
        UsageError: when a folder cannot be read.
    """
    own = os.path.realpath(folder)
    members, seen = list[Path](), {own}
    for at, folders, files in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        kept = []
        for name in sorted(folders):
            target = os.path.realpath(os.path.join(at, name))
            # Neither what was here before, nor a folder that this one lies in: it would lead to other classes.
            if target not in seen and not own.startswith(os.path.join(target, "")):
                seen.add(target)
                kept.append(name)
        folders[:] = kept
        members += [Path(at, file) for file in files if _is_image(file)]
    return sorted(members)


def subfolders(root: Path) -> dict[str, Path]:
    """Folders by name, sorted, without hidden ones and those that archives leave behind.

    Raises:
        UsageError: when `root` cannot be read.
    """
    try:
        found = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))
    except OSError as error:
        _refuse_folder(error)
    return {entry.name: entry for entry in found}


def _refuse_folder(error: OSError) -> NoReturn:
    raise UsageError(f"data.source: cannot read the folder '{error.filename}': {error.strerror}") from error


def _is_text(name: str) -> bool:
    """Whether the name can be written as UTF-8, as everything that names classes is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _alike(name: str) -> str:
    """The same for names that differ in case or in how they are written in Unicode."""
    return normalize("NFKC", name).casefold()


def _has_images(folder: Path) -> bool:
    return any(_is_image(entry.name) for entry in folder.iterdir() if entry.is_file())


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
