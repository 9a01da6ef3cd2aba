"""What a measurement says, as JSON types and as tables: of images, of classes, of the whole."""

import csv
import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.evaluation.statistics import summarise
from limbeck.image_complexity.maps import class_means, subset_mean
from limbeck.image_complexity.measure import ImageTable, Measurement
from limbeck.runtime.devices import environment
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import write_bytes, write_text
from limbeck.runtime.tables import Grid, Page

BINS = 50
SHOWN = 10  # classes at either end of many


def summary(measurement: Measurement, table: ImageTable) -> dict[str, Any]:
    """Everything but the rows of single images, in JSON types; complexities, activations and areas in percent.

    Returns:
        `complexity` of the subset at the first threshold, with `spread`, the summary over its classes (the 95 % interval is that of
        the mean over classes like these); `by_threshold`; `without_blank`, the same without the images that the network shows no
        preference for; `mean_activation` and `area`, likewise means over classes of means; `blank` and `not_finite`, numbers of
        images; `accuracy` of the network on the images, None where it does not know their classes; `classes`, a row for each,
        with the interval of its mean over images; `histograms` of the images; `network`, `data`, `settings`, `environment`.

    Raises:
        Failure: when the network's logits are finite for no image.
    """
    pictures, settings = measurement.pictures, measurement.settings
    if not table.usable.any():
        raise Failure(f"the logits of {measurement.judge.name} are finite for none of the {len(pictures)} images")
    classes = measurement.classes(table)
    names = [_key(threshold) for threshold in settings.thresholds]
    seen = np.where(table.blank, np.nan, table.complexity[:, 0])
    of_classes = [float(value) for value in classes[:, 0] if np.isfinite(value)]
    return {
        "complexity": subset_mean(classes[:, 0]),
        "spread": summarise(of_classes).to_dict(),
        "by_threshold": {name: subset_mean(column) for name, column in zip(names, classes.T, strict=True)},
        "reliability": reliability(measurement, table),
        "without_blank": _or_none(subset_mean(_means(measurement, seen))),
        "mean_activation": subset_mean(_means(measurement, table.mean_activation)),
        "area": subset_mean(_means(measurement, table.area)),
        "images": len(pictures),
        "blank": int(table.blank.sum()),
        "not_finite": int((~table.usable).sum()),
        "accuracy": _accuracy(measurement, table),
        "classes": _classes(measurement, table, classes),
        "histograms": {
            "mean_activation": _histogram(table.mean_activation),
            "area": _histogram(table.area),
            "complexity": _histogram(table.complexity[:, 0]),
        },
        "network": {"name": measurement.judge.name, "layers": measurement.layers, **dict(measurement.judge.about)},
        "data": {"fingerprint": pictures.fingerprint, "splits": list(pictures.splits)},
        "settings": settings,
        "environment": environment(measurement.judge.device),
    }


def page_of(results: Mapping[str, Any]) -> Page:
    """What `summary` found, for people; of many classes the easiest and the hardest."""
    key, settings = f"complexity_{next(iter(results['by_threshold']))}", results["settings"]
    known = sorted((row for row in results["classes"] if row[key] is not None), key=lambda row: row[key])
    shown = known if len(known) <= 2 * SHOWN else [*known[:SHOWN], *known[-SHOWN:]]
    rows = tuple(
        (row["name"], f"{row[key]:.1f} %", _ends(row["ci95"], "–", "{:.1f} … {:.1f}"), str(row["images"]), str(row["blank"]))
        for row in shown
    )
    first, ends = settings.thresholds[0], _ends(results["spread"]["ci95"], "", " [{:.1f}, {:.1f}]")
    others = ", ".join(f"{value:.1f} % at {name}" for name, value in list(results["by_threshold"].items())[1:])
    accuracy = "" if results["accuracy"] is None else f", {100 * results['accuracy']:.1f} % of the images classified correctly"
    lines = [
        *([f"the easiest and the hardest {SHOWN} of {len(known)} classes"] if len(shown) < len(known) else []),
        f"complexity: {results['complexity']:.1f} % at {first:g}{ends}{f'; {others}' if others else ''}",
        f"mean activation: {results['mean_activation']:.1f} %, area above the mean: {results['area']:.1f} %",
        f"network: {results['network']['name']}, layer {'+'.join(results['network']['layers'])}{accuracy}",
    ]
    if results["reliability"] is not None:
        expected = f"correlation {results['reliability']:.2f} to be expected with as many other images"
        lines.append(f"order of the classes: {expected}")
    return Page((Grid(("class", "complexity", "95 % interval", "images", "blank maps"), rows), *lines))


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


def image_rows(measurement: Measurement, table: ImageTable) -> list[dict[str, Any]]:
    """A row for every image: where it is, which file (None where the source has none), its class, what the network makes of it.

    What depends on the network is None where its logits are not finite.
    """
    pictures, names = measurement.pictures, measurement.judge.class_names
    splits, usable = list(pictures.splits), table.usable
    thresholds = [_key(threshold) for threshold in measurement.settings.thresholds]
    rows = []
    for i in range(len(pictures)):
        rows.append(
            {
                "split": splits[pictures.part[i]],
                "position": int(pictures.position[i]),
                "file": pictures.name(i),
                "label": int(pictures.labels[i]),
                "class": pictures.class_names[pictures.labels[i]],
                "predicted": names[table.predicted[i]] if usable[i] else None,
                "map_of": names[table.target[i]] if usable[i] else None,
                **{f"complexity_{name}": _or_none(value) for name, value in zip(thresholds, table.complexity[i], strict=True)},
                "mean_activation": _or_none(table.mean_activation[i]),
                "area": _or_none(table.area[i]),
                "blank": bool(table.blank[i]),
            }
        )
    return rows


def extremes(table: ImageTable, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the easiest images, the easiest first, and of the hardest, the hardest first; blank maps are neither.

    Complexities are shares of few pixels, so that many are equal: of those the one of larger mean activation is the easier.
    """
    usable = np.flatnonzero(table.usable & ~table.blank)
    order = usable[np.lexsort((-table.mean_activation[usable], table.complexity[usable, 0]))]
    return order[:count], order[::-1][:count]


def write_tables(rows: Sequence[Mapping[str, Any]], classes: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, str]:
    """Write `images.csv` and `classes.csv`; their paths."""
    flat = [{key: value for key, value in row.items() if key != "ci95"} for row in classes]
    for name, table in (("images", rows), ("classes", flat)):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        write_text(folder / f"{name}.csv", text.getvalue())
    return {name: str(folder / f"{name}.csv") for name in ("images", "classes")}


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the rows as a parquet file.

    Raises:
        UsageError: when the extra `hub` is not installed.
    """
    arrow, parquet = parquet_library()
    buffer = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist([dict(row) for row in rows]), buffer)
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


def _classes(measurement: Measurement, table: ImageTable, classes: np.ndarray) -> list[dict[str, Any]]:
    pictures = measurement.pictures
    activation, area = (_means(measurement, values) for values in (table.mean_activation, table.area))
    rows = []
    for k, name in enumerate(pictures.class_names):
        own = pictures.labels == k
        values = table.complexity[own & table.usable, 0]
        spread = summarise(values.tolist()).to_dict() if len(values) else {"std": None, "ci95": None}
        rows.append(
            {
                "index": k,
                "name": name,
                "images": int(own.sum()),
                **{
                    f"complexity_{_key(threshold)}": _or_none(value)
                    for threshold, value in zip(measurement.settings.thresholds, classes[k], strict=True)
                },
                "std": spread["std"],
                "ci95": spread["ci95"],
                "mean_activation": _or_none(activation[k]),
                "area": _or_none(area[k]),
                "blank": int((table.blank & own).sum()),
            }
        )
    return rows


def _means(measurement: Measurement, values: np.ndarray) -> np.ndarray:
    return class_means(values, measurement.pictures.labels, len(measurement.pictures.class_names))


def _accuracy(measurement: Measurement, table: ImageTable) -> float | None:
    """The share of images whose class is predicted; None where the network does not know all of their classes."""
    true = measurement.ids[measurement.pictures.labels]
    return None if (true < 0).any() else float(((table.predicted == true) & table.usable).mean())


def _histogram(values: np.ndarray) -> list[int]:
    """Numbers of images in `BINS` equal bins of 0 … 100 %."""
    counts, _ = np.histogram(values[np.isfinite(values)], BINS, (0, 100))
    found: list[int] = counts.tolist()
    return found


def _key(threshold: float) -> str:
    return f"{threshold:g}"


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ends(interval: Sequence[float] | None, otherwise: str, form: str) -> str:
    """An interval's ends, inside 0 … 100: a few values with a normal distribution's interval reach beyond."""
    return otherwise if interval is None else form.format(*(min(max(end, 0.0), 100.0) for end in interval))
