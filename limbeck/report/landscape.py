"""Where real and distilled images lie in a network's feature space, as a picture whose classes can be told apart one by one."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from limbeck.accuracy import percent
from limbeck.report.contents import Run
from limbeck.runs.feature_map import FILE, FeatureMap

WIDTH, HEIGHT, LOWEST, MARGIN = 720, 460, 240, 22  # at most as high, at least as low
COLOURS = 8  # of the page's style sheet
MOST_NAMED = 12  # classes whose names stand in the picture
LETTER, LINE, HIDES = 9.0, 17.0, 25.0  # of names: a letter's width, a line's height, and what hiding a mark is as bad as, in pixels
OFFSETS = [(0.0, 0.0)] + [
    (radius * math.cos(math.tau * turn / 16), radius * math.sin(math.tau * turn / 16))
    for radius in range(9, 300, 9)
    for turn in range(16)
]
CIRCLE = "M{:g} {:g}m-2.6 0a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0Z"
# Around (0, 0), about as large as each other; with 8 colours they tell 32 classes apart.
SHAPES = ("M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z", "M-4.5-4.5h9v9h-9Z", "M0-6 5.5 4h-11Z", "M0-6.2 6.2 0 0 6.2-6.2 0Z")


@dataclass(frozen=True)
class Path:
    """One distilled image: its position in the set, its way as an SVG path, where it begins, and where the result is."""

    position: int
    way: str
    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True)
class Name:
    """Where the name of a class stands, the middle of its line; where it had to give way to others, a line from its own place."""

    x: float
    y: float
    leader: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class OfClass:
    """A class: its number, name, colour and shape; its real points, the ways of its distilled images, and a place for its name."""

    number: int
    name: str
    real: tuple[tuple[float, float], ...]
    paths: tuple[Path, ...]
    place: Name | None = None

    @property
    def dots(self) -> str:
        """The real points as one SVG path of strokes without a length, whose ends are round."""
        return "".join(f"M{x:g} {y:g}h0" for x, y in self.real)

    @property
    def ways(self) -> str:
        """All ways as one path."""
        return "".join(path.way for path in self.paths)

    @property
    def starts(self) -> str:
        """Where the ways begin, as circles."""
        return "".join(CIRCLE.format(*path.start) for path in self.paths if path.way)

    @property
    def colour(self) -> int:
        """The number of its colour."""
        return self.number % COLOURS

    @property
    def shape(self) -> str:
        """The outline of its marks."""
        return SHAPES[self.number // COLOURS % len(SHAPES)]


@dataclass(frozen=True)
class Landscape:
    """The picture: its classes, what it is in words for who cannot see it, and what must be known to read it."""

    classes: tuple[OfClass, ...]
    width: int
    height: int
    text: str
    caption: str

    @property
    def named(self) -> bool:
        """Whether names stand in the picture."""
        return len(self.classes) <= MOST_NAMED

    @property
    def told_apart(self) -> bool:
        """Whether every class has marks of its own."""
        return len({(one.colour, one.shape) for one in self.classes}) == len(self.classes)

    @property
    def moves(self) -> bool:
        """Whether any distilled image has a way behind it."""
        return any(path.way for one in self.classes for path in one.paths)


def landscape(run: Run) -> Landscape | None:
    """The picture of a run; None where no map was kept, as by earlier versions or with `features: none`."""
    if not (run.path / FILE).exists():
        return None
    held = FeatureMap.read(run.path)
    real, paths, height = _placed(held.real, held.paths)
    numbers = sorted({*held.real_classes.tolist(), *held.classes.tolist()})
    names = run.distilled.class_names if run.distilled is not None else ()
    middles: dict[int, tuple[float, float]] = {}
    for k in numbers:
        if bool((held.real_classes == k).any()):
            (middles[k],) = _pairs(real[held.real_classes == k].median(0).values[None])
    classes = tuple(
        OfClass(
            number=k,
            name=names[k] if k < len(names) else f"class {k}",
            real=_pairs(real[held.real_classes == k]),
            paths=tuple(
                _path(position, way, held.result)
                for position, way in zip(
                    held.positions[held.classes == k].tolist(), paths[:, held.classes == k].unbind(1), strict=True
                )
            ),
        )
        for k in numbers
    )
    if len(classes) <= MOST_NAMED:
        ends = [path.end for one in classes for path in one.paths]
        named = {one.number: one.name for one in classes if one.number in middles}
        places = placed(named, middles, ends, height)
    else:  # one name at a time is shown
        places = {k: Name(*middle) for k, middle in middles.items()}
    classes = tuple(replace(one, place=places.get(one.number)) for one in classes)
    text = f"Map of {len(real)} real and {paths.shape[1]} distilled images of {len(classes)} classes in a network's feature space"
    return Landscape(classes, WIDTH, height, text, _caption(held))


def placed(
    names: Mapping[int, str], middles: Mapping[int, tuple[float, float]], marks: Sequence[tuple[float, float]], height: float
) -> dict[int, Name]:
    """Places for names, as near to their middles as they can be without lying over each other; over marks they lie unwillingly.

    Args:
        names: by class.
        middles: where they would stand.
        marks: what they should not hide.
        height: of the picture.
    """
    taken: list[tuple[float, float, float, float]] = []
    found = {}
    for k, name in names.items():
        x, y = middles[k]
        half = min(_width(name), WIDTH) / 2
        best = (math.inf, x, y)
        for left, down in OFFSETS:
            at, level = min(max(x + left, half), WIDTH - half), min(max(y + down, LINE / 2), height - LINE / 2)
            box = (at - half, level - LINE / 2, at + half, level + LINE / 2)
            if any(_cross(box, other) for other in taken):
                continue
            hidden = sum(box[0] - 6 < a < box[2] + 6 and box[1] - 6 < b < box[3] + 6 for a, b in marks)
            best = min(best, (math.hypot(at - x, level - y) + HIDES * hidden, at, level))
        cost, at, level = best
        if cost == math.inf:
            continue  # it is still in the key
        taken.append((at - half, level - LINE / 2, at + half, level + LINE / 2))
        near = (min(max(x, at - half), at + half), min(max(y, level - LINE / 2), level + LINE / 2))
        apart = math.hypot(near[0] - x, near[1] - y)
        found[k] = Name(round(at, 1), round(level, 1), (x, y, round(near[0], 1), round(near[1], 1)) if apart > 4 else None)
    return found


def _width(name: str) -> float:
    """About how wide a name is at most, in the picture's pixels: letters of a script whose letters are square are wider."""
    return sum(LETTER * (1.6 if unicodedata.east_asian_width(letter) in "WF" else 1.0) for letter in name) + 6


def _cross(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _placed(real: Tensor, paths: Tensor) -> tuple[Tensor, Tensor, int]:
    """The points in the picture's pixels, of one scale in both directions, turned so that the longer side lies; how high it is."""
    every = torch.cat([real, paths.flatten(0, 1)]).double()
    span = every.amax(0) - every.amin(0)
    order = [0, 1] if span[0] >= span[1] else [1, 0]
    low, span = every.amin(0)[order], span[order]
    room = torch.tensor([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN], dtype=torch.float64)
    scale = (room / span.clamp_min(1e-300)).min()
    room[1] = max(float(span[1] * scale), LOWEST - 2 * MARGIN)
    offset = MARGIN + (room - span * scale) / 2
    real, paths = ((points.double()[..., order] - low) * scale + offset for points in (real, paths))
    return real, paths, math.ceil(room[1]) + 2 * MARGIN


def _path(position: int, way: Tensor, result: int) -> Path:
    """Of an image with those places (S, 2), of which one is the result's."""
    points = _pairs(way)
    line = "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if len(points) > 1 else ""
    return Path(position, line, points[0], points[result])


def _pairs(points: Tensor) -> tuple[tuple[float, float], ...]:
    return tuple((round(x, 1), round(y, 1)) for x, y in points.tolist())


def _caption(held: FeatureMap) -> str:
    about = held.about
    how = f"Features are those of {about.network} ({about.dimensions} numbers an image), brought into the plane by {about.way}"
    if about.way == "PCA":
        how += f", which shows {percent(about.share)} of their variance" if about.share is not None else ""
        how += ": distances are those of the features as far as two directions can show them."
    else:
        how += ": near images stay near, but distances between groups and their sizes mean nothing."
    looks = ""
    if len(about.iterations) > 1:
        looks = f" Ways lead over the snapshots of iterations {', '.join(map(str, about.iterations))}"
        looks += "." if about.best is None else f", and a mark is at iteration {about.best}, whose images are the result."
    return f"{how}{looks} Real images are a sample of the training images."
