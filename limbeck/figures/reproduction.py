"""An item of a reproduction: its rows with their intervals, curves or distributions where it has some, and what is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck.accuracy import Accuracy
from limbeck.figures.comparisons import draw_rows, name_rows
from limbeck.figures.images import Strip, coloured, image_grid, overlaid
from limbeck.figures.style import DASHES, INK, MUTED, ORANGE, SERIES, TEXT, drawable, dress, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, HEAD, WIDTH, LETTER, CURVES = 0.26, 0.8, 3.4, 0.075, 2.6  # inches
# What is drawn over the iterations, and as a distribution.
OVER, SPREAD = (
    {"area": "discriminative area", "activation": "mean activation", "separation": "distance between classes, log"},
    "bins",
)

ENLARGED, FRAME = 6, (51, 230, 120)  # how much images are, so that a frame hides little of them; its colour

Rows = Mapping[str, Mapping[str, Sequence[float]]]


def item_figure(
    ours: Mapping[str, Accuracy],
    across: str,
    factor: float,
    series: Rows | None = None,
    theirs: Mapping[str, float] | None = None,
    more: Sequence[tuple[Mapping[str, Accuracy], str, float]] = (),
) -> Figure | None:
    """Panels of our rows, panels of curves, and a panel of what is published; None where nothing is known.

    Args:
        ours: figures by row.
        across: what they are.
        factor: that they are multiplied by to be what `across` says.
        series: of `Measured`, by row.
        theirs: printed figures by row, in percent.
        more: other figures of our rows, each with what they are and the factor.

    Example:
        >>> from limbeck.evaluation.statistics import summarise
        >>> figure = item_figure({"edf": summarise([0.4, 0.5])}, "accuracy, %", 100, theirs={"edf, imagenette": 52.6})
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['accuracy, %', 'published, %']
    """
    series, theirs = series or {}, theirs or {}
    drawn = {name: {row: found[name] for row, found in series.items() if name in found} for name in OVER}
    drawn = {name: rows for name, rows in drawn.items() if rows}
    spread = {row: found for row, found in series.items() if SPREAD in found}
    own = [panel for panel in ((ours, across, factor), *more) if panel[0]]
    if not (own or drawn or spread):
        return None
    rows_of = [rows for rows, *_ in own]
    panels = [len(rows) * ROW + HEAD for rows in rows_of] + [CURVES] * (len(drawn) + bool(spread))
    panels += [len(theirs) * ROW + HEAD] * bool(theirs)
    letters = LETTER * max(map(len, [*(row for rows in rows_of for row in rows), *theirs, ""]))
    figure, blank = new_axes(WIDTH + max(1.4, letters), sum(panels))
    blank.remove()
    places = iter(figure.add_gridspec(len(panels), 1, height_ratios=panels))
    for panel in own:
        draw_rows(_panel(figure, next(places)), *panel)
    for name, rows in drawn.items():
        at = {row: series[row]["iterations"] for row in rows}
        _curves(_panel(figure, next(places)), rows, at, OVER[name])
    if spread:
        _distributions(_panel(figure, next(places)), spread)
    if theirs:
        _printed(_panel(figure, next(places)), theirs)
    return figure


def _panel(figure: Figure, place: object) -> Axes:
    axes: Axes = figure.add_subplot(place)  # type: ignore[call-overload]
    dress(axes)
    return axes


def _printed(axes: Axes, theirs: Mapping[str, float]) -> None:
    axes.scatter(list(theirs.values()), range(len(theirs)), s=28, color=ORANGE, marker="s")
    name_rows(axes, list(theirs), "published, %")


def _curves(axes: Axes, rows: Mapping[str, Sequence[float]], at: Mapping[str, Sequence[float]], upwards: str) -> None:
    """A curve for every row over the iterations."""
    for number, (row, values) in enumerate(rows.items()):
        colour = SERIES[number % len(SERIES)]
        axes.plot(at[row], values, color=colour, linestyle=DASHES[colour], marker="o", markersize=3, label=drawable(row))
    _key(axes, "iteration", upwards)


def _distributions(axes: Axes, spread: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """The values of maps at the end, and at the start of the first row."""
    start = {"at the start": next(iter(spread.values()))["bins_start"]}
    for number, (row, shares) in enumerate({**start, **{row: found[SPREAD] for row, found in spread.items()}}.items()):
        colour = SERIES[number % len(SERIES)]
        edges = [k / len(shares) for k in range(len(shares) + 1)]
        axes.stairs([100 * share for share in shares], edges, color=colour, linestyle=DASHES[colour], label=drawable(row))
    _key(axes, "value of the map", "pixels (%)")


def _key(axes: Axes, across: str, upwards: str) -> None:
    axes.set_xlabel(across, color=MUTED, fontsize=TEXT)
    axes.set_ylabel(upwards, color=MUTED, fontsize=TEXT)
    style = {"frameon": False, "fontsize": TEXT, "labelcolor": INK}
    axes.legend(**style)


def areas_sheet(
    names: Sequence[str], columns: Mapping[str, tuple[np.ndarray, np.ndarray]], boxes: np.ndarray | None = None
) -> Figure:
    """A row for every class: an image under its activation map in every column, with a frame around the object where it is known.

    Args:
        names: of the classes.
        columns: by head, uint8 images (n, H, W, C), one of each class, and their maps (n, H, W) in [0, 1].
        boxes: of the objects of all columns, with shape (n, 4): top, left, bottom and right, the last two exclusive.
    """
    drawn = [_framed(overlaid(coloured(images), maps), boxes) for images, maps in columns.values()]
    strips = [Strip(name, np.stack([images[k] for images in drawn])) for k, name in enumerate(names)]
    return image_grid(strips, list(columns))


def _framed(images: np.ndarray, boxes: np.ndarray | None) -> np.ndarray:
    """Images enlarged, each with a frame along its box."""
    large: np.ndarray = images.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    for image, (top, left, bottom, right) in zip(large, () if boxes is None else ENLARGED * boxes, strict=False):
        inside = image[top:bottom, left:right].copy()
        image[top:bottom, left:right] = FRAME
        image[top + 1 : bottom - 1, left + 1 : right - 1] = inside[1:-1, 1:-1]
    return large
