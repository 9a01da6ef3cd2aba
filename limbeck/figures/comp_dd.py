"""Recovery ratios by category: the levels of difficulty beside each other, for every method and number of images per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from limbeck.figures.names import as_written, drawable
from limbeck.figures.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, RED, TEXT, dress, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {2: (BLUE, ORANGE), 3: (BLUE, GREEN, ORANGE)}  # from the easiest level
OTHERS = (BLUE, GREEN, ORANGE, RED, MUTED)
LEVEL_ROW, PANEL, HEAD, SIDE = 0.2, 2.6, 0.75, 1.2  # inches
ACROSS = 4  # categories beside each other


def recovery_figure(tables: Sequence[Mapping[str, Any]], levels: Sequence[str]) -> Figure | None:
    """A panel for every category and number of images per class; None where no recovery ratio is known.

    Args:
        tables: of `studies.recovery.tabulate`.
        levels: from the easiest.
    """
    panels = [(table, category) for table in tables for category in _categories(table)]
    if not panels:
        return None
    rows: list[list[tuple[Mapping[str, Any], str]]] = []  # a number of images per class begins a row of its own
    for table, category in panels:
        if not rows or rows[-1][0][0] is not table or len(rows[-1]) == ACROSS:
            rows.append([])
        rows[-1].append((table, category))
    across = max(map(len, rows))
    heights = [len(row[0][0]["rows"]) * (len(levels) + 1) * LEVEL_ROW + HEAD for row in rows]
    figure, first = new_axes(SIDE + PANEL * max(across, 1.4), sum(heights) + 0.3)
    first.remove()
    grid = figure.add_gridspec(len(rows), across, height_ratios=heights)
    shared: Axes | None = None
    for line, row in enumerate(rows):
        for place, (table, category) in enumerate(row):
            axes = figure.add_subplot(grid[line, place], sharex=shared)
            shared = shared or axes
            _panel(axes, table, category, levels, named=place == 0)
    figure.supxlabel("recovery ratio (%): mean and 95 % interval over distillation seeds", color=MUTED, fontsize=TEXT)
    shown = {column["level"] for table, _ in panels for column in table["columns"] if _has_ratio(table, column["subset"])}
    _legend(figure, {level: colour for level, colour in zip(levels, colours(levels), strict=True) if level in shown})
    return figure


def _panel(axes: Axes, table: Mapping[str, Any], category: str, levels: Sequence[str], named: bool) -> None:
    """A group of lines for every method, in it one for every level, the easiest above."""
    dress(axes)
    axes.grid(False, axis="y")
    group = len(levels) + 1
    for number, row in enumerate(table["rows"]):
        for column in table["columns"]:
            found = (row["cells"].get(column["subset"]) or {}).get("recovery_ratio")
            if column["category"] != category or found is None:
                continue
            rank = levels.index(column["level"])
            at, colour = number * group + rank, colours(levels)[rank]
            if found["ci95"] is not None:
                axes.hlines(at, *(100 * end for end in found["ci95"]), color=colour, linewidth=1.4)
            # Runs lie on the line of their interval; the mean is drawn over them.
            axes.scatter([100 * value for value in found["values"]], [at] * found["n"], s=14, color=colour, alpha=0.4, linewidths=0)
            axes.scatter(100 * found["mean"], at, s=36, color=colour, edgecolors=PAPER, linewidths=0.8, zorder=3)
    middle = (len(levels) - 1) / 2
    names = [drawable(row["method"]) for row in table["rows"]]
    axes.set_yticks([number * group + middle for number in range(len(names))], names, **as_written())
    axes.tick_params(axis="y", labelleft=named, labelcolor=INK)
    axes.set_ylim(len(table["rows"]) * group - 1 + 0.2, -1 + 0.2)
    plural = "" if table["ipc"] == 1 else "s"
    title = f"{drawable(category)}, {table['ipc']} image{plural} per class"
    axes.set_title(title, fontsize=TEXT, color=INK, loc="left", **as_written())


def colours(levels: Sequence[str]) -> Sequence[str]:
    """A colour for every level."""
    return COLOURS.get(len(levels)) or [OTHERS[number % len(OTHERS)] for number in range(len(levels))]


def _legend(figure: Figure, levels: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=colour, marker="o", markersize=6, linewidth=1.4) for colour in levels.values()]
    style: dict[str, Any] = {"frameon": False, "fontsize": TEXT, "labelcolor": INK}
    figure.legend(marks, list(levels), loc="outside upper right", ncols=len(levels), **style)


def _categories(table: Mapping[str, Any]) -> list[str]:
    """Those with a recovery ratio."""
    return list(dict.fromkeys(column["category"] for column in table["columns"] if _has_ratio(table, column["subset"])))


def _has_ratio(table: Mapping[str, Any], subset: str) -> bool:
    return any((row["cells"].get(subset) or {}).get("recovery_ratio") is not None for row in table["rows"])
