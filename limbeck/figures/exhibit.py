"""A figure with what a reader needs beside it; a notebook shows both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.figures.paper import check_formats, check_width, save
from limbeck.figures.style import COLUMN, FORMATS, PAGE, inline_svg
from limbeck.runtime.errors import require
from limbeck.runtime.files import write_text
from limbeck.runtime.tables import markdown_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = "captions.md"


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A figure of a run, a set or a study.

    Args:
        name: of letters and hyphens, as files are called.
        title: in a few words.
        caption: a sentence, or some.
        figure: as drawn for the screen.
        wide: whether it is as wide as a page, not as a column.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False

    def _repr_html_(self) -> str:
        drawn = inline_svg(self.figure, self.name, self.title)
        inches = self.figure.get_size_inches()[0]
        shown = f'<div style="max-width: {inches:g}in; background: #fff">{drawn}</div>'
        return f"<p><b>{escape(self.title)}</b> {escape(self.caption)}</p>{shown}"


def write_exhibits(
    exhibits: Sequence[Exhibit],
    folder: Path | str,
    *,
    column: float = COLUMN,
    page: float = PAGE,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Write every figure into a folder, as `NAME.svg` and so on, and their captions as `captions.md`; the paths.

    Args:
        exhibits: with different names.
        folder: is made where it is missing; other files in it stay.
        column: the width of most figures in inches.
        page: that of grids and other wide ones.
        formats: of `svg`, `pdf`, `png`.

    Raises:
        UsageError: for other formats or widths, or where something else than a folder is.
    """
    folder = Path(folder)
    check_formats("formats", formats)
    check_width("column", column)
    check_width("page", page)
    require(not folder.exists() or folder.is_dir(), "folder", str(folder), "a folder")
    written: list[Path] = []
    for one in exhibits:
        width = page if one.wide else column
        written += save(one.figure, folder / one.name, width=width, formats=formats, title=one.title)
    lines = [f"**{markdown_text(one.title)}** (`{one.name}`). {markdown_text(one.caption)}\n" for one in exhibits]
    write_text(folder / CAPTIONS, "\n".join(["# Captions\n", *lines]))
    return [*written, folder / CAPTIONS]
