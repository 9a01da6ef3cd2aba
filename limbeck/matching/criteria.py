"""Which parameters the matching loss keeps, and the loss itself (PAPER §§ 3, 4).

    l_p = (θ_T − θ*_{t+M})²_p        d_p = (θ*_t − θ*_{t+M})²_p        L = Σ_{p∈κ} l_p / Σ_{p∈κ} d_p

Common Pattern Dropout: κ is all but the ⌊αP⌋ parameters of lowest l_p; κ is a constant in the gradient.
Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios" (EDF), 2025,
arXiv:2410.17193.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from limbeck.matching.settings import MatchSettings


class Criterion(ABC):
    """Chooses κ."""

    @abstractmethod
    def keep(self, losses: Tensor) -> Tensor:
        """The mask of kept parameters, bool with shape (P,), for l with shape (P,)."""


class KeepAll(Criterion):
    """κ is every parameter."""

    def keep(self, losses: Tensor) -> Tensor:
        return torch.ones_like(losses, dtype=torch.bool)


@dataclass(frozen=True)
class LowLossDropout(Criterion):
    """κ is all but the ⌊αP⌋ parameters of lowest loss; of equal losses the earlier parameter is dropped first."""

    drop_ratio: float

    def keep(self, losses: Tensor) -> Tensor:
        mask = torch.ones_like(losses, dtype=torch.bool)
        # Fraction(str(α)), because in floating point 0.29 · 100 is below 29.
        dropped = math.floor(Fraction(str(self.drop_ratio)) * len(losses))
        mask[losses.sort(stable=True).indices[:dropped]] = False
        return mask


def criterion_of(settings: MatchSettings) -> Criterion:
    """The criterion that the settings name."""
    drops = settings.criterion == "loss" and settings.drop_ratio > 0
    return LowLossDropout(settings.drop_ratio) if drops else KeepAll()


class MatchingLoss:
    """L as a function of θ_T, with κ chosen at its first call.

    Args:
        start: θ*_t with shape (P,).
        target: θ*_{t+M} with shape (P,).
        criterion: chooses κ.
    """

    def __init__(self, start: Tensor, target: Tensor, criterion: Criterion) -> None:
        self.target, self.criterion = target, criterion
        self.distances = (start - target).square()
        self.kept: Tensor | None = None

    def __call__(self, theta: Tensor) -> Tensor:
        """L, a scalar, at θ_T with shape (P,); `kept` is then κ, bool with shape (P,)."""
        losses = (theta - self.target).square()
        if isinstance(self.criterion, KeepAll):
            return losses.sum() / self.distances.sum()
        if self.kept is None:
            self.kept = self.criterion.keep(losses.detach())
        return (losses * self.kept).sum() / (self.distances * self.kept).sum()
