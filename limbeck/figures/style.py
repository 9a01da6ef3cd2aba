"""How figures look, which words they can show, and how one becomes a file or part of a page.

Words that a user chose (names of classes, methods and files) are never set as mathematics (`cost $5 and $6` is no formula), and
every letter is drawn in the first font that has it. What no installed font has would be an empty box: in its place stands what the
caller says, or a dot.

A figure is drawn in the colours of a light page. Inside a page each of them is a CSS variable, `--figure-ink` and so on, so that
the page decides, by day or by night; the drawn colour remains as the fallback.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Dash = str | tuple[float, tuple[float, ...]]

INK, MUTED, GRID, PAPER = "#24292e", "#6a737e", "#dfe3e8", "#fffffe"
# Apart also for people who do not see red, green or blue as others do (`tests/figures/test_colours.py`), and on white paper.
BLUE, ORANGE, GREEN, RED = "#3366ee", "#d87600", "#03a565", "#b30f24"
SERIES = (BLUE, ORANGE, GREEN, RED, INK, MUTED)
# Every colour of a series goes with a dash and a marker of its own, so that a copy in grey tells as much.
DASHES: dict[str, Dash] = {
    BLUE: "-",
    ORANGE: (0, (5, 1.6)),
    GREEN: (0, (5, 1.4, 1, 1.4)),
    RED: (0, (1.4, 1.2)),
    INK: (0, (9, 2)),
    MUTED: (0, (4, 1.2, 1, 1.2, 1, 1.2)),
}
MARKERS = dict(zip(SERIES, "os^DvP", strict=True))
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red"}
TEXT = 9.5
COLUMN, PAGE, POINTS = 3.25, 6.75, 7.5  # inches, in print, and the size of letters there
KEY, LETTER = 0.6, 0.078  # inches of a mark in a key, and of a letter
FORMATS = ("svg", "pdf", "png")
MARK = "·"
# For scripts that matplotlib's own font lacks. Fonts of coloured emoji are left out: matplotlib cannot draw them.
FALLBACKS = (
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans CJK TC",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "IPAGothic",
    "NanumGothic",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "SimHei",
    "Yu Gothic",
    "MS Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Noto Emoji",
    "Noto Sans Symbols",
    "Noto Sans Symbols 2",
    "Segoe UI Symbol",
    "Symbola",
    "Unifont",
)


def new_axes(width: float = 5.4, height: float = 2.9) -> tuple[Figure, Axes]:
    """A figure of that many inches with one pair of axes. It belongs to no window and to no global state."""
    from limbeck.figures.shown import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_facecolor("none")
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
        axes.figure.legend(handles, names, loc="outside upper right", ncols=columns(names), **legend)


def columns(names: Sequence[str]) -> int:
    """In how many columns a key of these names is not wider than a column of print."""
    room = COLUMN * TEXT / POINTS

    def width(count: int) -> float:
        rows = -(-len(names) // count)
        return sum(KEY + LETTER * max(map(len, names[at : at + rows])) for at in range(0, len(names), rows))

    return next((count for count in range(len(names), 1, -1) if width(count) <= room), 1)


def families() -> list[str]:
    """The usual fonts, and those of `FALLBACKS` that are installed."""
    from matplotlib import rcParams
    from matplotlib.font_manager import fontManager

    installed = {entry.name for entry in fontManager.ttflist}
    return [*rcParams["font.family"], *(name for name in FALLBACKS if name in installed)]


class Writing(TypedDict):
    """Keywords of matplotlib's functions that write words."""

    parse_math: bool
    fontfamily: list[str]


def as_written() -> Writing:
    """What to hand to a function of matplotlib that writes such words."""
    return {"parse_math": False, "fontfamily": families()}


def write_plainly(texts: Iterable[Text]) -> None:
    """The same for texts that are there, such as those of a legend."""
    for text in texts:
        text.set(**as_written())


def drawable(words: str, otherwise: str | None = None) -> str:
    """The words, if fonts have all of their letters.

    Args:
        words: as the user wrote them.
        otherwise: what stands for words that cannot be drawn; None puts `MARK` in the place of every letter that is missing.
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(family=[name]))) for name in families()] if not words.isascii() else []
    known = [letter == "\n" or (letter.isascii() and letter.isprintable()) or any(map(_has(letter), fonts)) for letter in words]
    if all(known):
        return words
    return "".join(letter if good else MARK for letter, good in zip(words, known, strict=True)) if otherwise is None else otherwise


def _has(letter: str) -> Any:
    return lambda font: font.get_char_index(ord(letter)) > 0


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
