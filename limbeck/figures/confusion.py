"""Which classes networks take for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck.figures.heat import colour_bar, heat_map, margins, name_classes, side_of
from limbeck.figures.style import MUTED, TEXT, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_map(confusion: Sequence[Sequence[float]], class_names: Sequence[str]) -> Figure:
    """The share, in percent, of every class's test images (a row) that is taken for each class (a column).

    Args:
        confusion: numbers of images, rows the true classes, as `evaluation.predictions` gives them.
        class_names: K names.
    """
    counts = np.array(confusion, dtype=float)
    images = counts.sum(1, keepdims=True)
    shares = np.divide(100 * counts, images, out=np.full_like(counts, np.nan), where=images > 0)
    side = side_of(class_names)
    left, below = margins(class_names, side)
    figure, axes = new_axes(side + left + 1.4, side + below + 0.6)
    axes.grid(False)
    drawn = heat_map(axes, shares, 0.0, 100.0, 0)
    name_classes(axes, class_names, side, named=True)
    axes.set_xlabel("taken for", color=MUTED, fontsize=TEXT)
    axes.set_ylabel("class", color=MUTED, fontsize=TEXT)
    colour_bar(figure, drawn, axes, side, "% of the class's test images")
    return figure
