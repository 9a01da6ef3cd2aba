"""How values show themselves in a notebook: facts in a table, pictures beside them."""

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def uri(image: "Image") -> str:
    """The image as a PNG data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(image: "Image", height: int) -> str:
    """The image as HTML, so many pixels high, without smoothing."""
    return f'<img src="{uri(image)}" style="height: {height}px; image-rendering: pixelated">'


def table(rows: Iterable[Iterable[object]]) -> str:
    """Rows as HTML: text is escaped, but for pictures, which begin with their tag."""
    cells = (("".join(f"<td>{cell if str(cell).startswith('<img ') else escape(str(cell))}</td>" for cell in row)) for row in rows)
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"
