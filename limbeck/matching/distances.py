"""How far θ_T is from θ*_{t+M}, over the parameters κ that a criterion keeps: the matching loss.

    SquaredError   L = Σ_{p∈κ} (θ_T − θ*_{t+M})²_p / Σ_{p∈κ} (θ*_t − θ*_{t+M})²_p
    LayerCosine    L = Σ_layers ½ (1 − cos(θ_T − θ*_t, θ*_{t+M} − θ*_t)) / number of layers,   over κ within each layer

The criterion chooses κ by l_p = (θ_T − θ*_{t+M})²_p under either. LayerCosine compares directions alone and leaves the length of
the student's way free; it lies in [0, 1], 0 where the student goes the expert's way in every layer.

Cazenavette et al., "Dataset Distillation by Matching Training Trajectories" (MTT), 2022, arXiv:2203.11932; cosines layer by layer
are how Zhao, Mopuri and Bilen compare gradients ("Dataset Condensation with Gradient Matching", 2020, arXiv:2006.05929).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.matching.criteria import Criterion, KeepAll
from limbeck.runtime.errors import require

STILL = (
    1e-30  # squared lengths of the two ways, multiplied: a layer that one of them does not move has a cosine of 0, without gradient
)


class Distance(ABC):
    """L of θ_T, θ*_t, θ*_{t+M} and κ.

    Example:
        >>> import torch
        >>> class Absolute(Distance):
        ...     def __call__(self, theta, start, target, kept, layers):
        ...         return (theta - target).abs().sum() / (start - target).abs().sum()
        >>> MatchingLoss(torch.zeros(4), torch.ones(4), distance=Absolute())(torch.full((4,), 0.5))
        tensor(0.5000)
    """

    @abstractmethod
    def __call__(self, theta: Tensor, start: Tensor, target: Tensor, kept: Tensor | None, layers: Sequence[slice]) -> Tensor:
        """L, a scalar that is differentiable in θ_T.

        Args:
            theta: θ_T with shape (P,).
            start: θ*_t with shape (P,).
            target: θ*_{t+M} with shape (P,).
            kept: κ, bool with shape (P,); None is all.
            layers: where the layers lie in θ.
        """


@dataclass(frozen=True)
class SquaredError(Distance):
    """The squared error that remains, as a share of the way that the expert went.

    Example:
        >>> import torch
        >>> SquaredError()(torch.full((4,), 0.5), torch.zeros(4), torch.ones(4), None, [slice(0, 4)])
        tensor(0.2500)
    """

    def __call__(self, theta: Tensor, start: Tensor, target: Tensor, kept: Tensor | None, layers: Sequence[slice]) -> Tensor:
        losses, distances = (theta - target).square(), (start - target).square()
        if kept is None:
            return losses.sum() / distances.sum()
        return (losses * kept).sum() / (distances * kept).sum()


@dataclass(frozen=True)
class LayerCosine(Distance):
    """Half of 1 − the cosine between the student's way and the expert's, averaged over the layers.

    Example:
        >>> import torch
        >>> start, target, layers = torch.zeros(4), torch.ones(4), [slice(0, 2), slice(2, 4)]
        >>> LayerCosine()(torch.tensor([0.1, 0.1, -3.0, -3.0]), start, target, None, layers)
        tensor(0.5000)
    """

    def __call__(self, theta: Tensor, start: Tensor, target: Tensor, kept: Tensor | None, layers: Sequence[slice]) -> Tensor:
        own, wanted = theta - start, target - start
        if kept is not None:
            own, wanted = own * kept, wanted * kept
        products, squares, expected = (
            torch.stack([part[layer].sum() for layer in layers]) for part in (own * wanted, own.square(), wanted.square())
        )
        lengths = squares * expected
        cosines = torch.where(lengths > STILL, products * lengths.clamp_min(STILL).rsqrt(), 0.0)
        return 0.5 * (1 - cosines).mean()


class MatchingLoss:
    """L as a function of θ_T, with κ chosen at its first call.

    Args:
        start: θ*_t with shape (P,).
        target: θ*_{t+M} with shape (P,).
        criterion: chooses κ.
        distance: from θ_T to θ*_{t+M} over κ.
        layers: where the layers lie in θ (`layers_of(network.slices)`), for criteria and distances that read them.
        generator: a CPU generator, for criteria that draw.

    Example:
        >>> import torch
        >>> loss = MatchingLoss(torch.zeros(4), torch.ones(4))
        >>> loss(torch.full((4,), 0.5))
        tensor(0.2500)
    """

    def __init__(
        self,
        start: Tensor,
        target: Tensor,
        criterion: Criterion = KeepAll(),
        distance: Distance = SquaredError(),
        layers: Sequence[slice] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        self.start, self.target, self.criterion, self.distance = start, target, criterion, distance
        self.layers = layers or [slice(0, len(start))]
        self.generator = generator or torch.Generator().manual_seed(0)
        self.kept: Tensor | None = None

    def __call__(self, theta: Tensor) -> Tensor:
        """L, a scalar, at θ_T with shape (P,); `kept` is then κ, bool with shape (P,), or None where all are kept."""
        if self.kept is None and not isinstance(self.criterion, KeepAll):
            losses = (theta.detach() - self.target).square()
            self.kept = self.criterion.keep(losses, layers=self.layers, generator=self.generator)
            good = isinstance(self.kept, Tensor) and self.kept.dtype == torch.bool and self.kept.shape == losses.shape
            accepted = f"a criterion that gives a bool mask with shape {tuple(losses.shape)}"
            require(good, "match.criterion", type(self.criterion).__name__, accepted)
        value = self.distance(theta, self.start, self.target, self.kept, self.layers)
        good = isinstance(value, Tensor) and value.ndim == 0 and (value.requires_grad or not theta.requires_grad)
        require(good, "match.distance", type(self.distance).__name__, "a distance that gives a scalar with a gradient by θ_T")
        return value
