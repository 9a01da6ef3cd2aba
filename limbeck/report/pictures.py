"""Images for the page, as data URIs.

A page must stay small enough to be sent to somebody: what is shown is limited by number and by bytes, and what is left out is told.
"""

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from limbeck.accuracy import percent
from limbeck.distilled.contrast import Contrast, told
from limbeck.distilled.export import npz
from limbeck.distilled.set import DistilledSet
from limbeck.report.contents import STRETCHED, Run
from limbeck.report.looks import Looks, looks
from limbeck.report.sheets import quick, resized, within

MOST_PER_CLASS, MOST_CLASSES, LARGEST_SIDE = 10, 100, 128
BUDGET = 3_000_000  # bytes of pixels
ARCHIVE = 1_500_000  # bytes of a file of the tensors
OF_SET = 5_000_000  # of those of the set itself: ten images of each of ten classes with 128×128 pixels


@dataclass(frozen=True)
class Shown:
    """Which images are shown: `positions` by class, and of how many."""

    names: tuple[str, ...]
    positions: tuple[tuple[int, ...], ...]
    totals: tuple[int, ...]
    classes: int

    @property
    def whole(self) -> bool:
        """Whether as much is shown as may be, whatever the room."""
        most = min(MOST_PER_CLASS, max(self.totals))
        return len(self.names) == min(self.classes, MOST_CLASSES) and max(len(row) for row in self.positions) == most

    @property
    def note(self) -> str:
        """What is left out, in a sentence, or nothing."""
        more = [f"{len(self.names)} of {self.classes} classes"] if len(self.names) < self.classes else []
        most, shown = max(self.totals), max(len(row) for row in self.positions)
        more += [f"{shown} of up to {most} images of a class"] if shown < most else []
        return f"Shown are {' and '.join(more)}." if more else ""

    @property
    def side(self) -> int:
        """How wide an image is drawn: the fewer there are, the wider."""
        count = sum(len(row) for row in self.positions)
        return 90 if count <= 24 else 64 if count <= 60 else 44


def choose(classes: np.ndarray, names: Sequence[str], image_bytes: int, budget: int) -> Shown:
    """The first images of the first classes, at most `MOST_PER_CLASS` of each and `budget` bytes in all."""
    shown = max(1, min(len(names), MOST_CLASSES, budget // image_bytes))
    per_class = max(1, min(MOST_PER_CLASS, budget // (shown * image_bytes)))
    rows = [np.flatnonzero(classes == k).tolist() for k in range(shown)]
    return Shown(tuple(names[:shown]), tuple(tuple(row[:per_class]) for row in rows), tuple(len(row) for row in rows), len(names))


@dataclass(frozen=True)
class Tile:
    """An image of a class for the page: a data URI, its label in words, and its position in the set."""

    source: str
    label: str
    position: int


@dataclass(frozen=True)
class Gallery:
    """The distilled set for the page.

    Args:
        groups: images by the name of their class.
        height: of every picture; likewise `width`.
        side: how wide an image is drawn.
        note: on what is left out, and how images are shown.
        contrast: with which they are shown.
        archive: what the tensors can be downloaded as; None where they are too large, or there is no set yet.
        size: of that file, in bytes.
        export: the command that writes it.
        so_far: after which iteration of how many, in words; empty of a set that was saved.
        panel: what the page tells of each image.
    """

    groups: tuple[tuple[str, tuple[Tile, ...]], ...]
    height: int
    width: int
    side: int
    note: str
    contrast: Contrast
    archive: str | None
    size: int
    export: str
    so_far: str
    panel: Looks


def gallery(run: Run) -> Gallery | None:
    """The set of a run, or what it has come to so far; None where there is neither."""
    if (found := run.images) is None:
        return None
    held = found.held
    channels, height, width = held.shape
    size = within(height, width, LARGEST_SIDE)
    shown = choose(held.classes.cpu().numpy(), held.class_names, channels * size[0] * size[1], OF_SET)
    pixels, labels = held.preprocessing.inverse(held.images.float()), held.probabilities().cpu()
    contrast = Contrast.of(pixels) if found.prepared else Contrast()  # what was stretched has the contrast it was stretched to
    levels = contrast.levels(pixels)
    groups = tuple(
        (name, tuple(Tile(quick(resized(levels[i], size)), _label(labels[i], held.class_names), i) for i in positions))
        for name, positions in zip(shown.names, shown.positions, strict=True)
    )
    reduced = "" if size == (height, width) else f"Images are reduced to {size[1]}×{size[0]} pixels."
    how = told(held.preprocessing, contrast) if found.prepared else STRETCHED
    note = " ".join(filter(None, (shown.note, reduced, how)))
    panel = looks(run, found, [i for row in shown.positions for i in row])
    bytes_of = 0 if found.so_far else _bytes(held)
    archive = base64.b64encode(npz(held)).decode() if 0 < bytes_of <= ARCHIVE else None
    export = shlex.join(["limbeck", "export", str(run.path), "--to", "npz", "--output", f"{run.path.resolve().name}.npz"])
    return Gallery(groups, *size, shown.side, note, contrast, archive, bytes_of, export, found.so_far, panel)


def _bytes(held: DistilledSet) -> int:
    """How large the `.npz` file of a set is, at most."""
    matrices = sum(tensor.numel() for tensor in held.preprocessing.tensors().values())
    return 5 * held.images.numel() + 4 * matrices + 8 * held.labels.numel()


def _label(probabilities: Tensor, names: Sequence[str]) -> str:
    """The one to three likeliest classes of a label, with their shares."""
    values, order = probabilities.topk(min(3, len(names)))
    return ", ".join(f"{names[k]} {percent(p)}" for p, k in zip(values.tolist(), order.tolist(), strict=True) if p >= 0.005)
