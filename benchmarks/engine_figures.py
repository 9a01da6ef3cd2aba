"""Time, memory and error of the ways to the pixel gradient over the number of student steps: `benchmarks/engine.py`.

    python benchmarks/engine_figures.py    # docs/images/engine-*.png, from benchmarks/results/engine

A figure has a panel for every number of images per class, all on the same axes. What does not fit into the memory is drawn
hollow where it was foretold, and has no time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from limbeck.figures.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, RED, TEXT, dress, new_axes, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cells = Sequence[Mapping[str, Any]]
PANEL, HEIGHT = 3.1, 4.0


class Look(NamedTuple):
    """Of a line."""

    colour: str
    marker: str
    dashes: Any = "-"


LOOKS = {
    "unroll": Look(INK, "o"),
    "eager": Look(MUTED, "s"),
    "compiled": Look(BLUE, "o"),
    "compiled-tf32": Look(BLUE, "^", (0, (5, 2))),
    "compiled-bf16": Look(BLUE, "v", (0, (2, 1.5))),
    "tesla": Look(ORANGE, "D"),
    "truncated": Look(RED, "X"),
    "kept-half": Look(GREEN, "v", (0, (5, 2))),
    "kept-all": Look(GREEN, "^"),
}
ALONE = Look(MUTED, "", (0, (1, 1.5)))
APPROXIMATE = ("compiled-tf32", "compiled-bf16", "tesla", "truncated")


def engine_figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures there are numbers for, by name, from the results of `bench_engine`."""
    cells = results["cells"]
    made = {}
    if any("seconds" in cell for cell in cells):
        made["time"] = time_figure(cells)
        made["memory"] = memory_figure(cells, results["memory_limit_bytes"])
    if any(_cosine(cell) is not None for cell in cells if cell["variant"] in APPROXIMATE):
        made["cosine"] = cosine_figure(cells)
    return made


def time_figure(cells: Cells) -> Figure:
    """Seconds per iteration over T, with those of the convolutions alone; both axes logarithmic."""
    # Each panel with a scale of its own: ten times the images take ten times as long, and the variants would lie on one another.
    figure, panels = _panels(cells, "seconds per iteration", same=False)
    for axes, held in panels:
        _lines(axes, held, lambda cell: cell.get("median_seconds"))
        exact = [cell for cell in held if cell["variant"] in ("compiled", "eager", "unroll") and "seconds" in cell]
        points = sorted({cell["steps"]: cell["convolution_seconds"] for cell in exact}.items())
        if points:
            axes.plot(*zip(*points, strict=True), color=ALONE.colour, linestyle=ALONE.dashes, label="convolutions alone")
    _logarithmic(panels)
    _legend(figure, panels)
    return figure


def memory_figure(cells: Cells, limit: int) -> Figure:
    """Peak memory in GB over T; hollow marks are foretold, not measured, and above `limit` bytes. Both axes logarithmic."""
    figure, panels = _panels(cells, "peak memory (GB)")
    for axes, held in panels:
        _lines(axes, held, lambda cell: cell["peak_bytes"] / 1e9 if "peak_bytes" in cell else None)
        unfit = [cell for cell in held if not cell["fits"]]
        for cell in unfit:
            look = LOOKS[cell["variant"]]
            point = ([cell["steps"]], [cell["predicted_bytes"] / 1e9])
            axes.plot(*point, marker=look.marker, color=look.colour, markerfacecolor=PAPER, markersize=6, linestyle="none")
        if any(not cell["fits"] for cell in cells):
            axes.axhline(
                limit / 1e9, color=RED, linewidth=0.9, linestyle=(0, (4, 3)), label="half of the memory (hollow: foretold)"
            )
    _logarithmic(panels)
    _legend(figure, panels)
    return figure


def cosine_figure(cells: Cells) -> Figure:
    """The cosine of approximate gradients of the images with the exact one over T; T logarithmic."""
    cells = [cell for cell in cells if cell["variant"] in APPROXIMATE]
    figure, panels = _panels(cells, "cosine to the exact gradient")
    for axes, held in panels:
        _lines(axes, held, _cosine)
        axes.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    _steps_axes(panels)
    _legend(figure, panels)
    return figure


def _panels(cells: Cells, y: str, same: bool = True) -> tuple[Figure, list[tuple[Axes, Cells]]]:
    """A figure with axes for every number of images per class, and their cells; T is shared, and y where it is the `same`."""
    counts = sorted({cell["ipc"] for cell in cells})
    figure, first = new_axes(max(1.6 * PANEL, PANEL * len(counts)), HEIGHT)
    first.remove()
    panels: list[tuple[Axes, Cells]] = []
    for number, ipc in enumerate(counts):
        shared = panels[0][0] if panels else None
        axes = figure.add_subplot(1, len(counts), number + 1, sharex=shared, sharey=shared if same else None)
        dress(axes)
        held = [cell for cell in cells if cell["ipc"] == ipc]
        each = held[0]
        part = "" if each["batch"] == each["images"] else f", {each['batch']} a step"
        plural = "" if ipc == 1 else "s"
        axes.set_title(f"{ipc} image{plural} per class ({each['images']}{part})", fontsize=TEXT, color=INK)
        axes.set_xlabel("student steps T", color=MUTED, fontsize=TEXT)
        axes.tick_params(labelleft=not (number and same))
        if not number:
            axes.set_ylabel(y, color=MUTED, fontsize=TEXT)
        panels.append((axes, held))
    return figure, panels


def _lines(axes: Axes, cells: Cells, value: Callable[[Mapping[str, Any]], float | None]) -> None:
    """A line for every variant that has values."""
    for name, look in LOOKS.items():
        points = sorted((cell["steps"], found) for cell in cells if cell["variant"] == name and (found := value(cell)) is not None)
        if points:
            style = {"color": look.colour, "linestyle": look.dashes, "marker": look.marker, "markersize": 4.5, "linewidth": 1.5}
            axes.plot(*zip(*points, strict=True), label=name, alpha=0.9, **style)


def _logarithmic(panels: Sequence[tuple[Axes, Cells]]) -> None:
    """Both axes logarithmic, with plain numbers, and so many on the upright one that there are always some."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for axes, _ in panels:
        axes.set_yscale("log")
    for axes, _ in panels:
        low, high = axes.get_ylim()
        few: list[float] = [1] if high / low > 1000 else [1, 3] if high / low > 100 else [1, 2, 5]
        subs = few if high / low > 3 else [number / 2 for number in range(2, 20)]
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    _steps_axes(panels)


def _steps_axes(panels: Sequence[tuple[Axes, Cells]]) -> None:
    """T on a logarithmic axis that names the numbers measured."""
    from matplotlib.ticker import NullLocator

    measured = sorted({cell["steps"] for _, cells in panels for cell in cells})
    for axes, _ in panels:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(measured, [str(steps) for steps in measured])
        axes.set_xlim(measured[0] / 1.15, measured[-1] * 1.15)


def _legend(figure: Figure, panels: Sequence[tuple[Axes, Cells]]) -> None:
    """One legend above all panels, in the order of `LOOKS`."""
    named: dict[str, Any] = {}
    for axes, _ in panels:
        handles, names = axes.get_legend_handles_labels()
        named |= {name: handle for name, handle in zip(names, handles, strict=True) if name not in named}
    order = [name for name in LOOKS if name in named] + [name for name in named if name not in LOOKS]
    columns = min(len(order), max(3, int(figure.get_figwidth() / 1.7)))
    style = {"frameon": False, "fontsize": TEXT, "labelcolor": INK, "handlelength": 2.6}
    figure.legend([named[name] for name in order], order, loc="outside upper center", ncols=columns, **style)


def _cosine(cell: Mapping[str, Any]) -> float | None:
    value = ((cell.get("errors") or {}).get("images") or {}).get("cosine")
    return float(value) if isinstance(value, (int, float)) and np.isfinite(value) else None


def main() -> None:
    here = Path(__file__).parent
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((here / "results" / "engine").glob("*.json"))]
    all_cells = {
        "cells": [cell for one in results for cell in one["cells"]],
        "memory_limit_bytes": results[0]["memory_limit_bytes"],
    }
    for name, figure in engine_figures(all_cells).items():
        picture = Image.open(io.BytesIO(png(figure))).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        picture.save(here.parent / "docs" / "images" / f"engine-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
