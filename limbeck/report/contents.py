"""What a run folder holds, as far as the run has come: whatever is missing or cannot be read is empty, with a note."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from limbeck.data.preprocessing import Normalise, Preprocessing
from limbeck.distilled.contrast import FEW
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet, is_one_hot
from limbeck.evaluation.areas import discriminative_area
from limbeck.methods.snapshots import SNAPSHOT
from limbeck.runs.data_card import DataCard
from limbeck.runs.folder import RESULTS, SETTINGS, STATE
from limbeck.runs.results import RunResult
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import read_json, read_tensors
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.sealed import Damaged, FileKind

T = TypeVar("T")
FILES = ("settings.json", "state.json", "results.json", "metrics.jsonl", "distilled")  # of which a run folder has at least one
STRETCHED = "How the images were prepared is not known without the distilled set, so their contrast is stretched."
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
        weights: the least and the greatest weight on the gradient of a pixel; None where all are the same.
    """

    path: Path
    iteration: int
    header: dict[str, Any]
    area: tuple[float, ...] = ()
    weights: tuple[float, float] | None = None

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


@dataclass(frozen=True, eq=False)
class Images:
    """The images that a page shows of a run: those of its set or, while there is none, of its newest snapshot that has them all.

    Args:
        held: as a set.
        snapshot: that they are of; None without snapshots.
        prepared: whether it is known by what networks take them.
        so_far: after which iteration of how many, in words; empty of a set that was saved.
    """

    held: DistilledSet
    snapshot: Snapshot | None
    prepared: bool = True
    so_far: str = ""


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

    @cached_property
    def images(self) -> Images | None:
        """What a page shows; None where there is neither a set nor a snapshot with all images."""
        if (held := self.distilled) is not None:
            own = next((one for one in self.snapshots if one.iteration == self.best_iteration), None)
            if self.best_iteration is None:  # nobody says of which one the set is
                own = self.snapshots[-1] if self.snapshots else None
            return Images(held, own)
        whole = [one for one in self.snapshots if one.positions is None]
        ended = self.result is not None  # and the set is lost
        chosen = [one for one in whole if ended and one.iteration == self.best_iteration] or whole
        return _images_so_far(self, chosen[-1]) if chosen else None

    @property
    def wanted(self) -> int | None:
        """How many iterations were asked for."""
        outer = self.settings.get("outer")
        found = outer.get("iterations") if isinstance(outer, Mapping) else None
        return found if isinstance(found, int) else None

    @property
    def weights(self) -> tuple[float, float] | None:
        """The least and the greatest weight on the gradient of a pixel in any snapshot; None where all are the same."""
        ends = [one.weights for one in self.snapshots if one.weights is not None]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


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
            found.append(Snapshot(file, header["iteration"], header, _area(tensors.get("maps")), _ends(tensors.get("weights"))))
        else:
            notes.append(f"snapshots/{file.name} could not be read")
    return sorted(found, key=lambda snapshot: snapshot.iteration)


def _area(maps: Tensor | None) -> tuple[float, ...]:
    """The discriminative area of every image, of maps (N, H, W), which are zeros where none are made."""
    if maps is None or maps.ndim != 3 or not bool(maps.any()):
        return ()
    return tuple(discriminative_area(maps.float().nan_to_num().clamp(0, 1)).tolist())


def _ends(weights: Tensor | None) -> tuple[float, float] | None:
    """The least and the greatest of weights (N, 1, H, W), which are all the same where none are made."""
    if weights is None or weights.ndim != 4 or not weights.numel():
        return None
    low, high = (float(end) for end in weights.float().nan_to_num().aminmax())
    return (low, high) if low < high else None


def _images_so_far(run: Run, snapshot: Snapshot) -> Images:
    tensors = read_tensors(snapshot.path).tensors
    x, y = (tensors[name].float().nan_to_num() for name in ("X", "Y"))
    count, classes = y.shape
    # A run keeps its images in the order of their classes, as many of each.
    small = SmallSet(x, y, torch.arange(count) * classes // count, 1.0, "hard" if is_one_hot(y) else "logits")
    names, known = tuple(f"class {k}" for k in range(classes)), None
    with suppress(OSError, Damaged):
        card = DataCard.read(run.path)
        names, known = card.about.class_names if len(card.about.class_names) == classes else names, card.preprocessing
    held = DistilledSet(set=small, preprocessing=known or stretch(x), class_names=names)
    try:
        held.try_inverse()
    except ValueError:
        known, held = None, replace(held, preprocessing=stretch(x))
    of = f" of {run.wanted}" if run.wanted is not None else ""
    state = "unfinished" if run.result is None else "as the snapshot has them: there is no set that can be read"
    return Images(held, snapshot, known is not None, f"after iteration {snapshot.iteration}{of}, {state}")


def stretch(x: Tensor) -> Preprocessing:
    """For want of what images (N, C, H, W) were prepared by: every channel ranges from 0 to 1, but for a few extreme values."""
    ordered = x.transpose(0, 1).flatten(1).sort(dim=1).values
    cut = int(ordered.shape[1] * FEW / 2)
    low, span = ordered[:, cut], (ordered[:, -1 - cut] - ordered[:, cut]).clamp_min(1e-12)
    return Normalise(mean=-low / span, std=1 / span)


def _is_snapshot(header: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a file has images X (N, C, H, W), labels Y (N, K), an iteration, and positions of the images, if any."""
    images, labels = shapes.get("X", ()), shapes.get("Y", ())
    if not isinstance(header.get("iteration"), int) or len(images) != 4 or len(labels) != 2 or 0 in (*images, *labels):
        return False
    positions = header.get("positions", list(range(images[0])))
    listed = isinstance(positions, list) and all(type(at) is int and 0 <= at < MOST_POSITIONS for at in positions)
    return listed and len(set(positions)) == len(positions) == images[0] == labels[0]


def _distilled(path: Path, notes: list[str]) -> DistilledSet | None:
    if not (path / "distilled").exists():
        return None
    try:
        return DistilledSet.load(path / "distilled")
    except UsageError as error:
        notes.append(str(error))
        return None
