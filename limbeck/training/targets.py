"""What a network is trained towards: labels that are stored, or what a teacher says of the very views that the network sees."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from limbeck.training.images import Images

Mix = Callable[[Tensor], Tensor]


class Targets(ABC):
    """Gives the targets of a batch of views that the trainer draws."""

    @abstractmethod
    def of(self, index: Tensor, x: Tensor, mix: Mix) -> Tensor:
        """The targets, with first dimension B.

        Args:
            index: which images, int64 with shape (B,), on the CPU.
            x: their views, as the network sees them, with shape (B, C, H, W).
            mix: how the views were mixed, for targets that are linear in the images: (B, K) ↦ (B, K).
        """


class TargetsWithViews(ABC):
    """Targets that come with views of their own."""

    @abstractmethod
    def batches(self, images: Images, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The views (B, C, H, W) of an epoch, from 0, and their targets, with first dimension B, batch by batch."""


AnyTargets = Targets | TargetsWithViews


@dataclass(frozen=True, eq=False)
class Labels(Targets):
    """Labels (N, K), one row for each image. Where views are mixed they must be probabilities, which may be mixed alike."""

    values: Tensor

    def of(self, index: Tensor, x: Tensor, mix: Mix) -> Tensor:
        return mix(self.values[index.to(self.values.device)])


@dataclass(frozen=True, eq=False)
class Hard(Targets):
    """Classes, int64 with shape (N,), as one-hot rows of a batch: those of all images would be N·K numbers."""

    classes: Tensor
    num_classes: int

    def of(self, index: Tensor, x: Tensor, mix: Mix) -> Tensor:
        return mix(one_hot(self.classes[index.to(self.classes.device)], self.num_classes).float())


@dataclass(frozen=True, eq=False)
class Teacher(Targets):
    """The logits of a frozen network in evaluation mode on the views themselves (knowledge distillation)."""

    module: nn.Module

    @torch.no_grad()
    def of(self, index: Tensor, x: Tensor, mix: Mix) -> Tensor:
        logits: Tensor = self.module(x)
        return logits
