"""Images in folders, one folder per class: in `train/` beside `test/` or `val/`, or in the folder itself (`docs/data.md`)."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import NoReturn
from unicodedata import normalize

import numpy as np

from limbeck.data.classes import Classes
from limbeck.data.columns import say_unread
from limbeck.data.decode import SHOWN, SUFFIXES, Item
from limbeck.data.files import Files, load_files
from limbeck.data.imageset import ImageSet
from limbeck.data.registry import words_of
from limbeck.data.settings import DataSettings
from limbeck.data.split import SPLITS, Wanted
from limbeck.runtime.checked import unwritable
from limbeck.runtime.errors import UsageError, Worded, one_line
from limbeck.runtime.progress import NoProgress, Progress

CALLED = "splits are called train or training, test, and val, valid or validation"
ARCHIVES_LEAVE = ("__MACOSX", "__pycache__")
# Kinds of images that are not read: where such files lie in class folders, somebody expects them to count.
FOREIGN = frozenset((".heic", ".heif", ".jxl", ".jp2", ".tga", ".ico", ".svg", ".psd", ".exr", ".raw", ".dng", ".cr2", ".nef"))


def load_folder(settings: DataSettings, progress: Progress, wanted: Wanted | None = None) -> ImageSet:
    """The images under the folder `settings.source`; classes are sorted by name.

    Raises:
        UsageError: when there are no class folders or only one, a class is empty, train and test have other classes than each
            other, a file cannot be read, or sizes differ and `data.size` is not given.
    """
    say_unread(settings, progress)
    root = Path(settings.source).expanduser().resolve()
    parts, class_names = scan(root, settings.source, progress, tested=wanted is None)
    # Folders that are called n01440764 can be chosen as "tench", too.
    return load_files(settings, parts, Classes(class_names, tuple(map(words_of, class_names))), progress, wanted, root)


def scan(
    root: Path, source: str, progress: Progress = NoProgress(), *, tested: bool = True
) -> tuple[dict[str, Files], tuple[str, ...]]:
    """The image files under `root`, as `train` and, where the folder is so divided, `test` and `val`; and the class names.

    Raises:
        UsageError: as `load_folder`; the message calls the folder `source`.
    """
    if not (folders := subfolders(root)):
        raise UsageError(f"data.source: {source!r} has no class folders")
    parts = _parts(folders, source, progress, tested) or {"train": root}
    for folder in parts.values():
        if lost := [entry for entry in folder.iterdir() if entry.is_symlink() and not entry.exists() and not _left_out(entry.name)]:
            raise UsageError(f"data.source: '{lost[0]}' is a link to nowhere, where class folders lie")
    names = {part: tuple(subfolders(folder)) for part, folder in parts.items()}
    class_names = names["train"]
    if len(class_names) < 2:
        raise UsageError(f"data.source: {source!r} has one class folder, {class_names[0]!r}; at least two classes are needed")
    if unreadable := [name for name in class_names if unwritable(name)]:
        raise UsageError(f"data.source: {source!r} has the class folder {unreadable[0]!r}, whose name is not UTF-8; rename it")
    for part, found in names.items():
        if odd := sorted(set(found) ^ set(class_names)):
            called = {key: parts[key].name for key in ("train", part)}
            having, lacking = called.values() if odd[0] in class_names else reversed(called.values())
            like = [name for name in {*found, *class_names} if name != odd[0] and _alike(name) == _alike(odd[0])]
            hint = f", which has {like[0]!r}: the names must agree to the letter" if like else ""
            raise UsageError(f"data.source: {source!r} has the class {odd[0]!r} in {having}/ but not in {lacking}/{hint}")
    _refuse_shared(parts, class_names, source)
    others = Counter[str]()
    files = {part: list_classes(folder, class_names, others) for part, folder in parts.items()}
    if stray := [path.relative_to(root).as_posix() for at in dict.fromkeys((root, *parts.values())) for path in _images_in(at)]:
        which = f"{len(stray)} images beside the class folders are" if len(stray) > 1 else "1 image beside the class folders is"
        progress.say(f"{source}: {which} left out ({', '.join(stray[:SHOWN])}{', …' if len(stray) > SHOWN else ''})")
    if others:
        progress.say(f"{source}: {_counted(others)} in class folders are left out, for images of that kind are not read")
    if not tested and parts["train"] != root:
        files.setdefault("test", Files([], np.arange(0)))  # a folder train/ is all for training
    return files, class_names


def _parts(folders: dict[str, Path], source: str, progress: Progress, tested: bool) -> dict[str, Path]:
    """The folders of the splits, `train` first, what is tested on as `test`; none where the folders are classes.

    Raises:
        UsageError: when they look like splits but are not called so, or two are called the same.
    """
    inner = _divided(folders)
    called: dict[str, list[str]] = {}
    for name in inner:
        if split := _split_of(name):
            called.setdefault(split, []).append(name)
    if twice := [names for names in called.values() if len(names) > 1]:
        raise UsageError(f"data.source: {source!r} has {' and '.join(f'{name}/' for name in twice[0])}, which name one split")
    if "train" not in called:
        _refuse_disguised(folders, inner, source)
        return {}
    train = called["train"][0]
    # Test images are often published without labels: flat, or in one folder that is called like no class.
    labelled = {split: called[split][0] for split in ("test", "val") if split in called}
    if len(labelled) == 2 and not {_alike(name) for name in inner[labelled["test"]]} & {_alike(name) for name in inner[train]}:
        del labelled["test"]
    unlabelled = [name for name in folders if _split_of(name) in ("test", "val") and name not in labelled.values()]
    if not labelled and tested:
        beside = f"{train}/ and {unlabelled[0]}/, but no class folders in {unlabelled[0]}/" if unlabelled else None
        raise UsageError(f"data.source: {source!r} has {beside or f'{train}/ but neither test/ nor val/ beside it'}")
    for name in unlabelled:
        progress.say(f"{source}: {name}/ has no folders of the classes and is left out")
    chosen = list(labelled.values())
    return {part: folders[name] for part, name in zip(("train", "test", "val"), (train, *chosen), strict=False)}


def _divided(folders: Mapping[str, Path]) -> dict[str, set[str]]:
    """The folders that are not classes but hold some, by name, with the names of these.

    What holds images is a class, even if it is called "train" (it is a vehicle, too), and they may lie deeper; unless another
    folder shows that they are stray: both are called like splits, or the other one holds nothing but folders of the same names.
    """
    held = {name: found for name, folder in folders.items() if (found := set(subfolders(folder)))}
    bare = [name for name in held if not _images_in(folders[name])]
    splits = len({_split_of(name) for name in folders} - {""}) > 1
    same = [held[name] for name in bare if len(held[name]) > 1]
    return {name: found for name, found in held.items() if name in bare or (splits and _split_of(name)) or found in same}


def _refuse_disguised(folders: dict[str, Path], inner: dict[str, set[str]], source: str) -> None:
    """Refuse splits that are called otherwise, or have no class folders, whose names would become the classes."""
    named = {name: split for name in folders if (split := _split_of(name))}
    flat = [(one, other) for one in named if one not in inner for other in named if named[one] != named[other]]
    if flat and (named.keys() & inner.keys() or len(named) == len(folders)):
        one, other = flat[0]
        raise UsageError(f"data.source: {source!r} has {one}/ and {other}/, but no class folders in {one}/")
    kinds = {SPLITS[word]: name for name in inner for word in re.split(r"[^a-z]+", name.casefold()) if word in SPLITS}
    pairs = [(kinds["train"], name) for name in kinds.values() if "train" in kinds and name != kinds["train"]]
    if len(inner) == len(folders):  # a class whose images lie deeper has perhaps one folder like others: `images/`
        pairs += [(one, other) for one, other in combinations(inner, 2) if inner[one] == inner[other] and len(inner[one]) > 1]
    if pairs:
        one, other = pairs[0]
        same = f", which hold folders of the same names such as {min(inner[one])!r}" if inner[one] == inner[other] else ""
        raise UsageError(f"data.source: {source!r} has no classes but what seem to be splits, {one}/ and {other}/{same}; {CALLED}")


def _refuse_shared(parts: dict[str, Path], class_names: tuple[str, ...], source: str) -> None:
    """Refuse splits that are one folder by way of links, for one would test on what was trained on."""
    for one, other in combinations(parts.values(), 2):
        for name in ("", *class_names):
            if os.path.realpath(one / name) == os.path.realpath(other / name):
                raise UsageError(f"data.source: '{other / name}' and '{one / name}' in {source!r} are the same folder")


def list_classes(root: Path, folders: tuple[str, ...], others: Counter[str] | None = None) -> Files:
    """The images in the folders of that name under `root`, labelled in this order, each class sorted by path.

    Args:
        root, folders: where.
        others: counts, by suffix, the images of kinds that are not read.

    Raises:
        UsageError: when one holds no images or cannot be read.
    """
    items: list[Item] = []
    labels: list[int] = []
    for label, name in enumerate(folders):
        left = Counter[str]()
        if not (members := images_under(root / name, left)):
            which = f"images but {_counted(left)}, which are not read" if left else "images"
            raise UsageError(f"data.source: the class folder '{root / name}' holds no {which}")
        if others is not None:
            others += left
        items += members
        labels += [label] * len(members)
    return Files(items, np.array(labels, dtype=np.int64))


def images_under(folder: Path, others: Counter[str] | None = None) -> list[Path]:
    """The image files in a folder and the folders in it, sorted; links are followed, but never in a circle.

    Args:
        folder: where; hidden folders in it, and those that archives leave behind, are left out.
        others: counts, by suffix, the images of kinds that are not read.

    Raises:
        UsageError: when a folder cannot be read.
    """
    own = os.path.realpath(folder)
    members, seen = list[Path](), {own}
    for at, folders, files in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        kept = []
        for name in sorted(name for name in folders if not _left_out(name)):
            target = os.path.realpath(os.path.join(at, name))
            # Neither what was here before, nor a folder that this one lies in: it would lead to other classes.
            if target not in seen and not own.startswith(os.path.join(target, "")):
                seen.add(target)
                kept.append(name)
        folders[:] = kept
        members += [Path(at, file) for file in files if _is_image(file)]
        if others is not None:
            others.update(suffix for file in files if not _left_out(file) and (suffix := Path(file).suffix.lower()) in FOREIGN)
    return sorted(members)


def subfolders(root: Path) -> dict[str, Path]:
    """Folders by name, sorted, without hidden ones and those that archives leave behind.

    Raises:
        UsageError: when `root` cannot be read.
    """
    try:
        with os.scandir(root) as entries:  # which asks the system for links alone
            names = sorted(entry.name for entry in entries if not _left_out(entry.name) and _is_folder(entry))
    except OSError as error:
        _refuse_folder(error)
    return {name: root / name for name in names}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


@contextmanager
def readable(key: str, place: str) -> Iterator[None]:
    """Refuse in one line what the system does: a name that is too long, a folder that one may not enter, the home of nobody.

    Args:
        key, place: what the user calls it.

    Raises:
        UsageError: in the place of the system's own error.
    """
    try:
        yield
    except Worded:
        raise
    except (OSError, RuntimeError) as error:  # without a home pathlib raises RuntimeError
        reason = (isinstance(error, OSError) and error.strerror) or one_line(error).rstrip(".")
        raise UsageError(f"{key}: {place!r} cannot be read: {reason}") from error


def refuse_several(root: Path, folders: Collection[Path]) -> None:
    """Refuse a folder in which several data sets lie, for none of them is meant more than the others."""
    if len(folders) > 1:
        which = " or ".join(f"'{folder}'" for folder in sorted(folders))
        raise UsageError(f"data.source: '{root}' holds several data sets; give one of them, {which}")


def _refuse_folder(error: OSError) -> NoReturn:
    raise UsageError(f"data.source: cannot read the folder '{error.filename}': {error.strerror}") from error


def _alike(name: str) -> str:
    """The same for names that differ in case or in how they are written in Unicode."""
    return normalize("NFKC", name).casefold()


def _split_of(name: str) -> str:
    """The split that a folder is called like; empty where it is called otherwise."""
    return SPLITS.get(name.casefold(), "")


def _images_in(folder: Path) -> list[Path]:
    """The images that lie in a folder itself, sorted."""
    return sorted(folder / name for name in os.listdir(folder) if _is_image(name) and os.path.isfile(folder / name))


def _left_out(name: str) -> bool:
    return name.startswith(".") or name in ARCHIVES_LEAVE


def _counted(suffixes: Counter[str]) -> str:
    """`3 .heic files and 1 .jp2 file`."""
    return " and ".join(f"{count} {suffix} file{'s' if count > 1 else ''}" for suffix, count in sorted(suffixes.items()))


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
