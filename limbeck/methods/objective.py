"""The contract of a gradient method.

    (L, ∂L/∂X, ∂L/∂Y, ∂L/∂η), state ← gradients(state, X, Y, η, iteration)

The state is tensors, so that it can be checkpointed; every draw is keyed by the iteration, so that a resumed run is exact.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from limbeck.matching.adjoint import Adjoint, Gradients
from limbeck.matching.steps import StudentStep

State = dict[str, Tensor]
Engine = tuple[StudentStep, Adjoint]


@dataclass(frozen=True, slots=True)
class Update:
    """What an objective gives the outer loop in one iteration.

    Args:
        gradients: L and its gradients.
        plain: ∂L/∂X without the method's criterion, with the shape of X, when it was asked for.
        state: the objective's next state.
        facts: small values for `metrics.jsonl`; tensors of one number may be left on the device, where the outer loop reads them
            once all of the iteration is under way.
        kept_share: per parameter tensor, the share that the criterion kept, likewise.
        labels: Y in the place of the present one, where the objective makes it itself.
    """

    gradients: Gradients
    plain: Tensor | None = None
    state: State = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    kept_share: dict[str, float | Tensor] = field(default_factory=dict)
    labels: Tensor | None = None


class Objective(ABC):
    """A gradient method.

    Example:
        >>> import torch
        >>> class Small(Objective):
        ...     def gradients(self, state, images, labels, syn_lr, iteration, *, plain):
        ...         loss = 0.5 * images.square().sum()
        ...         still = torch.zeros_like(labels), torch.zeros_like(syn_lr)
        ...         return Update(Gradients(loss, images.clone(), *still), plain=images.clone() if plain else None)
        >>> x, y, eta = torch.ones(2, 3, 8, 8), torch.eye(2), torch.tensor(0.01)
        >>> Small().gradients({}, x, y, eta, 0, plain=False).gradients.loss
        tensor(192.)
    """

    def init(self) -> State:
        """The state before the first iteration."""
        return {}

    @property
    def has_criterion(self) -> bool:
        """Whether `plain` can differ from the gradient."""
        return False

    @property
    def shared(self) -> bool:
        """Whether several ranks share the work of `gradients` and return the same to the bit (`runtime/ranks.py`).

        Where not, each of them computes all of it, and what rank 0 found is taken.
        """
        return False

    def broken(self, state: State, images: Tensor, iteration: int) -> str:
        """What an iteration read or made on its way that is not finite, and what to change: asked where L or a gradient is not.

        Empty where it was none of these. The outer loop counts it by these words, which is why they name no iteration.
        """
        return ""

    def hint(self, loss: float | None, syn_lr: float) -> str:
        """What was wrong from the first iteration on, and what to change; empty where that was sound.

        Args:
            loss: of that iteration; None where it was not finite.
            syn_lr: η then.
        """
        return ""

    @abstractmethod
    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        """L and its gradients at X (N, C, H, W), Y (N, K) and η (a scalar).

        Args:
            state: what the last call returned.
            images: X.
            labels: Y.
            syn_lr: η.
            iteration: of the outer loop, from 0.
            plain: whether to return ∂L/∂X without the criterion too.
        """
