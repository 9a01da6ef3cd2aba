"""What a terminal shows, whoever wrote it: text without what a terminal would obey, moving about, wiping out or turning it round.

Names of files and classes, metadata and messages come from anywhere. Inside of `harmless_streams` all that is printed goes through
`harmless`; rich writes colours and bars of its own, past the streams, and its text through the same function.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# Control characters but for line ends and tabs, and what changes the direction of writing.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """The text with what a terminal would obey spelt out, as JSON spells it: `\\u001b`."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Harmless:
    """Writes harmless text to a stream; whatever else is asked of it is the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(harmless(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.stream.writelines(map(harmless, lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def harmless_streams() -> Iterator[None]:
    """Inside the block nothing is printed that a terminal would obey."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Harmless(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def console(*, stderr: bool = False, **given: Any) -> "Console":
    """A console of rich that writes harmless text, with colours of its own where there is a terminal."""
    from rich.console import Console
    from rich.segment import Segment

    class Harmless(Console):
        def _render_buffer(self, buffer: Iterable[Segment]) -> str:
            clean = (part if part.control else Segment(harmless(part.text), part.style) for part in buffer)
            return super()._render_buffer(clean)

    stream = sys.stderr if stderr else sys.stdout
    return Harmless(file=stream.stream if isinstance(stream, _Harmless) else stream, highlight=False, **given)
