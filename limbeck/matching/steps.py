"""One student step, its draws and its vector–Jacobian product (PAPER § 3).

θ_{n+1} = θ_n − η g(θ_n, A_n(X[b_n]), Y[b_n]),   g(θ, x, y) = ∇_θ ℓ(f(θ, x), y)
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import grad, vjp

from limbeck import augmentation
from limbeck.augmentation import Draw
from limbeck.augmentation_settings import AugmentSettings
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.random import generator

Loss = Callable[[Tensor, Tensor], Tensor]
Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]
Pullback = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class StepDraw:
    """What step n draws: b_n, int64 with shape (B,), and the augmentation A_n."""

    index: Tensor
    augmentation: Draw


def draw_steps(
    shape: tuple[int, int, int, int], batch_syn: int | None, steps: int, augment: AugmentSettings, seed: int, iteration: int
) -> list[StepDraw]:
    """The draws of all T steps of an iteration.

    Args:
        shape: of X, (N, C, H, W).
        batch_syn: B; None, or more than N, takes all. Where B does not divide N, the last chunk of a permutation is smaller.
        steps: T.
        augment: the augmentation.
        seed: of the draws.
        iteration: of the outer loop.
    """
    count, size = shape[0], min(batch_syn or shape[0], shape[0])
    per_permutation = -(-count // size)
    chunks: list[Tensor] = []
    for number in range(-(-steps // per_permutation)):
        chunks += torch.randperm(count, generator=generator(seed, "student batches", iteration, number)).split(size)
    return [
        StepDraw(index, augmentation.draw(augment, generator(seed, "student augmentation", iteration, n), (len(index), *shape[1:])))
        for n, index in enumerate(chunks[:steps])
    ]


@dataclass(frozen=True)
class StudentStep:
    """g and its vector–Jacobian product, both pure functions of tensors.

    Args:
        network: f.
        loss: ℓ(logits, y), twice differentiable.
        compiled: whether both go through `torch.compile`; one graph per batch size.
    """

    network: FlatNetwork
    loss: Loss
    compiled: bool = False
    gradient: Gradient = field(init=False)
    pullback: Pullback = field(init=False)

    def __post_init__(self) -> None:
        def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self.loss(self.network(theta, x), y)

        gradient: Gradient = grad(loss)

        def pullback(theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            # Reverse over reverse: forward mode has silently wrong norms and no grid_sample.
            value, pull = vjp(gradient, theta, x, y)[:2]
            h_theta, h_x, h_y = pull(cotangent)
            return value, h_theta, h_x, h_y

        wrap: Callable[..., object] = _compile if self.compiled else (lambda function: function)
        object.__setattr__(self, "gradient", wrap(gradient))
        object.__setattr__(self, "pullback", wrap(pullback))


def _compile(function: Callable[..., object]) -> Callable[..., object]:
    return torch.compile(function, fullgraph=True, dynamic=False)
