"""What our own files say of themselves, so that whatever is read back is what was written.

    limbeck     which kind of file it is and in which version, such as `run state 1`
    of          what it belongs to, so that a file that lies in another's place is noticed; where its content says it, nothing
    checksum    of all the rest

In JSON they are keys of the object, and the checksum is of its values, however they are spaced. In a file of tensors they stand in
the header, the checksum is of the header's bytes, and these have a digest of every tensor (`files`). Sixteen hexadecimal digits of
SHA-256 notice whatever happens to a file by itself; they are no signature, which whoever alters it on purpose could write anew.

Files of earlier versions have none of the three. They are read as they are, which is said once for each kind.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from limbeck.runtime.errors import Worded
from limbeck.runtime.fingerprint import encodable, fingerprint

KIND, OF, CHECKSUM = "limbeck", "of", "checksum"
BLANK = "0" * 16
_said = set[str]()  # kinds of files


class Damaged(Worded, ValueError):
    """A file of ours is not what was written, or not the one that is looked for; the message is the reason alone."""


class FileKind(NamedTuple):
    """What a file is: its name in words, and the version of its form, which counts up when readers of before would misread it."""

    name: str
    version: int = 1

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def sealed(value: Any, kind: FileKind, of: str = "") -> dict[str, Any]:
    """The JSON object of `value` with what it says of itself."""
    held = {**encodable(value), KIND: str(kind), **({OF: of} if of else {})}
    return {**held, CHECKSUM: fingerprint(held)}


def unsealed(value: Any, kind: FileKind | None = None, of: str = "", path: Path | None = None) -> Any:
    """What `sealed` was given, in JSON's types; an object that says nothing of itself is taken as it is.

    Args:
        value: the content of a file.
        kind: what it is to be; None takes any, objects or not.
        of: what it is to belong to, where it says that.
        path: of the file, for the note on one of an earlier version.

    Raises:
        Damaged: when it is another one, or has changed.
    """
    if not isinstance(value, dict):
        if kind is not None:
            raise Damaged("it holds no object")
        return value
    if not {KIND, CHECKSUM} <= value.keys():
        if KIND in value or (kind is not None and CHECKSUM in value):
            raise Damaged(f"its {CHECKSUM if KIND in value else KIND!r} is missing")
        if kind is not None and path is not None:
            say_unchecked(kind, path)
        return value
    held = dict(value)
    if held.pop(CHECKSUM) != fingerprint(held):
        raise Damaged("it has changed since it was written")
    check_kind(held.pop(KIND), kind, held.pop(OF, ""), of)
    return held


def sealed_header(text: bytes) -> bytes:
    """The header of a file of tensors, whose checksum is `BLANK`, with its checksum."""
    return text.replace(_entry(BLANK), _entry(_sum(text)), 1)


def check_header(text: bytes, metadata: Mapping[str, str], kind: FileKind | None = None, of: str = "") -> bool:
    """Whether the header of a file of tensors says of itself what it is.

    Args:
        text: its bytes.
        metadata: of them, what safetensors calls so.
        kind, of: as for `unsealed`.

    Raises:
        Damaged: when it is another one, or has changed.
    """
    said = metadata.get(CHECKSUM)
    if KIND not in metadata and said is None:
        return False
    if said is None or KIND not in metadata or _sum(text.replace(_entry(said), _entry(BLANK), 1)) != said:
        raise Damaged("its header has changed since it was written")
    check_kind(metadata[KIND], kind, metadata.get(OF, ""), of)
    return True


def check_kind(said: Any, kind: FileKind | None, said_of: Any, of: str) -> None:
    """Raise `Damaged` for a file of another kind, of a later version or of something else."""
    name, _, version = str(said).rpartition(" ")
    if kind is not None and name != kind.name:
        raise Damaged(f"it is no {kind.name}, but a {name}")
    if not version.isdecimal() or (kind is not None and int(version) > kind.version):
        raise Damaged(f"it is a {said}, which a later version of Limbeck has written")
    if of and said_of and of != said_of:
        raise Damaged("it belongs to another one")


def say_unchecked(kind: FileKind, path: Path) -> None:
    """Say that a file is read though nothing tells whether it is what was written: once for each kind."""
    if kind.name not in _said:
        _said.add(kind.name)
        text = "%s was written by an earlier version, which kept no checksum of it: it is taken as it is"
        logging.getLogger("limbeck").warning(text, path)


def _entry(checksum: str) -> bytes:
    return f'"{CHECKSUM}":"{checksum}"'.encode()


def _sum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
