"""Images by class: grids of them, activation maps over them, their way from the start to the end.

A grid is one picture in which every pixel is a square of several dots, so that a journal's software cannot blur it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from limbeck.distilled.contrast import shown as contrasted
from limbeck.figures.style import INK, MUTED, TEXT, as_written, drawable, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from limbeck.distilled.small_set import NamedSet

WIDTH, TALLEST = 8.5, 10.5  # inches, as drawn for the screen
SMALLEST, PLAIN, LARGEST = 0.18, 0.6, 0.95  # inches of an image: the least, what is plain to see, the most
ACROSS = 10  # images beside each other
GAP = 0.06  # of an image's width, between two
LINE, LETTER, BETWEEN = 0.21, 0.078, 0.2  # inches of a line of words, of a letter, between blocks of classes
DOTS = 240  # in an inch, of the picture
LONGEST = 24
Across = Literal["left", "center", "right"]
Down = Literal["top", "center", "bottom"]


@dataclass(frozen=True, eq=False)
class Strip:
    """Images beside each other, uint8 with shape (n, H, W, 3), and the name that stands beside them."""

    name: str
    images: np.ndarray


def strips_of(held: NamedSet, most: int = ACROSS) -> list[Strip]:
    """The first images of every class of a set, such as a `DistilledSet`, with the one contrast that the set is shown with.

    Args:
        held: the set.
        most: images of each class.
    """
    (levels, _), of = contrasted(held), held.set.classes.cpu().numpy()
    images = coloured(levels)
    return [Strip(name, images[of == k][:most]) for k, name in enumerate(held.class_names) if (of == k).any()]


def coloured(images: np.ndarray) -> np.ndarray:
    """uint8 images (n, H, W, C) with three channels: their own, or the mean of all in each."""
    if images.shape[3] == 3:
        return images
    return np.repeat(images.mean(axis=3, keepdims=True).round().astype(np.uint8), 3, axis=3)


def image_grid(strips: Sequence[Strip], heads: Sequence[str] = (), *, width: float = WIDTH, blocks: int | None = None) -> Figure:
    """A row for every class, its name at the left; where there is one image of each, they flow, with their names above.

    What has no place on a page is left out; `shown` says how many classes have one.

    Args:
        strips: by class, of images of one size.
        heads: what stands above the columns, upright where one is wider than its column.
        width: in inches; 8.5 become a page of print, 4.1 a column.
        blocks: of rows, at most so many beside each other; None for as many as there is place for.

    Example:
        >>> import limbeck, torch
        >>> from limbeck.data.preprocessing import Identity
        >>> small = limbeck.SmallSet.of_classes(torch.rand(4, 3, 8, 8), torch.tensor([0, 0, 1, 1]), 2, syn_lr=0.01)
        >>> held = limbeck.DistilledSet(set=small, preprocessing=Identity(), class_names=("ant", "bee"))
        >>> [text.get_text() for text in image_grid(strips_of(held)).axes[0].texts]
        ['ant', 'bee']
    """
    plan = _plan(strips, heads, width, blocks)
    strips = strips[: plan.capacity]
    return _flowing(strips, plan) if plan.flows else _rows(strips, heads, plan)


def shown(strips: Sequence[Strip], heads: Sequence[str] = (), *, width: float = WIDTH) -> int:
    """How many classes `image_grid` has a place for."""
    return min(len(strips), _plan(strips, heads, width).capacity)


def overlaid(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Images in grey under their maps, from dark violet (0) to yellow (1).

    Args:
        images: uint8 with shape (n, H, W, 3).
        maps: in [0, 1] with shape (n, h, w).
    """
    from matplotlib import colormaps

    grey = np.repeat(images.mean(axis=3, keepdims=True), 3, axis=3)
    rows, columns = (np.arange(side) * maps.shape[1 + axis] // side for axis, side in enumerate(images.shape[1:3]))
    heat = 255 * colormaps["inferno"](np.clip(maps, 0, 1)[:, rows][:, :, columns])[..., :3]
    mixed: np.ndarray = (0.4 * grey + 0.6 * heat).round().astype(np.uint8)
    return mixed


@dataclass(frozen=True)
class _Plan:
    """How classes lie: in so many blocks (or images, where they flow) beside each other, so many rows; inches of an image."""

    flows: bool
    across: int
    rows: int
    side: float

    @property
    def capacity(self) -> int:
        """How many classes have a place."""
        return self.across * self.rows


def _plan(strips: Sequence[Strip], heads: Sequence[str], width: float, blocks: int | None = None) -> _Plan:
    """The best way to lay them."""
    ratio, most = _ratio(strips), max(len(strip.images) for strip in strips)
    flows = most == 1 and not heads
    best = _Plan(flows, 1, 1, 0.0)
    for across in range(1, (blocks or len(strips)) + 1) if not flows else (min(ACROSS, len(strips)), 2 * ACROSS, 4 * ACROSS):
        block = width / across if flows else (width + BETWEEN) / across - BETWEEN - _names(strips)
        wide = min(LARGEST, block / (most * (1 + GAP) - GAP * (not flows)))
        rows, line = math.ceil(len(strips) / across), LINE if flows else 0.0
        side = wide
        for _ in range(2):  # heads that are upright leave less room, which may make others so
            above = max(LINE * (not flows), _above(heads, side))
            side = min(wide, max(((TALLEST - above) / rows - line) / (ratio + GAP), SMALLEST))
        room = int((TALLEST - max(above - LINE, 0.0)) / (side * (ratio + GAP) + line)) if side > 0 else 0
        found = _Plan(flows, across, min(rows, max(1, room)), side)
        if side >= SMALLEST:
            best = max(best, found, key=lambda one: _merit(one, len(strips)))
    return best if best.side else _Plan(flows, 1, 1, SMALLEST)


def _merit(plan: _Plan, classes: int) -> tuple[float, ...]:
    """All classes before large images, those before a low figure."""
    return (min(plan.capacity, classes) * (plan.side > 0), min(plan.side, PLAIN), -plan.rows)


def _ratio(strips: Sequence[Strip]) -> float:
    """Height of an image by its width."""
    height, width = strips[0].images.shape[1:3]
    return float(height / width)


def _names(strips: Sequence[Strip]) -> float:
    """Inches for the names."""
    return LETTER * max(len(_short(strip.name)) for strip in strips) + 0.1


def _upright(heads: Sequence[str], side: float) -> bool:
    """Whether one, with a letter's room, is wider than a column of such images."""
    return any(LETTER * (len(_short(head)) + 1) > side * (1 + GAP) for head in heads)


def _above(heads: Sequence[str], side: float) -> float:
    """Inches for what stands above columns of such images."""
    return LETTER * max(len(_short(head)) for head in heads) + 0.1 if _upright(heads, side) else LINE * bool(heads)


def _rows(strips: Sequence[Strip], heads: Sequence[str], plan: _Plan) -> Figure:
    names, most = _names(strips), max(len(strip.images) for strip in strips)
    rows = math.ceil(len(strips) / plan.across)
    blocks = math.ceil(len(strips) / rows)
    ratio, side = _ratio(strips), plan.side
    block = names + side * (most * (1 + GAP) - GAP) + BETWEEN
    above = _above(heads, side)
    sheet = _Sheet.of(strips[0].images.shape[1:3], side, blocks * block - BETWEEN, rows * side * (ratio + GAP), above)
    for number, strip in enumerate(strips):
        left, top = number // rows * block + names, number % rows * side * (ratio + GAP)
        sheet.say(_short(strip.name), left - 0.07, top + side * ratio / 2, "right", "center")
        for column, image in enumerate(strip.images):
            sheet.lay(image, left + column * side * (1 + GAP), top)
    turned = 90.0 * _upright(heads, side)
    for column, head in enumerate(map(_short, heads)):
        for left in (number * block + names for number in range(blocks)):
            sheet.say(head, left + column * side * (1 + GAP) + side / 2, -0.04, "center", "bottom", MUTED, turned)
    return sheet.figure()


def _flowing(strips: Sequence[Strip], plan: _Plan) -> Figure:
    side, ratio, across = plan.side, _ratio(strips), min(plan.across, len(strips))
    high, fits = side * (ratio + GAP) + LINE, max(3, int(side * (1 + GAP) / LETTER))
    rows = math.ceil(len(strips) / across)
    sheet = _Sheet.of(strips[0].images.shape[1:3], side, across * side * (1 + GAP), rows * high - LINE, LINE)
    for number, strip in enumerate(strips):
        left, top = number % across * side * (1 + GAP), number // across * high
        sheet.say(_short(strip.name, fits), left + side / 2, top - 0.02, "center", "bottom")
        sheet.lay(strip.images[0], left, top)
    return sheet.figure()


@dataclass(frozen=True, eq=False)
class _Sheet:
    """One picture, clear where nothing lies, and axes in inches from its upper left corner."""

    axes: Axes
    picture: np.ndarray
    factor: int
    dot: float

    @classmethod
    def of(cls, size: Sequence[int], side: float, wide: float, high: float, above: float) -> _Sheet:
        """For images of a size, each `side` inches wide; `above` is for words."""
        factor = max(1, math.ceil(DOTS * side / size[1]))  # whole, so that every pixel is as large as the others
        dot = side / (size[1] * factor)
        figure, axes = new_axes(wide, above + high)
        figure.set_layout_engine("none")
        axes.set_position((0, 0, 1, high / (above + high)))
        axes.set_axis_off()
        axes.set_aspect("equal")
        return cls(axes, np.zeros((math.ceil(high / dot), math.ceil(wide / dot), 4), dtype=np.uint8), factor, dot)

    def lay(self, image: np.ndarray, left: float, top: float) -> None:
        """Put an image there."""
        tile = image.repeat(self.factor, axis=0).repeat(self.factor, axis=1)
        place = self.picture[round(top / self.dot) :, round(left / self.dot) :][: len(tile), : tile.shape[1]]
        place[..., :3], place[..., 3] = tile[: place.shape[0], : place.shape[1]], 255

    def say(self, words: str, x: float, y: float, ha: Across, va: Down, color: str = INK, turned: float = 0.0) -> None:
        """Write there, turned by so many degrees."""
        style = as_written()
        self.axes.text(x, y, drawable(words), fontsize=TEXT, color=color, clip_on=False, ha=ha, va=va, rotation=turned, **style)

    def figure(self) -> Figure:
        """With the picture in it."""
        from matplotlib.figure import Figure

        high, wide = (side * self.dot for side in self.picture.shape[:2])
        self.axes.imshow(self.picture, interpolation="none", extent=(0, wide, high, 0), aspect="equal")
        figure = self.axes.figure
        assert isinstance(figure, Figure)
        return figure


def _short(name: str, most: int = LONGEST) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
