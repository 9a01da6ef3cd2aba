"""What results show: text that fits into a terminal, and the same for a notebook."""

import html
import sys
import textwrap
from collections.abc import Mapping
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
