"""The snapshots of a run as a film: for each a sheet of tiles, and one of its activation maps to lay over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limbeck.data.preprocessing import Preprocessing
from limbeck.distilled.preview import quantise
from limbeck.report.contents import Run, Snapshot
from limbeck.report.pictures import BUDGET, choose, resized, within
from limbeck.runtime.files import read_tensors
from limbeck.runtime.records import Record
from limbeck.runtime.tables import uri

MOST_FRAMES, FEWEST_FRAMES, LARGEST_TILE = 25, 3, 64
SHADES = 32  # of an activation map: enough for the eye, and small as a palette


@dataclass(frozen=True)
class Sheet:
    """How tiles lie on a sheet: `positions` of the images, `size` (height, width) of a tile, in `columns`."""

    positions: tuple[int, ...]
    size: tuple[int, int]
    columns: int

    def lay(self, tiles: list[Image.Image], mode: str) -> Image.Image:
        """The sheet of those tiles."""
        height, width = self.size
        sheet = Image.new(mode, (self.columns * width, -(-len(tiles) // self.columns) * height))
        for k, tile in enumerate(tiles):
            sheet.paste(tile, (k % self.columns * width, k // self.columns * height))
        return sheet


@dataclass(frozen=True)
class Frame(Record):
    """One snapshot for the page; `image` and `map` are data URIs, `map` None where there are no maps."""

    iteration: int
    accuracy: float | None
    loss: float | None
    best: bool
    image: str
    map: str | None


@dataclass(frozen=True)
class Sheets(Record):
    """What the page's script lays out: the size of a tile, how many there are side by side, and the sheet of every snapshot."""

    height: int
    width: int
    columns: int
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Film:
    """The snapshots for the page.

    Args:
        groups: the name of every class that is shown, and how many of its images.
        note: on what is left out.
        side: how wide an image is drawn.
        start: the number of the frame that is shown first.
        sheets: the pictures.
    """

    groups: tuple[tuple[str, int], ...]
    note: str
    side: int
    start: int
    sheets: Sheets

    @property
    def has_maps(self) -> bool:
        """Whether any frame has activation maps."""
        return any(frame.map for frame in self.sheets.frames)


def film(run: Run) -> Film | None:
    """The snapshots of a run; None where there are none."""
    if not run.snapshots:
        return None
    first, header = read_tensors(run.snapshots[0].path)
    count, channels, *sides = first["X"].shape
    count = len(run.distilled) if run.distilled is not None else max(count, 1 + max(header.get("positions", [0])))
    size = within(sides[0], sides[1], LARGEST_TILE)
    names, classes = _classes(run, count, first["Y"].shape[1])
    tile = channels * size[0] * size[1]
    # Where one image of each class would be too much for every snapshot, there are fewer snapshots, then fewer classes.
    frames = _spread(run, max(FEWEST_FRAMES, min(MOST_FRAMES, BUDGET // (len(names) * tile))))
    kept = _kept(frames, count)
    present, of_kept = np.unique(classes[kept], return_inverse=True)
    shown = choose(of_kept, [names[k] for k in present], tile * len(frames))
    positions = tuple(int(kept[i]) for row in shown.positions for i in row)
    sheet = Sheet(positions, size, columns=max(1, round(len(positions) ** 0.5)))
    preprocessing = run.distilled.preprocessing if run.distilled is not None else None
    pictures = tuple(_frame(snapshot, sheet, preprocessing, run.best_iteration) for snapshot in frames)
    notes = [shown.note]
    if len(kept) < count:
        notes.append(f"Snapshots on the way keep {len(kept)} of {count} images.")
    if len(frames) < len(run.snapshots):
        notes.append(f"Shown are {len(frames)} of {len(run.snapshots)} snapshots.")
    if preprocessing is None:
        notes.append("How the images were prepared is not known without the distilled set, so their contrast is stretched.")
    return Film(
        groups=tuple((name, len(row)) for name, row in zip(shown.names, shown.positions, strict=True)),
        note=" ".join(notes).strip(),
        side=shown.side,
        start=next((k for k, frame in enumerate(pictures) if frame.best), len(pictures) - 1),
        sheets=Sheets(*size, sheet.columns, pictures),
    )


def _classes(run: Run, count: int, num_classes: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names, and the class of each of `count` images."""
    held = run.distilled
    if held is not None and len(held) == count:
        return held.class_names, held.classes.numpy()
    names = tuple(f"class {k}" for k in range(num_classes))
    return names, np.arange(count) * num_classes // count  # a run keeps its images in the order of their classes


def _kept(frames: Sequence[Snapshot], count: int) -> np.ndarray:
    """Which of `count` images all of these snapshots have, in order: large ones that are only looked at have few."""
    common = set(range(count)).intersection(*(snapshot.header.get("positions", range(count)) for snapshot in frames))
    return np.array(sorted(common))


def _spread(run: Run, most: int) -> list[Snapshot]:
    """At most `most` snapshots, evenly, the first, the last and the best among them."""
    last = len(run.snapshots) - 1
    chosen = {round(k * last / max(most - 1, 1)) for k in range(most)}
    best = next((k for k, snapshot in enumerate(run.snapshots) if snapshot.iteration == run.best_iteration), None)
    if best is not None and best not in chosen:
        chosen.remove(min(chosen - {0, last}, key=lambda k: abs(k - best)))
        chosen.add(best)
    return [run.snapshots[k] for k in sorted(chosen)]


def _frame(snapshot: Snapshot, sheet: Sheet, preprocessing: Preprocessing | None, best: int | None) -> Frame:
    tensors, header = read_tensors(snapshot.path)
    place = {position: row for row, position in enumerate(header.get("positions", range(len(tensors["X"]))))}
    chosen = torch.tensor([place[position] for position in sheet.positions])
    pixels = preprocessing.inverse(tensors["X"][chosen].float()) if preprocessing is not None else _stretched(tensors["X"])[chosen]
    tiles = [resized(levels, sheet.size) for levels in quantise(pixels.nan_to_num())]
    maps = tensors.get("maps")
    loss = snapshot.header.get("loss")
    return Frame(
        iteration=snapshot.iteration,
        accuracy=snapshot.accuracy,
        loss=loss if isinstance(loss, (int, float)) else None,
        best=snapshot.iteration == best,
        image=uri(sheet.lay(tiles, tiles[0].mode)),
        map=None if maps is None else uri(_heat(maps[chosen].nan_to_num(), sheet)),
    )


def _stretched(x: Tensor) -> Tensor:
    """Every channel's range made [0, 1], for want of the preprocessing; a few extreme values in a thousand are cut off."""
    flat = x.float().nan_to_num().transpose(0, 1).flatten(1)
    ordered = flat.sort(dim=1).values
    ends = ordered[:, len(ordered[0]) // 1000], ordered[:, -1 - len(ordered[0]) // 1000]
    low, high = (end.view(1, -1, 1, 1) for end in ends)
    return (x.float().nan_to_num() - low) / (high - low).clamp_min(1e-12)


def _heat(maps: Tensor, sheet: Sheet) -> Image.Image:
    """Activation maps (n, H, W) in [0, 1] as a sheet from clear to glowing."""
    from matplotlib import colormaps

    shades = (maps.clamp(0, 1) * (SHADES - 1)).round().byte().numpy()
    tiles = []
    for shade in shades:
        tile = Image.fromarray(shade)
        tiles.append(tile if tile.size == sheet.size[::-1] else tile.resize(sheet.size[::-1], Image.Resampling.BOX))
    laid = sheet.lay(tiles, "L")
    ramp = np.linspace(0, 1, SHADES)
    colours = (colormaps["inferno"](0.3 + 0.65 * ramp)[:, :3] * 255).round().astype(np.uint8)
    heat = Image.frombytes("P", laid.size, laid.tobytes())
    heat.putpalette(colours.tobytes())
    heat.info["transparency"] = (ramp * 0.8 * 255).round().astype(np.uint8).tobytes()
    return heat
