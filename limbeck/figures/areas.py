"""How much of an image speaks for its class: the distribution over images, and its way over the iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck.figures.style import BLUE, DASHES, MUTED, SERIES, label, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TICK = 0.045  # of the height, of the marks below, and between their rows
AREA = "discriminative area (%)"


def area_distribution(areas: Mapping[str, np.ndarray]) -> Figure:
    """The share of images (upwards) whose discriminative area is at most so large (to the right); below, a mark for every image.

    Args:
        areas: by name, a share in [0, 1] for every image, as `evaluation.areas.discriminative_area` gives them.

    Example:
        >>> figure = area_distribution({"at the start": np.array([0.2, 0.4]), "at the end": np.array([0.3, 0.6])})
        >>> figure.axes[0].get_lines()[0].get_xydata()[1:3].tolist()
        [[20.0, 50.0], [40.0, 100.0]]
    """
    figure, axes = new_axes()
    for number, (name, shares) in enumerate(areas.items()):
        colour, values = SERIES[number % len(SERIES)], 100 * np.sort(np.asarray(shares, dtype=float))
        steps = 100 * np.arange(len(values) + 1) / max(1, len(values))
        at = np.r_[0.0, values, 100.0]
        axes.step(at, np.r_[steps, 100.0], where="post", color=colour, linestyle=DASHES[colour], linewidth=1.5, label=name)
        below = np.full(len(values), -100 * TICK * (number + 1))
        axes.plot(values, below, "|", color=colour, markersize=4, markeredgewidth=0.8, alpha=0.7)
    axes.axhline(0, color=MUTED, linewidth=0.7)
    axes.set_xlim(0, 100)
    axes.set_ylim(-100 * TICK * (len(areas) + 0.8), 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    label(axes, AREA, "images up to that (%)")
    return figure


def area_curve(iterations: Sequence[int], areas: Sequence[np.ndarray]) -> Figure:
    """The mean area over the iterations, with the middle half of the images as a band around it.

    Args:
        iterations: of the snapshots.
        areas: of each, a share in [0, 1] for every image.
    """
    figure, axes = new_axes()
    low, mean, high = (100 * np.array([found(one) for one in areas]) for found in (_quarter, np.mean, _three_quarters))
    axes.fill_between(iterations, low, high, color=BLUE, alpha=0.2, linewidth=0, label="middle half of the images")
    axes.plot(iterations, mean, color=BLUE, marker="o", markersize=3.5, linewidth=1.6, label="mean")
    label(axes, "iteration", AREA)
    return figure


def _quarter(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.25))


def _three_quarters(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.75))
