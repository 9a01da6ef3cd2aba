"""What a run has noted, as lines of a table that the page offers as a file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.accuracy import Accuracy
from limbeck.report.contents import Row, Run

MOST_LINES = 2000
ITERATION = ("loss", "grad_norm_images", "grad_norm_labels", "grad_lr", "syn_lr", "skipped")
Line = tuple[str | float | None, ...]


@dataclass(frozen=True)
class Numbers:
    """Tables with a line of titles first, empty where there is nothing; `step`: every so many iterations have a line."""

    iterations: tuple[Line, ...]
    evaluations: tuple[Line, ...]
    step: int


def numbers(run: Run) -> Numbers:
    """The iterations of a run, evenly where there are many, and its evaluations."""
    rows, evaluations = run.iterations, run.metrics.get("evaluation", [])
    step = max(1, math.ceil(len(rows) / MOST_LINES))
    known = [name for name in ITERATION if any(_number(row.get(name)) is not None for row in rows)]
    lines = [(row["iteration"], *(_number(row.get(name)) for name in known)) for row in rows[::step]]
    return Numbers(
        _titled(("iteration", *known), lines), _titled(("iteration", "accuracy", "std", "n"), _measured(evaluations)), step
    )


def _titled(titles: Line, lines: Sequence[Line]) -> tuple[Line, ...]:
    return (titles, *lines) if lines else ()


def _measured(rows: Sequence[Row]) -> list[Line]:
    """A line for every evaluation."""
    found = [(row["iteration"], Accuracy.from_dict(row["accuracy"])) for row in rows if isinstance(row.get("accuracy"), dict)]
    return [(at, _number(one.mean), _number(one.std), one.n) for at, one in found if one.known]


def _number(value: Any) -> float | None:
    """A finite number with six digits, or None."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, (bool, int)) else float(f"{value:.6g}")
