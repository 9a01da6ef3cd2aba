"""What the cache holds, by kind, and how it is emptied: nothing that somebody is making now is touched.

Whatever is removed is made anew when it is asked for, from images and settings. Reading takes no lock, so that a run that is
reading experts or images stops with a message when they are removed, and goes on after `--resume`.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from limbeck.runtime.disk import in_words
from limbeck.runtime.errors import require
from limbeck.runtime.kept import cache_root
from limbeck.runtime.locks import Busy, lock
from limbeck.runtime.records import Record

KINDS = {
    "images": "decoded images",
    "experts": "trajectories of experts",
    "full": "networks of the full data",
    "difficulty": "difficulties of images",
    "coresets": "difficulties of images for coresets",
    "complexity": "activation maps",
    "views": "labels of views whose set could not be written to",
    "further": "trainings of further measurements",
    "shards": "lists of what archives hold",
    "fetched": "copies of files at URLs",
    "stores": "copies of experts at URLs",
    "plans": "foretold times",
    "compiled": "compiled code",
}
ALL = "all"


@dataclass(frozen=True)
class Kind(Record):
    """What the cache holds of a kind: its name and folder, in words what it is, files and bytes."""

    name: str
    what: str
    path: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Cleaned(Record):
    """What was removed: bytes by kind, and what stays because somebody is making it."""

    root: str
    removed: Mapping[str, int]
    busy: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"removed {in_words(size)} of {KINDS[name]} ({name})" for name, size in self.removed.items()]
        return "\n".join(
            [*lines, *(f"{path} stays: a process is making it" for path in self.busy)] or ["there was nothing to remove"]
        )


def held() -> list[Kind]:
    """What there is of every kind."""
    found = []
    for name, what in KINDS.items():
        sizes = list(_sizes(cache_root() / name))
        found.append(Kind(name, what, str(cache_root() / name), len(sizes), sum(sizes)))
    return found


def kinds_of(option: str, words: Sequence[str]) -> list[str]:
    """The kinds that are named; `all` names all.

    Raises:
        UsageError: for another name.
    """
    for word in words:
        require(word in (*KINDS, ALL), option, word, f"one of {', '.join(KINDS)}, {ALL}")
    return list(KINDS) if ALL in words else list(dict.fromkeys(words))


def clean(kinds: Iterable[str]) -> Cleaned:
    """Remove what the cache holds of these kinds.

    Raises:
        OSError: when something cannot be removed.
    """
    removed, busy = {}, list[str]()
    for kind in kinds:
        before = sum(_sizes(cache_root() / kind))
        for entry in sorted((cache_root() / kind).glob("*")):
            if not entry.name.endswith((".lock", ".lock.d")) and not _remove(entry):
                busy.append(str(entry))
        if freed := before - sum(_sizes(cache_root() / kind)):
            removed[kind] = freed
    return Cleaned(str(cache_root()), removed, tuple(busy))


def _remove(entry: Path) -> bool:
    """Remove a file or folder unless somebody is at it; whether it is gone."""
    with ExitStack() as stack:
        try:
            for owner in _owners(entry):
                stack.enter_context(lock(owner).acquire(timeout=0))
        except Busy:
            return False
        if entry.is_dir():
            aside = entry.with_name(f".{entry.name}.removed")
            shutil.rmtree(aside, ignore_errors=True)
            entry.rename(aside)  # at once, so that nobody sees half of it
            shutil.rmtree(aside)
        else:
            entry.unlink(missing_ok=True)
    return True


def _owners(entry: Path) -> Iterator[Path]:
    """What is locked by whoever makes the entry, or something in it; one that is half made belongs to what it will become."""
    if entry.name.startswith("."):
        yield from (known.with_suffix("") for known in entry.parent.glob("*.lock") if entry.name[1:].startswith(known.stem))
    else:
        yield entry
    if entry.is_dir():
        yield from (known.with_suffix("") for known in entry.rglob("*.lock"))


def _sizes(folder: Path) -> Iterator[int]:
    for file in folder.rglob("*"):
        with suppress(OSError):
            if file.is_file() and file.suffix != ".lock":
                yield file.stat().st_size
