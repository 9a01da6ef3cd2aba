"""`metrics.jsonl`: one JSON object a line, appended as a run goes on and cut back to the checkpoint when it resumes.

The last key of every line, `check`, has the version of this form and the CRC-32 of the file up to there, so that no line is
altered, lost or another run's unnoticed; the first one names the run too. Lines that an earlier version wrote have none.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from limbeck.runtime.bounded import MOST_TEXT, json_of, opened, read_bytes
from limbeck.runtime.disk import naming
from limbeck.runtime.errors import UsageError, one_line
from limbeck.runtime.files import write_text
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.room import vanished
from limbeck.runtime.sealed import Damaged

VERSION = 1
CHECK = ', "check": "'


class Line(NamedTuple):
    """What a line of the file says, where it ends in the file, the CRC-32 of the file until there, its number, and whether lines
    have checksums."""

    row: dict[str, Any]
    end: int
    sum: int
    number: int
    checked: bool


class MetricsLog:
    """Appends to the file at `path`; `keep_until(iteration)` forgets later lines, which a resumed run writes again.

    Args:
        path: of the file.
        of: the run that it belongs to.
        heard: called with each line that was written, as JSON has it.
    """

    def __init__(self, path: Path, of: str = "", heard: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.path, self.of, self.heard = path, of, heard
        self.sum: int | None = None  # of what is in the file
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, **values: Any) -> None:
        """Write one line; numbers that are not finite become null, because JSON has no word for them."""
        if self.sum is None:
            self.sum = crc32(self.path.read_bytes()) if self.path.exists() else 0
        row = {key: _finite(plain(value)) for key, value in values.items()}
        text = json.dumps(row)
        of = f" {self.of}" if self.of and not self.sum else ""
        line = f'{text[:-1]}{CHECK}{VERSION} {crc32(text.encode(), self.sum):08x}{of}"}}\n'
        try:
            with naming(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except FileNotFoundError as error:
            raise vanished(self.path.parent) from error
        self.sum = crc32(line.encode(), self.sum)
        if self.heard is not None:
            self.heard(row)

    def keep_until(self, iteration: int) -> int:
        """Keep the lines before the first whose `iteration` is the given one or above; a half-written last line goes too.

        Returns:
            How far the lines reach that are left: the iteration after the last one that is noted.

        Raises:
            UsageError: when the file is not what was written.
        """
        end, self.sum, reached = 0, 0, 0
        for line in _lines(self.path, self.of):
            if not isinstance(line.row.get("iteration"), int):
                raise _broken(self.path, "a line names no iteration")
            if line.row["iteration"] >= iteration:
                break
            end, self.sum = line.end, line.sum
            reached = line.row["iteration"] + 1 if line.row.get("kind") == "iteration" else reached
        write_text(self.path, self.path.read_bytes()[:end].decode() if end else "")
        return reached

    def sync(self) -> None:
        """Have it all on the disk, as a checkpoint that is written now will rely on."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())


def read_metrics(path: Path, of: str = "") -> list[dict[str, Any]]:
    """The objects in a metrics file, without a last line that a crash cut off; an absent file has none.

    Raises:
        UsageError: when the file is not what was written, or another run's than `of`.
    """
    return [line.row for line in _lines(path, of)]


class MetricsTail:
    """A metrics file that another process goes on writing: what has come since it was looked at last.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = 0  # which it was: one that is cut back is another
        self._last: Line | None = None

    def more(self) -> tuple[bool, list[dict[str, Any]]]:
        """Whether it begins anew, and the rows that are new then; a line that is being written comes the next time.

        Raises:
            UsageError: when the file is not what was written; rows before that are given first.
        """
        try:
            with opened(self.path) as file:
                about, end = os.fstat(file.fileno()), self._last.end if self._last else 0
                if anew := about.st_ino != self._file or about.st_size < end:
                    self._file, self._last, end = about.st_ino, None, 0
                file.seek(end)
                content = file.read(MOST_TEXT)
        except FileNotFoundError:
            anew, content, self._file, self._last = self._file != 0, b"", 0, None
        except (OSError, ValueError) as error:
            raise _broken(self.path, one_line(error)) from error
        rows: list[dict[str, Any]] = []
        try:
            for line in _lines_of(content, self.path, "", self._last):
                self._last = line
                rows.append(line.row)
        except UsageError:
            if not anew and not rows:
                raise
        return anew, rows


def _lines(path: Path, of: str) -> Iterator[Line]:
    try:
        content = read_bytes(path, MOST_TEXT) if path.exists() else b""
    except (OSError, ValueError) as error:
        raise _broken(path, one_line(error)) from error
    return _lines_of(content, path, of, None)


def _lines_of(content: bytes, path: Path, of: str, last: Line | None) -> Iterator[Line]:
    """The lines of the content, which is that of the file behind the `last` line known."""
    begin = end = last.end if last else 0
    running, checked = (last.sum, last.checked) if last else (0, False)
    for number, line in enumerate(content.splitlines(keepends=True), start=1 + (last.number if last else 0)):
        try:
            row, found = _row(line, running, of)
        except ValueError as error:
            if end + len(line) == begin + len(content) and line[:1] == b"{" and line.isascii() and not line.endswith(b"\n"):
                return  # it was being written when the run was killed
            raise _broken(path, f"line {number} {error if isinstance(error, Damaged) else 'is no JSON'}") from error
        if checked and not found:
            raise _broken(path, f"line {number} has no checksum")
        end, running, checked = end + len(line), crc32(line, running), checked or found
        yield Line(row, end, running, number, checked)


def _row(line: bytes, running: int, of: str) -> tuple[dict[str, Any], bool]:
    """What a line says behind a file with that sum, and whether it is checked."""
    text = line.decode().rstrip("\n")
    row = json_of(text)
    if not isinstance(row, dict):
        raise Damaged("holds no object")
    if "check" not in row:
        return row, False
    version, check, *owner = str(row.pop("check")).split(" ")
    if version != str(VERSION):
        raise Damaged("is of another version of Limbeck")
    if owner and of and owner != [of]:
        raise Damaged("is of another run")
    if check != f"{crc32(text.rpartition(CHECK)[0].encode() + b'}', running):08x}":
        raise Damaged("has changed since it was written")
    return row, True


def _broken(path: Path, reason: str) -> UsageError:
    return UsageError(f"output: {str(path)!r} is broken ({reason}); delete it, and the run goes on without what it noted")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return {key: _finite(item) for key, item in value.items()} if isinstance(value, dict) else value
