"""How well the experts do while they are trained, and which of their checkpoints are held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck.figures.style import BLUE, MUTED, ORANGE, TEXT, label, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Sequence[float | None]


def expert_curves(curves: Mapping[int, Curve], held: Mapping[int, Sequence[int]]) -> Figure:
    """A thin line for every expert, a thick one for their mean; below, how many experts hold each epoch.

    Args:
        curves: by expert, the accuracies in [0, 1] after epochs 1, 2, …; None where it is not known.
        held: by expert, the epochs that can be read.
    """
    figure, axes = new_axes(height=3.1)
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
