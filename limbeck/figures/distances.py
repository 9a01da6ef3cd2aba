"""Distances between and within classes, one heat map for every set of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from limbeck.figures.heat import colour_bar, heat_map, margins, name_classes, side_of
from limbeck.figures.names import as_written, drawable
from limbeck.figures.style import INK, MUTED, TEXT, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    side = side_of(class_names)
    left, below = margins(class_names, side)
    figure, first = new_axes(len(matrices) * (side + 0.15) + left + 1.0, side + below + 1.0)
    first.remove()
    panels = [figure.add_subplot(1, len(matrices), number + 1) for number in range(len(matrices))]
    for number, (axes, (name, matrix)) in enumerate(zip(panels, matrices.items(), strict=True)):
        drawn = heat_map(axes, matrix, low, high, _places(high))
        name_classes(axes, class_names, side, named=number == 0)
        title = f"{drawable(name)} ({result['sets'][name]['images']} images)\n{_caption(found[name], kind)}"
        axes.set_title(title, fontsize=TEXT, color=INK, linespacing=1.5, **as_written())
    kind_of = {"euclidean": "Euclidean", "cosine": "cosine"}[metric]
    what = f"{kind_of} distance between class means" if kind == "class_means" else f"mean {kind_of} distance between images"
    colour_bar(figure, drawn, panels[-1], side, what)
    figure.suptitle(f"in the features of {drawable(result['network'])}", fontsize=TEXT, color=MUTED, **as_written())
    return figure


def _range(values: np.ndarray) -> tuple[float, float]:
    """The ends of the colour scale."""
    defined = values[np.isfinite(values)]
    low, high = (float(defined.min()), float(defined.max())) if len(defined) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _caption(found: Mapping[str, Any], kind: str) -> str:
    keys = ("between",) if kind == "class_means" else ("between", "within", "ratio")
    return " · ".join(f"{key} {found[key]:.{_places(found[key])}f}" for key in keys if found[key] is not None)


def _places(value: float) -> int:
    """Decimals for three figures."""
    return int(np.clip(2 - np.floor(np.log10(max(abs(value), 1e-9))), 0, 4))
