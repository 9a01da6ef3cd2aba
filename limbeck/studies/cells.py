"""A cell of a grid: one distillation, and the small file that is kept of it.

    <folder>/cells/<name>.json    what a finished cell measured
    <folder>/runs/<name>/         the run folder of one that is not finished
    <folder>/logs/<name>.log      what the process of that one said

A cell that is there is not run again. It says which of its settings are not the defaults, so that results measured under other
settings are noticed instead of mixed in.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import encodable, fingerprint
from limbeck.runtime.metrics import read_metrics

# Where things lie and how many processes fetch them: no result depends on these.
PLACES = ("output", "data.root", "data.workers")
KEPT = (
    "accuracy",
    "networks",
    "network",
    "recovery_ratio",
    "lossless",
    "best_iteration",
    "skipped_share",
    "experts",
    "seconds",
    "cpu_seconds",
    "peak_memory",
    "data",
    "environment",
)
COMPARED = ("cosine", "norm_ratio")


@dataclass(frozen=True, eq=False)
class Cell:
    """One distillation of a grid.

    Args:
        name: of its files: letters, digits and any of `._+-`, the first no dot.
        recipe: as `limbeck distill` takes it.
        overrides: dotted keys with the values as typed.
        settings: what the two make.
        facts: what the grid wants to find beside the result, such as {"method": "edf", "ipc": 1, "seed": 0}.
    """

    name: str
    recipe: str
    overrides: Mapping[str, str]
    settings: DistillSettings
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[\w+-][\w.+-]*", self.name, re.ASCII), self.name

    @property
    def words(self) -> list[str]:
        """The overrides as they are typed."""
        return [f"{key}={value}" for key, value in self.overrides.items()]

    @property
    def changed(self) -> dict[str, Any]:
        """The dotted keys whose values are not the defaults, apart from `PLACES`."""
        return changed(self.settings)

    @property
    def experts(self) -> str:
        """The same for cells that train the same experts."""
        s = self.settings
        return fingerprint(encodable([s.data, s.network, s.augment, s.experts, s.seed]))


def changed(settings: DistillSettings) -> dict[str, Any]:
    """The dotted keys whose values are not the defaults, apart from `PLACES`, in JSON's types."""
    defaults = flatten(encodable(DistillSettings()))
    rows = flatten(encodable(settings))
    return {key: value for key, value in rows.items() if value != defaults[key] and key not in PLACES}


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as dotted keys."""
    rows: dict[str, Any] = {}
    for key, item in value.items():
        rows |= flatten(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return rows


@dataclass(frozen=True)
class CellFolder:
    """The folder of a grid."""

    path: Path

    def result_file(self, cell: Cell) -> Path:
        """Where the cell's result lies when it is finished."""
        return self.path / "cells" / f"{cell.name}.json"

    def run_folder(self, cell: Cell) -> Path:
        """Where the cell is distilled."""
        return self.path / "runs" / cell.name

    def log_file(self, cell: Cell) -> Path:
        """Where its process writes."""
        return self.path / "logs" / f"{cell.name}.log"

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """What the cell measured; None where it is not finished.

        Raises:
            UsageError: when the file is broken, or was measured under other settings.
        """
        path = self.result_file(cell)
        try:
            held: dict[str, Any] = read_json(path)
            before = dict(held["settings"])
            _check(held)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UsageError(f"output: {str(path)!r} cannot be read: {error.strerror}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise UsageError(f"output: {str(path)!r} is no result of a cell; delete it, and it is measured again") from error
        now = cell.changed
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                was, asked = (repr(row[key]) if key in row else "the default" for row in (before, now))
                raise UsageError(
                    f"output: {str(path)!r} was measured with {key} {was}, not {asked}; name another folder with --output"
                )
        return held | {"facts": dict(cell.facts)}

    def collect(self, cell: Cell) -> dict[str, Any]:
        """Write the result of the cell's finished run, and return it.

        Raises:
            Failure: when the run has left no results.
        """
        run = self.run_folder(cell)
        try:
            results = read_json(run / "results.json")
            kept = {key: results[key] for key in KEPT if key in results}
            _check(kept)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise Failure(f"{run} holds no results") from error
        record = {
            "name": cell.name,
            "facts": dict(cell.facts),
            "recipe": cell.recipe,
            "overrides": dict(cell.overrides),
            "settings": cell.changed,
            "fingerprint": fingerprint(cell.changed),
            **kept,
            "comparison": comparison(run / "metrics.jsonl"),
        }
        write_json(self.result_file(cell), record)
        return record

    def clear(self, cell: Cell, keep: bool) -> None:
        """Delete the log, and the run folder unless it is to be kept."""
        self.log_file(cell).unlink(missing_ok=True)
        if not keep:
            shutil.rmtree(self.run_folder(cell), ignore_errors=True)
        for folder in ("logs", "runs"):
            if (self.path / folder).is_dir() and not any((self.path / folder).iterdir()):
                (self.path / folder).rmdir()


def _check(result: Mapping[str, Any]) -> None:
    """Raise some `ValueError`, `LookupError` or `TypeError` where there is no accuracy to be read."""
    mean = result["accuracy"]["distilled"]["mean"]
    if isinstance(mean, bool) or not isinstance(mean, (int, float)) or not 0 <= mean <= 1:
        raise ValueError(f"an accuracy of {mean!r}")


def comparison(metrics: Path) -> dict[str, Any]:
    """Means over a run of what it noted about its gradient beside the one without criterion and weights; empty where nothing."""
    rows = [row for row in read_metrics(metrics) if row.get("kind") == "comparison"]
    # A number that was not finite is null there.
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in COMPARED}
    return {name: sum(found) / len(found) for name, found in values.items() if found} | ({"n": len(rows)} if rows else {})
