"""Locks between processes, of one machine or of several that share a file system; the lock of a process that has died is free.

A lock on `PATH` is one of the operating system (`flock`) on the file `PATH.lock`, which stays. It notes who holds it, for messages.

Where a file system has no such locks, claims stand in for them: numbered folders `PATH.lock.d/00000012`, each of which says by one
file whose it is (`owner`), or that it was given back (`free`). A folder is made elsewhere and renamed to its number, which succeeds
for one process alone; who finds the highest claim given back, or its owner dead, renames to the next number. The highest number is
never removed, so that numbers only grow: whoever has renamed to one that is not the highest by then, because he looked long ago,
sees that and gives up. Nothing depends on clocks or on how fast anybody is.

An owner on this machine is dead when no process of that number and start is left. One elsewhere cannot be asked: it renews its
claim every `RENEWED` seconds, and counts as dead when the file system's own time says that it has not for `DEAD_AFTER` seconds.
"""

import errno
import json
import os
import shutil
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from limbeck.runtime.owner import Owner

RENEWED, DEAD_AFTER = 20.0, 300.0
FIRST_LOOK, LONGEST_LOOK = 0.01, 0.25  # seconds between two looks at a lock that is held
# What a file system says that has no locks: NFS without its lock service, many network and user-space file systems.
WITHOUT = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
TAKEN = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
OCCUPIED = {errno.EEXIST, errno.ENOTEMPTY, errno.EACCES, errno.EPERM}  # what renaming onto a folder that holds something ends in


class Busy(Exception):
    """Another process holds the lock, longer than was to be waited for; the message says which, where that is known."""


class Lock:
    """A lock that other processes respect; use it as a context manager.

    Args:
        path: what it protects; the lock is beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(f"{path}.lock")
        self._file: int | None = None
        self._claim: _Claim | None = None
        self._process = 0

    @property
    def held(self) -> bool:
        """Whether it is held by this object."""
        return self._file is not None or self._claim is not None

    def acquire(self, timeout: float | None = None) -> "Lock":
        """Take it; the object as a context manager gives it back.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            Busy: when another process, or another object of this one, held it for so long.
            OSError: when nothing can be written there.
        """
        assert not self.held, "a lock is taken once"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        began, pause, self._process = time.monotonic(), FIRST_LOOK, os.getpid()
        try:
            while not self._taken():
                left = None if timeout is None else timeout - (time.monotonic() - began)
                if left is not None and left <= 0:
                    raise Busy(str(_noted(self.path) or _Claims(self.path).owner() or "another process"))
                time.sleep(pause if left is None else min(pause, left))
                pause = min(1.5 * pause, LONGEST_LOOK)
        except BaseException:  # an interrupt may come when it has just been taken
            self.release()
            raise
        return self

    def release(self) -> None:
        """Give it back; in a child of the process that took it, which goes on holding it, nothing happens."""
        file, claim, self._file, self._claim = self._file, self._claim, None, None
        own = self._process == os.getpid()
        if claim is not None and own:
            claim.give_back()
        if file is not None:
            if own:
                with suppress(OSError):
                    os.ftruncate(file, 0)
                _unlock(file)
            os.close(file)

    def __del__(self) -> None:
        self.release()

    def __enter__(self) -> "Lock":
        return self if self.held else self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _taken(self) -> bool:
        """Try once."""
        if not _LOCKS:
            return self._claimed()
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            try:
                _flock(file)
            except OSError as error:
                if error.errno in TAKEN:
                    return False
                if error.errno not in WITHOUT:
                    raise
                return self._claimed()
            if not _is_at(file, self.path):  # whoever tidies up has removed the file meanwhile
                return False
            # Each notes itself first and looks for the other kind then: of a file system that has locks only now and then, or on
            # some machines, one of the two sees the other.
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(Owner.here().to_dict()).encode(), 0)
            if _Claims(self.path).owner(self.path) is not None:
                os.ftruncate(file, 0)
                return False
            self._file, file = file, -1
            return True
        finally:
            if file >= 0:
                os.close(file)

    def _claimed(self) -> bool:
        claim = _Claims(self.path).claim()
        if claim is None:
            return False
        holder = _noted(self.path)
        if holder is not None and holder.runs is not False:
            claim.give_back()
            return False
        self._claim = claim
        return True


def lock(path: Path) -> Lock:
    """A lock on `path`."""
    return Lock(path)


def holder(path: Path) -> str | None:
    """Who holds the lock on `path`; None: nobody, or one who has died."""
    place = Path(f"{path}.lock")
    noted = _noted(place)
    if noted is not None and (noted.runs or (noted.runs is None and not _is_let_go(place))):
        return str(noted)
    return _Claims(place).owner()


def _noted(path: Path) -> Owner | None:
    """Who has noted itself in the file of a lock; whoever died while holding it stands there, too."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        return Owner.from_dict(json.loads(path.read_bytes()[:1000]))
    return None


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


if sys.platform == "win32":
    _LOCKS = False  # claims do there, too

    def _flock(file: int) -> None: ...

    def _is_let_go(path: Path) -> bool:
        return False

    def _unlock(file: int) -> None: ...
else:
    import fcntl

    _LOCKS = True

    def _flock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _is_let_go(path: Path) -> bool:
        """Whether nobody has the lock of a file, whose note may be of before this machine, or its container, was started anew."""
        try:
            with path.open("rb") as file:  # closing lets go again
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(file: int) -> None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)  # closing would do only where no child has the file, too


class _Claims:
    """The claims on one lock."""

    def __init__(self, path: Path) -> None:
        self.folder = path.with_name(f"{path.name}.d")

    def owner(self, own: Path | None = None) -> str | None:
        """Who holds the lock by a claim; None: nobody. `own` is a file that was just written there."""
        number = self._highest()
        return None if number == 0 or self._is_free(number, own) else self._said(number)

    def claim(self) -> "_Claim | None":
        """The next claim, where the highest one is given back or its owner is dead."""
        self.folder.mkdir(exist_ok=True)
        made = self.folder / f"new-{token_hex(8)}"
        made.mkdir()
        try:
            (made / "owner").write_text(json.dumps(Owner.here().to_dict()), encoding="utf-8")
            number = self._highest()
            if number and not self._is_free(number, made / "owner"):
                return None
            claimed = self._place(number + 1)
            try:
                os.rename(made, claimed)
            except OSError as error:
                if error.errno in OCCUPIED:  # another was faster
                    return None
                raise
            if self._highest() > number + 1:
                shutil.rmtree(claimed, ignore_errors=True)
                return None
        finally:
            shutil.rmtree(made, ignore_errors=True)
        self._tidy(number, claimed / "owner")
        return _Claim(claimed / "owner")

    def _highest(self) -> int:
        try:
            return max((int(name) for name in os.listdir(self.folder) if name.isdecimal()), default=0)
        except OSError:
            return 0

    def _place(self, number: int) -> Path:
        return self.folder / f"{number:08d}"

    def _is_free(self, number: int, own: Path | None) -> bool:
        """Whether nobody holds a claim; `own` is a file that was just written there."""
        place = self._place(number)
        if (place / "free").exists():
            return True
        try:
            owner = Owner.from_dict(json.loads((place / "owner").read_bytes()))
        except FileNotFoundError:
            return (place / "free").exists()  # given back since, or removed because it is not the highest any more
        except (ValueError, TypeError):
            owner = None  # a power cut may empty a file
        if owner is not None and owner.runs is not None:
            return not owner.runs
        return own is not None and _older(place / "owner", own) > DEAD_AFTER

    def _said(self, number: int) -> str:
        with suppress(OSError, ValueError, TypeError):
            return str(Owner.from_dict(json.loads((self._place(number) / "owner").read_bytes())))
        return "another process"

    def _tidy(self, number: int, own: Path) -> None:
        """Remove lower claims, and what a process has left that died while it made one."""
        for path in self.folder.iterdir():
            if path.name.isdecimal() and int(path.name) <= number or (path.name[:4] == "new-" and _older(path, own) > DEAD_AFTER):
                shutil.rmtree(path, ignore_errors=True)


def _older(path: Path, own: Path) -> float:
    """By how many seconds a file is older than another one, both by the file system's time."""
    with suppress(OSError):
        return own.stat().st_mtime - path.stat().st_mtime
    return 0.0


class _Claim:
    """A claim that this process has, renewed until it is given back."""

    def __init__(self, owner: Path) -> None:
        self.owner, self._over = owner, threading.Event()
        threading.Thread(target=self._renew, daemon=True).start()

    def give_back(self) -> None:
        """Let others have the lock."""
        self._over.set()
        with suppress(OSError):
            os.rename(self.owner, self.owner.with_name("free"))

    def _renew(self) -> None:
        while not self._over.wait(RENEWED):
            with suppress(OSError):
                os.utime(self.owner)
