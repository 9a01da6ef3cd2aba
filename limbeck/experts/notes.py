"""What a store of experts notes beside them: what recipes read of it, and which scores the experts' curriculum goes by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from limbeck.experts.blocks import LAST
from limbeck.experts.coding import CODINGS
from limbeck.experts.settings import ExpertSettings
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import FileKind

WANTED, DIFFICULTY = FileKind("wish for experts"), FileKind("difficulty of images")


@dataclass(frozen=True)
class Want(Record):
    """What a recipe reads.

    Args:
        num_experts: S.
        epochs: of every expert.
        last: an epoch more of the experts that give labels; None: no more.
        label_experts: how many those are; the first ones.
        coding: the least exact coding that will do.
    """

    num_experts: int
    epochs: tuple[int, ...]
    last: int | None
    label_experts: int
    coding: str

    def of(self, expert: int) -> tuple[int, ...]:
        """The epochs of `expert`, in order."""
        if expert >= self.num_experts:
            return ()
        if self.last is None or expert >= self.label_experts:
            return self.epochs
        return tuple(sorted({*self.epochs, self.last}))


def sound_want(held: Any) -> Want:
    """What a note says.

    Raises:
        ValueError: when nobody can have asked for that.
    """
    found = Want.from_dict(held)
    numbers = (found.num_experts, found.label_experts, *found.epochs, 0 if found.last is None else found.last)
    if found.coding not in CODINGS or not all(type(number) is int and 0 <= number <= LAST for number in numbers):
        raise ValueError(f"{found} is no sound note")
    return found


def want_of(settings: ExpertSettings, epochs: Sequence[int]) -> Want:
    """`epochs`, which the schedule can reach, of every expert, and the last epoch of those that give labels."""
    labels = settings.label_experts or settings.num_experts
    return Want(settings.num_experts, tuple(sorted(set(epochs))), settings.train_epochs, labels, settings.dtype)


@dataclass(frozen=True)
class ClassScores(Record):
    """How difficult the images of a class are: their mean score and the least, a quarter, the median, three quarters, the most."""

    k: int
    name: str
    images: int
    mean: float
    quantiles: tuple[float, ...]

    CALLED: ClassVar = {"k": "class"}


@dataclass(frozen=True, kw_only=True)
class Difficulty(Record):
    """What a store notes of the scores that its experts' curriculum goes by.

    Args:
        measure, networks, epochs: what they are a mean over.
        fingerprint: of the scores.
        images: N.
        classes: those that have images.
        easiest, hardest: the numbers of at most ten images each, the most extreme first.
    """

    measure: str
    networks: int
    epochs: int
    fingerprint: str
    images: int
    classes: tuple[ClassScores, ...]
    easiest: tuple[int, ...]
    hardest: tuple[int, ...]
