"""SGD on one tensor, and how its step size changes over the epochs.

v ← μ v + ∇ + w θ        θ ← θ − lr · v
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sgd:
    """Step size lr, momentum μ and weight decay w."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    @torch.no_grad()
    def step(self, theta: Tensor, velocity: Tensor, gradient: Tensor, factor: float = 1.0) -> None:
        """Change θ and v, of one shape, in place; `factor` multiplies the step size."""
        velocity.mul_(self.momentum).add_(gradient)
        if self.weight_decay:
            velocity.add_(theta, alpha=self.weight_decay)
        theta.sub_(velocity, alpha=self.lr * factor)


class Rate(ABC):
    """The factor on the step size in an epoch."""

    @abstractmethod
    def factor(self, epoch: int, epochs: int) -> float:
        """The factor in `epoch` (from 0) of `epochs`; where it changes, momentum starts anew."""


class Constant(Rate):
    """1 throughout."""

    def factor(self, epoch: int, epochs: int) -> float:
        return 1.0


class DropAtHalf(Rate):
    """1, and 0.1 from half of the epochs on (PAPER § 8)."""

    def factor(self, epoch: int, epochs: int) -> float:
        return 1.0 if 2 * epoch < epochs else 0.1
