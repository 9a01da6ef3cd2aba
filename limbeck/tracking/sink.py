"""What a sink is: the one interface behind which all trackers lie, and what it is told of a run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class About:
    """What a sink is told before anything else.

    Args:
        folder: where it may write: its own, within the run folder, the same when the run goes on.
        name: what people call the run: the name of its folder.
        run: what tells this record from all others, also of runs with the same settings; the same when it goes on.
        settings: in JSON's types.
        first: the iteration that is told next, 0 of a new record; a sink that `overwrites` drops what it has from there on.
    """

    folder: Path
    name: str
    run: str
    settings: Mapping[str, Any]
    first: int = 0


class Sink(ABC):
    """Takes figures and pictures of one run; made with `About` alone. Whatever it raises ends the sink, and never the run.

    Attributes:
        overwrites: whether it drops what it has from `About.first` on, so that this is told again when a run goes on. To others
            nothing is told twice.

    Example:
        >>> class Printed(Sink):
        ...     def __init__(self, about):
        ...         self.name = about.name
        ...
        ...     def scalars(self, iteration, values):
        ...         print(self.name, iteration, dict(values))
        >>> sink = Printed(About(Path("runs/a/track/own"), "a", "1f", {}))
        >>> sink.scalars(3, {"iteration/loss": 0.5})
        a 3 {'iteration/loss': 0.5}
    """

    overwrites: ClassVar[bool] = False

    @abstractmethod
    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Finite numbers by name, such as `iteration/loss`, `evaluation/accuracy`, `result/distilled`."""

    def picture(self, iteration: int, name: str, image: "Image.Image") -> None:  # noqa: B027 (a sink may have none)
        """The images as they are after so many iterations."""

    def flush(self) -> None:  # noqa: B027 (nor this)
        """Have all that was told on the disk."""

    def close(self) -> None:  # noqa: B027 (nor that)
        """The run has ended, or was stopped; it may go on one day, with a new sink."""
