"""Hugging Face datasets, by name (`hf:cifar10`, `hf:NAME:CONFIG`) or by path: a folder of parquet files, or one that was saved.

Rows are decoded while they stream in, into a cache of their own (`stream_cache.py`), so that nothing is downloaded twice and
nothing is whole in memory; one whose image or label is null is one that cannot be read. No code that comes with a dataset is run.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.data.classes import Classes
from limbeck.data.columns import Rows, columns_of, label_of, labelled, left_out, splits_of
from limbeck.data.files import image_set_of
from limbeck.data.folder import readable
from limbeck.data.image_cache import identity
from limbeck.data.imageset import ImageSet
from limbeck.data.parquet import SAVED, choose_files, configurations, find_local
from limbeck.data.registry import ImageNetClass, words_of
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split, Wanted, encoded, tested
from limbeck.data.stream_cache import Label, Row, Stream, Streamed, streamed
from limbeck.runtime.bounded import check_ordinary
from limbeck.runtime.errors import Failure, UsageError, one_line
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.kept import cache_root, if_possible
from limbeck.runtime.progress import Progress
from limbeck.runtime.sealed import FileKind

RECORD = FileKind("data set of the Hub")


@dataclass(frozen=True)
class Source:
    """A dataset that has been opened.

    Args:
        parts: iterable datasets by split, `train` first.
        image, label: its columns.
        names: of the classes, where the dataset has them.
        version: changes when the rows do.
        total: rows of all parts; 0 where nobody knows.
        root: the folder that it lies in; None where it is on the Hub.
    """

    parts: Mapping[str, Rows]
    image: str
    label: str
    names: tuple[str, ...] | None
    version: str
    total: int
    root: Path | None = None


def load_hub(
    settings: DataSettings,
    progress: Progress,
    named: str | None = None,
    imagenet: Sequence[ImageNetClass] | None = None,
    wanted: Wanted | None = None,
) -> ImageSet:
    """The images of a Hugging Face dataset.

    Args:
        settings: `source` names it, unless `named` does.
        progress: where to report.
        named: `hf:NAME`, `hf:NAME:CONFIG` or a path.
        imagenet: classes to take from a dataset whose labels are ImageNet's indices; None takes all.
        wanted: given where nothing is trained on the images: they are decoded all the same, but no class has to spare any.

    Raises:
        UsageError: when the extra `hub` is not installed, the dataset cannot be opened, or it has no images with labels.
        Failure: when the stream breaks off; what has arrived is kept.
    """
    named = named or settings.source
    chosen = classes = None
    if imagenet is not None:
        listed = Classes(tuple(entry.name for entry in imagenet), tuple((entry.wnid, *words_of(entry.wnid)) for entry in imagenet))
        picked = listed.choose(settings.classes, settings.source)
        classes, chosen = listed.take(picked), [imagenet[k].index for k in picked]
    stream, names, parts = _stream(settings, named, chosen, progress)
    held = streamed(stream, settings, progress)
    if bare := [part for part in ("train", "test") if part in parts and part not in held.parts]:
        raise UsageError(f"data.source: {settings.source!r} has no image of the chosen classes to {bare[0]} on")
    if classes is None or chosen is None:
        classes, labels = _classes(held.labels, names, settings)
    else:
        labels = _places(held.labels, np.array(chosen))
    return _divided(settings, held, labels, classes, None if wanted is None or wanted.glimpse else wanted)


def _stream(
    settings: DataSettings, named: str, chosen: list[int] | None, progress: Progress
) -> tuple[Stream, tuple[str, ...] | None, list[str]]:
    """The rows to decode, the names of the classes, and the parts; from an earlier run's record where the Hub cannot be reached."""
    fields = [field for field in (settings.image_field, settings.label_field) if field is not None]
    record = cache_root() / "images" / f"hub-{fingerprint(named, chosen, settings.classes, *fields)}.json"
    try:
        source = _open(named, settings, progress)
    except ConnectionError as error:
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = read_json(record, RECORD, record.stem)
            stream = Stream(known["key"], lambda _: _unreachable(named))
            progress.say(f"{named}: the Hub cannot be reached; taking the images that were decoded before")
            return stream, known["names"] and tuple(known["names"]), known["parts"]
        raise UsageError(f"data.source: {named!r} cannot be opened: {one_line(error)}") from error
    if chosen is None and settings.classes is not None and source.names is not None:
        chosen = [int(k) for k in Classes(source.names).choose(settings.classes, settings.source)]
    parts, wanted = list(source.parts), None if chosen is None else sorted(chosen)
    key = fingerprint(named, source.version, source.image, source.label, parts, wanted)
    with if_possible(record):
        write_json(record, {"key": key, "names": source.names, "parts": parts, "source": named}, RECORD, record.stem)

    def rows(reached: Mapping[str, int]) -> Iterator[Row]:
        return _rows(named, source, reached, None if wanted is None else frozenset(wanted))

    return Stream(key, rows, 0 if wanted else source.total), source.names, parts


def _unreachable(named: str) -> Iterator[Row]:
    raise Failure(f"the dataset {named!r} has not been decoded at this size yet, and the Hub cannot be reached")
    yield


def _open(named: str, settings: DataSettings, progress: Progress) -> Source:
    datasets = _library()
    called = named.removeprefix("hf:")
    with readable("data.source", named):
        path, inner = find_local(called)
    try:
        if path.exists():
            files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
            version, total = fingerprint([identity(file) for file in files]), 0
            if any((path / saved).is_file() for saved in SAVED):
                found = datasets.load_from_disk(str(path))
            elif converted := configurations(path):
                held = choose_files(converted, inner, named)
                found = datasets.load_dataset_builder("parquet", data_files=held).as_streaming_dataset()
            elif path.is_dir():
                found = datasets.load_dataset_builder(str(path), *([inner] if inner else [])).as_streaming_dataset()
            else:
                found = datasets.load_dataset_builder("parquet", data_files=str(path)).as_streaming_dataset()
        else:
            name, _, config = called.partition(":")
            builder = datasets.load_dataset_builder(name, config or None)
            version, found = str(builder.hash), builder.as_streaming_dataset()
            total = sum(split.num_examples or 0 for split in (builder.info.splits or {}).values())
        found = dict(found) if hasattr(found, "keys") else {"train": found}
        parts = {part: _undecoded(datasets, held) for part, held in splits_of(found, named).items()}
        image, label, names = columns_of(parts["train"], named, settings)
        kept = labelled(parts, label, named)
        if left := left_out(found, parts, kept):
            progress.say(f"{named}: of the splits {', '.join(left)} no image is taken")
    except (UsageError, ConnectionError):
        raise
    except Exception as error:  # the library and what it stands on raise errors of many kinds
        if _is_offline(error):
            raise ConnectionError(str(error)) from error
        reason = one_line(error)
        hint = f"; hf:{called}:CONFIG chooses one" if "Config name is missing" in reason else ""
        raise UsageError(f"data.source: {named!r} cannot be opened as a Hugging Face dataset: {reason}{hint}") from error
    root = None if not path.exists() else path if path.is_dir() else path.parent
    return Source(kept, image, label, names, version, total, root)


def _library() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise UsageError(
            "data.source: Hugging Face datasets and parquet files need the extra hub: pip install 'limbeck[hub]'"
        ) from error


def _is_offline(error: BaseException | None) -> bool:
    """Whether the Hub could not be reached, as far as the error or what caused it can be told by its name."""
    words = ("ConnectionError", "ConnectError", "OfflineModeIsEnabled", "Timeout", "LocalEntryNotFound")
    while error is not None:
        if any(word in kind.__name__ for kind in type(error).__mro__ for word in words):
            return True
        error = error.__cause__
    return False


def _undecoded(datasets: Any, part: Any) -> Any:
    """The part with its images as files: they are decoded here, in several processes."""
    for name, feature in (part.features or {}).items():
        if type(feature).__name__ == "Image":
            part = part.cast_column(name, datasets.Image(decode=False))
    return part


def _rows(named: str, source: Source, reached: Mapping[str, int], wanted: frozenset[int] | None) -> Iterator[Row]:
    """The rows of all parts from those positions on; of the wanted classes only."""
    try:
        for part, held in source.parts.items():
            begin = reached.get(part, 0)
            for position, row in enumerate(held.skip(begin) if begin else held, begin + 1):
                label, content = label_of(row.get(source.label), named), _content(row.get(source.image), named, source.root)
                if label is None or wanted is None or label in wanted:
                    flaw = "its label is null" if label is None else "its image is null" if content is None else ""
                    yield Row(part, position, content or b"", label, flaw)
    except UsageError:
        raise
    except Exception as error:
        reason = one_line(error)
        raise Failure(f"the stream of {named!r} broke off ({reason}); what has arrived is kept: run it again to go on") from error


def _content(value: Any, named: str, root: Path | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, Mapping) and value.keys() >= {"bytes", "path"} and value["bytes"] is value["path"] is None:
        return None
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        return bytes(value["bytes"])
    if isinstance(value, Mapping) and value.get("path"):
        _check_place(str(value["path"]), named, root)
        with import_module("fsspec").open(value["path"], "rb") as file:  # torch needs it, too
            return bytes(file.read())
    raise UsageError(f"data.source: {named!r} has an image column that holds {type(value).__name__}, not image files")


def _check_place(path: str, named: str, root: Path | None) -> None:
    """Raise where a row leads to the network: from this machine to any place, from the Hub to another one; or to an endless file.

    Args:
        path: as a row has it; of a member of an archive, `zip://name::archive`.
        named: the data set.
        root: its folder; None where it lies on the Hub.

    Raises:
        UsageError: as it says.
        OSError: when it is no regular file of this machine.
    """
    place = path.rpartition("::")[2]
    if "://" not in place:
        check_ordinary(place)
    elif root is not None or not place.startswith(("hf://", "https://huggingface.co/")):
        raise UsageError(f"data.source: {named!r} has an image at {path[:100]!r}, which is another place than its own")


def _classes(values: Sequence[Label | None], names: tuple[str, ...] | None, settings: DataSettings) -> tuple[Classes, np.ndarray]:
    """The classes that `data.classes` asks for, and the label of every row (−1 for other classes, and for none)."""
    if names is None:
        known = sorted({value for value in values if value is not None}, key=lambda value: (isinstance(value, str), value))
        names, place = tuple(map(str, known)), {value: k for k, value in enumerate(known)}
        values = [None if value is None else place[value] for value in values]
    else:
        own = np.array([value for value in values if value is not None], dtype=np.int64)
        if own.min(initial=0) < 0 or own.max(initial=0) >= len(names):
            row = next(row for row, value in enumerate(values) if value is not None and not 0 <= int(value) < len(names))
            span = f"from {own.min()} to {own.max()} for {len(names)} classes"
            raise UsageError(f"data.source: {settings.source!r} has labels {span}; that of row {row} is {values[row]}")
    classes = Classes(names)
    chosen = classes.choose(settings.classes, settings.source)
    return classes.take(chosen), _places(values, chosen)


def _places(values: Sequence[Label | None], chosen: np.ndarray) -> np.ndarray:
    """The place of every label in `chosen`; −1 where it is not there."""
    place = {k: i for i, k in enumerate(chosen.tolist())}
    return np.array([place.get(value, -1) for value in values], dtype=np.int64)


def _divided(settings: DataSettings, held: Streamed, labels: np.ndarray, classes: Classes, wanted: Wanted | None) -> ImageSet:
    usable = labels >= 0
    usable[[row for row, _, _ in held.bad]] = False
    names = encoded(held.names())
    splits = {}
    for part, rows in held.parts.items():
        rows = rows[usable[rows]]
        splits[part] = Split(held.images, rows, labels[rows], names=names)
    if len(classes) < 2:
        raise UsageError(f"data.source: {settings.source!r} has one class, {classes.names[0]!r}; at least two are needed")
    splits = {part: split for part, split in splits.items() if len(split) or part != "val"}
    splits = tested(splits, settings, only_looked_at=wanted is not None)
    return replace(image_set_of(settings, splits, classes, held.content, wanted), levels=held.levels)
