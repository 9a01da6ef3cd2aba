"""What is decided of a run before anything is computed, and what its result rests on: both are kept with it."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from limbeck.experts.settings import ExpertSettings
from limbeck.matching.engine import Arrangement
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.devices import resolve_device
from limbeck.runtime.ranks import Ranks
from limbeck.runtime.records import Record


@dataclass(frozen=True, slots=True)
class Resolved(Record):
    """What was decided automatically: the device, the number of threads, and, once it is set up, how the engine works.

    The threads were decided for so many ranks.
    """

    device: str
    threads: int
    engine: Arrangement | None = None
    ranks: int = 1


@dataclass(frozen=True)
class Fingerprints(Record):
    """Of the images, of the set that the run started from, and of the experts; and the settings that these were made with."""

    data: str
    init: str | None = None
    experts: str | None = None
    experts_made_with: ExpertSettings | None = None

    LEFT_OUT: ClassVar = ("init", "experts", "experts_made_with")


def resolve(settings: DistillSettings) -> Resolved:
    """Decide what can be decided before anything is computed."""
    device, ranks = str(resolve_device(settings.engine.device)), Ranks.here()
    return Resolved(device, torch.get_num_threads(), ranks=ranks.count)
