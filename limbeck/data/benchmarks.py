"""`benchmark:FOLDER:NAME`: a subset of a benchmark that `limbeck complexity --build-subsets` made.

`FOLDER/benchmark.json` says where the images are and which of their classes the subset has; it holds no images of its own.
"""

from collections.abc import Collection
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from limbeck.data.classes import Classes
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError, one_line
from limbeck.runtime.files import read_json
from limbeck.runtime.located import here
from limbeck.runtime.plugins import NAMED
from limbeck.runtime.sealed import FileKind

PREFIX, RECORD, FORMAT = "benchmark:", "benchmark.json", 1
BENCHMARK = FileKind("benchmark of classes")
DEEPEST = 8  # benchmarks of benchmarks
KEPT = ("root", "size", "crop", "range", "image_field", "label_field", "skip_bad", "seed")


def load_benchmark(settings: DataSettings, given: Collection[str] = ()) -> DataSettings:
    """The settings of the images that `settings.source`, `benchmark:FOLDER:NAME`, stands for.

    Source, classes and, where `settings` do not say otherwise, `root`, `size`, `crop`, `skip_bad` and `seed` are those that the
    benchmark was measured with; all else is as in `settings`. `classes` chooses among those of the subset.

    Args:
        settings: what says otherwise is a value that is not the default.
        given: the names of those that say otherwise with the default's value, too.

    Raises:
        UsageError: when there is no such folder or subset, or the benchmark cannot be read.
    """
    folder, _, name = settings.source.removeprefix(PREFIX).rpartition(":")
    subsets, stored = (
        _read(Path(here("data.source", folder)).expanduser(), settings.source) if folder else _without_name(settings.source)
    )
    if name not in subsets:
        near = get_close_matches(name, subsets, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"data.source: the benchmark '{folder}' has no {name!r}, but {', '.join(subsets)}{hint}")
    classes = Classes(subsets[name])
    chosen = classes.take(classes.choose(settings.classes, settings.source))
    usual = DataSettings()
    said = {key for key in KEPT if key in given or getattr(settings, key) != getattr(usual, key)}
    held = {key: getattr(settings if key in said else stored, key) for key in KEPT}
    return replace(settings, source=stored.source, classes=chosen.names, **held)


def settled(settings: DataSettings, given: Collection[str]) -> DataSettings:
    """Settings of a benchmark that say all by themselves, so that nobody has to know later which keys were given.

    Where a given key has the default's value and the benchmark another, that takes the images' own source and classes. A benchmark
    that cannot be read is left to whoever loads it.

    Args:
        settings: of the source `benchmark:FOLDER:NAME`.
        given: the names of the keys that were given.
    """
    try:
        inner = innermost(settings, given)
        whole = replace(inner, source=settings.source, classes=settings.classes)
        return whole if innermost(whole) == inner else inner
    except UsageError:
        return settings


def innermost(settings: DataSettings, given: Collection[str] = ()) -> DataSettings:
    """Of a benchmark of a benchmark the settings of the images."""
    for _ in range(DEEPEST):
        if not settings.source.startswith(PREFIX):
            return settings
        settings = load_benchmark(settings, given)
    raise UsageError(f"data.source: {settings.source!r} is of another benchmark, and that of others, without an end")


def _read(folder: Path, source: str) -> tuple[dict[str, tuple[str, ...]], DataSettings]:
    """The classes of every subset by name, and the settings of the images."""
    if not (folder / RECORD).is_file():
        raise UsageError(f"data.source: {source!r}: there is no '{folder / RECORD}'")
    try:
        record = read_json(folder / RECORD, BENCHMARK)
        if record["format"] != FORMAT:
            raise ValueError(f"it is of format {record['format']}")
        known = {field.name for field in fields(DataSettings)}
        stored = record["source"].items()
        held: dict[str, Any] = {key: value for key, value in stored if key in known}
        if (named := _code(held.get("source"))) is not None:
            raise ValueError(f"its images are {named!r}, which is code; data.source={named} takes it, typed by yourself")
        found = {name: tuple(entry["name"] for entry in subset["classes"]) for name, subset in record["subsets"].items()}
        return {name: classes for name, classes in found.items() if classes}, DataSettings(**held)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"data.source: the benchmark '{folder}' cannot be read: {one_line(error, 200)}") from error


def _code(source: Any) -> str | None:
    """The source, where it is code: somebody else's folder must not choose what runs here."""
    if not isinstance(source, str) or not NAMED.fullmatch(source):
        return None
    return None if source.startswith(("scenes:", "imagenet:", "hf:")) or Path(source).expanduser().exists() else source


def _without_name(source: str) -> NoReturn:
    folder = Path(source.removeprefix(PREFIX)).expanduser()
    if (folder / RECORD).is_file():
        names = ", ".join(_read(folder, source)[0])
        raise UsageError(f"data.source: {source!r} does not say which subset; {source}:NAME with one of {names} is accepted")
    raise UsageError(f"data.source: {source!r} is not of the form {PREFIX}FOLDER:NAME")
