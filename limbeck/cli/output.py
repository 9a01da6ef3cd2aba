"""What a command prints at its end: one JSON object, or a summary for people that fits into 80 columns."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, Protocol

from limbeck.runtime.terminal import console


class HasPaths(Protocol):
    """What has written files."""

    @property
    def paths(self) -> Mapping[str, str]:
        """By name."""


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Inside the block everything printed, also by C libraries and child processes, goes to standard error."""
    stream = sys.stdout
    stream.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        # What waits in a buffer would otherwise reach standard output after the block.
        stream.flush()
        _flush_c_streams()
        os.dup2(kept, 1)
        os.close(kept)


def print_json(value: Any) -> None:
    """Print `value` as one JSON object on one line of standard output."""
    import json

    from limbeck.runtime.fingerprint import encodable

    value = encodable(value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    print(text)


def print_lines(found: Any) -> None:
    """Print the tables and sentences of what was found, and the paths of its files."""
    out = console(emoji=False, markup=False)
    for line in found.lines():
        out.print(line, soft_wrap=isinstance(line, str))
    print_paths(found)


def print_paths(found: HasPaths) -> None:
    """Print the paths of what was found, a line each and unbroken."""
    from limbeck.runtime.tables import paths_text

    if found.paths:
        print(paths_text(found.paths))


def _flush_c_streams() -> None:
    """Write what C libraries have printed and their buffers still hold."""
    import ctypes

    with suppress(OSError, TypeError, AttributeError):  # no C library to be found by that name
        ctypes.CDLL(None).fflush(None)
