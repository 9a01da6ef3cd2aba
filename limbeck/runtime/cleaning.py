"""What the cache holds, by kind, and how it is emptied: nothing that somebody is making now is touched.

Whatever is removed is made anew when it is asked for, from images and settings; only work that is not at its URL yet could not
be fetched from there, and goes when it is named alone. Reading takes no lock, so that a run that is reading experts or images stops
with a message when they are removed, and goes on after `--resume`.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from limbeck.runtime.disk import in_words
from limbeck.runtime.errors import require
from limbeck.runtime.kept import cache_root
from limbeck.runtime.locks import Busy, lock
from limbeck.runtime.published import noted
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
    "work": "what was made for URLs",
}
ALL, WORK = "all", "work"


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
    """What was removed, bytes by kind, and what stays: somebody is making it, or, bytes by folder, it is nowhere else."""

    root: str
    removed: Mapping[str, int]
    busy: tuple[str, ...]
    unpublished: Mapping[str, int] = field(default_factory=dict)

    LEFT_OUT: ClassVar = ("unpublished",)

    def __str__(self) -> str:
        lines = [f"removed {in_words(size)} of {KINDS[name]} ({name})" for name, size in self.removed.items()]
        lines += [f"{path} stays: a process is making it" for path in self.busy]
        lines += [
            f"{path} stays: it has {in_words(size)}, and not all of it is at its URL; `limbeck doctor --clean {WORK}` removes it"
            for path, size in self.unpublished.items()
        ]
        return "\n".join(lines or ["there was nothing to remove"])


def held() -> list[Kind]:
    """What there is of every kind."""
    found = []
    for name, what in KINDS.items():
        sizes = list(_sizes(cache_root() / name))
        if name == WORK and (left := sum(sum(_sizes(folder)) for folder in _unpublished())):
            what = f"{what}, {in_words(left)} of it not there yet"
        found.append(Kind(name, what, str(cache_root() / name), len(sizes), sum(sizes)))
    return found


def kinds_of(option: str, words: Sequence[str]) -> list[str]:
    """The words, each once, which name kinds; `all` means all of them, but no work that is not at its URL yet.

    Raises:
        UsageError: for another name.
    """
    for word in words:
        require(word in (*KINDS, ALL), option, word, f"one of {', '.join(KINDS)}, {ALL}")
    return list(dict.fromkeys(words))


def clean(words: Sequence[str]) -> Cleaned:
    """Remove what the cache holds of the kinds that `kinds_of` has found.

    Raises:
        OSError: when something cannot be removed.
    """
    removed, busy = {}, list[str]()
    stays = [folder for folder in _unpublished() if ALL in words and WORK not in words]
    for kind in KINDS if ALL in words else words:
        before = sum(_sizes(cache_root() / kind))
        for entry in sorted((cache_root() / kind).glob("*")):
            passed = entry.name.endswith((".lock", ".lock.d")) or any(folder.parent == entry for folder in stays)
            if not passed and not _remove(entry):
                busy.append(str(entry))
        if freed := before - sum(_sizes(cache_root() / kind)):
            removed[kind] = freed
    return Cleaned(str(cache_root()), removed, tuple(busy), {str(folder): sum(_sizes(folder)) for folder in stays})


def _unpublished() -> list[Path]:
    """The folders of work of which something is nowhere else: the process that made it was killed, or is making it now."""
    found = [folder for folder in sorted((cache_root() / WORK).glob("*/*")) if folder.is_dir()]
    return [folder for folder in found if not folder.name.endswith(".lock.d") and not noted(folder)[1]]


def _remove(entry: Path) -> bool:
    """Remove a file or folder unless somebody is at it; whether it is gone."""
    with ExitStack() as stack:
        try:
            for owner in _owners(entry):
                stack.enter_context(lock(owner).acquire(timeout=0))
            for inner in sorted(entry.rglob("*.lock")):  # one after the other: there may be more than a process may have open
                lock(inner.with_suffix("")).acquire(timeout=0).release()
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
    """What is locked by whoever makes the entry; one that is half made belongs to what it will become."""
    if entry.name.startswith("."):
        yield from (known.with_suffix("") for known in entry.parent.glob("*.lock") if entry.name[1:].startswith(known.stem))
    else:
        yield entry


def _sizes(folder: Path) -> Iterator[int]:
    for file in folder.rglob("*"):
        with suppress(OSError):
            if file.is_file() and file.suffix != ".lock":
                yield file.stat().st_size
