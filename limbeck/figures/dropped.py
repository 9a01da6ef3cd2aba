"""What Common Pattern Dropout leaves out, layer by layer, as it changes over the iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck.figures.confusion import DARK, LIGHT, MIDDLE
from limbeck.figures.style import INK, MUTED, TEXT, as_written, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW, LETTER = 0.2, 0.075  # inches
MOST_COLUMNS, MOST_TICKS = 100, 8


def dropped_map(iterations: Sequence[int], shares: Sequence[Mapping[str, float]]) -> Figure:
    """The share, in percent, of each parameter tensor (a row) that is left out of the loss at each snapshot (a column).

    A column reaches half of the way to its neighbours; of more than `MOST_COLUMNS` so many are shown, evenly. Lighter is less, for
    whatever eyes, and the darkest is the most that there is.

    Args:
        iterations: of the snapshots, ascending.
        shares: of each the share in [0, 1] that is kept, by the parameter's name; parameters from input to output.
    """
    from matplotlib.colors import LinearSegmentedColormap

    chosen = np.unique(np.linspace(0, len(shares) - 1, min(len(shares), MOST_COLUMNS)).round().astype(int))
    names = list(dict.fromkeys(name for share in shares for name in share))
    values = np.array([[100 * (1 - shares[k].get(name, np.nan)) for k in chosen] for name in names])
    figure, axes = new_axes(5.4 + LETTER * max(0, max(map(len, names)) - 12), 0.9 + ROW * max(len(names), 4))
    axes.grid(False)
    colours = LinearSegmentedColormap.from_list("dropped", [LIGHT, MIDDLE, DARK], N=64)
    most = max(1.0, float(np.nanmax(values)))
    edges = _edges(np.array([iterations[k] for k in chosen], dtype=float))
    drawn = axes.pcolormesh(edges, np.arange(len(names) + 1), np.ma.masked_invalid(values), cmap=colours, vmin=0, vmax=most)
    axes.set_yticks(np.arange(len(names)) + 0.5, names, color=INK, fontsize=TEXT - 1, **as_written())
    if len(chosen) <= MOST_TICKS:
        axes.set_xticks([iterations[k] for k in chosen])
    axes.invert_yaxis()  # the first layer above
    axes.set_xlabel("iteration", color=MUTED, fontsize=TEXT)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(drawn, pad=0.02, aspect=30)
    bar.set_label("parameters left out (%)", color=MUTED, fontsize=TEXT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, labelsize=TEXT - 0.5, length=0)
    return figure


def _edges(centres: np.ndarray) -> np.ndarray:
    """Where columns begin and end: half of the way between neighbours, and as far beyond the first and the last."""
    middles = (centres[1:] + centres[:-1]) / 2
    first, last = (middles[0], middles[-1]) if len(middles) else (centres[0] + 0.5, centres[0] - 0.5)
    edges: np.ndarray = np.r_[2 * centres[0] - first, middles, 2 * centres[-1] - last]
    return edges
