"""Figures as files that journals take: in the widths of a column and of a page, letters of one size, the same bytes every time.

A figure is drawn for the screen. For print it is arranged anew at its width, with letters of `POINTS`; lines and marks shrink with
the letters. PDF files carry their fonts (TrueType, as type 42), SVG files have letters as outlines and the words beside them, so
that neither depends on what is installed where they are read. No file holds a date.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.figures.style import COLUMN, FORMATS, PAPER, POINTS, TEXT, drawable
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROWEST, WIDEST = 1.0, 40.0
DPI = 300
# What a file says of itself: nothing of the day, nor of the versions of libraries.
NAMELESS: dict[str, tuple[str, ...]] = {
    "svg": ("Creator", "Date", "Format", "Type"),
    "pdf": ("Creator", "Producer", "CreationDate"),
    "png": ("Software",),
}


def save(
    figure: Figure, path: Path | str, *, width: float | None = COLUMN, formats: Sequence[str] = FORMATS, title: str | None = None
) -> list[Path]:
    """Write the figure as `path` with the ending of every format.

    Args:
        figure: it is the same afterwards.
        path: without an ending, or with that of the only format wanted: `figures/loss`, `loss.pdf`.
        width: in inches, such as `COLUMN` and `PAGE`; a grid of few images is narrower. None leaves the figure as it was drawn.
        formats: of `svg`, `pdf`, `png`; not read where `path` has one of these endings.
        title: of the file, for screen readers and search.

    Raises:
        UsageError: for another format or width.

    Example:
        >>> from limbeck.figures import loss_curve, save
        >>> rows = [{"iteration": k, "loss": 0.9**k} for k in range(20)]
        >>> [path.name for path in save(loss_curve(rows), "loss")]
        ['loss.svg', 'loss.pdf', 'loss.png']
    """
    stem, wanted = Path(path), tuple(formats)
    if (ending := stem.suffix.removeprefix(".")) in FORMATS:
        stem, wanted = stem.with_suffix(""), (ending,)
    check_formats("formats", wanted)
    check_width("width", width)
    with _fitted(figure, width):
        files = {stem.with_name(f"{stem.name}.{one}"): _bytes(figure, one, title) for one in wanted}
    for place, content in files.items():
        write_bytes(place, content)
    return list(files)


def check_formats(name: str, formats: Sequence[str]) -> None:
    """Whether these are formats.

    Raises:
        UsageError: naming the first that is none.
    """
    require(len(formats) > 0, name, "", f"one or more of {', '.join(FORMATS)}")
    for one in formats:
        require(one in FORMATS, name, one, f"one of {', '.join(FORMATS)}")


def check_width(name: str, width: float | None) -> None:
    """Whether something can be drawn in so many inches.

    Raises:
        UsageError: where not.
    """
    if width is not None and not (isinstance(width, (int, float)) and NARROWEST <= width <= WIDEST):
        raise UsageError(f"{name}: {width!r} is not from {NARROWEST:g} to {WIDEST:g} inches")


def _bytes(figure: Figure, form: str, title: str | None) -> bytes:
    """The figure as the content of a file."""
    import matplotlib

    metadata: dict[str, Any] = dict.fromkeys(NAMELESS[form])
    if title is not None:
        metadata["Title"] = title
    buffer = io.BytesIO()
    rules: dict[Any, Any] = {"svg.fonttype": "path", "svg.hashsalt": "limbeck", "pdf.fonttype": 42}
    with matplotlib.rc_context(rules):
        figure.savefig(buffer, format=form, dpi=DPI, facecolor=PAPER if form == "png" else "none", metadata=metadata)
    return buffer.getvalue()


@contextmanager
def _fitted(figure: Figure, width: float | None) -> Iterator[None]:
    """Inside the block the figure has that width, letters of `POINTS`, lines and marks in proportion, and words fonts can draw."""
    size, scale = figure.get_size_inches().copy(), POINTS / TEXT
    undo = list(_spell(figure))
    if width is not None:
        undo += _shrink(figure, scale)
        # Axes of equal units keep their shape and are never enlarged; others are as high as they were, measured in letters.
        if any(axes.get_aspect() != "auto" for axes in figure.axes):
            figure.set_size_inches(*size * min(width / size[0], scale))
        else:
            figure.set_size_inches(width, size[1] * scale)
    try:
        yield
    finally:
        figure.set_size_inches(*size)
        for change in undo:
            change()


def _spell(figure: Figure) -> Iterator[Callable[[], Any]]:
    """Put what fonts can draw in the place of words; a page leaves that to the reader's fonts, a file cannot."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        names = axis.get_major_formatter()
        if isinstance(names, (FixedFormatter, FuncFormatter)):
            yield partial(axis.set_major_formatter, names)
            axis.set_major_formatter(FuncFormatter(partial(_spelt, names)))
    for one in figure.findobj(Text, include_self=False):
        assert isinstance(one, Text)
        if (spelt := drawable(words := one.get_text())) != words:
            yield partial(one.set_text, words)
            one.set_text(spelt)


def _spelt(names: Callable[[float, int | None], str], value: float, place: int | None) -> str:
    """The name of a tick as fonts can draw it."""
    return drawable(names(value, place))


def _shrink(figure: Figure, scale: float) -> Iterator[Callable[[], Any]]:
    """Scale letters, lines and marks; what undoes each change."""
    from matplotlib.collections import Collection, PathCollection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    written = [(one, one.get_fontsize()) for one in figure.findobj(include_self=False) if isinstance(one, Text)]
    for axes in figure.axes:  # changes the size of all labels that are there, which have their own after that
        yield from _shrink_ticks(axes, scale)
    for text, size in written:
        yield _changed(text.set_fontsize, size, scale)
    for one in figure.findobj(include_self=False):
        if isinstance(one, Line2D):
            yield _changed(one.set_linewidth, one.get_linewidth(), scale)
            yield _changed(one.set_markersize, one.get_markersize(), scale)
            yield _changed(one.set_markeredgewidth, one.get_markeredgewidth(), scale)
        elif isinstance(one, Patch):
            yield _changed(one.set_linewidth, one.get_linewidth(), scale)
        elif isinstance(one, Collection):
            yield _changed(one.set_linewidth, one.get_linewidth(), scale)
            if isinstance(one, PathCollection):
                yield _changed(one.set_sizes, one.get_sizes(), scale**2)


def _shrink_ticks(axes: Axes, scale: float) -> Iterator[Callable[[], Any]]:
    """The same for the labels of ticks, also for ticks that are yet to come."""
    for axis in (axes.xaxis, axes.yaxis):
        size = axis.get_tick_params(which="major").get("labelsize", TEXT)
        axis.set_tick_params(labelsize=size * scale)
        yield partial(axis.set_tick_params, labelsize=size)


def _changed(change: Callable[[Any], Any], old: Any, scale: float) -> Callable[[], Any]:
    """Set a size, or sizes, that much smaller; what sets it back."""
    import numpy as np

    change(np.asarray(old) * scale if isinstance(old, (list, tuple, np.ndarray)) else old * scale)
    return partial(change, old)
