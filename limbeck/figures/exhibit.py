"""A figure with what a reader needs beside it; a notebook shows both."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.figures.paper import check_formats, check_width, save
from limbeck.figures.style import COLUMN, FORMATS, PAGE, inline_svg
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import write_text
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.tables import markdown_text
from limbeck.runtime.urls import is_url

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = "captions.md"
MARK = re.compile(r"<!-- Limbeck: figures of (.*), ([0-9a-f]{16}) -->")  # the first line
HEAD = 2**16  # bytes in which it ends


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A figure of a run, a set or a study.

    Args:
        name: of letters and hyphens, as files are called.
        title: in a few words.
        caption: a sentence, or some.
        figure: as drawn for the screen.
        wide: whether it is as wide as a page, not as a column.
        sources: the folders that it was drawn of, as paths or URLs, where it was drawn of any.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False
    sources: tuple[str, ...] = ()

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
        folder: is made where it is missing; one has the figures of one source, which take the place of those before, and other
            files in it stay.
        column: the width of most figures in inches.
        page: that of grids and other wide ones.
        formats: of `svg`, `pdf`, `png`.

    Raises:
        UsageError: for other formats or widths, where something else than a folder is, where the folder has figures of another
            source, and where a file of one of these names is there that is not of Limbeck's figures.
    """
    folder = Path(folder)
    check_formats("formats", formats)
    check_width("column", column)
    check_width("page", page)
    require(not folder.exists() or folder.is_dir(), "folder", str(folder), "a folder")
    captions, mark = folder / CAPTIONS, _mark(exhibits, folder)
    _check_place(folder, mark, [captions, *(folder / f"{one.name}.{form}" for one in exhibits for form in formats)])
    lines = [f"**{markdown_text(one.title)}** (`{one.name}`). {markdown_text(one.caption)}\n" for one in exhibits]
    write_text(captions, "\n".join([f"{mark}\n# Captions\n", *lines]))  # first, so that what is half written is known as ours
    written: list[Path] = []
    for one in exhibits:
        width = page if one.wide else column
        written += save(one.figure, folder / one.name, width=width, formats=formats, title=one.title)
    return [*written, captions]


def _mark(exhibits: Sequence[Exhibit], folder: Path) -> str:
    """The line that says what a folder has the figures of: by name, and as seen from the folder, so that both may move together."""
    sources = sorted({source for one in exhibits for source in one.sources})
    names = escape(" ".join(", ".join(Path(source).name for source in sources).split())) or "Python"
    names = names.encode(errors="replace").decode()  # of files, which may hold any bytes
    return f"<!-- Limbeck: figures of {names}, {fingerprint([_seen_from(folder, source) for source in sources])} -->"


def _seen_from(folder: Path, source: str) -> str:
    """The way from the folder to a path; a URL as it is."""
    try:
        return source if is_url(source) else Path(os.path.relpath(source, folder.resolve())).as_posix()
    except ValueError:  # of another drive
        return source


def _check_place(folder: Path, mark: str, files: Sequence[Path]) -> None:
    """Raise `UsageError` where the folder has figures of another source, or files under these names that nobody has marked."""
    captions, head = folder / CAPTIONS, ""
    try:
        if captions.is_file():
            with captions.open("rb") as file:
                head = file.readline(HEAD).decode(errors="replace").rstrip()
    except OSError as error:
        raise UsageError(f"folder: {str(captions)!r} cannot be read: {error.strerror}") from error
    own, found = MARK.fullmatch(mark), MARK.fullmatch(head)
    assert own is not None, "just made"
    if found is not None and found[2] != own[2]:
        raise UsageError(f"folder: {str(folder)!r} has the figures of another source, {found[1]!r}; name another folder")
    if found is None and (there := next((path for path in files if os.path.lexists(path)), None)) is not None:
        raise UsageError(f"folder: {str(there)!r} is there, and not of Limbeck's figures; name another folder")
