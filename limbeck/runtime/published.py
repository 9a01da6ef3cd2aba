"""Folders in a store of objects, where nothing can be renamed: published in versions, each there as a whole or not at all.

    limbeck-00000003.json     which files the third version has, with their checksums
    pieces/DIGEST/NAME        the files, which never change

A version is there once its list is, which is put after its pieces, and only where none of that number is: of two writers that began
with the same version one has success, and the other is told. Readers take the highest number. Where there is no list, the files lie
there as somebody else has put them, and are read as they are.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.files import checksum, read_json, write_json
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.kept import cache_root
from limbeck.runtime.leftovers import passing_folder
from limbeck.runtime.locks import Busy, lock
from limbeck.runtime.remote import Remote, Unreachable, forget, is_name
from limbeck.runtime.sealed import Damaged, FileKind, sealed, unsealed
from limbeck.runtime.urls import is_url, local

if TYPE_CHECKING:
    from limbeck.runtime.ranks import Ranks

VERSION, NOTE = FileKind("published folder"), FileKind("note of a published folder")
LIST, PIECES, NOTED = "limbeck-", "pieces", ".published.json"
TRIES = 20


class Overtaken(Failure):
    """Another writer has published a version meanwhile."""


class Entry(NamedTuple):
    """A file of a version.

    Args:
        at: where it lies in the store.
        size: in bytes.
        sha256: of its content; empty where nobody has noted it.
        known: what the store says of it instead.
    """

    at: str
    size: int
    sha256: str
    known: str = ""


@dataclass(frozen=True)
class Version:
    """What a published folder holds: the number of the version, 0 where there is none, and the files by name."""

    number: int = 0
    files: Mapping[str, Entry] = field(default_factory=dict)


class Published:
    """A folder in a store.

    Args:
        remote: where.
    """

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self._digests: dict[tuple[str, int, int], str] = {}

    def newest(self) -> Version:
        """What is there now."""
        if (found := self.latest()) is not None:
            return found
        held = {name: stored for name, stored in self.remote.files().items() if not name.startswith(f"{PIECES}/")}
        return Version(0, {name: Entry(name, stored.size, "", stored.version) for name, stored in held.items()})

    def latest(self) -> Version | None:
        """The version that was published last; None where there is none."""
        for _ in range(TRIES):
            if not (numbers := self._numbers()):
                return None
            with suppress(FileNotFoundError):  # a later one has taken its place
                return self.read(max(numbers))
        raise Unreachable(f"{self.remote.key}: {self.remote.url!r} changes faster than it can be read; try again")

    def _numbers(self) -> list[int]:
        return [number for name in self.remote.names() if (number := _number(name))]

    def read(self, number: int) -> Version:
        """A version by its number; FileNotFoundError where it is not there, or not any more."""
        place = self.remote / _name(number)
        try:
            held = unsealed(json.loads(place.read()), VERSION)["files"]
            files = {name: Entry(str(at), int(size), str(digest)) for name, (at, size, digest) in held.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"{self.remote.key}: {place.url!r} is broken ({error or type(error).__name__})") from None
        if not all(is_name(name) and is_name(entry.at) for name, entry in files.items()):
            raise UsageError(f"{self.remote.key}: {place.url!r} names files outside of its folder")
        return Version(number, files)

    def fetch(self, entry: Entry, target: Path) -> None:
        """Put a file of a version at a path.

        Raises:
            FileNotFoundError: when a later version has taken its place.
            UsageError: when it is not what was written.
        """
        place = self.remote / entry.at if entry.at else self.remote
        target.parent.mkdir(parents=True, exist_ok=True)
        place.fetch(target, entry.size)
        if entry.sha256 and checksum(target) != entry.sha256:
            target.unlink()
            raise UsageError(f"{self.remote.key}: {place.url!r} is not what was written: its checksum is another one")

    def publish(
        self, folder: Path, before: Version, kept: Mapping[str, Entry] = {}, *, skip: Collection[str] = (), tidy: bool = True
    ) -> Version:
        """Publish what lies in `folder`, but for hidden files, as the version after `before`.

        Args:
            folder: on this machine.
            before: what the folder was made from.
            kept: files that are not in the folder and stay; those of the folder take the place of others of their name.
            skip: files of the folder that are not whole, and are left out.
            tidy: whether pieces of the version before the last one go, which asks for one writer at a time.

        Raises:
            Overtaken: when there is such a version already.
            Unreachable: when nothing can be written.
        """
        files = dict(kept)
        for path in _visible(folder):
            if (name := path.relative_to(folder).as_posix()) in skip:
                continue
            digest = self._digest(path)
            old = before.files.get(name)
            entry = Entry(f"{PIECES}/{digest[:32]}/{path.name}", path.stat().st_size, digest)
            if old is None or old[1:3] != entry[1:3]:
                (self.remote / entry.at).put_file(path)
            files[name] = entry if old is None or old[1:3] != entry[1:3] else old
        made = Version(before.number + 1, dict(sorted(files.items())))
        content = sealed({"files": {name: list(entry[:3]) for name, entry in made.files.items()}}, VERSION)
        place = self.remote / _name(made.number)
        is_next = place.put_new(json.dumps(content, ensure_ascii=False).encode())
        if is_next and max(self._numbers(), default=0) > made.number:  # others had it since, and removed it after later ones
            place.remove()
            is_next = False
        if not is_next:
            raise Overtaken(f"{self.remote.key}: another process has written to {self.remote.url!r} meanwhile")
        forget(self.remote.url)
        if tidy:
            self._tidy(before, made)
        return made

    def withdraw(self, version: Version) -> None:
        """Take back a version that has nothing in it."""
        (self.remote / _name(version.number)).remove()

    def _tidy(self, before: Version, made: Version) -> None:
        """Remove the version before the one before, which nobody is reading any more."""
        if before.number < 2:
            return
        with suppress(FileNotFoundError, UsageError):
            old = self.read(before.number - 1)
            needed = {entry.at for version in (before, made) for entry in version.files.values()}
            for at in {entry.at for entry in old.files.values() if entry.at.startswith(PIECES + "/")} - needed:
                (self.remote / at).remove()
            self.withdraw(old)

    def _digest(self, path: Path) -> str:
        about = path.stat()
        key = str(path), about.st_size, about.st_mtime_ns
        if key not in self._digests:
            self._digests[key] = checksum(path)
        return self._digests[key]


@dataclass
class Work:
    """A folder on this machine in which something is made that is to be at another place.

    Args:
        folder: here.
        published: there; None where it is to be here.
        version: what was published last.
        shared: whether others may write there at the same time, each what is its own.
    """

    folder: Path
    published: Published | None = None
    version: Version = Version()
    shared: bool = False

    def publish(self, *_: Any) -> None:
        """Have what is in the folder now at the other place, too.

        Raises:
            Failure: when another process has taken the place over, or it cannot be written; what was made is here.
        """
        if self.published is None:
            return
        try:
            self.version = self._merged(self.published) if self.shared else self.published.publish(self.folder, self.version)
        except (Overtaken, Unreachable) as error:
            raise type(error)(f"{error}; what was made is in {str(self.folder)!r}") from None
        _note(self.folder, self.version)

    def _merged(self, published: Published) -> Version:
        """Publish beside others: what they have changed in folders stays as it is, what lies above is written anew."""
        for _ in range(TRIES):
            now, base = published.newest(), self.version.files
            for name, entry in now.files.items():
                if base.get(name) != entry and ("/" in name or not (self.folder / name).exists()):
                    published.fetch(entry, self.folder / name)
            self.version = now
            with suppress(Overtaken):
                return published.publish(self.folder, now, tidy=False)
        raise Overtaken(f"{published.remote.key}: {published.remote.url!r} changes faster than it can be written; try again")

    def named(self, path: str) -> str:
        """A path in the folder, as what it is at the other place."""
        if self.published is None or not Path(path).is_relative_to(self.folder):
            return path
        inner = Path(path).relative_to(self.folder).as_posix()
        return self.published.remote.url if inner == "." else f"{self.published.remote.url}/{inner}"


def folder_of(key: str, place: str | Path) -> Path:
    """The folder on this machine in which what is to be at a path or a URL is made."""
    if not is_url(str(place)):
        return Path(local(str(place)))
    remote = Remote(key, str(place))
    return cache_root() / "work" / fingerprint(remote.url) / remote.name


@contextmanager
def working(
    key: str, place: str | Path, *, resume: bool = False, shared: bool = False, ranks: "Ranks | None" = None
) -> Iterator[Work]:
    """A folder on this machine that becomes what is at `place`: that folder itself, or what is published there at the end.

    What a stopped process has made is published too, so that another machine goes on from there.

    Args:
        key: what the user calls it.
        place: a path or a URL.
        resume: go on with what is there; without, nothing may be there.
        shared: several processes write there, each what is its own.
        ranks: of the run whose folder it is, which all enter the block: the first one alone publishes.

    Raises:
        UsageError: when it cannot be written to, holds something, or another process on this machine writes there.
        Failure: when another process has taken the place over meanwhile.
    """
    folder = folder_of(key, place)
    if not is_url(str(place)):
        yield Work(folder)
        return
    several = ranks is None and int(os.environ.get("WORLD_SIZE") or 1) > 1
    require(not several, key, str(place), "a folder where torchrun starts the command; begun once, it may be a URL")
    with ExitStack() as kept:
        begun: list[Work] = []  # of the first rank alone, whom the others wait for

        def begin() -> None:
            begun.append(kept.enter_context(_taken(key, Remote(key, str(place)), folder, resume, shared)))

        begin() if ranks is None else ranks.told(begin)
        yield begun[0] if begun else Work(folder)


@contextmanager
def _taken(key: str, remote: Remote, folder: Path, resume: bool, shared: bool) -> Iterator[Work]:
    """The folder, held against others, of what is to be at a place elsewhere."""
    remote.try_writing()
    try:
        held = lock(folder).acquire(timeout=0.0)
    except Busy as error:
        raise UsageError(f"{key}: another process is writing to {remote.url!r} ({error})") from error
    with held:
        work = _begun(Work(folder, Published(remote), shared=shared), resume or shared)
        try:
            yield work
        except BaseException as error:
            if not isinstance(error, Overtaken):
                with suppress(Failure, UsageError):
                    _leave(work)
            raise
        work.publish()
        _note(folder, work.version, whole=True)


def _begun(work: Work, resume: bool) -> Work:
    """The folder as it is there, and the place taken; what was made here and not published stays, unless a run was taken over."""
    published, folder = work.published, work.folder
    assert published is not None, "a place elsewhere"
    (number, whole), before, now, remote = noted(folder), Version(), published.newest(), published.remote
    if now.files and not resume:
        raise UsageError(f"{remote.key}: {remote.url!r} is not empty; go on with --resume, or name another place")
    if number and number == now.number:
        before = now
    elif whole or not resume or (now.files and not work.shared):
        shutil.rmtree(folder, ignore_errors=True)
    elif number:
        with suppress(FileNotFoundError):  # it is not there any more
            before = published.read(number)
    for name, entry in now.files.items():
        if before.files.get(name) != entry:
            published.fetch(entry, folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    work.version = now if work.shared else published.publish(folder, now, now.files)  # whoever wrote there until now is told
    _note(folder, work.version)
    return work


def _leave(work: Work) -> None:
    """Publish what a stopped process has made; where that is nothing, take nothing up."""
    assert work.published is not None, "a place elsewhere"
    if any(True for _ in _visible(work.folder)):
        work.publish()
    elif not work.shared:
        work.published.withdraw(work.version)
        work.version = Version()
    _note(work.folder, work.version, whole=True)


def put_folder(key: str, url: str, write: Callable[[Path], object], name: str = "") -> None:
    """Publish what `write` makes of a new folder, in the place of what is there.

    Raises:
        UsageError: when it cannot be written.
        Overtaken: when another process does the same at the same time, and was faster.
    """
    published = Published(Remote(key, url))
    published.remote.check_writable()
    version = published.newest()
    with passing_folder() as folder:
        write(folder / (name or published.remote.name))
        published.publish(folder / (name or published.remote.name), version)


def put_new(key: str, url: str, write: Callable[[Path], Path]) -> None:
    """Put what `write` makes of a new path, a file or a folder, at a URL where nothing is.

    Raises:
        UsageError: when something is there, or it cannot be written.
    """
    published = Published(Remote(key, url))
    published.remote.check_writable()
    version = published.newest()
    require(not version.files, key, url, "a new place; something is there")
    with passing_folder() as folder:
        made = write(folder / published.remote.name)
        if made.is_dir():
            published.publish(made, version)
        else:
            put_file(key, url, made)


def put_file(key: str, url: str, source: Path) -> None:
    """Put a file at a URL where nothing is."""
    remote = Remote(key, url)
    require(remote.put_new(source.read_bytes()), key, url, "a new place; something is there")


def _visible(folder: Path) -> Iterator[Path]:
    """The files in a folder that are neither hidden nor in a hidden folder, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.suffix != ".lock":
            yield path


def _name(number: int) -> str:
    return f"{LIST}{number:08d}.json"


def _number(name: str) -> int:
    """The number of the version whose list has that name; 0 for other files."""
    middle = name.removeprefix(LIST).removesuffix(".json")
    return int(middle) if name.startswith(LIST) and name.endswith(".json") and middle.isdecimal() and len(middle) == 8 else 0


def _note(folder: Path, version: Version, whole: bool = False) -> None:
    write_json(folder / NOTED, {"number": version.number, "whole": whole}, NOTE)


def noted(folder: Path) -> tuple[int | None, bool]:
    """Of a folder of `working` the version that it was made from or published as, and whether all that it holds is there."""
    with suppress(OSError, Damaged, KeyError):
        held = read_json(folder / NOTED, NOTE)
        return int(held["number"]), bool(held.get("whole"))
    return None, False
