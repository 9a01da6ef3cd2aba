"""Whether a copy of ImageNet has all that a benchmark reads, found by listing folders, before hours are spent on the first subsets.

What the images are is checked when they are loaded (`data/imagenet.py`).
"""

import os
from collections.abc import Sequence
from pathlib import Path

from limbeck.data.annotations import LISTS, find_list
from limbeck.data.folder import subfolders
from limbeck.data.imagenet import INSIDE, VARIABLE
from limbeck.data.registry import find_subset, wnids
from limbeck.runtime.errors import UsageError
from limbeck.studies.comp_dd import Part

SHOWN = 5


def check_root(parts: Sequence[Part], root: str | None) -> None:
    """Raise `UsageError`, a line, unless the copy of ImageNet has folders for all classes of the subsets.

    Args:
        parts: subsets of Comp-DD.
        root: `data.root`; None takes $LIMBECK_IMAGENET. `hf:NAME` is not looked at.
    """
    named, key = root or os.environ.get(VARIABLE), "data.root" if root else f"${VARIABLE}"
    if not named:
        raise UsageError(
            "data.root: is missing; the subsets of Comp-DD need the folder that holds ImageNet's train/ and val/: "
            f"--data-root DIR, data.root=DIR or the environment variable {VARIABLE}"
        )
    if named.startswith("hf:"):
        return
    top = Path(named).expanduser()
    found = next((top / inside for inside in INSIDE if (top / inside / "train").is_dir()), None)
    if found is None:
        what = "has no folder train/ with a folder of images per class" if top.is_dir() else "is not a folder that exists"
        raise UsageError(f"{key}: {named!r} {what}")
    val = next((found / name for name in ("val", "validation") if (found / name).is_dir()), None)
    if val is None:
        raise UsageError(f"{key}: '{found}' has train/ but no val/ beside it")
    _check_folder(found / "train", set(subfolders(found / "train")), parts, key)
    tested = set(subfolders(val))
    if tested & set(wnids()):
        _check_folder(val, tested, parts, key)
    elif find_list(found, val) is None:
        raise UsageError(f"{key}: the images in '{val}' are not in class folders, and none of {', '.join(LISTS)} is there")


def _check_folder(folder: Path, present: set[str], parts: Sequence[Part], key: str) -> None:
    lacking = {part.name: [one.wnid for one in find_subset(part.name).classes if one.wnid not in present] for part in parts}
    said = [f"{wnid} ({name})" for name, missing in lacking.items() for wnid in missing]
    if said:
        more = f" and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
        raise UsageError(f"{key}: '{folder}' has no folder {', '.join(said[:SHOWN])}{more}")
