"""How much memory the control groups of Linux leave this process: in a container or a batch job often less than the machine has.

    version 2   memory.max, memory.current                           of the group and every one above it
    version 1   memory.limit_in_bytes, memory.usage_in_bytes         likewise, where the controller `memory` is mounted

What is used counts without the files that were read and can be forgotten (`inactive_file`). Who takes more is killed.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

NO_LIMIT = 2**60  # version 1 says a number near 2⁶³ where there is none
PROCESS = Path("/proc/self")


class Files(NamedTuple):
    """What the files of a version are called."""

    limit: str
    used: str
    forgettable: str


VERSIONS = {
    "cgroup2": Files("memory.max", "memory.current", "inactive_file"),
    "cgroup": Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def memory_left(process: Path = PROCESS) -> tuple[int, int] | None:
    """Bytes that can still be had, and that may be held in all: the least of all groups; None where nothing is limited."""
    found = []
    with suppress(OSError, ValueError):
        for kind, folder in _folders(process):
            files = VERSIONS[kind]
            with suppress(OSError, ValueError):  # the topmost group has no such files; "max" is no number
                most = int((folder / files.limit).read_text())
                if most < NO_LIMIT:
                    used = int((folder / files.used).read_text()) - _forgettable(folder / "memory.stat", files.forgettable)
                    found.append((max(0, most - max(0, used)), most))
    return min(found, default=None)


def _forgettable(statistics: Path, name: str) -> int:
    with suppress(OSError):
        for line in statistics.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def _folders(process: Path) -> Iterator[tuple[str, Path]]:
    """The folders of the groups that this process is in, from its own up, with the version that they are of."""
    mounts = dict(_mounts(process))
    for line in (process / "cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        kind = "cgroup2" if not controllers else "cgroup" if "memory" in controllers.split(",") else ""
        if kind not in mounts:
            continue
        root, top = mounts[kind]
        path = PurePosixPath(own)
        # A container sees its own group as the topmost one, whatever the machine outside calls it.
        inside = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
        folder = top / inside
        while folder != top.parent:
            yield kind, folder
            folder = folder.parent


def _mounts(process: Path) -> Iterator[tuple[str, tuple[str, Path]]]:
    """By version, which group is mounted and where."""
    for line in (process / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), (*after.split(), "", "")[:3]
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            yield kind, (fields[3], Path(fields[4]))
