"""What results show: text that fits into a terminal, and the same for a notebook."""

import html
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any


@dataclass(frozen=True)
class Grid:
    """Rows under a header.

    Args:
        columns: the header.
        rows: of as many texts.
        left: how many columns are words; the others are numbers.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1

    def __str__(self) -> str:
        from rich.box import ASCII, HEAVY_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
        table = Table(box=HEAVY_HEAD if unicode else ASCII)
        for number, column in enumerate(self.columns):
            table.add_column(Text(column), justify="left" if number < self.left else "right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        written = StringIO()
        Console(file=written, highlight=False).print(table)
        return written.getvalue().rstrip("\n")

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


@dataclass(frozen=True)
class Page:
    """Lines and grids below each other."""

    parts: tuple[str | Grid, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.parts))

    def _repr_html_(self) -> str:
        shown = (f"<pre>{html.escape(part)}</pre>" if isinstance(part, str) else part._repr_html_() for part in self.parts)
        return "".join(shown)


def wrapped(sentence: str) -> str:
    """In lines of at most 80 characters."""
    return textwrap.fill(sentence, 80, break_long_words=False, break_on_hyphens=False)


def duration(seconds: float) -> str:
    """Such as 3 min 20 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


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


Rows = Sequence[Sequence[str]]


def markdown_table(rows: Rows) -> list[str]:
    """Lines of Markdown; the first row is the head."""
    lines = [f"| {' | '.join(' '.join(str(cell).split()).replace('|', '¦') for cell in row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def html_table(rows: Rows, title: str = "", notes: Sequence[str] = ()) -> str:
    """A table of HTML under its title, above its notes; the first row is the head."""
    head, *body = [[html.escape(str(cell)) for cell in row] for row in rows]
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body]
    caption = f"<caption>{html.escape(title)}</caption>" if title else ""
    said = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"<table>{caption}<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{''.join(lines)}</table>{said}"


def terminal_table(rows: Rows, title: str = "") -> Any:
    """A table of rich, in which words are shown as they are, though they may look like markup; the first row is the head."""
    from rich.table import Column, Table
    from rich.text import Text

    head = [Column(Text(name), overflow="fold") for name in rows[0]]
    table = Table(*head, title=Text(title, "table.title") if title else None, title_justify="left")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table


def printed(*parts: Any, width: int = 100) -> str:
    """What a terminal of that width would show of tables and lines."""
    from rich.console import Console

    console = Console(file=StringIO(), width=width, highlight=False, emoji=False, markup=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip("\n")
