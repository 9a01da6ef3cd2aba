"""What a reader must know of sets that were made otherwise than they are evaluated."""

from collections.abc import Mapping, Sequence

from limbeck.augmentation_settings import OPERATIONS
from limbeck.data.imageset import ImageSet
from limbeck.distilled.set import DistilledSet
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.checked import shown
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.progress import Progress

SHOWN = 3  # sets that a note names
OF = {"crop_ratio": "crop", "rotate": "rotate"}


def other_levels(held: DistilledSet, data: ImageSet) -> list[str]:
    """A note where other numbers were black and white in the images that the set was made from."""
    about = (held.metadata.get("settings") or {}).get("data")
    levels = about.get("range") if isinstance(about, dict) else None
    if data.levels is None or not isinstance(levels, list) or len(levels) != 2 or tuple(levels) == data.levels:
        return []
    if not all(isinstance(level, (int, float)) for level in levels):
        return []
    made = f"{levels[0]:.6g} … {levels[1]:.6g} was black to white in what it was made from"
    return [f"{made}, here {data.levels} is: data.range=[{levels[0]:.6g},{levels[1]:.6g}] reads both alike"]


def other_augmentation(held: DistilledSet, settings: DistillSettings) -> list[str]:
    """What the set was distilled under, where that is not what it is evaluated under, which all sets and random images share."""
    stored = held.metadata.get("settings")
    made = stored.get("augment") if isinstance(stored, Mapping) else None
    if not isinstance(made, Mapping):
        return []
    pairs = {key: (made.get(key, now), now) for key, now in plain(settings.augment).items()}
    return [
        f"augmentation: made with augment.{key}={shown(was)}, evaluated with {now!r}"
        for key, (was, now) in pairs.items()
        if was != now and not _unread(key, pairs["strategy"])
    ]


def _unread(key: str, strategies: Sequence[object]) -> bool:
    """Whether none of these strategies has the operation that the key is about; `flip` is about whatever else mirrors, too."""
    word = OF.get(key)
    known = [set(one.split("_")) for one in strategies if isinstance(one, str) and set(one.split("_")) <= {"none", *OPERATIONS}]
    return word is not None and len(known) == len(strategies) and not any(word in words for words in known)


def say_notes(notes: Mapping[str, Sequence[str]], progress: Progress) -> None:
    """Say what is noted of sets, by their names: once what several have in common."""
    of: dict[str, list[str]] = {}
    for name, own in notes.items():
        for note in own:
            of.setdefault(note, []).append(name)
    for note, names in of.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        progress.say(f"note: {', '.join(names[:SHOWN])}{more}: {note}")
