"""What `limbeck complexity` has measured, of one source or several side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from limbeck.data.benchmarks import RECORD
from limbeck.figures import complexity as drawn
from limbeck.figures.style import inline_svg
from limbeck.image_complexity.build import Subset
from limbeck.image_complexity.results import Summary
from limbeck.image_complexity.run import SUMMARY
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.report.collection import Collection, Drawing, brief, common, gathered
from limbeck.report.of_runs import names
from limbeck.report.sortable import Column, Facts, Row, SortableTable, Value, of_number, of_share, of_words
from limbeck.runtime.errors import UsageError, reason
from limbeck.runtime.files import read_json

FILE = "complexity.json"
MOST_DRAWN = 6
RELIABLE = 0.5


def complexities(folders: Sequence[Path]) -> Collection:
    """The page of folders of `limbeck complexity`.

    Raises:
        UsageError: when a `complexity.json` is not what was written.
    """
    found = dict(zip(names(folders), map(read_complexity, folders), strict=True))
    built, unread = subsets(dict(zip(found, folders, strict=True)))
    said = [(name, line.removeprefix("warning: ")) for name, one in found.items() for line in one.warnings]
    said += [(name, line) for name, one in found.items() for line in _doubts(one)]
    looks = {(one.network.name, one.network.layers, str(one.network.about), _way(one.settings)) for one in found.values()}
    apart = "Networks, layers, maps or splits differ: complexities that were measured otherwise do not compare."
    return Collection(
        title="Complexity of " + " · ".join(dict.fromkeys(map(_source, found.values()))),
        facts=(
            f"{sum(one.images for one in found.values())} images",
            *common(item for one in found.values() for item in (("network", one.network.name), ("maps", one.settings.cam))),
        ),
        warnings=(*([apart] if len(looks) > 1 else []), *unread, *gathered(said)),
        tables=tuple(table for table in (wholes(found), classes(found), built) if table.rows),
        drawings=tuple(drawings(found)),
    )


def read_complexity(folder: Path) -> Summary:
    """What was measured.

    Raises:
        UsageError: when the file is not what was written.
    """
    file = folder / FILE
    try:
        found = Summary.from_dict(read_json(file, SUMMARY))
        given: Any = found.settings  # as JSON has them
        return replace(found, settings=ComplexitySettings(**{**given, "thresholds": tuple(given["thresholds"])}))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, UsageError) as error:
        advice = "`limbeck complexity` with the same words writes it anew"
        raise UsageError(f"PATH: {str(file)!r} is no result of complexity ({reason(error)}); {advice}") from error


def facts_of(found: Summary) -> Facts:
    """What a measurement is filtered by."""
    return {"source": _source(found), "network": found.network.name}


def wholes(found: Mapping[str, Summary]) -> SortableTable:
    """A row for every measurement."""
    thresholds = _thresholds(found)
    columns = (
        *(Column("Measurement", words=True), Column("Images", words=True), Column("Network", words=True)),
        *(Column("Layer", words=True), Column("Kind of maps", words=True)),
        Column(f"Complexity at {thresholds[0]}, %", drawn=True),
        *(Column(f"at {threshold}, %") for threshold in thresholds[1:]),
        *(Column("Mean activation, %"), Column("Area above the mean, %"), Column("Classes"), Column("Images measured")),
        *(Column("Maps without a preference"), Column("Without those, %"), Column("Order of the classes, correlation")),
        Column("Accuracy of the network, %"),
    )
    rows = []
    for name, one in found.items():
        cells = (
            *(of_words(name), of_words(_source(one)), of_words(one.network.name), of_words("+".join(one.network.layers))),
            of_words(one.settings.cam),
            *(_percent(one.by_threshold.get(name), one.spread.ci95 if name == _first(one) else None) for name in thresholds),
            *(_percent(one.mean_activation), _percent(one.area), of_number(len(one.classes), "d"), of_number(one.images, "d")),
            *(of_number(one.blank, "d"), _percent(one.without_blank), of_number(one.reliability, ".2f"), of_share(one.accuracy)),
        )
        rows.append(Row(cells, facts_of(one)))
    caption = (
        "The complexity of an image is the share of its pixels whose activation is below the threshold: small where the network "
        "needs much of the image. The line is the 95 % interval of the mean over classes."
    )
    return brief(
        SortableTable("measurements", "Measurements", columns, tuple(rows), caption), "Images", "Network", "Layer", "Kind of maps"
    )


def classes(found: Mapping[str, Summary]) -> SortableTable:
    """A row for every class of every measurement."""
    thresholds = _thresholds(found)
    columns = (
        *(Column("Class", words=True), Column("Measurement", words=True)),
        Column(f"Complexity at {thresholds[0]}, %", drawn=True),
        *(Column(f"at {threshold}, %") for threshold in thresholds[1:]),
        *(Column("Mean activation, %"), Column("Area above the mean, %"), Column("Images")),
        Column("Maps without a preference"),
    )
    held: dict[str, list[Row]] = {}  # the same class of all measurements together
    for name, one in found.items():
        for row in one.classes:
            ends = {_first(one): row.ci95}  # that of others is not kept
            means = {threshold: row.complexities.get(f"complexity_{threshold}") for threshold in thresholds}
            cells = (
                *(of_words(row.name), of_words(name)),
                *(_percent(mean, ends.get(threshold)) for threshold, mean in means.items()),
                *(_percent(row.mean_activation), _percent(row.area), of_number(row.images, "d"), of_number(row.blank, "d")),
            )
            held.setdefault(row.name, []).append(Row(cells, facts_of(one)))
    rows = [row for rows in held.values() for row in rows]
    return brief(
        SortableTable(
            "classes", "Classes", columns, tuple(rows), "The line is the 95 % interval of the mean over the class's images."
        )
    )


def subsets(folders: Mapping[str, Path]) -> tuple[SortableTable, list[str]]:
    """A row for every subset of the benchmarks that were built, and what could not be read."""
    columns = (
        *(Column("Subset", words=True), Column("Category", words=True), Column("Level", words=True)),
        *(Column("Complexity, %"), Column("Classes"), Column("Which", words=True)),
    )
    rows, unread = [], []
    for name, folder in folders.items():
        if not (folder / RECORD).exists():
            continue
        try:
            held = {key: Subset.from_dict(value) for key, value in read_json(folder / RECORD)["subsets"].items()}
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            unread.append(f"{name}: {RECORD} could not be read")
            continue
        for called, one in held.items():
            which = ", ".join(entry.name for entry in one.classes)
            cells = (of_words(called), of_words(one.category), of_words(one.level), _percent(one.complexity))
            rows.append(Row((*cells, of_number(len(one.classes), "d"), of_words(which))))
    return SortableTable("subsets", "Subsets of the benchmark", columns, tuple(rows)), unread


def drawings(found: Mapping[str, Summary]) -> Iterator[Drawing]:
    """How complexities are distributed, over classes of each and over the images of all."""
    for number, (name, one) in enumerate(list(found.items())[:MOST_DRAWN]):
        title = "How many classes are how complex" + (f": {name}" if len(found) > 1 else "")
        called = f"distribution-{number}"
        yield Drawing(called, title, inline_svg(drawn.class_distribution(one), called, title), "A dash below for every class.")
    title = "Maps of single images"
    few = dict(list(found.items())[:MOST_DRAWN])
    yield Drawing("maps", title, inline_svg(drawn.map_statistics(few), "maps", title))


def _doubts(one: Summary) -> list[str]:
    """What speaks against the order of the classes."""
    if one.reliability is None or one.reliability >= RELIABLE:
        return []
    return [
        f"the order of the classes is mostly chance: a correlation of {one.reliability:.2f} is to be expected with other images"
    ]


def _thresholds(found: Mapping[str, Summary]) -> list[str]:
    """All that were measured, the first of the first measurement before the others."""
    return list(dict.fromkeys(threshold for one in found.values() for threshold in one.by_threshold))


def _first(one: Summary) -> str:
    """The threshold that a measurement's intervals are for."""
    return next(iter(one.by_threshold))


def _way(settings: ComplexitySettings) -> tuple[str, ...]:
    """What changes complexities besides the network and the thresholds."""
    return settings.cam, settings.maps, settings.classes, settings.split


def _source(one: Summary) -> str:
    source = one.data.source
    return Path(source).name or source if isinstance(source, str) else str(source)


def _percent(value: float | None, ends: tuple[float, float] | None = None) -> Value:
    """A figure that is in percent already, with its margin; its interval is drawn as far as a share can be."""
    if value is None or not isfinite(value):
        return Value()
    if ends is None:
        return Value(f"{value:.1f}", value)
    low, high = (min(max(end, 0.0), 100.0) for end in ends)
    return Value(f"{value:.1f} ± {(ends[1] - ends[0]) / 2:.1f}", value, (low, high))
