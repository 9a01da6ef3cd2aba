"""Which process something on a disk belongs to, and whether that process still runs."""

import os
import socket
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.records import Record


@dataclass(frozen=True)
class Owner(Record):
    """A process, told from all others of all machines, and from those that will have its number one day.

    Args:
        host: the machine's name, for people.
        place: what its number counts in: sixteen digits of a machine, of its boot and of a space of process numbers.
        pid: its number there.
        born: when it started, as the place counts time.
    """

    host: str
    place: str
    pid: int
    born: int

    @staticmethod
    def here() -> "Owner":
        """This process."""
        return Owner(socket.gethostname(), _place(), os.getpid(), _born_here(os.getpid()))

    @property
    def runs(self) -> bool | None:
        """Whether the process runs; None where that cannot be told from here."""
        return _runs(self.pid, self.born) if self.place == _place() else None

    @property
    def mark(self) -> str:
        """The process as part of a file's name."""
        return f"{self.place[:8]}-{self.pid}-{self.born}"

    def __str__(self) -> str:
        """For messages."""
        return f"process {self.pid} on {self.host}"


def mark_runs(mark: str) -> bool | None:
    """The same of the process of that `mark`."""
    place, pid, born = mark.split("-")
    return _runs(int(pid), int(born)) if place == _place()[:8] else None


def _runs(pid: int, born: int) -> bool:
    now = _born(pid)
    return now is not None and now in (born, 0)


@cache
def _born_here(pid: int) -> int:
    return _born(pid) or 0


def _born(pid: int) -> int | None:
    """When the process of that number started; None where there is none, 0 where there is one and its start is not shown."""
    if sys.platform == "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass  # it is there, and somebody else's
        with suppress(OSError, ValueError, IndexError):
            # The name of the program, in brackets, may hold anything.
            state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            return None if state in "ZX" else int(rest[18])
        return 0
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return 0


@cache
def _place() -> str:
    """What process numbers count in here: containers on one machine have numbers of their own."""
    boot, space = f"{uuid.getnode():x}", ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return fingerprint(socket.gethostname(), boot, space)
