"""Matrices over classes as heat maps: colours, numbers in the cells, names at the sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.figures.names import as_written
from limbeck.figures.style import MUTED, PAPER, TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Not among the page's variables: a cell keeps its colour by night, so its number has to keep its own.
LIGHT, MIDDLE, DARK, DIGITS_DARK, DIGITS_LIGHT = "#f3f7fd", "#7fabe6", "#153f85", "#16202c", "#ffffff"
MOST_NUMBERS, MOST_NAMES = 12, 40
CELL, LETTER = 0.42, 0.075  # inches


def side_of(class_names: Sequence[str]) -> float:
    """The side of a map of these classes, in inches."""
    return float(np.clip(CELL * len(class_names), 2.8, 4.6))


def margins(class_names: Sequence[str], side: float) -> tuple[float, float]:
    """The room, in inches, that the names need at the left and below."""
    letters = LETTER * max((len(name) for name in class_names), default=0) * (len(class_names) <= MOST_NAMES)
    return letters, 0.75 * letters * slanted(class_names, side)


def heat_map(axes: Axes, matrix: np.ndarray, low: float, high: float, places: int) -> QuadMesh:
    """Draw a matrix (K, K), NaN where undefined; with numbers of so many decimals in the cells of up to 12 classes."""
    lines: dict[str, Any] = {"edgecolors": PAPER, "linewidth": 0.6} if len(matrix) <= MOST_NUMBERS else {}
    drawn = axes.pcolormesh(np.ma.masked_invalid(matrix), cmap=_colours(), vmin=low, vmax=high, **lines)
    if len(matrix) <= MOST_NUMBERS:
        _numbers(axes, matrix, low, high, places)
    return drawn


def colour_bar(figure: Figure, drawn: QuadMesh, axes: Axes, side: float, what: str) -> Colorbar:
    """The scale, at the right of `axes`, of so many inches."""
    bar = figure.colorbar(drawn, cax=axes.inset_axes((1 + 0.15 / side, 0, 0.16 / side, 1)))
    bar.set_label(what, color=MUTED, fontsize=TEXT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, labelsize=TEXT - 0.5, length=0)
    return bar


def name_classes(axes: Axes, class_names: Sequence[str], side: float, named: bool) -> None:
    """The names of the classes below, and where `named` at the left."""
    axes.set_aspect("equal")
    axes.set_facecolor("none")
    axes.invert_yaxis()  # the first class above
    for spine in axes.spines.values():
        spine.set_visible(False)
    names = class_names if len(class_names) <= MOST_NAMES else []
    at = np.arange(len(names)) + 0.5
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted(class_names, side) else {}
    axes.set_xticks(at, names, **slant, **as_written())
    axes.set_yticks(at, names if named else [""] * len(names), **as_written())
    size = min(TEXT - 1, 60 * side / max(len(names), 1))
    axes.tick_params(which="both", colors=MUTED, labelsize=size, length=0)


def slanted(class_names: Sequence[str], side: float) -> bool:
    """Whether the names below would touch."""
    return max((len(name) for name in class_names), default=0) * LETTER > 0.9 * side / max(len(class_names), 1)


def _colours() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("heat", [LIGHT, MIDDLE, DARK], N=64)


def _numbers(axes: Axes, matrix: np.ndarray, low: float, high: float, places: int) -> None:
    for row, column in np.ndindex(matrix.shape):
        value = matrix[row, column]
        known = bool(np.isfinite(value))
        colour = MUTED if not known else DIGITS_LIGHT if (value - low) / (high - low) > 0.7 else DIGITS_DARK
        weight = "bold" if row == column else "normal"
        text = f"{value:.{places}f}" if known else "–"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=TEXT - 2, color=colour, fontweight=weight)
