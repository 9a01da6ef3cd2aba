"""How well the experts do while they are trained, which of their checkpoints are held, how difficult their images are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck.figures.style import BLUE, INK, MUTED, ORANGE, TEXT, as_written, drawable, dress, label, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from limbeck.experts.notes import Difficulty

Curve = Sequence[float | None]

HEIGHT = 3.1  # inches of a panel
MOST_NAMES, LONGEST_NAME = 20, 18  # of classes that are named


def expert_curves(
    curves: Mapping[int, Curve], held: Mapping[int, Sequence[int]], difficulties: Sequence[Difficulty] = ()
) -> Figure:
    """A thin line for every expert, a thick one for their mean; at the bottom, how many experts hold each epoch.

    Args:
        curves: by expert, the accuracies in [0, 1] after epochs 1, 2, …; None where it is not known.
        held: by expert, the epochs that can be read.
        difficulties: what a store notes of the scores of a curriculum, each drawn in a panel below.
    """
    figure, axes = new_axes(height=HEIGHT * (1 + len(difficulties)))
    if difficulties:
        axes.remove()
        grid = figure.add_gridspec(1 + len(difficulties), 1)
        axes, *below = (figure.add_subplot(grid[row]) for row in range(1 + len(difficulties)))
        dress(axes)
        for panel, scores in zip(below, difficulties, strict=True):
            dress(panel)
            _difficulties(panel, scores)
    last = max([0, *map(len, curves.values()), *(max(epochs, default=0) for epochs in held.values())])
    values = np.full((len(curves), last), np.nan)
    for row, curve in zip(values, curves.values(), strict=True):
        row[: len(curve)] = [np.nan if value is None else 100 * value for value in curve]
    epochs = np.arange(1, last + 1)
    marker = "o" if last < 3 else "none"  # a line through one point would not show
    for row in values:
        axes.plot(
            epochs, row, color=BLUE, linewidth=0.6, alpha=max(0.08, 0.6 / max(1, len(values)) ** 0.5), marker=marker, markersize=3
        )
    known = np.isfinite(values)
    if known.any():
        counts = known.sum(axis=0)
        mean = np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)
        axes.plot(epochs, mean, color=BLUE, linewidth=1.8, label="mean over experts", marker=marker, markersize=3)
    else:
        axes.text(0.5, 0.5, "no accuracies are noted", transform=axes.transAxes, ha="center", color=MUTED, fontsize=TEXT)
        axes.set_ylim(0, 100)
    shares = np.array([sum(epoch in kept for kept in map(set, held.values())) for epoch in range(last + 1)]) / max(1, len(held))
    kept = np.flatnonzero(shares)
    places = axes.get_xaxis_transform()
    axes.vlines(kept, 0, 0.05 * shares[kept], color=ORANGE, linewidth=1.6, transform=places, label="checkpoints held")
    axes.set_xlim(-0.02 * last - 0.5, last * 1.02 + 0.5)
    label(axes, "epoch", "validation accuracy (%)")
    return figure


def _difficulties(axes: Axes, scores: Difficulty) -> None:
    """Of every class a thin line from its least to its greatest score, a thick one over the middle half, a dot at the median."""
    rows = scores.classes
    places, width = np.arange(len(rows)), 4.0 if len(rows) <= MOST_NAMES else 1.5
    least, quarter, median, three_quarters, most = np.array([row.quantiles for row in rows], dtype=float).T
    axes.vlines(places, least, most, color=BLUE, linewidth=0.6, alpha=0.6)
    axes.vlines(places, quarter, three_quarters, color=BLUE, linewidth=width)
    axes.scatter(places, median, s=2 * width, color=ORANGE, zorder=3)
    name = {"grand": "GraNd", "el2n": "EL2N"}.get(scores.measure, scores.measure)
    axes.set_title("difficulty of the training images: all, the middle half, the median", fontsize=TEXT, color=INK, loc="left")
    label(axes, "class", name)
    if len(rows) <= MOST_NAMES:
        names = [drawable(row.name, str(k)) for k, row in enumerate(rows)]
        short = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]
        rotation = 0 if max(map(len, short)) <= 3 else 45
        axes.set_xticks(places, short, rotation=rotation, ha="right" if rotation else "center", **as_written())
