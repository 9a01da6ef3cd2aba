"""Weights of the pixel gradient, made from activation maps: Discriminative Area Enhancement and its controls.

    ∇X ← ∇X ∘ F(M, β),   F(M, β) = 1 where M < mean(M),  β + M elsewhere

with M in [0, 1] the activation map of each image and the mean over its own pixels; the controls keep the size of F but not
its place. After K. Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios", 2024,
arXiv:2410.17193.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from limbeck.runtime.checked import NotNegative, check_fields, within
from limbeck.saliency.maps import Cam, TorchCam

Threshold = Literal["mean"] | float


class Weighting(ABC):
    """What becomes of maps.

    Example:
        >>> import torch
        >>> class Square(Weighting):
        ...     def __call__(self, maps, generator):
        ...         return 1 + maps.square()[:, None]
        >>> Square()(torch.tensor([[[0.0, 0.5]]]), torch.Generator())
        tensor([[[[1.0000, 1.2500]]]])
    """

    @abstractmethod
    def __call__(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        """What the pixel gradient is multiplied by, with shape (N, 1, H, W).

        Args:
            maps: activation maps in [0, 1] with shape (N, H, W).
            generator: a CPU generator, the only source of chance.
        """


@dataclass(frozen=True)
class NoWeighting(Weighting):
    """The gradient is left alone.

    Example:
        >>> import torch
        >>> NoWeighting()(torch.tensor([[[0.0, 1.0]]]), torch.Generator())
        tensor([[[[1., 1.]]]])
    """

    def __call__(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        return torch.ones_like(maps)[:, None]


@dataclass(frozen=True)
class _Enhancing(Weighting):
    """F by β and the threshold, which is each map's mean or a number in [0, 1]."""

    beta: NotNegative = 1.0
    threshold: Literal["mean"] | Annotated[float, within("[0, 1]", "a number ")] = "mean"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Activation(_Enhancing):
    """F(M, β): Discriminative Area Enhancement.

    Example:
        >>> import torch
        >>> Activation(beta=1.0)(torch.tensor([[[0.0, 1.0]]]), torch.Generator())
        tensor([[[[1., 2.]]]])
    """

    def __call__(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        return enhancement(maps, self.beta, self.threshold)[:, None]


@dataclass(frozen=True)
class Constant(_Enhancing):
    """A control: each image's mean of F(M, β), everywhere.

    Example:
        >>> import torch
        >>> Constant(beta=1.0)(torch.tensor([[[0.0, 1.0]]]), torch.Generator())
        tensor([[[[1.5000, 1.5000]]]])
    """

    def __call__(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        weights = enhancement(maps, self.beta, self.threshold)
        return weights.mean((1, 2), keepdim=True).expand_as(weights)[:, None]


@dataclass(frozen=True)
class Shuffled(_Enhancing):
    """A control: F(M, β) of another image.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
        >>> Shuffled(beta=1.0)(maps, torch.Generator())
        tensor([[[[2., 1.]]], [[[1., 2.]]]])
    """

    def __call__(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        weights = enhancement(maps, self.beta, self.threshold)
        return weights[_other_images(len(weights), generator).to(weights.device)][:, None]


def enhancement(maps: Tensor, beta: float, threshold: Threshold = "mean") -> Tensor:
    """F(M, β) with shape (N, H, W); a number as `threshold` takes the place of each map's mean."""
    # In float64 the mean of equal float32 values is that value; a mean rounded up would put all of a flat map below it.
    wide = maps.double()
    bar = wide.mean((1, 2), keepdim=True) if threshold == "mean" else float(threshold)
    return torch.where(wide < bar, torch.ones_like(maps), beta + maps)


def activation_weights(
    module: nn.Module,
    x: Tensor,
    classes: Tensor,
    *,
    weighting: Weighting = Activation(),
    cam: Cam = TorchCam(),
    generator: torch.Generator | None = None,
) -> Tensor:
    """The weights on the pixel gradient of images, with shape (N, 1, H, W): for a loop of one's own.

    Args:
        module: the map network, trained on images such as these.
        x: images as it takes them, with shape (N, C, H, W).
        classes: their classes, int64 with shape (N,).
        weighting: what becomes of the maps.
        cam: what makes them.
        generator: a CPU generator for what is random in either; None seeds one with 0.

    Example:
        >>> import torch
        >>> from limbeck.networks.convnet import ConvNet
        >>> x, classes = torch.rand(2, 3, 16, 16), torch.tensor([0, 4])
        >>> activation_weights(ConvNet(3, 16, 16, 10, depth=2, width=8), x, classes, weighting=Activation(beta=2.0)).shape
        torch.Size([2, 1, 16, 16])
    """
    draws = generator or torch.Generator().manual_seed(0)
    return weighting(cam(module, x, classes, draws), draws).to(x)


def _other_images(number: int, generator: torch.Generator) -> Tensor:
    """For each of `number` images another one, each used once: the cycle through all of them in random order."""
    order = torch.randperm(number, generator=generator)
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other
