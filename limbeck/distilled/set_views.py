"""The labelled views of a distilled set: a file in its folder, and what `metadata.json` says of it.

    views.safetensors    see `view_labels`
    "views"              sha256 and bytes of the file, and `about`, its header

The file may be large. It is linked from where it lies, or copied where that cannot be; to load a set only its header is read, and
an epoch when it is needed. `StoredViews.verify` reads it whole.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.distilled.view_labels import VIEWS, StoredViews, checksum
from limbeck.runtime.errors import require

KEY = "views"


def put(views: StoredViews, folder: Path) -> dict[str, Any]:
    """Bring the file into `folder`, where it is whole or not at all.

    Returns:
        What `metadata.json` is to say of it.

    Raises:
        UsageError: when the file is no longer what it was when it was opened.
    """
    digest = checksum(views.path)
    require(views.sha256 in (None, digest), "path", str(views.path), "what was saved: its checksum is another")
    target = folder / VIEWS
    if not (target.exists() and target.samefile(views.path)):
        _place(views.path, target)
    return {"sha256": digest, "bytes": target.stat().st_size, "about": views.about}


def take(folder: Path, described: Mapping[str, Any]) -> StoredViews:
    """The views in `folder`, of which the metadata say what `put` returned.

    Raises:
        ValueError, OSError, KeyError, TypeError: when they are not what is described.
    """
    path = folder / VIEWS
    if (size := path.stat().st_size) != described["bytes"]:
        raise ValueError(f"{VIEWS} has {size} bytes, not {described['bytes']}")
    views = StoredViews.open(path, str(described["sha256"]))
    if views.about != described["about"]:
        raise ValueError(f"{VIEWS} is another one than its metadata describe")
    return views


def summary(views: StoredViews) -> dict[str, Any]:
    """What a reader of a result wants to know: epochs, batch size, coding, the teacher's name, bytes per view."""
    about = views.about
    named = {name: about[name] for name in ("epochs", "batch_size", "coding")}
    return {**named, "teacher": about.get("teacher_name", ""), "bytes_per_view": views.bytes_per_view}


def _place(source: Path, target: Path) -> None:
    """A link to the file, or a copy on the disk."""
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    try:
        made = aside / target.name
        try:
            os.link(source.resolve(), made)
        except OSError:  # another disk, or one without links
            shutil.copyfile(source, made)
            with open(made, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(made, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
