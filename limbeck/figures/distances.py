"""Distances between and within classes, one heat map for every set of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from limbeck.figures.style import INK, MUTED, PAPER, TEXT, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Not among the page's variables: a cell keeps its colour by night, so its number has to keep its own.
LIGHT, MIDDLE, DARK, DIGITS_DARK, DIGITS_LIGHT = "#f3f7fd", "#7fabe6", "#153f85", "#16202c", "#ffffff"
MOST_NUMBERS, MOST_NAMES = 12, 40
CELL, LETTER = 0.42, 0.075  # inches


def distance_maps(
    result: Mapping[str, Any],
    class_names: Sequence[str],
    metric: Literal["euclidean", "cosine"] = "euclidean",
    kind: Literal["pointwise", "class_means"] = "pointwise",
) -> Figure:
    """The matrices of distances of every set side by side in the same colours; the darker, the farther.

    Numbers stand in the cells of up to 12 classes; a dash where there is no distance, and on the diagonal of class means.

    Args:
        result: of `evaluation.distances.separation`.
        class_names: K names.
        metric, kind: which of its matrices.
    """
    found = {name: one[metric][kind] for name, one in result["sets"].items()}
    matrices = {name: np.array(one["matrix"], dtype=float) for name, one in found.items()}
    if kind == "class_means":
        for matrix in matrices.values():
            np.fill_diagonal(matrix, np.nan)
    low, high = _range(np.concatenate([matrix.ravel() for matrix in matrices.values()]))
    side = float(np.clip(CELL * len(class_names), 2.8, 4.6))
    letters = LETTER * max((len(name) for name in class_names), default=0) * (len(class_names) <= MOST_NAMES)
    height = side + 0.75 * letters * _slanted(class_names, side) + 1.0
    figure, first = new_axes(len(matrices) * (side + 0.15) + letters + 1.0, height)
    first.remove()
    panels = [figure.add_subplot(1, len(matrices), number + 1) for number in range(len(matrices))]
    for number, (axes, (name, matrix)) in enumerate(zip(panels, matrices.items(), strict=True)):
        lines: dict[str, Any] = {"edgecolors": PAPER, "linewidth": 0.6} if len(matrix) <= MOST_NUMBERS else {}
        drawn = axes.pcolormesh(np.ma.masked_invalid(matrix), cmap=_colours(), vmin=low, vmax=high, **lines)
        _numbers(axes, matrix, low, high)
        _dress(axes, class_names, side, named=number == 0)
        title = f"{name} ({result['sets'][name]['images']} images)\n{_caption(found[name], kind)}"
        axes.set_title(title, fontsize=TEXT, color=INK, linespacing=1.5)
    bar = figure.colorbar(drawn, cax=panels[-1].inset_axes((1 + 0.15 / side, 0, 0.16 / side, 1)))
    kind_of = {"euclidean": "Euclidean", "cosine": "cosine"}[metric]
    what = f"{kind_of} distance between class means" if kind == "class_means" else f"mean {kind_of} distance between images"
    bar.set_label(what, color=MUTED, fontsize=TEXT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, labelsize=TEXT - 0.5, length=0)
    figure.suptitle(f"in the features of {result['network']}", fontsize=TEXT, color=MUTED)
    return figure


def _range(values: np.ndarray) -> tuple[float, float]:
    """The ends of the colour scale."""
    defined = values[np.isfinite(values)]
    low, high = (float(defined.min()), float(defined.max())) if len(defined) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _colours() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("distance", [LIGHT, MIDDLE, DARK], N=64)


def _numbers(axes: Axes, matrix: np.ndarray, low: float, high: float) -> None:
    """The value of every cell, with three figures of the greatest."""
    if len(matrix) > MOST_NUMBERS:
        return
    places = _places(high)
    for row, column in np.ndindex(matrix.shape):
        value = matrix[row, column]
        known = bool(np.isfinite(value))
        colour = MUTED if not known else DIGITS_LIGHT if (value - low) / (high - low) > 0.7 else DIGITS_DARK
        weight = "bold" if row == column else "normal"
        text = f"{value:.{places}f}" if known else "–"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=TEXT - 2, color=colour, fontweight=weight)


def _dress(axes: Axes, class_names: Sequence[str], side: float, named: bool) -> None:
    axes.set_aspect("equal")
    axes.set_facecolor("none")
    axes.invert_yaxis()  # the first class above
    for spine in axes.spines.values():
        spine.set_visible(False)
    names = class_names if len(class_names) <= MOST_NAMES else []
    at = np.arange(len(names)) + 0.5
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if _slanted(class_names, side) else {}
    axes.set_xticks(at, names, **slant)
    axes.set_yticks(at, names if named else [""] * len(names))
    size = min(TEXT - 1, 60 * side / max(len(names), 1))
    axes.tick_params(which="both", colors=MUTED, labelsize=size, length=0)


def _slanted(class_names: Sequence[str], side: float) -> bool:
    """Whether the names below would touch."""
    return max((len(name) for name in class_names), default=0) * LETTER > 0.9 * side / max(len(class_names), 1)


def _caption(found: Mapping[str, Any], kind: str) -> str:
    keys = ("between",) if kind == "class_means" else ("between", "within", "ratio")
    return " · ".join(f"{key} {found[key]:.{_places(found[key])}f}" for key in keys if found[key] is not None)


def _places(value: float) -> int:
    """Decimals for three figures."""
    return int(np.clip(2 - np.floor(np.log10(max(abs(value), 1e-9))), 0, 4))
