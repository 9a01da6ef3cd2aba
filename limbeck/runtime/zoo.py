"""The zoo: distilled sets with the figures of their cards, in the folder `zoo/` of the repository, which is no part of the package.

`zoo:NAME` is the folder NAME of the zoo that the environment names by LIMBECK_ZOO, or else of the checkout that it lies in.
"""

import os
from pathlib import Path

from limbeck.runtime.errors import UsageError

PREFIX, PLACE = "zoo:", "LIMBECK_ZOO"
METADATA = "metadata.json"  # which every set has


def zoo(key: str = "zoo") -> Path:
    """The folder of the zoo.

    Raises:
        UsageError: when there is none.
    """
    named = os.environ.get(PLACE)
    folder = Path(named) if named else Path(__file__).parents[2] / "zoo"
    if not folder.is_dir():
        way = f"{PLACE} names {named!r}, which is no folder" if named else f"or {PLACE} names its folder"
        raise UsageError(f"{key}: there is no zoo here: it comes with a checkout of Limbeck's repository (in zoo/), {way}")
    return folder


def names(key: str = "zoo") -> list[str]:
    """The names of its sets."""
    return sorted(folder.name for folder in zoo(key).iterdir() if (folder / METADATA).is_file())


def place(key: str, name: str) -> Path:
    """The folder of the set that `zoo:NAME` names.

    Raises:
        UsageError: when there is none of that name.
    """
    known = names(key)
    if (word := name.removeprefix(PREFIX)) not in known:
        listed = ", ".join(known) or "nothing yet"
        raise UsageError(f"{key}: {name!r} is not in the zoo, which holds {listed}")
    return zoo(key) / word


def holds(path: Path) -> bool:
    """Whether a path lies in the zoo, whose sets stay as they are."""
    try:
        return path.resolve().is_relative_to(zoo().resolve())
    except UsageError:
        return False
