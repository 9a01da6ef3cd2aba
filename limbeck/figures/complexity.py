"""How complex images are: classes at several thresholds, maps' statistics, the easiest and the hardest images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from limbeck.figures.style import (
    BLUE,
    DASHES,
    INK,
    MUTED,
    PAPER,
    SERIES,
    TEXT,
    as_written,
    drawable,
    dress,
    label,
    new_axes,
    write_plainly,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from limbeck.image_complexity.results import Summary

STATISTICS = {"mean_activation": "mean activation of a map (%)", "area": "area above the map's mean (%)"}
MOST_CLASSES = 40
CELL = 1.05  # inches


def class_distribution(results: Summary) -> Figure:
    """How many classes have which complexity, at every threshold that was measured; a dash below for every class.

    Args:
        results: of `measure_complexity`.
    """
    keys = sorted(results.by_threshold, key=float)
    figure, axes = new_axes(5.8, 3.1)
    bins = np.linspace(0, 100, 51)
    counts = [np.histogram(_column(results, key), bins)[0] for key in keys]
    highest = max(int(count.max(initial=0)) for count in counts) or 1
    for number, (key, count) in enumerate(zip(keys, counts, strict=True)):
        values, colour = _column(results, key), SERIES[number % len(SERIES)]
        name = f"activation ≥ {key}" if values.size else f"activation ≥ {key}: none"
        _outlined(axes, count, bins, colour, name)
        below = -highest * (0.06 + 0.05 * number)
        axes.plot(values, np.full(len(values), below), "|", color=colour, markersize=5, markeredgewidth=0.8, alpha=0.7)
    axes.axhline(0, color=MUTED, linewidth=0.7)
    axes.set_xlim(0, 100)
    axes.set_ylim(-highest * (0.06 + 0.05 * len(keys)), highest * 1.08)
    _whole_counts(axes)
    label(axes, f"complexity of a class of {len(results.classes)} (%)", "classes")
    return figure


def class_ranking(results: Summary) -> Figure:
    """The complexity of every class with the 95 % interval of its mean over images, the easiest class above.

    Of more than `MOST_CLASSES` classes the easiest and the hardest, half of them each, are shown.
    """
    known, half = results.known, MOST_CLASSES // 2
    shown = known if len(known) <= MOST_CLASSES else [*known[:half], *known[-half:]]
    figure, axes = new_axes(5.4, 1.0 + 0.21 * len(shown))
    place = np.arange(len(shown)) + (np.arange(len(shown)) >= half) * (len(shown) < len(known))
    for y, row in zip(place, shown, strict=True):
        if row.ci95 is not None:
            axes.plot(np.clip(row.ci95, 0, 100), [y, y], color=BLUE, linewidth=1.1, alpha=0.6)
        axes.plot(row.complexity or 0.0, y, "o", color=BLUE, markersize=4.5)
    mean = results.complexity
    axes.axvline(mean, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.text(mean, -0.8, f" mean {mean:.1f} %", color=MUTED, fontsize=TEXT - 1, ha="left", va="bottom")
    names = [_short(drawable(row.name, f"class {row.index}")) for row in shown]
    axes.set_yticks(place, names, **as_written())
    axes.set_ylim(place[-1] + 0.7 if len(place) else 1, -0.9)
    left_out = f"; {len(known) - len(shown)} between them are not shown" if len(shown) < len(known) else ""
    label(axes, f"complexity (%){left_out}", "")
    return figure


def map_statistics(named: Mapping[str, Summary]) -> Figure:
    """Distribution over images of the mean activation and of the active area, for one set of images or several.

    Args:
        named: results of `measure_complexity` by the name to show; comparable only if they are of one network.
    """
    figure, first = new_axes(8.2, 3.1)
    first.remove()
    shared: Axes | None = None
    drawn: list[Line2D] = []
    for place, (key, what) in enumerate(STATISTICS.items(), 1):
        axes = figure.add_subplot(1, 2, place, sharey=shared)
        shared = shared or axes
        dress(axes)
        top = 0.0
        for number, (name, results) in enumerate(named.items()):
            counts = np.array(results.histograms[key], dtype=float)
            share, edges = 100 * counts / max(counts.sum(), 1), np.linspace(0, 100, len(counts) + 1)
            colour = SERIES[number % len(SERIES)]
            line = _outlined(axes, share, edges, colour, name)
            drawn += [line] if place == 1 else []
            axes.axvline(getattr(results, key), color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
            top = max(top, float(share.max()))
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"{what}; dashed: mean", color=MUTED, fontsize=TEXT)
        if place == 1:
            axes.set_ylabel("images (%)", color=MUTED, fontsize=TEXT)
    if len(named) > 1:
        # An underscore in front would leave a name out.
        words = [f" {drawable(name)}" if name.startswith("_") else drawable(name) for name in named]
        legend = figure.legend(
            drawn, words, loc="outside upper center", ncols=len(named), frameon=False, fontsize=TEXT, labelcolor=INK
        )
        write_plainly(legend.get_texts())
    return figure


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, uint8 with shape (C, H, W), its map in [0, 1] with shape (h, w), and what stands above it."""

    image: np.ndarray
    active: np.ndarray
    caption: str


def extreme_images(rows: Mapping[str, Sequence[Picture]], threshold: float) -> Figure:
    """Images and, below each, its map: the lighter the more active; the line encloses what is active from `threshold` on.

    Args:
        rows: by title, such as `easiest`.
        threshold: τ.
    """
    most = max((len(row) for row in rows.values()), default=0) or 1
    figure, first = new_axes(max(CELL * most, 3.0), (2 * CELL + 0.34) * max(len(rows), 1))
    first.remove()
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    grid = figure.add_gridspec(2 * max(len(rows), 1), most)
    for line, (title, found) in enumerate(rows.items()):
        for column, one in enumerate(found):
            above, below = (figure.add_subplot(grid[2 * line + part, column]) for part in (0, 1))
            image = _colour(one.image)
            extent = (0, image.shape[1], image.shape[0], 0)
            above.imshow(image, interpolation="nearest", extent=extent)
            active = np.asarray(one.active, dtype=float)
            below.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent)
            below.imshow(active, cmap="inferno", vmin=0, vmax=1, alpha=0.6, extent=extent)
            if active.min() < threshold <= active.max():
                x = (np.arange(active.shape[1]) + 0.5) * image.shape[1] / active.shape[1]
                y = (np.arange(active.shape[0]) + 0.5) * image.shape[0] / active.shape[0]
                below.contour(x, y, active, [threshold], colors=[PAPER], linewidths=1.1)
            words = drawable(f"{title if column == 0 else ''}\n{one.caption}")
            above.set_title(words, fontsize=TEXT - 2.5, color=INK, **as_written())
            for axes in (above, below):
                axes.set_axis_off()
    return figure


def _outlined(axes: Axes, heights: np.ndarray, edges: np.ndarray, colour: str, name: str) -> Line2D:
    """A histogram through which others can be seen."""
    axes.fill_between(edges, np.append(heights, 0), step="post", color=colour, alpha=0.22, linewidth=0)
    (line,) = axes.step(
        edges, np.append(heights, 0), where="post", color=colour, linestyle=DASHES[colour], linewidth=1.3, label=name
    )
    return line


def _colour(image: np.ndarray) -> np.ndarray:
    """uint8 with shape (H, W, 3)."""
    whole = np.broadcast_to(image, (3, *image.shape[1:])) if len(image) == 1 else image
    return np.ascontiguousarray(whole.transpose(1, 2, 0))


def _column(results: Summary, key: str) -> np.ndarray:
    found = (row.complexities[f"complexity_{key}"] for row in results.classes)
    return np.array([value for value in found if value is not None], dtype=float)


def _whole_counts(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.set_yticks([tick for tick in axes.get_yticks() if tick >= 0 and tick <= axes.get_ylim()[1]])


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
