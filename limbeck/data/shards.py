"""WebDataset shards: tar archives whose samples are KEY.jpg (or another image) beside KEY.cls or KEY.json (`docs/data.md`).

Fields may be named besides, KEY.input.jpg and KEY.output.cls; where there are several, `data.image_field` and `data.label_field`
choose.

Archives are indexed once and never unpacked: images are read from where they lie in them, and what the members are called is only
ever compared, so that no name leads anywhere.
"""

import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from limbeck.data.classes import Classes, Label, classes_of
from limbeck.data.decode import SUFFIXES, ArchiveFile, Item, printable
from limbeck.data.files import Files, load_files
from limbeck.data.folder import readable, subfolders
from limbeck.data.image_cache import identity
from limbeck.data.imageset import ImageSet
from limbeck.data.settings import DataSettings
from limbeck.data.split import SPLITS, Wanted
from limbeck.runtime.bounded import json_of, opened
from limbeck.runtime.checked import unwritable
from limbeck.runtime.errors import UsageError, one_line
from limbeck.runtime.executor import spread
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.kept import cache_root, if_possible
from limbeck.runtime.located import here
from limbeck.runtime.progress import Progress
from limbeck.runtime.sealed import FileKind

INDEX = FileKind("index of an archive")
MOST_TEXT = 2**20  # bytes of a .cls or .json member that are believed
MOST_SHARDS = 100_000  # that one pattern may name
BRACES = re.compile(r"\{([^{}]*)\}")
LABELS = ("cls", "json")
WORDS = ("label", "cls", "class")  # keys in KEY.json
SHOWN = 12  # keys that a message names
FORMAT = 3  # counts up when the same archive would be indexed otherwise


class Fields(NamedTuple):
    """What a user calls the images and the labels of a sample: fields, such as `input`, or for labels a key in KEY.json."""

    image: str | None = None
    label: str | None = None


class Member(NamedTuple):
    """A file in an archive."""

    offset: int
    size: int
    name: str


class Sample(NamedTuple):
    """One image of a shard: where it lies in it, what it is called, and its class."""

    offset: int
    size: int
    name: str
    label: Label


def holds_shards(root: Path) -> bool:
    """Whether the folder holds archives, and no folders without: an archive that lies beside class folders is no shard."""
    return bool(shards_under(root)) and all(any(folder.glob("*.tar")) for folder in subfolders(root).values())


def shards_under(root: Path) -> list[Path]:
    """The archives in a folder and one folder deeper, sorted."""
    return sorted(path for pattern in ("*.tar", "*/*.tar") for path in root.glob(pattern) if path.is_file())


def expanded(source: str) -> list[Path]:
    """The archives that a pattern such as `train-{0000..0009}.tar` or `{train,val}-0000.tar` names; none where it is no pattern.

    Raises:
        UsageError: when one of them is not there, or there are too many.
    """
    if not source.endswith(".tar") or not BRACES.search(source):
        return []
    pieces = BRACES.split(source)
    choices = [_alternatives(piece) if i % 2 else [piece] for i, piece in enumerate(pieces)]
    names = ["".join(words) for words in islice(product(*choices), MOST_SHARDS + 1)]
    if len(names) > MOST_SHARDS:
        raise UsageError(f"data.source: {source!r} names more than {MOST_SHARDS} shards")
    places = [here("data.source", name) for name in dict.fromkeys(names)]
    with readable("data.source", source):
        archives = [Path(place).expanduser().resolve() for place in places]
        absent = [path for path in archives if not path.is_file()]
    if absent:
        raise UsageError(f"data.source: {source!r} names {len(archives)} shards, of which '{absent[0]}' is not there")
    return archives


def _alternatives(braced: str) -> Sequence[str]:
    """What stands for `0000..0009` or `train,val`."""
    if ends := re.fullmatch(r"(\d+)\.\.(\d+)", braced):
        first, last = int(ends[1]), int(ends[2])
        width = max(map(len, ends.groups())) if any(end[0] == "0" and len(end) > 1 for end in ends.groups()) else 0
        step = 1 if first <= last else -1
        return [f"{number:0{width}}" for number in islice(range(first, last + step, step), MOST_SHARDS + 1)]
    return braced.split(",") if "," in braced else [f"{{{braced}}}"]


def load_shards(settings: DataSettings, root: Path | Sequence[Path], progress: Progress, wanted: Wanted | None = None) -> ImageSet:
    """The images in the shards under the folder `root`, in the one archive that it is, or in the archives.

    Raises:
        UsageError: when an archive is damaged or compressed, a sample has no class, or labels are numbers here and text there.
    """
    archives = list(root) if not isinstance(root, Path) else shards_under(root) if root.is_dir() else [root]
    folder = root if isinstance(root, Path) and root.is_dir() else Path(os.path.commonpath([path.parent for path in archives]))
    _check_splits(settings.source, [path.relative_to(folder) for path in archives])
    files, classes = _listed(settings, archives, folder, progress)
    return load_files(settings, files, classes, progress, wanted, folder)


def _listed(settings: DataSettings, archives: Sequence[Path], folder: Path, progress: Progress) -> tuple[dict[str, Files], Classes]:
    """The images of every split; of what the archives say of a million of them only that is left."""
    fields, by_split = Fields(settings.image_field, settings.label_field), dict[str, tuple[list[Item], list[Label]]]()
    with (
        spread(partial(index, fields=fields), archives, settings.workers) as found,
        progress.stage("shards", len(archives)) as stage,
    ):
        for archive, held in zip(archives, found, strict=True):
            items, labels = by_split.setdefault(split_of(archive.relative_to(folder)), ([], []))
            items += (ArchiveFile(archive, sample.offset, sample.size, sample.name) for sample in held)
            labels += (sample.label for sample in held)
            stage.advance()
    parts = _parts({split: held for split, held in by_split.items() if held[0]}, settings.source)
    classes, told = classes_of({part: labels for part, (_, labels) in parts.items()}, folder, settings.source, progress)
    return {part: Files(items, told[part]) for part, (items, _) in parts.items()}, classes


def split_of(path: Path) -> str:
    """The split that a shard's path names, `train` where it names none."""
    return _split_named(path) or "train"


def _split_named(path: Path) -> str:
    """The split that a path names, empty where it names none; the file's name goes before its folder's."""
    for name in (path.name, *(folder.name for folder in path.parents)):
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return ""


def _check_splits(source: str, archives: Sequence[Path]) -> None:
    """Refuse archives that name no split beside others that are called as training is: they are of another one."""
    named = {path: _split_named(path) for path in archives}
    if "train" in named.values() and (others := [path for path, split in named.items() if not split]):
        raise UsageError(
            f"data.source: {source!r} has '{next(path for path in named if named[path] == 'train').as_posix()}', and "
            f"'{others[0].as_posix()}' of no known split; archives to evaluate on have test, val or validation in their names"
        )


def index(archive: Path, fields: Fields = Fields()) -> list[Sample]:
    """The samples of an archive, by their keys, found in the cache or read from the archive's headers.

    Raises:
        UsageError: as `load_shards`.
    """
    place = cache_root() / "shards" / f"{fingerprint(FORMAT, identity(archive), *([list(fields)] if any(fields) else []))}.json"
    try:
        return [Sample(*row) for row in read_json(place, INDEX, place.stem)["samples"]]
    except (OSError, ValueError, LookupError, TypeError):
        samples = _samples(archive, fields)
        with if_possible(place):
            write_json(place, {"samples": samples}, INDEX, place.stem)
        return samples


def _samples(archive: Path, fields: Fields) -> list[Sample]:
    try:
        with opened(archive) as file, tarfile.open(fileobj=file, mode="r:") as members:
            size = os.fstat(file.fileno()).st_size
            found = [
                Member(member.offset_data, member.size, printable(member.name))
                for member in members
                if member.isfile() and not member.issparse() and _is_read(member.name, fields)
            ]
            if cut := [member.name for member in found if member.offset + member.size > size]:
                raise _refusal(archive, f"ends before its member {cut[0]!r} does: it is cut short")
            file.seek(members.offset)  # where the library stopped: without a word also when the next header is cut short
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise _refusal(archive, "ends without the mark that a whole tar archive ends with: it is cut short")
            key = _key_in_json(found, fields)
            images, labelled = _by_fields(archive, found, fields, key) if any(fields) else _by_keys(archive, found)
            if not any(fields) and any(name not in labelled for name in images):
                other = _by_fields(archive, found, fields, key)
                every = {_key(member.name, "first")[0] for member in found if _suffix(member.name.lower()) in SUFFIXES}
                images, labelled = other if every <= other[0].keys() & other[1].keys() else (images, labelled)
            labels = _labels(archive, file, labelled, fields.label, key)
            if unlabelled := [name for name in images if name not in labels]:
                raise _unlabelled(archive, file, unlabelled[0], labelled.get(unlabelled[0], []), fields.label, key)
    except UsageError:
        raise
    except Exception as error:  # broken headers make tarfile raise whatever their numbers lead to
        hint = "; compressed archives must be unpacked to plain .tar first" if _compressed(archive) else ""
        raise _refusal(archive, f"cannot be read as a tar archive ({one_line(error)}){hint}") from error
    return [Sample(*images[name], label=labels[name]) for name in sorted(images)]


Found = tuple[dict[str, Member], dict[str, list[tuple[str, Member]]]]  # images, and by suffix what may say their labels, by key


def _by_keys(archive: Path, found: Sequence[Member]) -> Found:
    """KEY.jpg beside KEY.cls: KEY ends at the first dot, or at the last where no image of that shorter key is there."""
    images, labelled = dict[str, Member](), dict[str, list[tuple[str, Member]]]()
    plain = {key for member in found for key, kind in (_key(member.name, "first"),) if f".{kind}" in SUFFIXES}
    for member in found:
        key, kind = _key(member.name, "first")
        if key not in plain:
            key, kind = _key(member.name, "last")
        if f".{kind}" in SUFFIXES:
            _put(archive, images, key, member)
        elif kind in LABELS:
            labelled.setdefault(key, []).append((kind, member))
    return images, labelled


def _by_fields(archive: Path, found: Sequence[Member], fields: Fields, key_in_json: str | None) -> Found:
    """KEY.input.jpg beside KEY.output.cls, where KEY ends at the first dot; beside all KEY.json where a key in it is meant.

    Raises:
        UsageError: when a field that is named is not there, or several could be meant.
    """
    members = [(*_key(member.name, "first"), member) for member in found]
    images = {kind for _, kind, _ in members if _suffix(kind) in SUFFIXES}
    labels = {kind for _, kind, _ in members if _suffix(kind) not in SUFFIXES}
    images = _chosen(archive, "image", images, fields.image)
    if key_in_json is None:
        labels = _chosen(archive, "label", labels, fields.label)
    else:
        labels = {kind for kind in labels if _suffix(kind) == ".json"}
    pictures, labelled = dict[str, Member](), dict[str, list[tuple[str, Member]]]()
    for key, kind, member in members:
        if kind in images:
            _put(archive, pictures, key, member)
        elif kind in labels:
            labelled.setdefault(key, []).append((_suffix(kind)[1:], member))
    return pictures, labelled


def _key_in_json(found: Sequence[Member], fields: Fields) -> str | None:
    """The key in KEY.json that the label's field is, where it is no field of the samples themselves; None where it is one."""
    kinds = {kind for member in found for _, kind in (_key(member.name, "first"),) if _suffix(kind) not in SUFFIXES}
    is_field = any(_is_called(kind, fields.label) for kind in kinds)
    return fields.label if any(_suffix(kind) == ".json" for kind in kinds) and not is_field else None


def _chosen(archive: Path, what: str, kinds: set[str], field: str | None) -> set[str]:
    """Of `input.jpg`, `input.png` and `mask.png` those of the field, or of the only one."""
    if field is not None:
        if not (named := {kind for kind in kinds if _is_called(kind, field)}):
            there = ", ".join(sorted(kinds)) or "none"
            raise UsageError(f"data.{what}_field: {field!r} is no field of the shard '{archive}', which has {there}")
        return named
    names = sorted({kind.rpartition(".")[0] for kind in kinds})
    if len(names) > 1 and all(names):
        raise _refusal(archive, f"has {' and '.join(names)}, which could be the {what}; data.{what}_field={names[0]} takes one")
    return {kind for kind in kinds if kind.rpartition(".")[0] == names[0]} if names else kinds


def _is_called(kind: str, field: str | None) -> bool:
    return field is not None and field.lower() in (kind, kind.rpartition(".")[0])


def _put(archive: Path, images: dict[str, Member], key: str, member: Member) -> None:
    if key in images:
        raise _refusal(archive, f"has two images of the sample {key!r}")
    images[key] = member


def _labels(
    archive: Path, file: BinaryIO, labelled: Mapping[str, Sequence[tuple[str, Member]]], field: str | None, key: str | None
) -> dict[str, Label]:
    """The labels of the samples: what their JSON has under `key`, or, without one, what .cls says, else JSON under a usual key."""
    labels: dict[str, Label] = {}
    words = (key,) if key is not None else (field, *WORDS)
    for name, told in labelled.items():
        for kind, member in told:
            value = _said(archive, name, kind, _content(file, member))
            label = value if kind != "json" else _under(value, words, alone=key is None)
            if isinstance(label, str) and unwritable(label):
                raise _refusal(archive, f"has the label {label!r} of the sample {name!r}, which is no Unicode text")
            if key is not None and label is not None and labels.get(name, label) != label:
                raise _refusal(archive, f"has two labels of the sample {name!r}, {labels[name]!r} and {label!r}")
            if label is not None and (kind != "json" or name not in labels):
                labels[name] = label
    return labels


def _unlabelled(
    archive: Path, file: BinaryIO, name: str, told: Sequence[tuple[str, Member]], field: str | None, key: str | None
) -> UsageError:
    """That a sample has no label, with the keys that its JSON has, where one of them is to be named."""
    if field is None:
        return _refusal(archive, f"has no {name}.cls, nor a label in {name}.json")
    held = [_said(archive, name, kind, _content(file, member)) for kind, member in told] if key is not None else []
    there = [repr(word) for described in held if isinstance(described, dict) for word in described]
    which = f", whose JSON has {', '.join(there[:SHOWN])}{', …' if len(there) > SHOWN else ''}" if there else ""
    return UsageError(f"data.label_field: {field!r} is no label of the sample {name!r} in the shard '{archive}'{which}")


def _content(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(min(member.size, MOST_TEXT))


def _is_read(name: str, fields: Fields) -> bool:
    """Whether the name is that of an image or of a label, and of no hidden file."""
    last = name.rpartition("/")[2]
    suffix = Path(last).suffix.lower()
    named = fields.label is not None and _key(last, "first")[1] == fields.label.lower()
    return not last.startswith(".") and (suffix in SUFFIXES or suffix[1:] in LABELS or named)


def _suffix(kind: str) -> str:
    """`.jpg` of `input.jpg` and of `jpg`."""
    return f".{kind.rpartition('.')[2]}"


def _key(name: str, dot: Literal["first", "last"]) -> tuple[str, str]:
    """KEY and what follows that dot of the file's name, in small letters."""
    folder, slash, last = name.rpartition("/")
    key, _, kind = last.partition(".") if dot == "first" else last.rpartition(".")
    return f"{folder}{slash}{key}", kind.lower()


def _said(archive: Path, name: str, kind: str, content: bytes) -> Any:
    """What a member holds: a number or text, or what its JSON says."""
    try:
        text = content.decode("utf-8-sig").strip()
        if kind != "json":
            return int(text) if re.fullmatch(r"[+-]?\d+", text) else text
        return json_of(text)
    except ValueError as error:
        raise _refusal(archive, f"has a broken {name}.{kind}") from error


def _under(described: Any, words: Sequence[str | None], *, alone: bool) -> Label | None:
    """The first number or text that JSON has under one of these words; or that it is, where that may stand `alone`."""
    if isinstance(described, dict):
        values = [described[word] for word in words if word in described]
    else:
        values = [described] if alone else []
    usable = [value for value in values if isinstance(value, (int, str)) and not isinstance(value, bool)]
    return usable[0] if usable else None


def _compressed(archive: Path) -> bool:
    try:
        with opened(archive) as file:
            return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"))
    except OSError:
        return False


Listed = tuple[list[Item], list[Label]]


def _parts(by_split: dict[str, Listed], source: str) -> dict[str, Listed]:
    """`train` and, where there are such shards, `test` and `val`; lone `val` shards are tested on."""
    if "train" not in by_split:
        raise UsageError(f"data.source: {source!r} has no shards to train on that hold images")
    held = [by_split[name] for name in ("train", "test", "val") if name in by_split]
    return dict(zip(("train", "test", "val"), held, strict=False))


def _refusal(archive: Path, reason: str) -> UsageError:
    return UsageError(f"data.source: the shard '{archive}' {reason}")
