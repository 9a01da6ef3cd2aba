"""What results show: text that fits into a terminal, and the same for a notebook, with pictures."""

import base64
import html
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from limbeck.runtime.terminal import harmless

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.table import Table


@dataclass(frozen=True)
class Grid:
    """Rows under a header.

    Args:
        columns: the header.
        rows: of as many texts.
        left: how many columns are words; the others are numbers.
        title: above it; empty for none.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    title: str = ""

    @classmethod
    def of(cls, rows: Sequence[Sequence[str]], title: str = "") -> Self:
        """All to the left; the first row is the head."""
        head, *body = [tuple(map(str, row)) for row in rows]
        return cls(head, tuple(body), len(head), title)

    def __rich__(self) -> "Table":
        """For rich, with words as they are, though they may look like markup."""
        from rich.box import ASCII, HEAVY_HEAD
        from rich.table import Column, Table
        from rich.text import Text

        unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
        head = [
            Column(Text(harmless(column)), justify="left" if number < self.left else "right", overflow="fold")
            for number, column in enumerate(self.columns)
        ]
        title = Text(harmless(self.title), "table.title") if self.title else None
        table = Table(*head, box=HEAVY_HEAD if unicode else ASCII, title=title, title_justify="left")
        for row in self.rows:
            table.add_row(*(Text(harmless(cell)) for cell in row))
        return table

    def text(self, width: int | None = None) -> str:
        """What a terminal of that width shows; of this one for None."""
        from rich.console import Console

        written = StringIO()
        Console(file=written, width=width, highlight=False).print(self)
        return written.getvalue().rstrip("\n")

    def __str__(self) -> str:
        return self.text()

    @property
    def markdown(self) -> list[str]:
        """Lines of Markdown."""
        rows = [
            [html.escape(" ".join(cell.split()), quote=False).replace("|", "¦") for cell in row]
            for row in (self.columns, *self.rows)
        ]
        head, *body = [f"| {' | '.join(row)} |" for row in rows]
        return [head, "|---" * len(self.columns) + "|", *body]

    def _repr_html_(self) -> str:
        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows)
        return f"<table>{caption}<tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


@dataclass(frozen=True)
class Page:
    """Lines and grids below each other, the grids at most so wide."""

    parts: tuple[str | Grid, ...]
    width: int | None = None

    def __str__(self) -> str:
        return "\n".join(harmless(part) if isinstance(part, str) else part.text(self.width) for part in self.parts)

    def _repr_html_(self) -> str:
        shown = (f"<pre>{html.escape(part)}</pre>" if isinstance(part, str) else part._repr_html_() for part in self.parts)
        return "".join(shown)


def wrapped(sentence: str) -> str:
    """In lines of at most 80 characters."""
    return textwrap.fill(sentence, 80, break_long_words=False, break_on_hyphens=False)


def duration(seconds: float) -> str:
    """A time for people: 0.42 s, 12.3 s, 4 min 05 s, 2 h 07 min."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def tree(value: Mapping[str, Any], indent: int = 2) -> list[str]:
    """Nested figures, a line each; long lists are left out."""
    lines = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            lines += [f"{' ' * indent}{key}:", *tree(item, indent + 2)]
        elif not isinstance(item, (list, tuple)) or len(item) <= 4:
            lines.append(f"{' ' * indent}{key}: {f'{item:.4g}' if isinstance(item, float) else item}")
    return lines


def paths_text(paths: Mapping[str, str]) -> str:
    """A line each, unbroken."""
    width = max(map(len, paths), default=0) + 1
    return "\n".join(f"{name + ':':{width}} {path}" for name, path in paths.items())


def uri(image: "Image") -> str:
    """The image as a PNG data URI."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(image: "Image", height: int) -> "Html":
    """The image as HTML, so many pixels high, without smoothing."""
    return Html(f'<img src="{uri(image)}" style="height: {height}px; image-rendering: pixelated">')


class Html(str):
    """Text that is HTML of ours, such as `picture` makes."""

    __slots__ = ()


def markdown_text(value: object) -> str:
    """`value` as Markdown text in one line: nothing in it is read as HTML or as Markdown."""
    return re.sub(r"([\\`*_{}\[\]#|~$!])", r"\\\1", html.escape(" ".join(str(value).split()), quote=False))


def markdown_code(value: object) -> str:
    """`value` for a code span of Markdown, also in a table, where only the backtick and the bar mean anything."""
    return " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")


def table(rows: Iterable[Iterable[object]]) -> str:
    """Rows as HTML: text is escaped, but for what is `Html`."""

    def cell(value: object) -> str:
        return value if isinstance(value, Html) else html.escape(str(value))

    shown = ("".join(f"<td>{cell(value)}</td>" for value in row) for row in rows)
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in shown) + "</table>"
