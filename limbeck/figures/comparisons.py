"""Results of grids: methods beside each other, and recovery ratios by category and level of difficulty.

Every mean has its 95 % interval and the runs that it is a mean of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from limbeck.accuracy import Accuracy
from limbeck.figures.style import (
    BLUE,
    DASHES,
    GREEN,
    INK,
    MARKERS,
    MUTED,
    ORANGE,
    PAPER,
    SERIES,
    TEXT,
    as_written,
    drawable,
    dress,
    new_axes,
)
from limbeck.studies.recovery import Levels, MethodCells
from limbeck.studies.table import REFERENCES, Section, images_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, HEAD, PANEL, LETTER = 0.36, 1.1, 4.6, 0.07  # inches, of methods
BESIDE = 0.28  # of a row, by which the runs lie below their mean
LINES = {"random": ORANGE, "full": GREEN}
COLOURS = {2: (BLUE, ORANGE), 3: (BLUE, GREEN, ORANGE)}  # from the easiest level
LEVEL_ROW, CATEGORY, TITLE, NAMES = 0.2, 2.6, 0.75, 1.2  # inches, of levels
ACROSS = 4  # categories beside each other


def comparison_figure(tables: Sequence[Section]) -> Figure | None:
    """A panel for every section of a comparison, below one another; None where there is none."""
    if not tables:
        return None
    heights = [len(table.rows) * ROW + HEAD for table in tables]
    longest = max(len(row.method) for table in tables for row in table.rows)
    figure, first = new_axes(PANEL + max(1.6, 0.7 + longest * LETTER), sum(heights))
    first.remove()
    grid = figure.add_gridspec(len(tables), 1, height_ratios=heights)
    for number, table in enumerate(tables):
        _methods(figure.add_subplot(grid[number]), table)
    handles, names = figure.axes[0].get_legend_handles_labels()
    if handles:
        style = {"frameon": False, "fontsize": TEXT, "labelcolor": INK}
        figure.legend(handles, names, loc="outside lower right", ncols=len(handles), **style)
    return figure


def accuracy_figure(accuracies: Mapping[str, Accuracy], across: str) -> Figure:
    """A row for every name: the mean, its 95 % interval, and every value below.

    Args:
        accuracies: by name.
        across: what is drawn, such as `test accuracy (%)`.

    Example:
        >>> from limbeck.evaluation.statistics import summarise
        >>> figure = accuracy_figure({"edf": summarise([0.4, 0.5]), "random": summarise([0.2])}, "test accuracy (%)")
        >>> [round(float(x)) for x in figure.axes[0].collections[2].get_offsets()[0]]
        [45, 0]
    """
    letters = LETTER * max(map(len, accuracies), default=0)
    figure, axes = new_axes(PANEL + max(1.6, 0.7 + letters), len(accuracies) * ROW + 0.8)
    draw_rows(axes, accuracies, across)
    return figure


def _methods(axes: Axes, table: Section) -> None:
    dress(axes)
    for kind, summary in table.reference.items():
        axes.axvline(100 * summary.mean, color=LINES[kind], linewidth=1.1, linestyle=DASHES[LINES[kind]], label=REFERENCES[kind])
    across = "test accuracy (%): mean and 95 % interval over distillation seeds"
    draw_rows(axes, {row.method: row.accuracy for row in table.rows}, across)
    axes.set_title(drawable(table.title), fontsize=TEXT, color=INK, loc="left", **as_written())


def draw_rows(axes: Axes, accuracies: Mapping[str, Accuracy], across: str, factor: float = 100.0) -> None:
    """A line for every name: the mean, its 95 % interval, and every value below.

    Args:
        axes: where.
        accuracies: by name, or other figures.
        across: what they are.
        factor: that they are multiplied by to be that.
    """
    for at, found in enumerate(accuracies.values()):
        beside = [at + BESIDE] * len(found.values)  # or the mean would lie on them
        axes.scatter([factor * value for value in found.values], beside, s=16, color=BLUE, alpha=0.4, linewidths=0)
        if found.ci95 is not None:
            axes.hlines(at, factor * found.ci95[0], factor * found.ci95[1], color=BLUE, linewidth=1.4)
        axes.scatter(factor * found.mean, at, s=34, color=BLUE, zorder=3)
    name_rows(axes, list(accuracies), across)


def name_rows(axes: Axes, names: Sequence[str], across: str) -> None:
    """A name at every line, the first one above, and what is drawn across."""
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(names)), list(map(drawable, names)), color=INK, **as_written())
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(across, color=MUTED, fontsize=TEXT)


def recovery_figure(tables: Sequence[Levels], levels: Sequence[str]) -> Figure | None:
    """A panel for every category and number of images per class; None where no recovery ratio is known.

    Args:
        tables: of `studies.recovery.tabulate`.
        levels: from the easiest.
    """
    panels = [(table, category) for table in tables for category in _categories(table)]
    if not panels:
        return None
    rows: list[list[tuple[Levels, str]]] = []  # a number of images per class begins a row of its own
    for table, category in panels:
        if not rows or rows[-1][0][0] is not table or len(rows[-1]) == ACROSS:
            rows.append([])
        rows[-1].append((table, category))
    across = max(map(len, rows))
    heights = [len(row[0][0].rows) * (len(levels) + 1) * LEVEL_ROW + TITLE for row in rows]
    figure, first = new_axes(NAMES + CATEGORY * max(across, 1.4), sum(heights) + 0.3)
    first.remove()
    grid = figure.add_gridspec(len(rows), across, height_ratios=heights)
    shared: Axes | None = None
    for line, row in enumerate(rows):
        for place, (table, category) in enumerate(row):
            axes = figure.add_subplot(grid[line, place], sharex=shared)
            shared = shared or axes
            _category(axes, table, category, levels, named=place == 0)
    figure.supxlabel("recovery ratio (%): mean and 95 % interval over distillation seeds", color=MUTED, fontsize=TEXT)
    shown = {column.level for table, _ in panels for column in table.columns if _has_ratio(table, column.subset)}
    _legend(figure, {level: colour for level, colour in zip(levels, colours(levels), strict=True) if level in shown})
    return figure


def _category(axes: Axes, table: Levels, category: str, levels: Sequence[str], named: bool) -> None:
    """A group of lines for every method, in it one for every level, the easiest above."""
    dress(axes)
    axes.grid(False, axis="y")
    group = len(levels) + 1
    for number, row in enumerate(table.rows):
        for column in table.columns:
            found = _ratio(row, column.subset)
            if column.category != category or not found.known:
                continue
            rank = levels.index(column.level)
            at, colour = number * group + rank, colours(levels)[rank]
            if found.ci95 is not None:
                axes.hlines(at, 100 * found.ci95[0], 100 * found.ci95[1], color=colour, linewidth=1.4)
            # Runs lie on the line of their interval; the mean is drawn over them.
            values, shape = [100 * value for value in found.values], MARKERS[colour]
            axes.scatter(values, [at] * len(values), s=14, color=colour, alpha=0.4, linewidths=0, marker=shape)
            axes.scatter(100 * found.mean, at, s=36, color=colour, edgecolors=PAPER, linewidths=0.8, zorder=3, marker=shape)
    middle = (len(levels) - 1) / 2
    names = [drawable(row.method) for row in table.rows]
    axes.set_yticks([number * group + middle for number in range(len(names))], names, **as_written())
    axes.tick_params(axis="y", labelleft=named, labelcolor=INK)
    axes.set_ylim(len(table.rows) * group - 1 + 0.2, -1 + 0.2)
    title = f"{drawable(category)}, {images_text(table.ipc)}"
    axes.set_title(title, fontsize=TEXT, color=INK, loc="left", **as_written())


def colours(levels: Sequence[str]) -> Sequence[str]:
    """A colour for every level."""
    return COLOURS.get(len(levels)) or [SERIES[number % len(SERIES)] for number in range(len(levels))]


def _legend(figure: Figure, levels: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=one, marker=MARKERS[one], markersize=6, linewidth=1.4) for one in levels.values()]
    words = list(levels)
    figure.legend(marks, words, loc="outside upper right", ncols=len(levels), frameon=False, fontsize=TEXT, labelcolor=INK)


def _categories(table: Levels) -> list[str]:
    """Those with a recovery ratio."""
    return list(dict.fromkeys(column.category for column in table.columns if _has_ratio(table, column.subset)))


def _has_ratio(table: Levels, subset: str) -> bool:
    return any(_ratio(row, subset).known for row in table.rows)


def _ratio(row: MethodCells, subset: str) -> Accuracy:
    return row.cells[subset].recovery_ratio if subset in row.cells else Accuracy()
