"""Reads thousands of damaged and malicious files of every kind, and says what became of each.

    python tests/reliability/attack.py --files 5600 --output benchmarks/results/bad_input.json

Every file follows from its kind and its number, so that one that was found out stays a test: `FOUND` in `test_bad_input.py`.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from reliability.hostile import changed
from reliability.kinds import KINDS, Kind

from limbeck.runtime.errors import Failure, UsageError

SECONDS = 60  # after which a file counts as one that is never read to its end
MOST_MEMORY = 2**29  # bytes that reading such a tiny file may take beyond what was there
WRITING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
RUNNING = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn", "ctypes.dlopen")
REACHING = ("socket.connect", "socket.getaddrinfo", "urllib.Request")


@dataclass
class Watch:
    """What happens while a file is read that must not: something written elsewhere, run, or asked of the network."""

    places: tuple[str, ...] = ()
    active: bool = False
    others: set[int | None] = field(default_factory=set)  # threads that do not count
    seen: list[str] = field(default_factory=list)

    def event(self, name: str, arguments: tuple[Any, ...]) -> None:
        """An audit event of the interpreter."""
        if not self.active or threading.get_ident() in self.others:
            return
        if name in RUNNING or name in REACHING:
            self.seen.append(f"{name} {arguments[:1]!r:.80}")
        elif name == "import" and str(arguments[0]).partition(".")[0] in ("evil", "antigravity", "this"):
            self.seen.append(f"import {arguments[0]}")
        elif name == "open" and _writes(arguments) and not self._is_here(arguments[0]):
            self.seen.append(f"open for writing {arguments[0]!r:.120}")
        elif name in WRITING and not all(self._is_here(one) for one in _paths(arguments)):
            self.seen.append(f"{name} {arguments!r:.120}")

    def _is_here(self, path: Any) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return True  # a descriptor
        return os.path.abspath(os.fsdecode(path)).startswith(self.places)


def _paths(arguments: tuple[Any, ...]) -> list[str | bytes]:
    """The paths among the arguments; those that are relative to an open folder are where that is."""
    below = any(isinstance(one, int) and one >= 3 for one in arguments[-2:])
    found = [one for one in arguments if isinstance(one, (str, bytes))]
    return [one for one in found if os.path.isabs(one) or not below]


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    return any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(int(flags or 0) & (os.O_WRONLY | os.O_RDWR))


_watch = Watch()
sys.addaudithook(_watch.event)


@contextmanager
def watched(*places: Path) -> Iterator[list[str]]:
    """What happens inside the block that must not, with the places that may be written to."""
    own = (Path.home() / ".cache" / "huggingface", os.devnull)  # where the library that reads parquet keeps its locks
    # What libraries have begun before, such as a cluster's, goes on beside it; what begins inside is its own.
    _watch.others = {one.ident for one in threading.enumerate()} - {threading.get_ident()}
    _watch.places, _watch.active, _watch.seen = tuple(map(str, (*places, *own))), True, []
    try:
        yield _watch.seen
    finally:
        _watch.active = False


class Endless(BaseException):
    """Reading a file did not come to its end."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Args:
        kind, number, name: which it was.
        what: `refused`, `same` (read, with what was there before), `other` (read, with something else); or a fault: `exception`,
            `silent` (something else was read, though the file has a checksum), `endless`, `memory`, `escaped` (something was
            written elsewhere, run, or asked of the network), `lines` (a message of several).
        said: the message.
    """

    kind: str
    number: int
    name: str
    what: str
    said: str

    @property
    def is_fault(self) -> bool:
        """Whether this must not be."""
        return self.what not in ("refused", "same", "other")


class Template:
    """The files of a kind as they are written, and what is read of them."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder, self.how = kind, folder / "as-written", KINDS[kind]
        self.folder.mkdir(parents=True)
        self.how.make(self.folder)
        self.place = folder / "changed"
        shutil.copytree(self.folder, self.place)
        self.content = self.how.read(self.place)
        shutil.rmtree(self.place)
        self.names = [path.relative_to(self.folder).as_posix() for path in self.how.candidates(self.folder)]

    def attack(self, number: int) -> Outcome:
        """Change a file, read it, and say what became of it."""
        draw = random.Random(f"{self.kind}/{number}")
        name = draw.choice(self.names)
        content, blind = changed(name, (self.folder / name).read_bytes(), draw)
        return self.attack_with(name, content, blind, number)

    def attack_with(self, name: str, content: bytes, blind: bool, number: int = -1) -> Outcome:
        """Read them with that content in a file, and say what became of it."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.folder, self.place)
        (self.place / name).write_bytes(content)
        before = _peak(anew=True)
        with watched(self.place.parent, Path(os.environ["LIMBECK_CACHE"])) as seen, _limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            what, said = self._read(self.how, name, blind)
        if _peak() - before > MOST_MEMORY:
            what, said = "memory", f"{(_peak() - before) / 2**20:.0f} MiB; {said}"
        if seen:
            what, said = "escaped", "; ".join(seen)
        return Outcome(self.kind, number, name, what, said[:300])

    def _read(self, how: Kind, name: str, blind: bool) -> tuple[str, str]:
        try:
            content = how.read(self.place)
        except (UsageError, Failure) as error:
            return ("lines" if "\n" in str(error) else "refused"), str(error)
        except Endless:
            return "endless", f"more than {SECONDS} s"
        except BaseException as error:
            at = error.__traceback__
            while at is not None and at.tb_next is not None:
                at = at.tb_next
            place = "" if at is None else f" at {Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}"
            return "exception", f"{type(error).__name__}: {str(error)[:150]}{place}"
        if content == self.content:
            return "same", ""
        return ("silent" if blind and how.is_checked(name) else "other"), ""


@contextmanager
def _limited() -> Iterator[None]:
    def end(*_: Any) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _peak(anew: bool = False) -> int:
    """The most bytes that this process has had; since now, with `anew`. 0 where the system does not say."""
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0


def attack(files: int, folder: Path, kinds: Sequence[str] = tuple(KINDS), first: int = 0) -> Iterator[Outcome]:
    """So many files, of every kind as many."""
    evil = folder / "cwd"
    evil.mkdir(parents=True)
    (evil / "evil.py").write_text("open('EXECUTED', 'w')\nrun = METHOD = 1\n")
    here = os.getcwd()
    os.chdir(evil)
    try:
        for place, kind in enumerate(kinds):
            made = Template(kind, folder / f"kind-{place}")
            for number in range(first, first + files // len(kinds) + (place < files % len(kinds))):
                yield made.attack(number)
    finally:
        os.chdir(here)
    assert not (evil / "EXECUTED").exists(), "code was run"


def main() -> None:
    """Attack, print the faults, and write the counts."""
    import argparse

    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5600)
    parser.add_argument("--kinds", default="")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    kinds = given.kinds.split(",") if given.kinds else list(KINDS)
    began, counts, faults = time.monotonic(), dict[str, Counter[str]](), list[Outcome]()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIMBECK_CACHE"] = f"{folder}/cache"
        for one in attack(given.files, Path(folder), kinds, given.first):
            counts.setdefault(one.kind, Counter())[one.what] += 1
            if one.is_fault:
                faults.append(one)
                print(f"{one.what}: {one.kind}/{one.number} {one.name}: {one.said}", flush=True)
    total: Counter[str] = sum(counts.values(), Counter())
    print(dict(total), f"{time.monotonic() - began:.0f} s")
    if given.output is not None:
        held = {
            "command": f"python tests/reliability/attack.py --files {given.files}",
            "files": sum(total.values()),
            "outcomes": dict(total),
            "kinds": {kind: dict(found) for kind, found in counts.items()},
            "faults": [asdict(one) for one in faults],
            "seconds": round(time.monotonic() - began),
        }
        given.output.write_text(json.dumps(held, indent=1) + "\n")


if __name__ == "__main__":
    main()
