"""Methods side by side: a dot with its interval for each, the runs it is a mean of, and random and full data as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from limbeck.figures.names import as_written, drawable
from limbeck.figures.style import BLUE, GREEN, GRID, INK, MUTED, ORANGE, TEXT, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, HEAD, PANEL, LETTER = 0.36, 1.1, 4.6, 0.07  # inches
BESIDE = 0.24  # of a row, by which the runs lie below their mean
LINES = {"random": (ORANGE, "random real images"), "full": (GREEN, "full data")}


def comparison_figure(tables: Sequence[Mapping[str, Any]]) -> Figure | None:
    """A panel for every table of `studies.compare.tabulate`, below one another; None where there is no table."""
    if not tables:
        return None
    heights = [len(table["rows"]) * ROW + HEAD for table in tables]
    longest = max(len(row["method"]) for table in tables for row in table["rows"])
    figure, first = new_axes(PANEL + max(1.6, 0.7 + longest * LETTER), sum(heights))
    first.remove()
    grid = figure.add_gridspec(len(tables), 1, height_ratios=heights)
    for number, table in enumerate(tables):
        _panel(figure.add_subplot(grid[number]), table)
    handles, names = figure.axes[0].get_legend_handles_labels()
    if handles:
        style = {"frameon": False, "fontsize": TEXT, "labelcolor": INK}
        figure.legend(handles, names, loc="outside lower right", ncols=len(handles), **style)
    return figure


def _panel(axes: Axes, table: Mapping[str, Any]) -> None:
    axes.set_facecolor("none")
    axes.grid(True, axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(GRID)
    axes.tick_params(which="both", colors=MUTED, labelsize=TEXT, length=0)
    for kind, summary in table["reference"].items():
        colour, name = LINES[kind]
        axes.axvline(100 * summary["mean"], color=colour, linewidth=1.1, linestyle=(0, (4, 3)), label=name)
    rows = table["rows"]
    for at, row in enumerate(rows):
        found = row["accuracy"]
        beside = [at + BESIDE] * found["n"]  # or the mean would lie on them
        axes.scatter([100 * value for value in found["values"]], beside, s=16, color=BLUE, alpha=0.4, linewidths=0)
        if found["ci95"] is not None:
            axes.hlines(at, *(100 * end for end in found["ci95"]), color=BLUE, linewidth=1.4)
        axes.scatter(100 * found["mean"], at, s=34, color=BLUE, zorder=3)
    axes.set_yticks(range(len(rows)), [drawable(row["method"]) for row in rows], color=INK, **as_written())
    axes.set_ylim(len(rows) - 0.5, -0.5)
    plural = "" if table["ipc"] == 1 else "s"
    network = f", {drawable(table['network'])}" if table["network"] else ""
    axes.set_title(f"{table['ipc']} image{plural} per class{network}", fontsize=TEXT, color=INK, loc="left", **as_written())
    axes.set_xlabel("test accuracy (%): mean and 95 % interval over distillation seeds", color=MUTED, fontsize=TEXT)
