"""What a measurement says, as values and as tables: of images, of classes, of the whole."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from limbeck.accuracy import Accuracy
from limbeck.evaluation.statistics import summarise
from limbeck.image_complexity.maps import class_means, subset_mean
from limbeck.image_complexity.measure import ImageTable, Measurement
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.runtime.devices import environment
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import write_bytes, write_text
from limbeck.runtime.records import Record
from limbeck.runtime.tables import Grid, Page

BINS = 50
SHOWN = 10  # classes at either end of many


@dataclass(frozen=True, kw_only=True)
class ClassRow(Record):
    """A class: means over its images, in percent; `complexities` by `complexity_` and threshold, `std` and `ci95` of the first."""

    index: int
    name: str
    images: int
    complexities: Mapping[str, float | None]
    std: float | None = None
    ci95: tuple[float, float] | None = None
    mean_activation: float | None = None
    area: float | None = None
    blank: int = 0

    AMONG: ClassVar = ("complexities",)

    @property
    def complexity(self) -> float | None:
        """That at the first threshold; None without an image of finite logits."""
        return next(iter(self.complexities.values()))


@dataclass(frozen=True, kw_only=True)
class ImageRow(Record):
    """An image: where it is, which file (None where the source has none), its class, what the network makes of it.

    What depends on the network is None where its logits are not finite.
    """

    split: str
    position: int
    file: str | None
    label: int
    class_name: str
    predicted: str | None
    map_of: str | None
    complexities: Mapping[str, float | None]
    mean_activation: float | None
    area: float | None
    blank: bool

    AMONG: ClassVar = ("complexities",)
    CALLED: ClassVar = {"class_name": "class"}


@dataclass(frozen=True, kw_only=True)
class Look(Record):
    """The network that looked, at which layers, and where it is from."""

    name: str
    layers: tuple[str, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    AMONG: ClassVar = ("about",)


@dataclass(frozen=True, kw_only=True)
class Looked(Record):
    """The images that were looked at."""

    fingerprint: str
    splits: tuple[str, ...]
    source: Any


@dataclass(frozen=True, kw_only=True)
class Summary(Record):
    """Everything but the rows of single images; complexities, activations and areas in percent.

    Args:
        complexity: of the subset at the first threshold.
        spread: the summary over its classes (the 95 % interval is that of the mean over classes like these).
        by_threshold: complexity at each.
        reliability: of the order of the classes.
        without_blank: the same without the images that the network shows no preference for.
        mean_activation: mean over classes of means, as `area`.
        images: their number.
        blank: of them without a preference.
        not_finite: of them without finite logits.
        accuracy: of the network on the images, None where it does not know their classes.
        classes: a row for each, with the interval of its mean over images.
        histograms: of the images.
    """

    complexity: float
    spread: Accuracy
    by_threshold: Mapping[str, float]
    reliability: float | None = None
    without_blank: float | None = None
    mean_activation: float
    area: float
    images: int
    blank: int = 0
    not_finite: int = 0
    accuracy: float | None = None
    classes: tuple[ClassRow, ...]
    histograms: Mapping[str, tuple[int, ...]]
    network: Look
    data: Looked
    settings: ComplexitySettings
    environment: Mapping[str, Any]

    @property
    def known(self) -> list[ClassRow]:
        """The classes with a complexity, from the easiest."""
        return sorted((row for row in self.classes if row.complexity is not None), key=lambda row: row.complexity or 0.0)

    @property
    def page(self) -> Page:
        """For people; of many classes the easiest and the hardest."""
        known = self.known
        shown = known if len(known) <= 2 * SHOWN else [*known[:SHOWN], *known[-SHOWN:]]
        rows = tuple(
            (row.name, f"{row.complexity:.1f} %", _ends(row.ci95, "–", "{:.1f} … {:.1f}"), str(row.images), str(row.blank))
            for row in shown
        )
        first, ends = self.settings.thresholds[0], _ends(self.spread.ci95, "", " [{:.1f}, {:.1f}]")
        others = ", ".join(f"{value:.1f} % at {name}" for name, value in list(self.by_threshold.items())[1:])
        accuracy = "" if self.accuracy is None else f", {100 * self.accuracy:.1f} % of the images classified correctly"
        lines = [
            *([f"the easiest and the hardest {SHOWN} of {len(known)} classes"] if len(shown) < len(known) else []),
            f"complexity: {self.complexity:.1f} % at {first:g}{ends}{f'; {others}' if others else ''}",
            f"mean activation: {self.mean_activation:.1f} %, area above the mean: {self.area:.1f} %",
            f"network: {self.network.name}, layer {'+'.join(self.network.layers)}{accuracy}",
        ]
        if self.reliability is not None:
            expected = f"correlation {self.reliability:.2f} to be expected with as many other images"
            lines.append(f"order of the classes: {expected}")
        return Page((Grid(("class", "complexity", "95 % interval", "images", "blank maps"), rows), *lines))

    @property
    def warnings(self) -> Iterator[str]:
        """What a user must know of the images."""
        if self.blank:
            share, without = 100 * self.blank / self.images, self.without_blank
            rest = "" if without is None else f"; without them the complexity is {without:.1f} %"
            yield f"warning: {self.blank} maps ({share:.1f} %) show no preference and count as 100 %{rest}"
        if self.not_finite:
            yield f"warning: the network's logits are not finite for {self.not_finite} images, which are left out"


def summary(measurement: Measurement, table: ImageTable, source: Any) -> Summary:
    """What a measurement says of images from `source`.

    Raises:
        Failure: when the network's logits are finite for no image.
    """
    pictures, settings = measurement.pictures, measurement.settings
    if not table.usable.any():
        raise Failure(f"the logits of {measurement.judge.name} are finite for none of the {len(pictures)} images")
    classes = measurement.classes(table)
    names = [f"{threshold:g}" for threshold in settings.thresholds]
    seen = np.where(table.blank, np.nan, table.complexity[:, 0])
    return Summary(
        complexity=subset_mean(classes[:, 0]),
        spread=summarise([float(value) for value in classes[:, 0] if np.isfinite(value)]),
        by_threshold={name: subset_mean(column) for name, column in zip(names, classes.T, strict=True)},
        reliability=reliability(measurement, table),
        without_blank=_or_none(subset_mean(_means(measurement, seen))),
        mean_activation=subset_mean(_means(measurement, table.mean_activation)),
        area=subset_mean(_means(measurement, table.area)),
        images=len(pictures),
        blank=int(table.blank.sum()),
        not_finite=int((~table.usable).sum()),
        accuracy=_accuracy(measurement, table),
        classes=_classes(measurement, table, classes),
        histograms={
            "mean_activation": _histogram(table.mean_activation),
            "area": _histogram(table.area),
            "complexity": _histogram(table.complexity[:, 0]),
        },
        network=Look(name=measurement.judge.name, layers=tuple(measurement.layers), about=measurement.judge.about),
        data=Looked(fingerprint=pictures.fingerprint, splits=tuple(pictures.splits), source=source),
        settings=settings,
        environment=environment(measurement.judge.device),
    )


def reliability(measurement: Measurement, table: ImageTable) -> float | None:
    """The correlation over classes that another measurement with as many images would have with this one.

    From the two halves of each class's images, by the formula of Spearman and Brown: 2 r / (1 + r). None with fewer than three
    classes of two images, or where all are equally complex. Near 0 the order of the classes is chance.
    """
    labels, values = measurement.pictures.labels, table.complexity[:, 0]
    usable = np.flatnonzero(table.usable)
    order = usable[np.argsort(labels[usable], kind="stable")]
    starts = np.searchsorted(labels[order], labels[order])
    odd = (np.arange(len(order)) - starts) % 2 == 1
    halves = [_means(measurement, np.where(np.isin(np.arange(len(values)), order[half]), values, np.nan)) for half in (~odd, odd)]
    both = np.isfinite(halves[0]) & np.isfinite(halves[1])
    first, second = (half[both] for half in halves)
    if len(first) < 3 or min(np.ptp(first), np.ptp(second)) == 0:
        return None
    r = float(np.corrcoef(first, second)[0, 1])
    return max(2 * r / (1 + r), -1.0) if r > -1 else -1.0


def image_rows(measurement: Measurement, table: ImageTable) -> list[ImageRow]:
    """A row for every image."""
    pictures, names = measurement.pictures, measurement.judge.class_names
    splits, usable = list(pictures.splits), table.usable
    return [
        ImageRow(
            split=splits[pictures.part[i]],
            position=int(pictures.position[i]),
            file=pictures.name(i),
            label=int(pictures.labels[i]),
            class_name=pictures.class_names[pictures.labels[i]],
            predicted=names[table.predicted[i]] if usable[i] else None,
            map_of=names[table.target[i]] if usable[i] else None,
            complexities=_complexities(measurement, table.complexity[i]),
            mean_activation=_or_none(table.mean_activation[i]),
            area=_or_none(table.area[i]),
            blank=bool(table.blank[i]),
        )
        for i in range(len(pictures))
    ]


def extremes(table: ImageTable, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the easiest images, the easiest first, and of the hardest, the hardest first; blank maps are neither.

    Complexities are shares of few pixels, so that many are equal: of those the one of larger mean activation is the easier.
    """
    usable = np.flatnonzero(table.usable & ~table.blank)
    order = usable[np.lexsort((-table.mean_activation[usable], table.complexity[usable, 0]))]
    return order[:count], order[::-1][:count]


def write_tables(rows: Sequence[ImageRow], classes: Sequence[ClassRow], folder: Path) -> dict[str, str]:
    """Write `images.csv` and `classes.csv`; their paths."""
    paths = {name: folder / f"{name}.csv" for name in ("images", "classes")}
    for path, table in zip(paths.values(), (rows, classes), strict=True):
        found, text = [row.to_dict() for row in table], io.StringIO()
        keys = [key for key in found[0] if key != "ci95"]
        writer = csv.DictWriter(text, keys, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        write_text(path, text.getvalue())
    return {name: str(path) for name, path in paths.items()}


def write_parquet(rows: Sequence[ImageRow], path: Path) -> None:
    """Write the rows as a parquet file.

    Raises:
        UsageError: when the extra `hub` is not installed.
    """
    arrow, parquet = parquet_library()
    buffer = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist([row.to_dict() for row in rows]), buffer)
    write_bytes(path, buffer.getvalue())


def parquet_library() -> tuple[Any, Any]:
    """pyarrow and its parquet.

    Raises:
        UsageError: when it is not installed.
    """
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError("--parquet: needs the extra hub: pip install 'limbeck[hub]'") from error


def _classes(measurement: Measurement, table: ImageTable, classes: np.ndarray) -> tuple[ClassRow, ...]:
    pictures = measurement.pictures
    activation, area = (_means(measurement, values) for values in (table.mean_activation, table.area))
    rows = []
    for k, name in enumerate(pictures.class_names):
        own = pictures.labels == k
        values = table.complexity[own & table.usable, 0]
        spread = summarise(values.tolist()) if len(values) else Accuracy()
        rows.append(
            ClassRow(
                index=k,
                name=name,
                images=int(own.sum()),
                complexities=_complexities(measurement, classes[k]),
                std=spread.std,
                ci95=spread.ci95,
                mean_activation=_or_none(activation[k]),
                area=_or_none(area[k]),
                blank=int((table.blank & own).sum()),
            )
        )
    return tuple(rows)


def _complexities(measurement: Measurement, values: np.ndarray) -> dict[str, float | None]:
    thresholds = measurement.settings.thresholds
    return {f"complexity_{threshold:g}": _or_none(value) for threshold, value in zip(thresholds, values, strict=True)}


def _means(measurement: Measurement, values: np.ndarray) -> np.ndarray:
    return class_means(values, measurement.pictures.labels, len(measurement.pictures.class_names))


def _accuracy(measurement: Measurement, table: ImageTable) -> float | None:
    """The share of images whose class is predicted; None where the network does not know all of their classes."""
    true = measurement.ids[measurement.pictures.labels]
    return None if (true < 0).any() else float(((table.predicted == true) & table.usable).mean())


def _histogram(values: np.ndarray) -> tuple[int, ...]:
    """Numbers of images in `BINS` equal bins of 0 … 100 %."""
    return tuple(np.histogram(values[np.isfinite(values)], BINS, (0, 100))[0].tolist())


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ends(interval: Sequence[float] | None, otherwise: str, form: str) -> str:
    """An interval's ends, inside 0 … 100: a few values with a normal distribution's interval reach beyond."""
    return otherwise if interval is None else form.format(*(min(max(end, 0.0), 100.0) for end in interval))
