"""Words that a user chose, in figures: names of classes, methods and files.

They are never set as mathematics (`cost $5 and $6` is no formula), and every letter is drawn in the first font that has it. What no
installed font has would be an empty box: in its place stands what the caller says, or a dot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.text import Text

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


def families() -> list[str]:
    """The usual fonts, and those of `FALLBACKS` that are installed."""
    from matplotlib import rcParams
    from matplotlib.font_manager import fontManager

    installed = {entry.name for entry in fontManager.ttflist}
    return [*rcParams["font.family"], *(name for name in FALLBACKS if name in installed)]


def as_written() -> dict[str, Any]:
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
