"""Images in folders, one folder per class.

Either `train/` stands beside `test/` or `val/` (beside both, `val/` is what the best checkpoint is chosen on), or the folder
holds the class folders itself: then 20 % of each class, drawn by the seed, are for testing.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from limbeck.data.decode import SUFFIXES
from limbeck.data.image_cache import decoded
from limbeck.data.imageset import ImageSet, Split
from limbeck.data.resize import wanted_sides
from limbeck.data.settings import DataSettings
from limbeck.data.split import cap, divide, hold_out
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Files:
    """Image files and their labels."""

    paths: list[Path]
    labels: np.ndarray

    def take(self, positions: np.ndarray) -> "Files":
        """Only those at `positions`."""
        return Files([self.paths[i] for i in positions], self.labels[positions])


def load_folder(settings: DataSettings, progress: Progress) -> ImageSet:
    """The images under the folder `settings.source`; classes are sorted by name.

    Raises:
        UsageError: when there are no class folders or only one, a class is empty, train and test have other classes than each
            other, a file cannot be read, or sizes differ and `data.size` is not given.
    """
    parts, class_names = scan(Path(settings.source).expanduser().resolve(), settings.source)
    if "test" not in parts:
        kept, held = hold_out(parts["train"].labels, TEST_SHARE, settings.seed, "test")
        if len(held) == 0:
            raise UsageError(f"data.source: {settings.source!r} has one image in every class: none can be spared to test on")
        parts = {"train": parts["train"].take(kept), "test": parts["train"].take(held)}
    # Only what will be used is decoded: of a million images a small `per_class` leaves few.
    parts["train"] = parts["train"].take(cap(parts["train"].labels, settings.per_class, settings.seed))
    paths = [path for files in parts.values() for path in files.paths]
    storage, content = decoded(paths, wanted_sides(settings), settings.workers, progress)
    splits, first = {}, 0
    for part, files in parts.items():
        splits[part] = Split(storage, np.arange(first, first + len(files.paths)), files.labels)
        first += len(files.paths)
    return divide(settings, splits["train"], splits["test"], class_names, splits.get("val"), content)


def scan(root: Path, source: str) -> tuple[dict[str, Files], tuple[str, ...]]:
    """The image files under `root`, as `train` and, where the folder is so divided, `test` and `val`; and the class names.

    Raises:
        UsageError: as `load_folder`; the message calls the folder `source`.
    """
    if not (folders := _folders(root)):
        raise UsageError(f"data.source: {source!r} has no class folders")
    # A class may be called "train" (it is a vehicle, too): what holds folders is a split, what holds images is a class.
    if "train" in folders and _folders(folders["train"]) and not _has_images(folders["train"]):
        if not (others := [name for name in ("test", "val") if name in folders]):
            raise UsageError(f"data.source: {source!r} has train/ but neither test/ nor val/ beside it")
        parts = {"train": "train", "test": others[0], **({"val": "val"} if len(others) == 2 else {})}
    else:
        parts = {"train": ""}
    names = {part: tuple(_folders(root / name)) for part, name in parts.items()}
    class_names = names["train"]
    if len(class_names) < 2:
        raise UsageError(f"data.source: {source!r} has one class folder, {class_names[0]!r}; at least two classes are needed")
    if unreadable := [name for name in class_names if not _is_text(name)]:
        raise UsageError(f"data.source: {source!r} has the class folder {unreadable[0]!r}, whose name is not UTF-8; rename it")
    for part, found in names.items():
        if odd := sorted(set(found) ^ set(class_names)):
            having, lacking = ("train", parts[part]) if odd[0] in class_names else (parts[part], "train")
            raise UsageError(f"data.source: {source!r} has the class {odd[0]!r} in {having}/ but not in {lacking}/")
    return {part: _files(root / name, class_names) for part, name in parts.items()}, class_names


def _files(root: Path, class_names: tuple[str, ...]) -> Files:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        walked = os.walk(root / name, onerror=_refuse_folder)
        members = sorted(Path(at, file) for at, _, files in walked for file in files if _is_image(file))
        if not members:
            raise UsageError(f"data.source: the class folder '{root / name}' holds no images")
        paths += members
        labels += [label] * len(members)
    return Files(paths, np.array(labels, dtype=np.int64))


def _folders(root: Path) -> dict[str, Path]:
    """Folders by name, sorted, without hidden ones and those that archives leave behind."""
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


def _has_images(folder: Path) -> bool:
    return any(_is_image(entry.name) for entry in folder.iterdir() if entry.is_file())


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
