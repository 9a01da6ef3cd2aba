"""Which classes networks take for which, as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck.figures.style import MUTED, PAPER, TEXT, as_written, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Not among the page's variables: a cell keeps its colour by night, so its number has to keep its own.
LIGHT, MIDDLE, DARK, DIGITS_DARK, DIGITS_LIGHT = "#f3f7fd", "#7fabe6", "#153f85", "#16202c", "#ffffff"
MOST_NUMBERS, MOST_NAMES = 12, 40  # classes with numbers in the cells, and with names at the sides
CELL, LETTER = 0.42, 0.075  # inches


def confusion_map(confusion: Sequence[Sequence[float]], class_names: Sequence[str]) -> Figure:
    """The share, in percent, of every class's test images (a row) that is taken for each class (a column).

    Args:
        confusion: numbers of images, rows the true classes, as `evaluation.predictions` gives them.
        class_names: K names.
    """
    from matplotlib.colors import LinearSegmentedColormap

    counts = np.array(confusion, dtype=float)
    images = counts.sum(1, keepdims=True)
    shares = np.divide(100 * counts, images, out=np.full_like(counts, np.nan), where=images > 0)
    names = class_names if len(class_names) <= MOST_NAMES else []
    side = float(np.clip(CELL * len(class_names), 2.8, 4.6))
    letters = LETTER * max(map(len, names), default=0)
    slanted = letters > 0.9 * side / max(len(names), 1)  # the names below would touch
    figure, axes = new_axes(side + letters + 1.4, side + 0.75 * letters * slanted + 0.6)
    axes.grid(False)
    numbered = len(shares) <= MOST_NUMBERS
    colours = LinearSegmentedColormap.from_list("heat", [LIGHT, MIDDLE, DARK], N=64)
    drawn = axes.pcolormesh(
        np.ma.masked_invalid(shares),
        cmap=colours,
        vmin=0,
        vmax=100,
        edgecolors=PAPER if numbered else "none",
        linewidth=0.6 * numbered,
    )
    for row, column in np.ndindex(shares.shape) if numbered else ():
        value = shares[row, column]
        known = bool(np.isfinite(value))
        colour = MUTED if not known else DIGITS_LIGHT if value > 70 else DIGITS_DARK
        said, weight = f"{value:.0f}" if known else "–", "bold" if row == column else "normal"
        axes.text(column + 0.5, row + 0.5, said, ha="center", va="center", fontsize=TEXT - 2, color=colour, fontweight=weight)
    axes.set_aspect("equal")
    axes.set_facecolor("none")
    axes.invert_yaxis()  # the first class above
    for spine in axes.spines.values():
        spine.set_visible(False)
    at = np.arange(len(names)) + 0.5
    rotation, ha, mode = (45, "right", "anchor") if slanted else (0, "center", "default")
    axes.set_xticks(at, names, rotation=rotation, ha=ha, rotation_mode=mode, **as_written())
    axes.set_yticks(at, names, **as_written())
    axes.tick_params(which="both", colors=MUTED, labelsize=min(TEXT - 1, 60 * side / max(len(names), 1)), length=0)
    axes.set_xlabel("taken for", color=MUTED, fontsize=TEXT)
    axes.set_ylabel("class", color=MUTED, fontsize=TEXT)
    bar = figure.colorbar(drawn, cax=axes.inset_axes((1 + 0.15 / side, 0, 0.16 / side, 1)))
    bar.set_label("% of the class's test images", color=MUTED, fontsize=TEXT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, labelsize=TEXT - 0.5, length=0)
    return figure
