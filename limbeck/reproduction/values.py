"""What a cell says, by name: figures of its record, and of what was measured of it besides."""

import math
from collections.abc import Callable, Mapping

from limbeck.evaluation.scores import lossless, recovery_ratio
from limbeck.reproduction.measures import Measured
from limbeck.studies.cells import CellRecord

TITLES = {
    "accuracy": "accuracy, %",
    "recovery": "recovery ratio, %",
    "above_full": "above the full data less one deviation, points",
    "kd.accuracy": "accuracy under knowledge distillation, %",
    "course.area_start": "discriminative area at the start, %",
    "course.area": "discriminative area, %",
    "course.area_growth": "growth of the area, points",
    "course.activation_growth": "growth of the mean activation, points",
    "course.high_growth": "growth of the share of high activation, points",
    "course.separation_growth": "growth of the distance between classes, log",
    "course.roughness_growth": "growth of the roughness, log",
    "course.moved": "how far pixels moved, deviations",
    "seen.activation": "mean activation, %",
    "seen.high": "share of high activation, %",
    "seen.area": "discriminative area, %",
    "seen.complexity": "complexity, %",
    "seen.least": "complexity of the least complex class, %",
    "seen.most": "complexity of the most complex class, %",
}
OF_FULL = ("recovery", "above_full")  # which are no measure where the accuracy of the full data is none
PLAIN = ("course.separation_growth", "course.roughness_growth", "course.moved")  # no fractions


def _accuracy(record: CellRecord) -> float:
    return record.accuracy.distilled.mean


def _recovery(record: CellRecord) -> float | None:
    own, full = record.accuracy.distilled, record.accuracy.full
    return recovery_ratio(own.mean, full.mean) if own.known and full.known else None


def _above_full(record: CellRecord) -> float | None:
    own, full = record.accuracy.distilled, record.accuracy.full
    floor = lossless(own, full).floor if own.known and full.known else None
    return None if floor is None else own.mean - floor


OF_RECORD: Mapping[str, Callable[[CellRecord], float | None]] = {
    "accuracy": _accuracy,
    "recovery": _recovery,
    "above_full": _above_full,
}


def value_of(name: str, record: CellRecord, measured: Mapping[str, Measured]) -> float | None:
    """The value of that name; None where it was not measured.

    Args:
        name: of `OF_RECORD`, or `MEASUREMENT.NAME`.
        record: of the cell.
        measured: of the cell, by measurement.
    """
    if name in OF_RECORD:
        found = OF_RECORD[name](record)
    else:
        measure, _, value = name.partition(".")
        found = measured[measure].values.get(value) if measure in measured else None
    return None if found is None or not math.isfinite(found) else found


def title_of(name: str) -> str:
    """What the value is called above a column."""
    return TITLES.get(name) or f"{name.removeprefix('networks.')}, accuracy, %"


def shown(name: str, value: float) -> str:
    """The value for people."""
    return f"{value:+.3f}" if name in PLAIN else f"{100 * value:.1f}"
