"""Which start epoch t an iteration draws.

    Sequential   t uniform on [min, u),  u = min(max, first + ⌊(max − first) · iteration / iterations⌋)
    Uniform      t uniform on [min, max)

Guo et al., "Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching" (DATM), 2024,
arXiv:2310.05773.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch

from limbeck.runtime.checked import Count, at_least, check_fields
from limbeck.runtime.errors import require

Epoch = Annotated[int, at_least(0)]


class Schedule(ABC):
    """Which start epochs an iteration may draw.

    Example:
        >>> class Late(Schedule):
        ...     def starts(self, iteration):
        ...         return self.reachable()
        ...     def reachable(self):
        ...         return range(8, 10)
        >>> Late().epochs(expert_epochs=2)
        [8, 9, 10, 11]
    """

    @abstractmethod
    def starts(self, iteration: int) -> range:
        """The start epochs that `iteration` (from 0) draws from, each equally likely."""

    @abstractmethod
    def reachable(self) -> range:
        """Every start epoch that some iteration can draw."""

    def draw(self, iteration: int, generator: torch.Generator) -> int:
        """t, drawn for `iteration` from a CPU generator."""
        starts = self.starts(iteration)
        accepted = f"one whose starts({iteration}) are some of those that are reachable: they are {starts!r}"
        require(bool(starts) and set(starts) <= set(self.reachable()), "schedule.kind", type(self).__name__, accepted)
        return starts[int(torch.randint(len(starts), (), generator=generator))]

    def epochs(self, expert_epochs: int) -> list[int]:
        """Every epoch that a start t or a target t + `expert_epochs` can be, in order."""
        starts = self.reachable()
        good = isinstance(starts, Sequence) and bool(starts) and all(isinstance(start, int) and start >= 0 for start in starts)
        accepted = f"one that can start from one epoch or more, 0 and up: reachable() is {starts!r}"
        require(good, "schedule.kind", type(self).__name__, accepted)
        return sorted({*starts, *(start + expert_epochs for start in starts)})


@dataclass(frozen=True)
class Uniform(Schedule):
    """Any epoch from `min_start_epoch` on and below `max_start_epoch`, in every iteration.

    Example:
        >>> Uniform(0, 3).epochs(expert_epochs=2)
        [0, 1, 2, 3, 4]
    """

    min_start_epoch: Epoch = 0
    max_start_epoch: int = 10

    def __post_init__(self) -> None:
        check_fields(self)
        _check(self.min_start_epoch, self.max_start_epoch)

    def starts(self, iteration: int) -> range:
        return self.reachable()

    def reachable(self) -> range:
        return range(self.min_start_epoch, self.max_start_epoch)


@dataclass(frozen=True)
class Sequential(Schedule):
    """From early epochs to late ones: the upper end of the range rises.

    Args:
        min_start_epoch: the lowest t.
        first_max_start_epoch: the first upper end (exclusive).
        max_start_epoch: the last upper end (exclusive).
        iterations: in which it is reached.

    Example:
        >>> schedule = Sequential(0, 2, 6, iterations=100)
        >>> schedule.starts(0), schedule.starts(50), schedule.starts(1000)
        (range(0, 2), range(0, 4), range(0, 6))
    """

    min_start_epoch: Epoch = 0
    first_max_start_epoch: int = 5
    max_start_epoch: int = 10
    iterations: Count = 1000

    def __post_init__(self) -> None:
        check_fields(self)
        _check(self.min_start_epoch, self.max_start_epoch)
        low, high = self.min_start_epoch, self.max_start_epoch
        accepted = f"above min_start_epoch ({low}) and at most max_start_epoch ({high})"
        require(low < self.first_max_start_epoch <= high, "first_max_start_epoch", self.first_max_start_epoch, accepted)

    def starts(self, iteration: int) -> range:
        first, last = self.first_max_start_epoch, self.max_start_epoch
        return range(self.min_start_epoch, min(last, first + (last - first) * iteration // self.iterations))

    def reachable(self) -> range:
        return range(self.min_start_epoch, self.max_start_epoch)


def _check(low: int, high: int) -> None:
    require(high > low, "max_start_epoch", high, f"above min_start_epoch ({low})")
