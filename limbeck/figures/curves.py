"""Curves over the iterations of a distillation, from the rows of its `metrics.jsonl`; which parameters dropout keeps.

A value that is missing or null leaves a gap. A long curve is drawn as the median of short blocks of iterations, with the lowest
and the highest value of each block as a band around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.figures.style import (
    BLUE,
    DASHES,
    GREEN,
    INK,
    MARKERS,
    MUTED,
    ORANGE,
    PAPER,
    RED,
    TEXT,
    Dash,
    as_written,
    label,
    new_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
MOST_POINTS = 400
MOST_MARKS = 150
BAR = 0.2  # inches


def loss_curve(rows: Rows) -> Figure:
    """The matching loss on a logarithmic scale; skipped iterations are marked, at the lower edge where they have no loss."""
    figure, axes = new_axes()
    iterations, loss = column(rows, "iteration"), column(rows, "loss")
    skipped = np.array([bool(row.get("skipped")) for row in rows])
    loss[loss <= 0] = np.nan  # a logarithm has no place for them
    _curve(axes, iterations, np.where(skipped, np.nan, loss), BLUE, "loss")
    if (loss > 0).any():
        axes.set_yscale("log")
    if skipped.any():
        chosen = _spread(np.flatnonzero(skipped), MOST_MARKS)
        lost = ~np.isfinite(loss[chosen])
        at, edge = iterations[chosen], axes.get_xaxis_transform()
        axes.plot(at[~lost], loss[chosen][~lost], "x", color=RED, markersize=3.5, alpha=0.7, label=f"skipped ({skipped.sum()})")
        axes.plot(at[lost], np.full(lost.sum(), 0.02), "x", color=RED, markersize=3.5, alpha=0.7, transform=edge)
    if (loss > 0).any():
        _plain_powers(axes)
    label(axes, "iteration", "matching loss")
    return figure


def accuracy_curve(rows: Rows) -> Figure:
    """Validation accuracy in percent with its 95 % interval, the best evaluation ringed."""
    figure, axes = new_axes()
    kept = [row for row in rows if _mean(row) is not None]
    iterations = column(kept, "iteration")
    mean = np.array([_mean(row) for row in kept], dtype=float) * 100
    axes.plot(iterations, mean, color=BLUE, marker="o", markersize=3.5, linewidth=1.6)
    ends = [row["accuracy"].get("ci95") or (np.nan, np.nan) for row in kept]
    low, high = 100 * np.array(ends, dtype=float).reshape(-1, 2).T
    axes.vlines(iterations, low, high, color=BLUE, linewidth=1, alpha=0.5)
    if len(kept) > 0:
        best = best_row(kept)
        point = (float(iterations[best]), float(mean[best]))
        axes.scatter(*point, s=80, color=PAPER, edgecolors=ORANGE, linewidths=1.8, zorder=1.9)
        text = f"{point[1]:.1f} %"
        axes.annotate(text, point, textcoords="offset points", xytext=(0, 10), ha="center", fontsize=TEXT, color=ORANGE)
        axes.margins(x=0.08, y=0.18)
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, -3.0), min(top, 103.0))  # an interval of a few networks may end where no accuracy does
    label(axes, "iteration", "validation accuracy (%)")
    return figure


def best_row(rows: Rows) -> int:
    """Which of the evaluations is the best: the last one that was when it was made, else the one of highest accuracy."""
    marked = [k for k, row in enumerate(rows) if row.get("best")]
    return marked[-1] if marked else max(range(len(rows)), key=lambda k: _mean(rows[k]) or 0.0)


def step_size_curve(rows: Rows) -> Figure:
    """The learned step size η."""
    figure, axes = new_axes()
    _curve(axes, column(rows, "iteration"), column(rows, "syn_lr"), GREEN, "η")
    axes.ticklabel_format(axis="y", useOffset=False)
    label(axes, "iteration", "step size η")
    return figure


def gradient_curves(rows: Rows) -> Figure:
    """Norms of the gradients of images and labels and the size of η's, on a logarithmic scale."""
    figure, axes = new_axes()
    names = (("grad_norm_images", "images X", BLUE), ("grad_norm_labels", "labels Y", ORANGE), ("grad_lr", "step size η", GREEN))
    iterations, any_value = column(rows, "iteration"), False
    for key, name, colour in names:
        size = np.abs(column(rows, key))
        size[size == 0] = np.nan
        if np.isfinite(size).any():
            any_value = True
            _curve(axes, iterations, size, colour, name, DASHES[colour])
    if any_value:
        axes.set_yscale("log")
        _plain_powers(axes)
    label(axes, "iteration", "gradient norm")
    return figure


def comparison_curves(rows: Rows) -> Figure:
    """Cosine and norm ratio of ∇X to what it is without Common Pattern Dropout and Discriminative Area Enhancement."""
    figure, axes = new_axes()
    iterations = column(rows, "iteration")
    for key, name, colour in (("norm_ratio", "norm ratio", ORANGE), ("cosine", "cosine", BLUE)):
        marker, dash = MARKERS[colour] if len(rows) <= 50 else "none", DASHES[colour]
        values = column(rows, key)
        axes.plot(iterations, values, color=colour, label=name, marker=marker, linestyle=dash, markersize=3, linewidth=1.4)
    axes.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    label(axes, "iteration", "compared with neither")
    return figure


def kept_share(shares: Sequence[Mapping[str, float]]) -> Figure:
    """A bar for every parameter: the share kept at the last snapshot, and as a line its range over all of them.

    Args:
        shares: for each snapshot, the share in [0, 1] by the parameter's name; parameters from input to output.
    """
    names = list(shares[-1])
    figure, axes = new_axes(height=0.65 + BAR * max(len(names), 3))
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


def column(rows: Rows, key: str) -> np.ndarray:
    """The values of a key as floats, NaN where there is no number."""
    values = (row.get(key) for row in rows)
    return np.array([value if isinstance(value, (int, float)) else np.nan for value in values], dtype=float)


def blocks(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """At most `most` blocks of successive points: mean x, median y, lowest y, highest y; NaN where a block has no number."""
    if len(x) <= most:
        return x, y, y, y
    cuts = np.array_split(np.arange(len(x)), most)
    held = [y[cut][np.isfinite(y[cut])] for cut in cuts]
    values = np.array([[np.median(part), part.min(), part.max()] if len(part) else [np.nan] * 3 for part in held])
    return np.array([x[cut].mean() for cut in cuts]), values[:, 0], values[:, 1], values[:, 2]


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, name: str, dash: Dash = "-") -> None:
    middle, median, low, high = blocks(x, y)
    if median is not low:
        axes.fill_between(middle, low, high, color=colour, alpha=0.2, linewidth=0)
    alone = np.isfinite(median) & ~np.isfinite(np.r_[np.nan, median[:-1]]) & ~np.isfinite(np.r_[median[1:], np.nan])
    axes.plot(middle, median, color=colour, linestyle=dash, linewidth=1.4, label=name)
    axes.plot(middle[alone], median[alone], "o", color=colour, markersize=2)  # a line through one point would not show


def _spread(positions: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of them, evenly."""
    chosen: np.ndarray = positions[np.unique(np.linspace(0, len(positions) - 1, min(most, len(positions))).round().astype(int))]
    return chosen


def _mean(row: Mapping[str, Any]) -> float | None:
    value = (row.get("accuracy") or {}).get("mean")
    return float(value) if isinstance(value, (int, float)) else None


def _plain_powers(axes: Axes) -> None:
    """0.1, 1 and 10 rather than powers of ten set as formulas; round numbers where the axis spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    axes.yaxis.set_major_locator(MaxNLocator(5) if decades < 1 else LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
