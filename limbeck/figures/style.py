"""How figures look, and how one becomes part of a page.

A figure is drawn in the colours of a light page. Inside a page each of them is a CSS variable, `--figure-ink` and so on, so that
the page decides, by day or by night; the drawn colour remains as the fallback.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#24292e", "#6a737e", "#dfe3e8", "#fffffe"
BLUE, ORANGE, GREEN, RED = "#2266cc", "#c2620a", "#1a8055", "#c7354a"
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red"}
TEXT = 9.5


def new_axes(width: float = 5.4, height: float = 2.9) -> tuple[Figure, Axes]:
    """A figure of that many inches with one pair of axes. It belongs to no window and to no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    dress(axes)
    return figure, axes


def dress(axes: Axes) -> None:
    """Our look for axes that are there: a light grid, two spines, quiet ticks."""
    axes.set_facecolor("none")
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(GRID)
    axes.tick_params(which="both", colors=MUTED, labelsize=TEXT, length=0)


def label(axes: Axes, x: str, y: str) -> None:
    """Name the axes, and show the legend if there is anything to tell apart."""
    axes.set_xlabel(x, color=MUTED, fontsize=TEXT)
    axes.set_ylabel(y, color=MUTED, fontsize=TEXT)
    handles, names = axes.get_legend_handles_labels()
    if len(handles) > 1:
        legend = {"frameon": False, "fontsize": TEXT, "labelcolor": INK}
        axes.figure.legend(handles, names, loc="outside upper right", ncols=len(handles), **legend)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file on paper white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor=PAPER)
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an `<svg>` element for an HTML page.

    Args:
        figure: what to draw; it is not changed.
        name: of letters and hyphens, different for every figure of a page: it keeps their ids apart.
        title: what a screen reader says.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "limbeck"}), warnings.catch_warnings():
        # The reader's browser draws the letters, in fonts of its own.
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None  # matplotlib always writes one
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # nothing refers to a group
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    body = re.sub(r"font-family: [^;\"]*; ?", "", body)  # the page's own
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--figure-{variable}, {colour})")
    said = html.escape(title, quote=True)
    return f'<svg class="figure" viewBox="{box[1]}" role="img" aria-label="{said}">{body}'
