"""What the page tells of a single image when it is opened: its label, how it changed, and what its gradient was weighted by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from limbeck.report.contents import Images, Run, Snapshot
from limbeck.report.sheets import Sheet, heat, lossy, quick, resized, signed, weighted, within
from limbeck.runs.feature_map import FeatureMap, MapAbout
from limbeck.runtime.files import read_tensors
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import Damaged

MOST_LABELS, MOST_AREAS, LARGEST_LAYER = 20, 40, 64
EXACT = 200_000  # pixels of real images: more are kept with a loss
STRONG = 0.99  # of all changes are weaker than the one that is shown at full strength


@dataclass(frozen=True)
class Look(Record):
    """One image.

    Args:
        position: in the set.
        of: the number of its class.
        number: among the images of its class, from 1 on.
        label: the likeliest classes by number, the likeliest first, each with its share.
        area: its discriminative area, a share of its pixels, at the iterations of `Looks`; empty where no maps are made.
        change: how much its pixels have changed since the start on average, as a share of the range from black to white.
        weights: the least and the greatest weight on its gradient.
    """

    position: int
    of: int
    number: int
    label: tuple[tuple[int, float], ...]
    area: tuple[float | None, ...] = ()
    change: float | None = None
    weights: tuple[float, float] | None = None


@dataclass(frozen=True)
class Layer(Record):
    """A sheet of what is laid over the images: a data URI, and what its colours mean."""

    image: str
    told: str


@dataclass(frozen=True)
class Layers(Record):
    """What can be laid over the images of the set.

    Args:
        height: of a tile; likewise `width`.
        columns: of every sheet.
        positions: of the images on the sheets, in the set.
        iteration: after which it was so.
        map: activation maps.
        change: the change of the pixels since the start.
        weights: on the gradient.
    """

    height: int
    width: int
    columns: int
    positions: tuple[int, ...]
    iteration: int
    map: Layer | None = None
    change: Layer | None = None
    weights: Layer | None = None


@dataclass(frozen=True)
class NearOf(Record):
    """The real images nearest to one of the set, the nearest first: numbers among the pictures, each with its distance."""

    position: int
    near: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Near(Record):
    """Real images near those of the set.

    Args:
        height: of a tile; likewise `width`.
        columns: of the sheet.
        image: the sheet, a data URI.
        of: the number of the class of every tile.
        images: what is near to what.
        told: in which sense, in words.
    """

    height: int
    width: int
    columns: int
    image: str
    of: tuple[int, ...]
    images: tuple[NearOf, ...]
    told: str


@dataclass(frozen=True)
class Looks(Record):
    """For the page's script: whose images they are, names of classes, the images, the iterations of their areas, the layers, and
    real images that are near."""

    own: str
    classes: tuple[str, ...]
    images: tuple[Look, ...]
    iterations: tuple[int, ...]
    layers: Layers | None
    near: Near | None = None


def looks(run: Run, images_of: Images, positions: Sequence[int]) -> Looks:
    """What is known of the images at these positions of those that are shown of a run."""
    held, own = images_of.held, "As it is in the snapshot" if images_of.so_far else "As it is in the set"
    probabilities, classes = held.probabilities().cpu(), held.classes.tolist()
    iterations, areas = _areas(run, positions)
    final = _Final.of(run, images_of, positions)
    seen: dict[int, int] = {}
    images = []
    for row, position in enumerate(positions):
        of = classes[position]
        seen[of] = seen.get(of, 0) + 1
        look = Look(position, of, seen[of], _label(probabilities[position]), tuple(values[row] for values in areas))
        images.append(look if final is None else final.of_image(look))
    return Looks(
        own, held.class_names, tuple(images), iterations, final.layers if final is not None else None, _near(run, positions)
    )


def _label(probabilities: Tensor) -> tuple[tuple[int, float], ...]:
    values, order = probabilities.double().topk(min(MOST_LABELS, len(probabilities)))
    return tuple((k, round(p, 5)) for k, p in zip(order.tolist(), values.tolist(), strict=True) if p >= 0.0005)


def _areas(run: Run, positions: Sequence[int]) -> tuple[tuple[int, ...], list[list[float | None]]]:
    """Iterations, and for each the discriminative area of every image, None where its snapshot does not have the image."""
    shown = [snapshot for snapshot in _some(run.snapshots) if snapshot.area]
    found = []
    for snapshot in shown:
        at = {position: row for row, position in enumerate(snapshot.positions or range(len(snapshot.area)))}
        found.append([round(snapshot.area[at[position]], 4) if position in at else None for position in positions])
    return tuple(snapshot.iteration for snapshot in shown), found


def _near(run: Run, positions: Sequence[int]) -> Near | None:
    """What the run keeps of real images near those at these positions; None where it keeps nothing, or nothing sound."""
    try:
        held = FeatureMap.read(run.path)
    except (OSError, Damaged):
        return None
    wanted = set(positions)
    rows = [row for row, position in enumerate(held.asked.tolist()) if position in wanted]
    if not rows:
        return None
    numbers = held.near[rows].unique().tolist()
    number = {picture: k for k, picture in enumerate(numbers)}
    size = within(held.pictures.shape[2], held.pictures.shape[3], LARGEST_LAYER)
    sheet = Sheet(tuple(numbers), size, max(1, round(len(numbers) ** 0.5)))
    tiles = [resized(held.pictures[k].permute(1, 2, 0).numpy(), size) for k in numbers]
    laid = sheet.lay(tiles, tiles[0].mode)
    images = tuple(
        NearOf(
            int(held.asked[row]),
            tuple(
                (number[k], float(f"{d:.4g}")) for k, d in zip(held.near[row].tolist(), held.distances[row].tolist(), strict=True)
            ),
        )
        for row in rows
    )
    return Near(
        *size,
        sheet.columns,
        lossy(laid) if len(numbers) * size[0] * size[1] > EXACT else quick(laid),
        tuple(held.picture_classes[numbers].tolist()),
        images,
        _nearness(held.about),
    )


def _nearness(about: MapAbout) -> str:
    """What near means, in sentences."""
    among = f"all {about.real}" if about.searched == about.real else f"{about.searched} of {about.real}"
    words = f"By the distance of their features, among {among} training images; the features are those of {about.network}."
    usual = f" A real image is {about.typical:.3g} from the nearest other one, in the median." if about.typical is not None else ""
    return words + usual


def _some(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """At most `MOST_AREAS` of the snapshots, evenly, the first and the last among them."""
    last = len(snapshots) - 1
    return [snapshots[k] for k in sorted({round(k * last / (MOST_AREAS - 1)) for k in range(MOST_AREAS)})] if snapshots else []


@dataclass(frozen=True)
class _Final:
    """What the snapshot that is shown has beside it."""

    sheet: Sheet
    iteration: int
    maps: Tensor | None
    change: Tensor | None
    weights: Tensor | None
    ends: tuple[float, float] | None

    @classmethod
    def of(cls, run: Run, images_of: Images, positions: Sequence[int]) -> "_Final | None":
        """That of the images at these positions, as far as it is there; None without snapshots."""
        held, end = images_of.held, images_of.snapshot
        if end is None:
            return None
        first = run.snapshots[0]
        both = set(_kept(first, len(held))) & set(_kept(end, len(held)))
        kept = tuple(position for position in positions if position in both)
        if not kept:
            return None
        size = within(*held.shape[1:], LARGEST_LAYER)
        sheet = Sheet(kept, size, max(1, round(len(kept) ** 0.5)))
        tensors, before = (read_tensors(one.path).tensors for one in (end, first))
        rows, old = (torch.tensor(one.rows(kept, len(held))) for one in (end, first))
        moved = None
        if end.iteration > first.iteration:
            pixels = (held.preprocessing.inverse(one[at].float()) for one, at in ((tensors["X"], rows), (before["X"], old)))
            after, start = pixels
            moved = (after - start).nan_to_num()
        maps, weights = tensors.get("maps"), tensors.get("weights")
        return cls(
            sheet,
            end.iteration,
            maps[rows].nan_to_num() if maps is not None and bool(maps.any()) else None,
            moved,
            weights[rows].nan_to_num() if weights is not None and run.weights is not None else None,
            run.weights,
        )

    def of_image(self, look: Look) -> Look:
        """The same with what is known of it here."""
        if look.position not in self.sheet.positions:
            return look
        row = self.sheet.positions.index(look.position)
        change = None if self.change is None else round(float(self.change[row].abs().mean()), 5)
        ends = None if self.weights is None else [round(float(end), 4) for end in self.weights[row].aminmax()]
        return replace(look, change=change, weights=None if ends is None else (ends[0], ends[1]))

    @property
    def layers(self) -> Layers:
        """The sheets."""
        return Layers(
            *self.sheet.size,
            self.sheet.columns,
            self.sheet.positions,
            self.iteration,
            map=self._map(),
            change=self._change(),
            weights=self._weights(),
        )

    def _map(self) -> Layer | None:
        if self.maps is None:
            return None
        return Layer(
            quick(heat(self.maps, self.sheet)),
            "Where the map network looks for the image's class: clear is nothing, bright is most.",
        )

    def _change(self) -> Layer | None:
        if self.change is None:
            return None
        mean = self.change.mean(dim=1)
        scale = float(mean.abs().flatten().double().quantile(STRONG)) if mean.numel() <= 2**24 else float(mean.abs().max())
        if scale <= 0:
            return None
        words = "Orange is brighter than at the start, blue darker; full colour is"
        words = f"{words} {100 * scale:.2g} % of the range from black to white."
        return Layer(quick(signed(mean / scale, self.sheet)), words)

    def _weights(self) -> Layer | None:
        if self.weights is None or self.ends is None:
            return None
        low, high = self.ends  # of all snapshots, so that they compare
        words = f"What the gradient of a pixel is multiplied by: clear is {low:.3g}, bright {high:.3g}."
        return Layer(quick(weighted(self.weights, self.ends, self.sheet)), words)


def _kept(snapshot: Snapshot, count: int) -> Sequence[int]:
    """The positions of the images that a snapshot of a set of `count` has."""
    return snapshot.positions or range(count)
