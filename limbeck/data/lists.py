"""Images whose classes stand in a list beside them: `labels.csv`, `train.csv`, or `metadata.csv` as the Hub's ImageFolder has it.

    ROOT/labels.csv, ROOT/images/*.jpg                  file, class and perhaps split, a line for each image
    ROOT/train.csv, ROOT/test.csv, ROOT/train/*.jpg, …  a list for each split
    ROOT/train/metadata.csv, ROOT/train/*.jpg, …        with the columns file_name and label; also .jsonl, and one in ROOT

Columns are found by their names, or by what they hold; `data.image_field` and `data.label_field` name others. Files are found by
their paths from the list's folder or ROOT, or by their names, with their suffix or without it, wherever under ROOT they lie.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from limbeck.data.annotations import read_text
from limbeck.data.classes import Label, classes_of
from limbeck.data.files import Files, load_files
from limbeck.data.folder import images_under, subfolders
from limbeck.data.imageset import ImageSet
from limbeck.data.settings import DataSettings
from limbeck.data.split import SPLITS, Wanted
from limbeck.runtime.bounded import json_of
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress

SUFFIXES = (".csv", ".tsv", ".jsonl")
STEMS = ("labels", "metadata")
IMAGES = (
    "file_name",
    "filename",
    "file",
    "filepath",
    "file_path",
    "image_path",
    "path",
    "image",
    "image_name",
    "img",
    "image_id",
    "id",
)
CLASSES = (
    "label",
    "class",
    "class_name",
    "category",
    "target",
    "label_name",
    "cls",
    "breed",
    "species",
    "class_id",
    "classid",
    "y",
)
DIVISIONS = ("split", "set", "subset", "partition")
NO_CLASSES = ("text", "caption", "captions", "description", "prompt")
LONGEST = 255  # letters of a file's name
LOOKED_AT = 100  # rows that show whether a column names images
SHOWN = 3
MOST = 2**53  # below which numbers are exact

Row = Mapping[str, str]


class Unfit(Exception):
    """Why a list does not say of which class images are."""


class Entry(NamedTuple):
    """A line of a list: the image and its class, empty where it is not known."""

    item: Path
    label: str


def find_lists(root: Path) -> list[Path]:
    """The lists in a folder, and in the folders of splits in it; none where there are none to train on."""
    found = [path for path in sorted(root.iterdir()) if path.stem.casefold() in (*STEMS, *SPLITS) and _is_list(path)]
    for name, folder in subfolders(root).items():
        if name.casefold() in SPLITS:
            found += [path for path in sorted(folder.iterdir()) if path.stem.casefold() in STEMS and _is_list(path)]
    return found if any(_split_of(path, root) in ("", "train") for path in found) else []


def find_beside(root: Path) -> list[Path]:
    """The list beside a folder of nothing but images: `labels.csv`, `metadata.csv`, or called as the folder is."""
    if subfolders(root) or not images_under(root):
        return []
    stems = (*STEMS, root.name.casefold())
    return [path for path in sorted(root.parent.iterdir()) if path.stem.casefold() in stems and _is_list(path)][:1]


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")


def load_lists(
    settings: DataSettings, lists: Sequence[Path], root: Path, progress: Progress, wanted: Wanted | None = None
) -> ImageSet:
    """The images under `root` that the lists name.

    Raises:
        Unfit: when no list has images and classes.
        UsageError: when a list cannot be read, gives an image two classes, or as `load_files`.
    """
    index = _Index(root)
    held: dict[str, list[Entry]] = {}
    for path in lists:
        try:
            for split, entry in _entries(path, _split_of(path, root), index, settings):
                held.setdefault(split or "train", []).append(entry)
        except Unfit as error:
            if _split_of(path, root) in ("", "train"):
                raise
            progress.say(f"{settings.source}: {path.name} is left out, for it {error}")
    once = {part: _once(part, held[part], settings, progress) for part in sorted(held, key=("train", "test", "val").index)}
    parts = {part: entries for part, entries in once.items() if entries}
    if "train" not in parts:
        raise Unfit("names no image with a class to train on")
    if list(parts) == ["train", "val"]:  # what there is is tested on
        parts = {"train": parts["train"], "test": parts["val"]}
    _say_the_rest(parts, index, settings, progress)
    labels = _labels(parts)
    classes, numbers = classes_of(labels, root, settings.source, progress)
    files = {part: Files([entry.item for entry in entries], numbers[part]) for part, entries in parts.items()}
    return load_files(settings, files, classes, progress, wanted, root)


class _Index:
    """The images under a folder by their paths in it, their names and their names without suffix."""

    def __init__(self, root: Path) -> None:
        self.root, self.files = root, images_under(root)
        self.paths = {_plain(path.relative_to(root).as_posix()): path for path in self.files}
        self.names: dict[str, list[Path]] = {}
        for path in self.files:
            for name in {path.name, path.stem}:
                self.names.setdefault(_plain(name), []).append(path)

    def find(self, name: str, path: Path, split: str) -> Path | None:
        """The image that the list at `path` calls so; None where there is none.

        Raises:
            UsageError: when it could be several.
        """
        called = _plain(name)
        folder = path.parent.relative_to(self.root).as_posix() if path.parent.is_relative_to(self.root) else "."
        for place in (called, f"{folder}/{called}"):
            if found := self.paths.get(place):
                return found
        if os.path.isfile(direct := path.parent / name):  # whatever the text is
            return direct
        parent, _, last = called.rpartition("/")
        named = [place for place in (self.root / parent, path.parent / parent) if parent and os.path.isdir(place)]
        several = [one for one in self.names.get(last, []) if not split or self._split_of(one) in ("", split)]
        if named:  # what is called so in another folder is another image
            several = [one for one in several if any(map(one.parent.samefile, named))]
        if len(several) > 1:
            own = [one for one in several if split and self._split_of(one) == split]
            several = own or [one for one in several if _plain(one.as_posix()).endswith("/" + called)]
        if len(several) > 1:
            raise UsageError(
                f"data.source: the list '{path}' names {name!r}, which could be '{several[0]}' or '{several[1]}'; give paths"
            )
        return several[0] if several else None

    def _split_of(self, file: Path) -> str:
        """The split that the innermost of a file's folders that says one is of; empty where none does."""
        named = map(_split_named, reversed(file.relative_to(self.root).parts[:-1]))
        return next(filter(None, named), "")


def _plain(name: str) -> str:
    """The same for paths that are written in another way."""
    return normalize("NFC", name.strip().replace("\\", "/")).removeprefix("./")


def _split_named(word: str) -> str:
    return SPLITS.get(word.casefold(), "")


def _split_of(path: Path, root: Path) -> str:
    """The split that a list is of: its own name's, or its folder's; empty where neither says."""
    return _split_named(path.stem) or (_split_named(path.parent.name) if path.parent != root else "")


def _entries(path: Path, split: str, index: _Index, settings: DataSettings) -> Iterator[tuple[str, Entry]]:
    """What a list says, line by line: the split, the image and its class."""

    def names_image(name: str) -> bool:
        return bool(name.strip()) and index.find(name, path, split) is not None

    rows = _rows(path, names_image)
    columns = list(dict.fromkeys(name for row in rows[:LOOKED_AT] for name in row))
    image = _image_column(rows[:LOOKED_AT], columns, settings.image_field, names_image)
    label = _class_column(rows, [name for name in columns if name != image], settings.label_field)
    division = next((name for name in columns if name.casefold() in DIVISIONS and name not in (image, label)), None)
    if division and not split:
        _check_divisions(path, division, {row.get(division, "").strip() for row in rows})
    for row in rows:
        if name := row.get(image, "").strip():
            told = split or _split_named(row.get(division, "") if division else "") or _split_named(_plain(name).partition("/")[0])
            yield told, Entry(index.find(name, path, told) or path.parent / name, row.get(label, "").strip())


def _check_divisions(path: Path, column: str, said: set[str]) -> None:
    """Refuse words for splits that nobody knows: their images would be trained on.

    Columns of other names than `split` and `partition` may be of something else, unless a word in them is known.
    """
    unknown = sorted(word for word in said if word and not _split_named(word))
    if unknown and (column.casefold() in ("split", "partition") or len(unknown) < len(said - {""})):
        raise UsageError(
            f"data.source: the list '{path}' has {unknown[0]!r} in its column {column!r}, which is none of {', '.join(SPLITS)}"
        )


def _rows(path: Path, names_image: Callable[[str], bool]) -> list[Row]:
    text = read_text(path)
    if path.suffix.lower() == ".jsonl":
        return _objects(path, text)
    first = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(map(str.strip, line))]
    except csv.Error as error:
        raise UsageError(f"data.source: the list '{path}' cannot be read: {error}") from error
    if not lines:
        raise Unfit("is empty")
    head, *rest = [[cell.strip() for cell in line] for line in lines]
    if len(head) == 2 and any(names_image(cell) for cell in head):
        head, rest = ["file", "label"], [head, *rest]
    if not rest:
        raise Unfit("has a header and no lines")
    return [dict(zip(head, line, strict=False)) for line in rest]


def _objects(path: Path, text: str) -> list[Row]:
    try:
        found = [json_of(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise UsageError(f"data.source: the list '{path}' cannot be read: {error}") from error
    rows = [row for row in found if isinstance(row, dict)]
    if not rows:
        raise Unfit("is empty")
    plain = (str, int, float)
    return [
        {str(key): "" if value is None else str(value) for key, value in row.items() if isinstance(value, plain)} for row in rows
    ]


def _image_column(rows: Sequence[Row], columns: Sequence[str], field: str | None, names_image: Callable[[str], bool]) -> str:
    """The column that names images."""
    if field is not None:
        return _named(columns, field, "image")
    known = sorted(columns, key=lambda name: IMAGES.index(name.casefold()) if name.casefold() in IMAGES else len(IMAGES))
    for name in known:
        if any(names_image(row.get(name, "")) for row in rows):
            return name
    if known[0].casefold() in IMAGES and any(_could_name(row.get(known[0], "")) for row in rows):
        return known[0]  # images are meant, but not there
    raise Unfit(f"has no column that names the images; its columns are {', '.join(columns)}")


def _could_name(text: str) -> bool:
    """Whether text could be the path of a file with a suffix."""
    return "." in text and max(map(len, text.split("/"))) <= LONGEST


def _class_column(rows: Sequence[Row], columns: Sequence[str], field: str | None) -> str:
    """The column of classes: called so, or the only other one, where its values repeat."""
    if field is not None:
        return _named(columns, field, "label")
    if known := [name for wanted in CLASSES for name in columns if name.casefold() == wanted]:
        return known[0]
    others = [name for name in columns if name.casefold() not in (*DIVISIONS, *NO_CLASSES)]
    if len(others) == 1 and 2 * len({row.get(others[0]) for row in rows}) <= len(rows):
        return others[0]
    shown = f"; data.label_field={others[0]} would take one of {', '.join(others)}" if others else ""
    raise Unfit(f"has no column of classes{shown}")


def _named(columns: Sequence[str], field: str, kind: str) -> str:
    """The column that a user names.

    Raises:
        UsageError: when there is none of that name.
    """
    found = next((name for name in columns if name.casefold() == field.casefold()), None)
    if found is None:
        raise UsageError(f"data.{kind}_field: {field!r} is no column of the list, which has {', '.join(columns)}")
    return found


def _once(part: str, entries: Sequence[Entry], settings: DataSettings, progress: Progress) -> list[Entry]:
    """Each image once, and only those with a class.

    Raises:
        UsageError: when an image has two classes.
    """
    found: dict[Path, Entry] = {}
    for entry in entries:
        if entry.label and found.setdefault(entry.item, entry).label != entry.label:
            both = f"{found[entry.item].label!r} and {entry.label!r}"
            raise UsageError(f"data.source: {settings.source!r} has a list that gives '{entry.item}' two classes, {both}")
    if bare := sum(not entry.label for entry in entries):
        progress.say(f"{settings.source}: {bare} of {len(entries)} images to {part} on are left out, for they have no class")
    if twice := sum(bool(entry.label) for entry in entries) - len(found):
        progress.say(f"{settings.source}: {twice} lines name an image to {part} on for the second time")
    return list(found.values())


def _say_the_rest(parts: Mapping[str, Sequence[Entry]], index: _Index, settings: DataSettings, progress: Progress) -> None:
    """Say which images stand in no list, and which in two."""
    named = Counter(entry.item for entries in parts.values() for entry in entries)
    if rest := [path for path in index.files if path not in named]:
        shown = ", ".join(path.relative_to(index.root).as_posix() for path in rest[:SHOWN])
        more = ", …" if len(rest) > SHOWN else ""
        progress.say(f"{settings.source}: {len(rest)} images are left out, for no list gives them a class ({shown}{more})")
    if twice := [path for path, count in named.items() if count > 1]:
        progress.say(f"warning: {settings.source}: {len(twice)} images are in two splits, such as '{twice[0].name}'")


def _labels(parts: Mapping[str, Sequence[Entry]]) -> dict[str, list[Label]]:
    """The classes by split, as whole numbers where all of them are."""
    texts = {part: [entry.label for entry in entries] for part, entries in parts.items()}
    numbers = {text: _number(text) for held in texts.values() for text in held}
    if any(number is None for number in numbers.values()):
        return {part: list(held) for part, held in texts.items()}
    return {part: [number for text in held if (number := numbers[text]) is not None] for part, held in texts.items()}


def _number(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) < MOST else None
