"""What is noted beside decoded images in the cache: in a journal while they are made, in `content.json` when they are whole."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from limbeck.data.decode import Unreadable
from limbeck.data.levels import Levels
from limbeck.runtime.files import read_json
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import FileKind

CONTENT = FileKind("content of decoded images")


@dataclass(frozen=True)
class Content(Record):
    """What `content.json` says of the images in a folder.

    Args:
        content: their `array_fingerprint`.
        file: size and time of change of the array's file.
        bad: rows of `Unreadable`.
        levels: what is black and white; None where no image has more than eight bits.
        notes: what is to be said of them.
        beyond: names the other images of the source that levels were found over, too; None where there are none.
    """

    LEFT_OUT: ClassVar = ("beyond",)
    content: str
    file: tuple[int, int]
    bad: tuple[tuple[int, str, str], ...]
    levels: tuple[float, float] | None
    notes: tuple[str, ...]
    beyond: str | None = None

    @classmethod
    def of(cls, place: Path) -> "Content | None":
        """What the file there says; None where there is no such folder."""
        return cls.from_dict(read_json(place / "content.json", CONTENT, place.name)) if place.exists() else None

    @property
    def unreadable(self) -> list[Unreadable]:
        """Those that cannot be read."""
        return [Unreadable(*row) for row in self.bad]

    @property
    def range(self) -> Levels | None:
        """What is black and white."""
        return None if self.levels is None else Levels(*self.levels)


def journal_line(block: Sequence[Any]) -> str:
    """What a journal says of a block, with its checksum."""
    return json.dumps([fingerprint(block), block]) + "\n"


def read_journal(path: Path) -> list[Any]:
    """What the lines of a journal say, up to the first that is not what was written, or not to its end."""
    notes = []
    with suppress(OSError, ValueError, TypeError, RecursionError), path.open(encoding="utf-8") as file:
        for line in file:
            check, block = json.loads(line)
            if check != fingerprint(block):
                break
            notes.append(block)
    return notes
