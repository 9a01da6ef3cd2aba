"""How far a run has come, by what is in its folder: looked at again and again, and read only where a file has changed.

Nothing is touched, no lock is taken, and nothing that lies there is wrong enough to end the watch.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from limbeck.accuracy import percent
from limbeck.evaluation.scores import told
from limbeck.report.setup import STAGES
from limbeck.runs.folder import RESULTS, SETTINGS, STATE
from limbeck.runs.results import RunResult
from limbeck.runtime.errors import reason
from limbeck.runtime.files import read_json
from limbeck.runtime.locks import holder
from limbeck.runtime.metrics import MetricsTail
from limbeck.runtime.records import Record
from limbeck.runtime.tables import duration

T = TypeVar("T")
ROWS = 50  # the last ones, by which the time left is told
SKIPPED = 0.1  # share of iterations that changed nothing from which on that is worth a word
WATCHED = (
    "settings.json",
    "state.json",
    "results.json",
    "data-card.safetensors",
    "snapshots",
    "distilled",
)  # what a run's page is made of, apart from single rows

WAITING, PREPARING, DISTILLING, EVALUATING = "not there yet", "preparing", "distilling", "final evaluation"
ENDED, STOPPED, DAMAGED = "ended", "stopped", "damaged"


@dataclass(frozen=True)
class Line(Record):
    """What a list says of a run, in words.

    Args:
        name: of the folder, as it was typed.
        method: and what is distilled.
        state: one of the words above, or the stage that it is in.
        progress: iterations, of so many.
        share: of them, in [0, 1]; 1 of a run that has ended.
        left: the time left.
        loss: of the last iteration.
        accuracy: of the last evaluation, or in the end on the test images.
        warnings: a sentence each.
    """

    name: str
    method: str = "–"
    state: str = WAITING
    progress: str = "–"
    share: float = 0.0
    left: str = "–"
    loss: str = "–"
    accuracy: str = "–"
    warnings: tuple[str, ...] = ()


@dataclass
class Rows:
    """What the rows of `metrics.jsonl` have said so far."""

    done: int = 0
    loss: float | None = None
    accuracy: float | None = None
    best: float | None = None
    skipped: float = 0.0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=ROWS))
    returns: list[str] = field(default_factory=list)

    def take(self, row: Mapping[str, Any]) -> None:
        """Hear one more."""
        kind, iteration = row.get("kind"), row.get("iteration")
        if kind == "iteration" and isinstance(iteration, int):
            self.done, self.loss = iteration + 1, _number(row.get("loss"))
            self.skipped = _number(row.get("skipped_share")) or 0.0
            self.seconds.append(_number(row.get("seconds")) or 0.0)
        elif kind == "evaluation":
            accuracy = row.get("accuracy")
            self.accuracy = _number(accuracy.get("mean") if isinstance(accuracy, Mapping) else accuracy)
            self.best = self.accuracy if row.get("best") else self.best
        elif kind == "return":
            self.returns.append(f"after {iteration} iterations it went back to an earlier state: {row.get('why')}")

    @property
    def each(self) -> float | None:
        """Seconds of an iteration, by the last ones."""
        return sum(self.seconds) / len(self.seconds) if self.seconds else None


class Watched:
    """One run that is watched.

    Args:
        path: its folder, which need not be there yet.
        name: what it is called.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path, self.name = path, name or str(path)
        self.rows, self._tail = Rows(), MetricsTail(path / "metrics.jsonl")
        self._kept: dict[str, tuple[Any, Any]] = {}
        self._broken: dict[str, str] = {}

    @property
    def mark(self) -> str:
        """Another one whenever there is something new to see on the run's page: a snapshot, results, other settings."""
        return "-".join(_mark(self.path / name) for name in WATCHED)

    def look(self) -> Line:
        """How far it has come by now."""
        if not self.path.is_dir():
            return Line(self.name)
        settings = self._read("settings.json", lambda path: read_json(path, SETTINGS), Mapping)
        noted = self._read("state.json", lambda path: read_json(path, STATE), Mapping)
        result = self._read("results.json", lambda path: RunResult.from_dict(read_json(path, RESULTS)), RunResult)
        self._follow()
        outer, data = (_group(settings, name) for name in ("outer", "data"))
        total = int(_number(outer.get("iterations")) or 0)
        rows, state = self.rows, self._state(result, total, (noted or {}).get("now"))
        accuracy = rows.accuracy if result is None or not result.accuracy.distilled.known else result.accuracy.distilled.mean
        left = (total - rows.done) * rows.each if state == DISTILLING and rows.each is not None else None
        method = " · ".join(
            str(part) for part in ((settings or {}).get("method"), Path(str(data.get("source") or "")).name) if part
        )
        return Line(
            name=self.name,
            method=method or "–",
            state=state,
            progress=f"{rows.done} of {total}" if rows.done and total else "–",
            share=1.0 if state == ENDED else min(rows.done / total, 1.0) if total else 0.0,
            left="–" if left is None else f"about {duration(left)}",
            loss="–" if rows.loss is None else f"{rows.loss:.4g}",
            accuracy=percent(accuracy)
            + (f" (best {percent(rows.best)})" if result is None and rows.best not in (None, accuracy) else ""),
            warnings=tuple(self._warnings(result)),
        )

    def _follow(self) -> None:
        try:
            while any(news := self._tail.more()):
                anew, rows = news
                if anew:
                    self.rows = Rows()
                for row in rows:
                    self.rows.take(row)
            self._broken.pop("metrics.jsonl", None)
        except (OSError, ValueError) as error:
            self._broken["metrics.jsonl"] = reason(error)

    def _state(self, result: RunResult | None, total: int, stage: object) -> str:
        if result is not None:
            return ENDED
        if "settings.json" in self._broken:
            return DAMAGED
        if holder(self.path / ".run") is None:
            return STOPPED if (self.path / "settings.json").exists() else WAITING
        if isinstance(stage, str):
            return DISTILLING if stage == "distil" else STAGES.get(stage, stage).lower()
        if not self.rows.done:
            return PREPARING
        return EVALUATING if total and self.rows.done >= total else DISTILLING

    def _warnings(self, result: RunResult | None) -> list[str]:
        found = [f"{name} cannot be read: {why}" for name, why in self._broken.items()] + self.rows.returns
        if self.rows.skipped > SKIPPED:
            found.append(f"{percent(self.rows.skipped)} of the iterations changed nothing")
        if result is not None:
            found += [*result.warnings, *result.accuracy.failures, *told(result.evaluation.doubts)]
        return found

    def _read(self, name: str, read: Callable[[Path], Any], kind: type[T]) -> T | None:
        """What a file holds, read again only where it has changed; None where there is none, or one that cannot be read."""
        path = self.path / name
        mark = _mark(path)
        if self._kept.get(name, (None,))[0] != mark:
            found, self._broken = None, {key: why for key, why in self._broken.items() if key != name}
            if mark:
                try:
                    found = read(path)
                    if not isinstance(found, kind):
                        raise TypeError("it holds something else")
                except (OSError, ValueError, TypeError, AttributeError) as error:
                    found, self._broken[name] = None, reason(error)
            self._kept[name] = (mark, found)
        held: T | None = self._kept[name][1]
        return held


def _mark(path: Path) -> str:
    """When it was changed and how long it is; empty where there is nothing."""
    try:
        about = os.stat(path)
    except OSError:
        return ""
    return f"{about.st_mtime_ns:x}.{about.st_size:x}"


def _group(settings: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    found = (settings or {}).get(name)
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


class Looks:
    """All runs that are watched, looked at once however many ask at the same time.

    Args:
        runs: in their order.
        fresh: seconds that a look is good for.
    """

    def __init__(self, runs: tuple[Watched, ...], fresh: float = 0.5) -> None:
        self.runs, self.fresh = runs, fresh
        self._seen: dict[int, tuple[float, Line]] = {}
        self._lock = Lock()

    def line(self, number: int) -> Line:
        """What is to be said of the run of that number."""
        with self._lock:  # requests are answered by several threads
            now, (at, held) = time.monotonic(), self._seen.get(number, (0.0, None))
            if held is None or now - at >= self.fresh:
                held = self._looked(self.runs[number])
                self._seen[number] = (now, held)
            return held

    def _looked(self, run: Watched) -> Line:
        try:
            return run.look()
        except Exception as error:  # whatever such files lead to
            return Line(run.name, state=DAMAGED, warnings=(reason(error),))
