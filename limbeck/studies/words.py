"""Rows of words as a table: in Markdown, in HTML for a notebook, and for a terminal."""

import html
import io
from collections.abc import Sequence
from typing import Any

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

    console = Console(file=io.StringIO(), width=width, highlight=False, emoji=False, markup=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip("\n")
