"""Where things that can be made again are kept: decoded images, experts, full-data accuracies."""

import os
from pathlib import Path

from filelock import FileLock


def cache_root() -> Path:
    """`$LIMBECK_CACHE`, else `$XDG_CACHE_HOME/limbeck`, else `~/.cache/limbeck`."""
    if named := os.environ.get("LIMBECK_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "limbeck"


def lock(path: Path) -> FileLock:
    """A lock that other processes respect, held in the file `path` + ".lock"; use it as a context manager."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")
