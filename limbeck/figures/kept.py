"""Which share of every layer's parameters Common Pattern Dropout keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck.figures.names import as_written
from limbeck.figures.style import BLUE, INK, MUTED, ORANGE, TEXT, label, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW = 0.2  # inches


def kept_share(shares: Sequence[Mapping[str, float]]) -> Figure:
    """A bar for every parameter: the share kept at the last snapshot, and as a line its range over all of them.

    Args:
        shares: for each snapshot, the share in [0, 1] by the parameter's name; parameters from input to output.
    """
    names = list(shares[-1])
    figure, axes = new_axes(height=0.65 + ROW * max(len(names), 3))
    values = 100 * np.array([[share.get(name, np.nan) for name in names] for share in shares], dtype=float)
    rows = np.arange(len(names))
    axes.barh(rows, values[-1], height=0.62, color=BLUE, alpha=0.75, label="last snapshot", linewidth=0)
    if len(shares) > 1:
        axes.hlines(rows, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=ORANGE, linewidth=2, label="range over all")
    axes.axvline(100, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(rows, names, color=INK, fontsize=TEXT - 1, **as_written())
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first layer above
    axes.set_xlim(0, 102)
    axes.grid(False, axis="y")
    label(axes, "parameters kept (%)", "")
    return figure
