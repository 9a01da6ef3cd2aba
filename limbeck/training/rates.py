"""How the step size changes over the epochs: the factor on it in epoch e of E, counted from 0.

Constant     1
DropAtHalf   1, from e = E / 2 + d on 0.1
Steps        by^k, k the number of milestones m with e ≥ m E
Cosine       a + (1 − a) · ½ (1 + cos(π min(1, e / (o E))))
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from limbeck.runtime.errors import require


class Rate(ABC):
    """The factor on the step size in an epoch.

    `restarts` says whether the optimiser's state, momentum above all, starts anew where the factor changes.
    """

    restarts: ClassVar[bool] = False

    @abstractmethod
    def factor(self, epoch: int, epochs: int) -> float:
        """The factor, in [0, 1], in `epoch` (from 0) of `epochs`; in later epochs, what it ends with."""

    @property
    @abstractmethod
    def least(self) -> float:
        """The factor that it never falls below, reached or come near to."""


@dataclass(frozen=True)
class Constant(Rate):
    """1 throughout."""

    least: ClassVar[float] = 1.0

    def factor(self, epoch: int, epochs: int) -> float:
        return 1.0


@dataclass(frozen=True)
class DropAtHalf(Rate):
    """1, and 0.1 from half of the epochs on, where momentum starts anew.

    Args:
        delay: d, how many epochs later the drop comes. With 1, of 1001 epochs 502 come before it and 499 after, as in the releases
            of the trajectory-matching papers.
    """

    restarts: ClassVar[bool] = True
    least: ClassVar[float] = 0.1
    delay: int = 0

    def factor(self, epoch: int, epochs: int) -> float:
        return 1.0 if 2 * (epoch - self.delay) < epochs else self.least


@dataclass(frozen=True)
class Steps(Rate):
    """Multiplied by `by` at every milestone.

    Args:
        milestones: shares of the epochs, in [0, 1].
        by: in [0, 1].

    Raises:
        UsageError: when a value is not accepted.
    """

    milestones: tuple[float, ...]
    by: float = 0.1

    def __post_init__(self) -> None:
        require(all(0 <= share <= 1 for share in self.milestones), "rate.milestones", self.milestones, "shares in [0, 1]")
        require(0 <= self.by <= 1, "rate.by", self.by, "in [0, 1]")

    def factor(self, epoch: int, epochs: int) -> float:
        # A millionth of an epoch, because 0.07 · 100 is a little more than 7.
        return self.by ** sum(epoch + 1e-6 >= share * epochs for share in self.milestones)

    @property
    def least(self) -> float:
        return self.by ** len(self.milestones)


@dataclass(frozen=True)
class Cosine(Rate):
    """Half a wave of a cosine, from 1 down.

    Args:
        ends_at: a, the factor at the end of the half wave, in [0, 1], and after it.
        over: o, how long the half wave is, as a share of the epochs; with 2, only its first half is run through, so that the
            factor ends at the middle between 1 and a (RDED).

    Raises:
        UsageError: when a value is not accepted.
    """

    ends_at: float = 0.0
    over: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.ends_at <= 1, "rate.ends_at", self.ends_at, "in [0, 1]")
        require(0 < self.over < math.inf, "rate.over", self.over, "above 0 and finite")

    def factor(self, epoch: int, epochs: int) -> float:
        return self._at(min(1.0, min(epoch, epochs) / (self.over * epochs)))

    @property
    def least(self) -> float:
        return self._at(min(1.0, 1 / self.over))

    def _at(self, progress: float) -> float:
        return self.ends_at + (1 - self.ends_at) * (1 + math.cos(math.pi * progress)) / 2
