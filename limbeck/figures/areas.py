"""How much of every image speaks for its class, as it began and as it was distilled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from limbeck.figures.names import as_written, drawable
from limbeck.figures.style import BLUE, INK, MUTED, ORANGE, PAPER, TEXT, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"area": "discriminative area (%)", "mean_activation": "mean activation (%)"}


def area_change(
    result: Mapping[str, Any],
    kind: Literal["area", "mean_activation"] = "area",
    names: tuple[str, str] = ("initial", "distilled"),
) -> Figure:
    """A point for every image, before against after in percent; above the dashed line it has grown.

    Args:
        result: of `evaluation.areas.carries`.
        kind: which of its figures.
        names: what the initial and the distilled images are called.
    """
    found = result[kind]
    before, after = (100 * np.array(found[name]["values"], dtype=float) for name in ("initial", "distilled"))
    figure, axes = new_axes(4.6, 4.6)
    low, high = _range(np.concatenate([before, after]))
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    size = float(np.clip(900 / len(before), 7, 30))
    for chosen, colour, name in (
        (after > before, BLUE, "grown"),
        (after < before, ORANGE, "shrunk"),
        (after == before, MUTED, "equal"),
    ):
        if chosen.any():
            style: dict[str, Any] = {"s": size, "color": colour, "alpha": 0.65, "linewidths": 0}
            axes.scatter(before[chosen], after[chosen], label=f"{name} ({chosen.sum()})", **style)
    axes.scatter(before.mean(), after.mean(), s=55, marker="D", color=INK, edgecolors=PAPER, linewidths=1.2, label="mean", zorder=3)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(axes.yaxis.get_major_locator())
    _note(axes, found, float(after.mean() - before.mean()))
    axes.set_xlabel(f"{drawable(names[0])}: {NAMES[kind]}", color=MUTED, fontsize=TEXT, **as_written())
    axes.set_ylabel(f"{drawable(names[1])}: {NAMES[kind]}", color=MUTED, fontsize=TEXT, **as_written())
    style = {"frameon": False, "fontsize": TEXT, "labelcolor": INK, "handletextpad": 0.1, "columnspacing": 1.2}
    figure.legend(loc="outside upper center", ncols=4, **style)
    return figure


def _range(values: np.ndarray) -> tuple[float, float]:
    """The axes' ends, inside 0 … 100 but for room for the points that lie there."""
    room = max(0.06 * float(np.ptp(values)), 1.0)
    return max(float(values.min()) - room, -2.0), min(float(values.max()) + room, 102.0)


def _note(axes: Axes, found: Mapping[str, Any], points: float) -> None:
    """The mean difference with its interval, and the relative change, where the points leave most room."""
    lines = [f"{points:+.1f} points" + _interval(found["difference"]["ci95"], 100)]
    if found["relative_percent"] is not None:
        lines.append(f"{found['relative_percent']['mean']:+.1f} %" + _interval(found["relative_percent"]["ci95"], 1))
    text = "\n".join(lines).replace("-", "−")
    right = points > 0  # most points lie above the line then
    place: dict[str, Any] = {"ha": "right", "va": "bottom"} if right else {"ha": "left", "va": "top"}
    at = (0.97, 0.04) if right else (0.03, 0.96)
    axes.text(*at, text, transform=axes.transAxes, fontsize=TEXT, color=INK, linespacing=1.5, **place)


def _interval(ends: list[float] | None, unit: float) -> str:
    return "" if ends is None else f"  [{unit * ends[0]:+.1f}, {unit * ends[1]:+.1f}]"
