"""Curves of several runs in one figure, as paths that the page draws, so that it can show some of them and hide others.

A long curve is drawn as the medians of short blocks of iterations.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from limbeck.figures.curves import blocks, column
from limbeck.report.sortable import Facts

WIDTH, HEIGHT = 640, 300  # of the plane that curves lie in
MOST_POINTS = 200
COLOURS = 8  # after which lines are dashed

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Line:
    """A run's curve: what it belongs to, its facts, and its points."""

    name: str
    group: str
    facts: Facts
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Curve:
    """A line for the page: `d` of its SVG path, and which style its group has."""

    name: str
    group: str
    facts: Facts
    d: str
    last: str
    colour: int
    dash: int


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, in percent of it from the left or from above, and its words."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Lines over the iterations, for the page: `legend` has the name, colour and dash of every group."""

    name: str
    title: str
    y_title: str
    caption: str
    curves: tuple[Curve, ...]
    legend: tuple[tuple[str, int, int], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT


def points_of(rows: Rows, key: str, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and values, without those that are missing."""
    x, y = column(rows, "iteration"), scale * column(rows, key)
    good = np.isfinite(x) & np.isfinite(y)
    return x[good], y[good]


def chart(name: str, title: str, y_title: str, lines: Sequence[Line], caption: str = "", *, log: bool = False) -> Chart | None:
    """The figure of lines with at least one point, of many points medians of blocks; None where there is none.

    Args:
        name: of letters and hyphens, another for every figure of a page.
        title: above it.
        y_title: what the values are, with their unit.
        lines: runs of one group have one style.
        caption: below it.
        log: whether values are on a logarithmic scale, which has no place for those that are not positive.
    """
    kept, said = list[Line](), list[str]()
    for line in lines:
        good = line.y > 0 if log else np.isfinite(line.y)
        if good.any():
            said.append(_said(line.x[good][-1], line.y[good][-1]))
            x, y, *_ = blocks(line.x[good], line.y[good], MOST_POINTS)
            kept.append(replace(line, x=x, y=np.log10(y) if log else y))
    if not kept:
        return None
    x_range = _range(np.concatenate([line.x for line in kept]), 0.0)
    y_range = _range(np.concatenate([line.y for line in kept]), 0.05)
    groups = {group: number for number, group in enumerate(dict.fromkeys(line.group for line in kept))}
    legend = tuple((group, number % COLOURS, number // COLOURS % 4) for group, number in groups.items())
    style = {group: (colour, dash) for group, colour, dash in legend}
    curves = tuple(
        Curve(line.name, line.group, line.facts, _d(line, x_range, y_range), last, *style[line.group])
        for line, last in zip(kept, said, strict=True)
    )
    x_ticks = tuple(Tick(round(100 * _at(x, x_range), 2), f"{x:g}") for x in ticks(*x_range))
    y_values = _powers(*y_range) if log else [(y, f"{y:g}") for y in ticks(*y_range)]
    y_ticks = tuple(Tick(round(100 * (1 - _at(y, y_range)), 2), text) for y, text in y_values)
    return Chart(name, title, y_title, caption, curves, legend, x_ticks, y_ticks)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers in a range, at most so many steps: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[tuple[float, str]]:
    """Places and words of ticks on a logarithmic scale: powers of ten, of few also 2 and 5 times these, or round numbers."""
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    values = [factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors]
    inside = [value for value in values if low <= math.log10(value) <= high]
    shown = inside if len(inside) > 2 else [y for y in ticks(10**low, 10**high, 5) if y > 0]
    return [(math.log10(value), f"{value:g}") for value in shown]


def _range(values: np.ndarray, margin: float) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = margin * (high - low) if high > low else abs(high) / 10 or 0.5
    return low - room, high + room


def _at(value: float, ends: tuple[float, float]) -> float:
    return (value - ends[0]) / (ends[1] - ends[0])


def _d(line: Line, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    """The path through the points; of one point alone a stroke of no length, which is drawn as a dot."""
    places = [
        f"{WIDTH * _at(float(x), x_range):.1f} {HEIGHT * (1 - _at(float(y), y_range)):.1f}"
        for x, y in zip(line.x, line.y, strict=True)
    ]
    return "M" + "L".join(places if len(places) > 1 else places * 2)


def _said(iteration: float, value: float) -> str:
    """A value in words."""
    return f"{value:.4g} after {iteration:.0f} iterations"
