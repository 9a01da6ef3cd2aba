"""A benchmark of easy and hard classes: of every category, which is given or found by Ward's clustering of the classes' mean
features, those of lowest and those of highest complexity (Wang et al., 2024, arXiv:2410.17193). Its folder holds no image.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.data.benchmarks import BENCHMARK, FORMAT, PREFIX, RECORD
from limbeck.data.classes import Classes
from limbeck.data.parquet import find_local
from limbeck.data.registry import known_names, subsets
from limbeck.data.settings import DataSettings
from limbeck.image_complexity.results import Look, Looked
from limbeck.image_complexity.run import Complexity
from limbeck.image_complexity.settings import BuildSettings, ComplexitySettings
from limbeck.runtime.bounded import read_json, read_text
from limbeck.runtime.errors import UsageError, one_line, require
from limbeck.runtime.files import write_json, write_text
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.plugins import NAMED
from limbeck.runtime.records import Record
from limbeck.runtime.tables import markdown_code, markdown_text
from limbeck.runtime.urls import is_url
from limbeck.runtime.yaml_text import MOST_YAML, Bounded, yaml_of

FORMS = "a .yaml or .json file, wordnet:NAME=PREFIX,…, comp-dd or cluster:N"


def categories(text: str, class_names: Sequence[str], features: Callable[[], np.ndarray]) -> dict[str, list[int]]:
    """The classes of every category, ascending, by its name.

    Args:
        text: as `--categories` has it:

                FILE.yaml                                 {bird: [robin, n01592084, 7], …}: names, WordNet ids or indices
                wordnet:bird=n015,n016:dog=n02085-n02113  by what WordNet ids (or names) begin with, or by a range of beginnings
                comp-dd                                   the eight published ones, of which the twenty published classes are known
                cluster:N                                 N groups of like mean features
        class_names: K names.
        features: gives the mean features of every class, with shape (K, D); only asked by `cluster:N`.

    Raises:
        UsageError: when the text or the file is none of the forms, or names a class that is none.
    """
    kind, colon, rest = text.partition(":")
    if kind == "cluster" and colon:
        return clusters(rest, features())
    if kind == "wordnet" and colon:
        return by_prefix(rest, class_names)
    if text == "comp-dd":
        return published(class_names)
    return of_names(read_groups(text), class_names)


def check_categories(text: str) -> None:
    """Raise `UsageError` where `categories` would for any classes: before they are known."""
    kind, colon, rest = text.partition(":")
    groups: Mapping[str, Any] = {}
    if kind == "cluster" and colon:
        require(rest.isdecimal() and int(rest) > 0, "--categories", text, "cluster:N with N of at least 1")
    elif kind == "wordnet" and colon:
        groups = prefixes(rest)
    elif text != "comp-dd":
        groups = read_groups(text)
    for name in groups:
        check_name(name)


def check_name(name: str) -> None:
    """Raise `UsageError` unless the name of a category can be part of a source's name."""
    good = name == name.strip() != "" and not set(name) & set(":/\\\n")
    require(good, "--categories", name, "a name without colons and slashes")


def read_groups(text: str) -> dict[str, list[int | str]]:
    """What a YAML or JSON file holds: classes of every category.

    Raises:
        UsageError: when there is none, it cannot be read, or is no mapping of names to lists.
    """
    path = Path(text).expanduser()
    if not path.is_file():
        raise UsageError(f"--categories: {text!r} is not there; {FORMS} is accepted")
    try:
        held: Any = read_json(path) if path.suffix.lower() == ".json" else yaml_of(read_text(path, MOST_YAML), Bounded)
    except (OSError, ValueError) as error:
        raise UsageError(f"--categories: '{path}' cannot be read: {one_line(error, 200)}") from error
    if not isinstance(held, Mapping) or not held:
        raise UsageError(f"--categories: '{path}' holds no mapping of names to lists of classes")
    for name, wanted in held.items():
        good = isinstance(wanted, list) and all(isinstance(item, (int, str)) and not isinstance(item, bool) for item in wanted)
        if not good or not wanted:
            raise UsageError(f"--categories: {name!r} in '{path}' is no list of classes: names, WordNet ids or indices")
    return {str(name): wanted for name, wanted in held.items()}


def of_names(groups: Mapping[str, Sequence[int | str]], class_names: Sequence[str]) -> dict[str, list[int]]:
    """The classes that a file names.

    Raises:
        UsageError: when one is none.
    """
    known, found = named(class_names), {}
    for name, wanted in groups.items():
        try:
            found[name] = sorted(known.choose(wanted, "the source").tolist())
        except UsageError as error:
            raise UsageError(f"--categories: in {name!r}, {str(error).removeprefix('data.classes: ')}") from None
    return found


def by_prefix(text: str, class_names: Sequence[str]) -> dict[str, list[int]]:
    """`bird=n015,n016:dog=n02085-n02113`; a category without a name is called by its prefixes.

    Raises:
        UsageError: when a category matches no class, or two have one name.
    """
    known, found = named(class_names), dict[str, list[int]]()
    for name, (part, begun) in prefixes(text).items():
        found[name] = [k for k in range(len(known)) if any(_begins(word, prefix) for word in known.words(k) for prefix in begun)]
        if not found[name]:
            raise UsageError(f"--categories: {part!r} matches no class; NAME=PREFIX,… or NAME=FIRST-LAST is accepted")
    return found


def prefixes(text: str) -> dict[str, tuple[str, list[str]]]:
    """By the name of a category what was written of it, and the prefixes in that.

    Raises:
        UsageError: when a category has no name or no prefix, or two have one name.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    for part in text.split(":"):
        name, equals, listed = part.partition("=")
        begun = [prefix for prefix in (listed if equals else name).split(",") if prefix]
        require(name != "" and bool(begun), "--categories", part, "of the form NAME=PREFIX,… or NAME=FIRST-LAST")
        require(name not in found, "--categories", name, "the name of one category only")
        found[name] = part, begun
    return found


def published(class_names: Sequence[str]) -> dict[str, list[int]]:
    """The categories of Comp-DD whose twenty published classes (music: nineteen) are all among these.

    Raises:
        UsageError: when no category is.
    """
    known, lists = named(class_names), dict[str, list[int]]()
    place = {word: k for k in range(len(known)) for word in known.words(k)}
    for subset in subsets().values():
        if subset.name.startswith("comp-dd/"):
            name = subset.name.removeprefix("comp-dd/").rpartition("-")[0]
            lists.setdefault(name, []).extend(place.get(entry.wnid, place.get(entry.name, -1)) for entry in subset.classes)
    whole = {name: sorted(found) for name, found in lists.items() if min(found) >= 0}
    if not whole:
        raise UsageError("--categories: 'comp-dd' needs the classes of ImageNet, of which too many are missing in the source")
    return whole


def clusters(text: str, features: np.ndarray) -> dict[str, list[int]]:
    """N groups of classes of like features, the largest first: `cluster-1`, `cluster-2`, ….

    Raises:
        UsageError: when N is none, or larger than the number of classes with features.
    """
    from sklearn.cluster import AgglomerativeClustering

    usable = np.flatnonzero(np.isfinite(features).all(1))
    require(
        text.isdecimal() and 1 <= int(text) <= len(usable), "--categories", f"cluster:{text}", f"cluster:1 … cluster:{len(usable)}"
    )
    if int(text) == 1:
        return {"cluster-1": usable.tolist()}
    centred = features[usable] - features[usable].mean(0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)
    labels = AgglomerativeClustering(n_clusters=int(text), linkage="ward").fit_predict(unit)
    groups = [usable[labels == label].tolist() for label in range(int(text))]
    return {f"cluster-{number}": group for number, group in enumerate(sorted(groups, key=lambda g: (-len(g), g)), 1)}


def named(class_names: Sequence[str]) -> Classes:
    """The classes with what else they are called: by WordNet id where the name is a known one, and the other way round."""
    ids: dict[str, list[str]] = {}
    for wnid, name in known_names().items():
        ids.setdefault(name, []).append(wnid)
    others = [(known_names()[name],) if name in known_names() else tuple(ids.get(name, ())) for name in class_names]
    return Classes(tuple(class_names), tuple(words if len(words) == 1 else () for words in others))


def _begins(word: str, prefix: str) -> bool:
    """Whether a word begins so, or, a WordNet id, with something from FIRST to LAST."""
    if word.startswith(prefix):
        return True
    ends = re.fullmatch(r"(n\d+)-(n\d+)", prefix)
    if ends is None or re.fullmatch(r"n\d{8}", word) is None:
        return False
    return ends[1] <= word[: len(ends[1])] and word[: len(ends[2])] <= ends[2]


LEVELS = ("easy", "hard")
BUILT_IN = ("scenes", "imagenet")  # sources that a folder of the same name does not stand in for


@dataclass(frozen=True, kw_only=True)
class ClassEntry(Record):
    """A class with its complexity in percent."""

    index: int
    name: str
    complexity: float


@dataclass(frozen=True, kw_only=True)
class Subset(Record):
    """Classes of a category at one of `LEVELS`, with the mean of their complexities."""

    category: str
    level: str
    complexity: float
    classes: tuple[ClassEntry, ...]


@dataclass(frozen=True, kw_only=True)
class Basis(Record):
    """By what complexities were measured."""

    network: Look
    settings: ComplexitySettings
    images: int
    reliability: float | None
    environment: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class BuiltBenchmark(Record):
    """What `benchmark.json` holds.

    Args:
        source: the settings that the images were loaded with, the same from every working directory.
        data: the images.
        measured: how.
        build: what was asked for.
        categories: the usable classes of each.
        left_out: how many those are that have too few.
        subsets: by name, such as `bird-easy`.
        fingerprint: of images and subsets.
    """

    format: int = FORMAT
    source: DataSettings
    data: Looked
    measured: Basis
    build: BuildSettings
    categories: Mapping[str, tuple[ClassEntry, ...]]
    left_out: Mapping[str, int]
    subsets: Mapping[str, Subset]
    fingerprint: str


def build_benchmark(
    found: Complexity, groups: Mapping[str, Sequence[int]], source: DataSettings, output: Path, settings: BuildSettings
) -> BuiltBenchmark:
    """Choose the subsets and write the folder; what `benchmark.json` holds.

    Args:
        found: complexities of all classes.
        groups: the classes of every category, by its name.
        source: the settings that the images were loaded with.
        output: the folder; its `benchmark.json` and `README.md` are replaced.
        settings: see there.

    Raises:
        UsageError: when no category has enough classes with a complexity, or a name cannot be part of a source's name.
    """
    names = found.measurement.pictures.class_names
    values = found.measurement.classes(found.images)[:, 0]
    needed = max(settings.least, 2 * settings.classes_per_subset)
    kept: dict[str, list[int]] = {}
    small: dict[str, list[int]] = {}
    for name, members in groups.items():
        check_name(name)
        usable = [k for k in members if np.isfinite(values[k])]
        (kept if len(usable) >= needed else small)[name] = usable
    if not kept:
        sizes = ", ".join(f"{name} has {len(members)}" for name, members in small.items())
        raise UsageError(
            f"--categories: none has the {needed} classes that are needed ({sizes}); --least and --classes-per-subset change that"
        )
    entries = [ClassEntry(index=k, name=name, complexity=float(values[k])) for k, name in enumerate(names)]
    subsets = {}
    for name, members in kept.items():
        for level, classes in zip(LEVELS, split(values, members, settings.classes_per_subset), strict=True):
            mean = float(values[classes].mean())
            own = tuple(entries[k] for k in classes)
            subsets[f"{name}-{level}"] = Subset(category=name, level=level, complexity=mean, classes=own)
    by = {key: getattr(found.results, key) for key in ("network", "settings", "images", "reliability", "environment")}
    record = BuiltBenchmark(
        source=_absolute(source),
        data=found.results.data,
        measured=Basis(**by),
        build=settings,
        categories={name: tuple(entries[k] for k in members) for name, members in kept.items()},
        left_out={name: len(members) for name, members in small.items()},
        subsets=subsets,
        fingerprint=fingerprint(found.results.data.fingerprint, subsets),
    )
    write_json(output / RECORD, record, BENCHMARK)
    write_text(output / "README.md", card(record, output))
    return record


def split(values: np.ndarray, members: Sequence[int], count: int) -> tuple[list[int], list[int]]:
    """The `count` members of lowest and those of highest value, each ascending; of equal values the first is the lower."""
    order = sorted(members, key=lambda k: (values[k], k))
    return sorted(order[:count]), sorted(order[-count:])


def card(record: BuiltBenchmark, output: Path) -> str:
    """What the folder says about itself, Markdown."""
    source, measured, settings = record.source, record.measured, record.measured.settings
    rows = []
    for name, subset in record.subsets.items():
        classes = ", ".join(markdown_text(entry.name) for entry in subset.classes)
        rows.append(f"| `{markdown_code(name)}` | {subset.complexity:.1f} % | {classes} |")
    left = ", ".join(f"{markdown_text(name)} ({count})" for name, count in record.left_out.items())
    trust = "–" if measured.reliability is None else f"{measured.reliability:.2f}"
    first = next(iter(record.subsets))
    parts = [
        f"# Easy and hard classes of {markdown_text(Path(source.source).name or source.source)}",
        f"Of each of {len(record.categories)} categories the {record.build.classes_per_subset} classes of lowest and of "
        "highest complexity: the share of an image, in percent, that does not speak for its class.",
        f"```\nlimbeck distill RECIPE --data {shlex.quote(f'{PREFIX}{output.expanduser().absolute()}:{first}')}\n```",
        "| subset | complexity | classes |\n|---|---|---|\n" + "\n".join(rows),
        f"Measured on {measured.images} images with {markdown_text(measured.network.name)} ({settings.cam}, layer "
        f"{'+'.join(measured.network.layers)}, {settings.classes} class, activation of at least {settings.thresholds[0]:g} "
        f"at the resolution of the {settings.maps}). Correlation of the classes' complexities to be expected of as many other "
        f"images: {trust}.",
        *([f"Categories that are too small: {left}."] if left else []),
        f"The images stay where they are, at `{markdown_code(source.source)}`; `benchmark.json` holds all settings. "
        f"Fingerprints: data {record.data.fingerprint}, benchmark {record.fingerprint}.",
        "After Wang et al., [arXiv:2410.17193](https://arxiv.org/abs/2410.17193).",
    ]
    return "\n\n".join(parts) + "\n"


def _absolute(source: DataSettings) -> DataSettings:
    """The same wherever it is read from."""
    if source.source.startswith(PREFIX):
        folder, _, name = source.source.removeprefix(PREFIX).rpartition(":")
        named = f"{PREFIX}{_place(folder)}:{name}"
    else:
        named = source.source if source.source.partition(":")[0] in BUILT_IN else _place(source.source)
    return replace(source, source=named, root=None if source.root is None else _place(source.root))


def _place(named: str) -> str:
    """A path made absolute, also behind `hf:`; a name on the Hub, a URL and the name of code as they are."""
    if is_url(named):
        return named
    if not named.startswith("hf:"):
        path = Path(named).expanduser()
        return named if NAMED.fullmatch(named) and not path.exists() else str(path.absolute())
    place, config = find_local(named.removeprefix("hf:"))
    return ":".join(filter(None, ("hf", str(place), config))) if place.exists() else named
