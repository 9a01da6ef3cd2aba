"""Where images lie in the feature space of a network, brought into the plane: real ones, and the way of distilled ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck.figures.style import BLUE, INK, MUTED, PAPER, SERIES, TEXT, drawable, new_axes, write_plainly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")  # one for every class that has a colour and a name
WIDTH, LETTER, KEY, KEY_ROW = 4.6, 0.075, 0.55, 0.3  # inches


def feature_plane(
    real: np.ndarray, real_classes: np.ndarray, paths: np.ndarray, classes: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Real images as small pale marks, distilled ones as large ones at the end of their way, which begins at a ring.

    Up to twelve classes have a colour and a shape each; of more, real images are grey and distilled ones blue.

    Args:
        real: points, with shape (R, 2).
        real_classes: with shape (R,).
        paths: of P distilled images at S snapshots, with shape (S, P, 2).
        classes: of these, with shape (P,).
        class_names: K names.
    """
    told = len(class_names) <= len(SHAPES)
    names = [drawable(name, f"class {k}") for k, name in enumerate(class_names)] if told else []
    beside = KEY + LETTER * max(map(len, names), default=0)
    wide, high = np.ptp(np.concatenate([real, paths.reshape(-1, 2)]), axis=0) + 1e-9
    least = KEY_ROW * len(names) / WIDTH
    figure, axes = new_axes(WIDTH + beside * told, WIDTH * float(np.clip(high / wide, max(0.6, least), 1.1)))
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(False)
    axes.tick_params(labelbottom=False, labelleft=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if told:
        for k in range(len(class_names)):
            _class(axes, real[real_classes == k], paths[:, classes == k], SERIES[k % len(SERIES)], SHAPES[k])
        _key(figure, names)
    else:
        axes.scatter(real[:, 0], real[:, 1], s=7, color=MUTED, alpha=0.35, linewidths=0)
        _distilled(axes, paths, BLUE, "o")
    axes.margins(0.04)
    return figure


def _class(axes: Axes, real: np.ndarray, paths: np.ndarray, colour: str, shape: str) -> None:
    axes.scatter(real[:, 0], real[:, 1], s=11, color=colour, alpha=0.35, linewidths=0, marker=shape)
    _distilled(axes, paths, colour, shape)


def _distilled(axes: Axes, paths: np.ndarray, colour: str, shape: str) -> None:
    if paths.shape[0] > 1:
        for way in paths.transpose(1, 0, 2):
            axes.plot(way[:, 0], way[:, 1], color=colour, linewidth=0.9, alpha=0.8, zorder=2.5)
        axes.scatter(paths[0, :, 0], paths[0, :, 1], s=16, facecolors=PAPER, edgecolors=colour, linewidths=0.9, zorder=2.6)
    axes.scatter(paths[-1, :, 0], paths[-1, :, 1], s=52, color=colour, edgecolors=PAPER, linewidths=0.7, marker=shape, zorder=3)


def _key(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], linestyle="none", markersize=6, color=SERIES[k % len(SERIES)], marker=SHAPES[k]) for k in range(len(names))
    ]
    style = {"frameon": False, "fontsize": TEXT, "labelcolor": INK, "handletextpad": 0.1, "labelspacing": 0.3}
    key = figure.legend(marks, names, loc="outside right upper", **style)
    write_plainly(key.get_texts())
