"""The snapshots of a run as a film: for each a sheet of tiles, and one of its activation maps to lay over them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.accuracy import percent
from limbeck.data.preprocessing import Preprocessing
from limbeck.distilled.contrast import FEW, Contrast
from limbeck.report.contents import STRETCHED, Run, Snapshot, stretch
from limbeck.report.pictures import BUDGET, Shown, choose
from limbeck.report.sheets import Sheet, heat, lossy, quick, resized, weighted, within
from limbeck.runtime.files import read_tensors
from limbeck.runtime.records import Record

MOST_FRAMES, FEWEST_FRAMES, LARGEST_TILE, LARGEST_WEIGHTS = 25, 3, 64, 32
PICTURES = ("image", "map", "weights")  # of a snapshot
LOSSY = 31_000_000  # bytes of pixels, where they are kept with a loss: about three bits are left of twenty-four


@dataclass(frozen=True)
class Shot(Record):
    """One snapshot for the page: data URIs of the images, their maps, and the weights on their gradient, None without these."""

    iteration: int
    accuracy: float | None
    loss: float | None
    best: bool
    image: str
    map: str | None
    weights: str | None

    @property
    def pictures(self) -> dict[str, str | None]:
        """What is long."""
        return {name: getattr(self, name) for name in PICTURES}


@dataclass(frozen=True)
class Sheets(Record):
    """What the page's script lays out.

    Args:
        height: of a tile; likewise `width`.
        columns: tiles beside each other.
        weights: height and width of a tile of weights, which are smooth.
        positions: of the images in the set, tile by tile.
        start: the number of the frame that is shown first.
        frames: the sheet of every snapshot.
    """

    height: int
    width: int
    columns: int
    weights: tuple[int, int]
    positions: tuple[int, ...]
    start: int
    frames: tuple[Shot, ...]

    @property
    def outline(self) -> dict[str, Any]:
        """All but the pictures."""
        held = self.to_dict()
        frames = [{key: value for key, value in frame.items() if key not in PICTURES} for frame in held["frames"]]
        return {**held, "weights": dict(zip(("height", "width"), self.weights, strict=True)), "frames": frames}


@dataclass(frozen=True)
class Footage:
    """The snapshots for the page.

    Args:
        groups: the name of every class that is shown, and how many of its images.
        note: on what is left out.
        side: how wide an image is drawn.
        sheets: the pictures.
    """

    groups: tuple[tuple[str, int], ...]
    note: str
    side: int
    sheets: Sheets

    @property
    def has_maps(self) -> bool:
        """Whether any frame has activation maps."""
        return any(frame.map for frame in self.sheets.frames)


@dataclass(frozen=True)
class _Plan:
    """Which snapshots and images are shown, and whether the pictures have to be kept with a loss."""

    frames: list[Snapshot]
    shown: Shown
    positions: tuple[int, ...]
    lossy: bool


def film(run: Run) -> Footage | None:
    """The snapshots of a run; None where there are none."""
    if not run.snapshots:
        return None
    first, header = read_tensors(run.snapshots[0].path)
    count, _, *sides = first["X"].shape
    count = len(run.images.held) if run.images is not None else max(count, 1 + max(header.get("positions", [0])))
    size = within(sides[0], sides[1], LARGEST_TILE)
    plan = _planned(run, count, first["X"].shape[1] * size[0] * size[1], *_classes(run, count, first["Y"].shape[1]))
    sheet = Sheet(plan.positions, size, columns=max(1, round(len(plan.positions) ** 0.5)))
    look = _Look.of(run)
    pictures = tuple(_frame(snapshot, sheet, look, plan.lossy, run) for snapshot in plan.frames)
    shown = run.images.snapshot if run.images is not None else None
    start = next((k for k, one in enumerate(plan.frames) if shown is not None and one.path == shown.path), len(pictures) - 1)
    return Footage(
        groups=tuple((name, len(row)) for name, row in zip(plan.shown.names, plan.shown.positions, strict=True)),
        note=" ".join(_notes(run, plan, count, look)),
        side=plan.shown.side,
        sheets=Sheets(*size, sheet.columns, within(*size, LARGEST_WEIGHTS), plan.positions, start, pictures),
    )


def _planned(run: Run, count: int, tile: int, names: Sequence[str], classes: np.ndarray) -> _Plan:
    """What there is room for, of `count` images of classes (N,), the pixels of a tile being so many bytes.

    Where one image of each class would be too much for every snapshot, there are fewer snapshots, then fewer classes.
    """
    for budget in (BUDGET, LOSSY):
        frames = _spread(run, max(FEWEST_FRAMES, min(MOST_FRAMES, budget // (len(names) * tile))))
        kept = _kept(frames, count)
        present, of_kept = np.unique(classes[kept], return_inverse=True)
        shown = choose(of_kept, [names[k] for k in present], tile * len(frames), budget)
        if shown.whole and len(frames) == min(len(run.snapshots), MOST_FRAMES):
            break
    positions = tuple(int(kept[i]) for row in shown.positions for i in row)
    return _Plan(frames, shown, positions, lossy=len(positions) * tile * len(frames) > BUDGET)


def _notes(run: Run, plan: _Plan, count: int, look: "_Look") -> list[str]:
    """What is left out, and how images are shown."""
    notes = [plan.shown.note] if plan.shown.note else []
    if (kept := len(_kept(plan.frames, count))) < count:
        notes.append(f"Snapshots on the way keep {kept} of {count} images.")
    if len(plan.frames) < len(run.snapshots):
        notes.append(f"Shown are {len(plan.frames)} of {len(run.snapshots)} snapshots.")
    if plan.lossy:
        notes.append("So that the page stays small, these pictures are kept as JPEG, which blurs the finest grain.")
    if run.images is None or not run.images.prepared:
        notes.append(STRETCHED)
    else:
        last = read_tensors(run.snapshots[-1].path).tensors["X"].float()
        cut = look.contrast.cuts(look.preprocessing.inverse(last).nan_to_num())
        said = f"; {percent(cut)} of the values of the last one are darker or brighter than that, and cut off" if cut > FEW else ""
        if look.contrast.reduced or said:
            notes.append(f"All snapshots have the contrast of the images above{said}.")
    return notes


@dataclass(frozen=True)
class _Look:
    """How images become what is shown: by the inverse of their preprocessing, and the contrast of the set for all snapshots."""

    preprocessing: Preprocessing
    contrast: Contrast

    @classmethod
    def of(cls, run: Run) -> "_Look":
        """That of a run."""
        if run.images is None:
            return cls(stretch(read_tensors(run.snapshots[-1].path).tensors["X"].float().nan_to_num()), Contrast())
        held = run.images.held
        # What was stretched has the contrast that it was stretched to.
        contrast = Contrast.of(held.preprocessing.inverse(held.images.float())) if run.images.prepared else Contrast()
        return cls(held.preprocessing, contrast)

    def levels(self, x: Tensor) -> np.ndarray:
        """Images (N, C, H, W) as uint8 with shape (N, H, W, C)."""
        return self.contrast.levels(self.preprocessing.inverse(x.float()).nan_to_num())


def _classes(run: Run, count: int, num_classes: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names, and the class of each of `count` images."""
    if run.images is not None:
        return run.images.held.class_names, run.images.held.classes.numpy()
    names = tuple(f"class {k}" for k in range(num_classes))
    return names, np.arange(count) * num_classes // count  # a run keeps its images in the order of their classes


def _kept(frames: Sequence[Snapshot], count: int) -> np.ndarray:
    """Which of `count` images all of these snapshots have, in order: large ones that are only looked at have few."""
    common = set(range(count)).intersection(*(snapshot.positions or range(count) for snapshot in frames))
    return np.array(sorted(common))


def _spread(run: Run, most: int) -> list[Snapshot]:
    """At most `most` snapshots, evenly, the first, the last and the best among them."""
    last = len(run.snapshots) - 1
    chosen = {round(k * last / max(most - 1, 1)) for k in range(most)}
    shown = None if run.images is None or run.images.snapshot is None else run.images.snapshot.iteration
    for wanted in (run.best_iteration, shown):
        place = next((k for k, snapshot in enumerate(run.snapshots) if snapshot.iteration == wanted), None)
        if place is not None and place not in chosen:
            apart = {abs(k - place): k for k in chosen - {0, last}}
            chosen.remove(apart[min(apart)])
            chosen.add(place)
    return [run.snapshots[k] for k in sorted(chosen)]


def _frame(snapshot: Snapshot, sheet: Sheet, look: _Look, with_loss: bool, run: Run) -> Shot:
    tensors = read_tensors(snapshot.path).tensors
    chosen = torch.tensor(snapshot.rows(sheet.positions, len(tensors["X"])))
    tiles = [resized(levels, sheet.size) for levels in look.levels(tensors["X"][chosen])]
    small = replace(sheet, size=within(*sheet.size, LARGEST_WEIGHTS))
    laid, maps, loss = sheet.lay(tiles, tiles[0].mode), tensors.get("maps"), snapshot.header.get("loss")
    return Shot(
        iteration=snapshot.iteration,
        accuracy=snapshot.accuracy,
        loss=loss if isinstance(loss, (int, float)) else None,
        best=snapshot.iteration == run.best_iteration,
        image=lossy(laid) if with_loss else quick(laid),
        # Where none are made, they are zeros.
        map=None if maps is None or not bool(maps.any()) else quick(heat(maps[chosen].nan_to_num(), sheet)),
        weights=None if snapshot.weights is None else quick(weighted(tensors["weights"][chosen], run.weights, small)),
    )
