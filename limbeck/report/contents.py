"""What a run folder holds, as far as the run has come: whatever is missing or cannot be read is empty, with a note."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.areas import discriminative_area
from limbeck.methods.snapshots import SNAPSHOT
from limbeck.runs.folder import RESULTS, SETTINGS, STATE
from limbeck.runs.results import RunResult
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import read_json, read_tensors
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.sealed import FileKind

T = TypeVar("T")
FILES = ("settings.json", "state.json", "results.json", "metrics.jsonl", "distilled")  # of which a run folder has at least one
MOST_POSITIONS = 2**24  # of an image in a set
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """One file of `snapshots/`.

    Args:
        path: the file.
        iteration: after which it was made.
        header: holds iteration, accuracy, kept_share and loss.
        area: the discriminative area of each of its images, a share of the pixels; empty where no maps are made.
    """

    path: Path
    iteration: int
    header: dict[str, Any]
    area: tuple[float, ...] = ()

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy in [0, 1]."""
        value = self.header.get("accuracy")
        mean = value.get("mean") if isinstance(value, dict) else value
        return float(mean) if isinstance(mean, (int, float)) else None

    @property
    def positions(self) -> list[int] | None:
        """Of the images that it has in the set; None where it has them all."""
        return self.header.get("positions")

    def rows(self, positions: Sequence[int], count: int) -> list[int]:
        """The rows in its tensors, of `count` images, of those with these positions in the set."""
        place = {position: row for row, position in enumerate(self.positions or range(count))}
        return [place[position] for position in positions]


@dataclass(frozen=True)
class Run:
    """The contents of a run folder.

    Args:
        path: the folder.
        settings: `settings.json`; likewise `state`.
        result: of a run that has ended.
        metrics: the rows of `metrics.jsonl` by their kind.
        snapshots: in the order of iterations.
        distilled: the set, when the run has ended and the set is sound.
        notes: what could not be read, for people.
    """

    path: Path
    settings: Mapping[str, Any]
    state: Mapping[str, Any]
    result: RunResult | None
    metrics: dict[str, list[Row]]
    snapshots: list[Snapshot]
    distilled: DistilledSet | None
    notes: list[str] = field(default_factory=list)

    @property
    def iterations(self) -> list[Row]:
        """The rows of kind `iteration`."""
        return self.metrics.get("iteration", [])

    @property
    def best_iteration(self) -> int | None:
        """Of the snapshot that became the distilled set, or would: the last evaluation that was the best when it was made."""
        if self.result is not None and self.result.best_iteration is not None:
            return self.result.best_iteration
        marked = [row["iteration"] for row in self.metrics.get("evaluation", []) if row.get("best")]
        return marked[-1] if marked else None


def is_run(path: Path) -> bool:
    """Whether a folder has anything that a run leaves."""
    return path.is_dir() and any((path / name).exists() for name in FILES)


def read_run(path: Path, *, snapshots: bool = True) -> Run:
    """Read the run folder `path`, without `snapshots` all but these, which are large.

    Raises:
        UsageError: when it is no run folder.
    """
    require(is_run(path), "run", str(path), "a run folder")
    notes: list[str] = []
    metrics: dict[str, list[Row]] = {}
    for row in _read(path / "metrics.jsonl", notes, read_metrics) or []:
        if isinstance(row, dict) and isinstance(row.get("iteration"), int):
            metrics.setdefault(str(row.get("kind")), []).append(row)
    return Run(
        path,
        settings=_read(path / "settings.json", notes, partial(_object, SETTINGS)) or {},
        state=_read(path / "state.json", notes, partial(_object, STATE)) or {},
        result=_read(
            path / "results.json", notes, lambda file: RunResult.from_dict(found) if (found := _object(RESULTS, file)) else None
        ),
        metrics=metrics,
        snapshots=_snapshots(path, notes) if snapshots else [],
        distilled=_distilled(path, notes),
        notes=notes,
    )


def _object(kind: FileKind, path: Path) -> Mapping[str, Any]:
    """The object in a file of the run."""
    found: Mapping[str, Any] = read_json(path, kind)
    return found


def _read(path: Path, notes: list[str], read: Callable[[Path], T]) -> T | None:
    """What `read` makes of a file; None where there is none, or where it cannot be read, with a note."""
    try:
        return read(path) if path.exists() else None
    except (OSError, TypeError, ValueError, AttributeError):
        notes.append(f"{path.name} could not be read")
        return None


def _snapshots(path: Path, notes: list[str]) -> list[Snapshot]:
    found = []
    for file in sorted((path / "snapshots").glob("iteration-*.safetensors")):
        try:
            tensors, header = read_tensors(file, kind=SNAPSHOT)
            sound = _is_snapshot(header, {name: tensor.shape for name, tensor in tensors.items()})
        except (OSError, ValueError, AttributeError):
            header, sound = {}, False
        if sound:
            found.append(Snapshot(file, header["iteration"], header, _area(tensors.get("maps"))))
        else:
            notes.append(f"snapshots/{file.name} could not be read")
    return sorted(found, key=lambda snapshot: snapshot.iteration)


def _area(maps: Tensor | None) -> tuple[float, ...]:
    """The discriminative area of every image, of maps (N, H, W), which are zeros where none are made."""
    if maps is None or maps.ndim != 3 or not bool(maps.any()):
        return ()
    return tuple(discriminative_area(maps.float().nan_to_num().clamp(0, 1)).tolist())


def _is_snapshot(header: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a file has images X (N, C, H, W), labels Y (N, K), an iteration, and positions of the images, if any."""
    images, labels = shapes.get("X", ()), shapes.get("Y", ())
    if not isinstance(header.get("iteration"), int) or len(images) != 4 or len(labels) != 2 or 0 in images:
        return False
    positions = header.get("positions", list(range(images[0])))
    listed = isinstance(positions, list) and all(type(at) is int and 0 <= at < MOST_POSITIONS for at in positions)
    return listed and len(set(positions)) == len(positions) == images[0]


def _distilled(path: Path, notes: list[str]) -> DistilledSet | None:
    if not (path / "distilled").exists():
        return None
    try:
        return DistilledSet.load(path / "distilled")
    except UsageError as error:
        notes.append(str(error))
        return None
