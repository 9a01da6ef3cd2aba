"""What is measured of a cell beside its accuracy, once, while its run folder is there; kept as `measured/CELL.MEASUREMENT.json`.

course      how the images change over the snapshots, of those that all snapshots hold: their activation maps under a network of
            the full data, the distance between classes in its features, their roughness, and how far pixels have moved
kd          accuracy with knowledge distillation, as RDED does it
networks    accuracy of other architectures, with the set's own step size, as published
seen        the activation maps and the complexity of the cell's images under one network, which is trained from the cell's seed on
            these and on those that they are compared with: nothing of a distillation. Maps of two networks are not comparable

    area      share of pixels above their map's mean     high  share of pixels at 0.5 or more     activation  mean of the map
    distance  log of the mean distance between class means; roughness  log of the mean |difference| of neighbouring pixels
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.accuracy import Accuracy
from limbeck.data.joined import joined
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.areas import discriminative_area, energy_inside, mean_activation
from limbeck.evaluation.distances import class_mean_distances, features_of, summary
from limbeck.image_complexity import networks
from limbeck.image_complexity.run import measure_complexity
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.methods.snapshots import SNAPSHOT
from limbeck.reproduction.item import NETWORKS
from limbeck.runs.build import cam_of
from limbeck.runs.record import final_seeds
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import Failure, UsageError, reason
from limbeck.runtime.files import read_json, read_tensor_header, read_tensors, write_json, write_tensors
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.random import generator
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import FileKind
from limbeck.saliency.settings import EnhanceSettings
from limbeck.studies.cells import Cell, CellFolder

MEASURED = FileKind("measurement of a cell")
HIGH = 0.5
BINS = 20
SHOWN = 5  # classes of which an image is kept
PICTURES = FileKind("pictures of a cell")


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    """What was measured of a cell.

    Args:
        cell: its name.
        measure: of `MEASURES`.
        values: figures by name.
        series: rows of figures by name.
        failed: of accuracies, how many networks diverged, which count as 0, and of how many; older files have none.
        eye: of what is `seen`, the name of the network that saw it; empty where that is not said.
    """

    cell: str
    measure: str
    values: Mapping[str, float]
    series: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    failed: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    eye: str = ""

    LEFT_OUT: ClassVar = ("failed", "eye")

    @classmethod
    def of_accuracies(cls, cell: str, measure: str, found: Mapping[str, Accuracy]) -> "Measured":
        """Accuracies by name."""
        failed = {name: (one.failed or 0, one.n or 0) for name, one in found.items()}
        return cls(cell=cell, measure=measure, values={name: one.mean for name, one in found.items()}, failed=failed)


@dataclass(frozen=True, eq=False)
class Finished:
    """A cell whose run folder is there.

    Args:
        cell: which.
        run: the folder.
        pictures: the file for pictures of it.
        beside: the cells whose images its own are compared with, itself among them.
        eye: the name of the network that sees all of these.
        progress: where to report.
    """

    cell: Cell
    run: Path
    pictures: Path
    beside: tuple[Cell, ...] = ()
    eye: str = ""
    progress: Progress = NoProgress()

    @property
    def workspace(self) -> Workspace:
        """Of its settings."""
        return Workspace(self.cell.settings, self.progress)

    @property
    def held(self) -> DistilledSet:
        """The set that was made."""
        return DistilledSet.load(self.run / "distilled")


@dataclass(frozen=True)
class Judge:
    """A network of the full data, with the classes of the images that it looks at and the boxes of their objects, if known."""

    module: nn.Module
    classes: Tensor
    num_classes: int
    boxes: np.ndarray | None

    def maps(self, images: Tensor, classes: Tensor) -> Tensor:
        """Activation maps, of one kind for all rows."""
        device = next(self.module.parameters()).device
        cam = cam_of(EnhanceSettings())
        return cam(self.module, images.to(device), classes.to(device), generator(0, "areas")).cpu()

    def look(self, images: Tensor) -> dict[str, float]:
        """What it sees in the images as they are at one time."""
        maps = self.maps(images, self.classes)
        features = features_of(self.module, images.to(next(self.module.parameters()).device)).cpu()
        between = summary(class_mean_distances(features, self.classes, self.num_classes)).between
        found = {
            "area": float(discriminative_area(maps).mean()),
            "activation": float(mean_activation(maps).mean()),
            "high": float((maps >= HIGH).double().mean()),
            "separation": math.log(between) if between else math.nan,
            "roughness": math.log(max(_roughness(images), 1e-12)),
        }
        if self.boxes is not None:
            found["inside"] = float(energy_inside(maps, self.boxes).mean())
        return found | {f"bin{k}": float(share) for k, share in enumerate(_histogram(maps))}


def _course(finished: Finished) -> Measured:
    """The snapshots, one after another."""
    paths = sorted((finished.run / "snapshots").glob("iteration-*.safetensors"))
    if not paths:
        raise Failure(f"{finished.run} holds no snapshots to measure the course of its images on")
    workspace, held = finished.workspace, finished.held
    evaluator = workspace.evaluator()
    places = _held_by_all(paths)
    start, _ = _snapshot(paths[0], places)
    module = evaluator.full_data.teacher(lambda: evaluator.images_of("test"))
    judge = Judge(module, held.classes.cpu()[places], held.num_classes, _boxes(workspace, start))
    rows, iterations, last = [], [], start
    for path in paths:
        last, iteration = _snapshot(path, places)
        rows.append(judge.look(last))
        iterations.append(float(iteration))
    _draw(finished.pictures, judge, workspace, start, last)
    values = {"moved": float((last - start).square().mean().sqrt())}
    for name in rows[0]:
        if not name.startswith("bin"):
            values |= {name: rows[-1][name], f"{name}_start": rows[0][name], f"{name}_growth": rows[-1][name] - rows[0][name]}
    series = {name: tuple(row[name] for row in rows) for name in rows[0] if not name.startswith("bin")}
    bins = {name: tuple(row[f"bin{k}"] for k in range(BINS)) for name, row in (("bins_start", rows[0]), ("bins", rows[-1]))}
    series = {"iterations": tuple(iterations), **series, **bins}
    return Measured(cell=finished.cell.name, measure="course", values=values, series=series)


def _held_by_all(paths: Sequence[Path]) -> list[int]:
    """The positions in the set of the images that all snapshots hold, for some are left with a few."""
    headers = [read_tensor_header(path, SNAPSHOT, say=False) for path in paths]
    return sorted(set.intersection(*(set(one.metadata.get("positions", range(one.shapes["X"][0]))) for one in headers)))


def _snapshot(path: Path, places: Sequence[int]) -> tuple[Tensor, int]:
    """The images of a snapshot at these positions of the set, and its iteration."""
    tensors, header = read_tensors(path, kind=SNAPSHOT)
    rows = {place: row for row, place in enumerate(header.get("positions", range(len(tensors["X"]))))}
    return tensors["X"][[rows[place] for place in places]], header["iteration"]


def _kd(finished: Finished) -> Measured:
    """Networks that a teacher trains on views of the set, for the epochs and in the batches of that protocol."""
    held, evaluator = finished.held, finished.workspace.evaluator()
    settings = replace(evaluator.settings, protocol="kd-rded", epochs=None, batch_size=None, networks=None)
    under = replace(evaluator, settings=settings, preprocessing=held.preprocessing)
    rate = under.step_size(held.set).value
    logits = under.logits(replace(held.set, syn_lr=rate), final_seeds(settings.seeds))
    return Measured.of_accuracies(finished.cell.name, "kd", {"accuracy": under.accuracies(logits)})


def _networks(finished: Finished) -> Measured:
    """Other architectures; a set that has no step size takes the best one of the network that it was made for."""
    workspace, held = finished.workspace, finished.held
    rate = held.set.syn_lr or workspace.evaluator().step_size(held.set).value
    found = {}
    for name in NETWORKS:
        evaluator = workspace.evaluator_of(workspace.network_of(name)).decided(held.set.ipc)
        under = replace(evaluator, preprocessing=held.preprocessing)
        logits = under.logits(replace(held.set, syn_lr=rate), final_seeds(evaluator.settings.seeds))
        found[name] = under.accuracies(logits)
    return Measured.of_accuracies(finished.cell.name, "networks", found)


def _seen(finished: Finished) -> Measured:
    """The images, to a network trained on them and on those of the cells beside it."""
    own, together = finished.workspace, finished.workspace
    sets = [Workspace(cell.settings, finished.progress).data for cell in finished.beside]
    together.data = joined(sets, " + ".join(one.source for one in sets))
    look = ComplexitySettings(network=finished.eye, thresholds=(HIGH,), seed=own.settings.seed, workers=1)
    found = measure_complexity(look, own, network=networks.judge(look, together))
    assert found is not None, "there is one share only"
    results = found.results
    classes = tuple(row.complexity / 100 for row in results.classes if row.complexity is not None)
    values = {
        "complexity": results.complexity / 100,
        "high": 1 - results.complexity / 100,
        "activation": (results.mean_activation or math.nan) / 100,
        "area": (results.area or math.nan) / 100,
        "least": min(classes),
        "most": max(classes),
    }
    return Measured(cell=finished.cell.name, measure="seen", values=values, series={"classes": classes}, eye=finished.eye)


MEASURES: Mapping[str, Callable[[Finished], Measured]] = {
    "course": _course,
    "kd": _kd,
    "networks": _networks,
    "seen": _seen,
}


@dataclass(frozen=True)
class Measurements:
    """What has been measured in the folder of a reproduction.

    Args:
        folder: of the grid.
        wanted: the measurements that any item of the scale wants of a cell, by its name; taken while there is a run folder.
        needed: those of the items that are asked for.
        beside: the cells that a cell's images are compared with, by its name.
        eye: the network that sees all of them.
        progress: where to report.
    """

    folder: Path
    wanted: Mapping[str, frozenset[str]]
    needed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    beside: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)
    eye: str = ""
    progress: Progress = NoProgress()
    _said: set[Path] = field(default_factory=set)

    def file(self, cell: str, measure: str) -> Path:
        """Where a measurement lies."""
        return self.folder / "measured" / f"{cell}.{measure}.json"

    def missing(self, cell: Cell, of: Mapping[str, frozenset[str]] | None = None) -> list[str]:
        """What is wanted of a cell, or in `of`, and not there."""
        names = (self.wanted if of is None else of).get(cell.name, frozenset())
        return [name for name in sorted(names) if self.read(cell.name, name) is None]

    def take(self, cell: Cell, run: Path) -> None:
        """Measure what is missing of a finished cell, whose run folder is there; what cannot be keeps nothing else from it.

        Raises:
            Failure, UsageError: when the run lacks what one of them takes, once the others are there.
        """
        failed: list[Failure | UsageError] = []
        for name in self.missing(cell):
            file = self.file(cell.name, name)
            beside = self.beside.get(cell.name, (cell,))
            finished = Finished(cell, run, file.with_suffix(".safetensors"), beside, self.eye, self.progress)
            try:
                found = MEASURES[name](finished)
            except (Failure, UsageError) as error:
                failed.append(error)
                continue
            write_json(file, found, MEASURED, cell.name)
        if failed:
            raise failed[0]

    def catch_up(self, cell: Cell) -> None:
        """Measure what is missing of a cell that was finished before, where its run folder is there still.

        Raises:
            Failure, UsageError: as `take` does.
        """
        held = CellFolder(self.folder)
        if not held.result_file(cell).exists() or not self.missing(cell):
            return
        run = held.run_folder(cell)
        if DistilledSet.is_at(run / "distilled"):
            self.take(cell, run)

    def lacks(self, cell: Cell) -> bool:
        """Whether an item that is asked for misses something of a finished cell, which has to be distilled again for it."""
        return bool(self.missing(cell, self.needed))

    def read(self, cell: str, measure: str) -> Measured | None:
        """A measurement of a cell; None where there is none, or a damaged one or by another eye: said once, they count as none."""
        file = self.file(cell, measure)
        try:
            found = Measured.from_dict(read_json(file, MEASURED, cell))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            why = f"is broken ({reason(error)})"
        else:
            if found.eye in ("", self.eye):
                return found
            why = f"is what {found.eye!r} saw, not {self.eye!r}"
        if file not in self._said:
            self.progress.say(f"warning: {str(file)!r} {why}; it is measured again where it is asked for")
        self._said.add(file)
        return None

    def of(self, cell: str) -> dict[str, Measured]:
        """What was measured of a cell."""
        found = {name: self.read(cell, name) for name in sorted(self.wanted.get(cell, ()))}
        return {name: one for name, one in found.items() if one is not None}


def _draw(file: Path, judge: Judge, workspace: Workspace, start: Tensor, last: Tensor) -> None:
    """Keep an image of some classes, at the start and at the end, with its maps and, where it is known, the box of its object."""
    classes = judge.classes.tolist()
    few = torch.tensor([classes.index(k) for k in sorted(set(classes))[:SHOWN]])
    tensors = {"classes": judge.classes[few]}
    for name, images in (("start", start[few]), ("end", last[few])):
        pixels = workspace.preprocessing.inverse(images.cpu()).clamp(0, 1)
        tensors[name] = (255 * pixels).round().to(torch.uint8)
        tensors[f"{name}_maps"] = (255 * judge.maps(images, judge.classes[few])).round().to(torch.uint8)
    if judge.boxes is not None:
        tensors["boxes"] = torch.from_numpy(judge.boxes[few.numpy()])
    write_tensors(file, tensors, {"class_names": list(workspace.data.class_names)}, PICTURES)


def _roughness(images: Tensor) -> float:
    """The mean absolute difference of neighbouring pixels."""
    steps = [(images[..., 1:, :] - images[..., :-1, :]).abs().mean(), (images[..., 1:] - images[..., :-1]).abs().mean()]
    return float(sum(steps) / 2)


def _histogram(maps: Tensor) -> list[float]:
    """The shares of values in equal bins of [0, 1]."""
    counts = torch.histc(maps.double(), BINS, 0.0, 1.0)
    return [float(share) for share in counts / counts.sum()]


def _boxes(workspace: Workspace, start: Tensor) -> np.ndarray | None:
    """The boxes of the objects of the training images that a set began as; None where they are not known, or it did not."""
    train = workspace.data.train
    if train.boxes is None:
        return None
    known = train.images(np.arange(len(train)))
    places = {image.numpy().tobytes(): number for number, image in enumerate(known)}
    pixels = (255 * workspace.preprocessing.inverse(start)).round().clamp(0, 255).to(torch.uint8)
    found = [places.get(image.numpy().tobytes()) for image in pixels]
    return None if None in found else train.boxes[[number for number in found if number is not None]]
