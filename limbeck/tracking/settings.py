"""The key `track`: the names of sinks."""

from typing import Annotated, Any

from limbeck.runtime.checked import Rule
from limbeck.runtime.plugins import NAMED

# By name: the package that it needs, which is the name of the extra, too.
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def names_of(track: Any) -> tuple[str, ...]:
    """The names in the key, which may be a list or text with commas."""
    words = track.split(",") if isinstance(track, str) else track
    return tuple(word.strip() for word in words if word.strip())


def _known(track: Any) -> bool:
    names = names_of(track)
    return len(set(names)) == len(names) and all(name in PACKAGES or NAMED.fullmatch(name) for name in names)


WORDS = "a list of names of tensorboard, wandb, trackio and package.module:Sink, each once"
Track = Annotated[tuple[str, ...] | str, Rule(WORDS, _known)]
