"""The gradient of the matching loss through the student steps, several ways.

`Exact` keeps only θ_0 … θ_T and walks back:

    λ_T = ∂L/∂θ_T
    for n = T−1 … 0:   (h_θ, h_x, h_y) = vjp of g at (θ_n, x_n, y_n) with cotangent λ_{n+1}
        ∂L/∂η −= ⟨g, λ_{n+1}⟩     ∂L/∂X[b_n] −= η A_nᵀ h_x     ∂L/∂Y[b_n] −= η h_y
        λ_n = λ_{n+1} − η h_θ

Invariant: at the top of the loop `cotangent` is λ_{n+1} = ∂L/∂θ_{n+1}. It is what back-propagation through the graph of all
steps (`Unroll`) gives, to rounding. Two approximations leave parts of it out: `Tesla` takes λ_n = λ_T for all n, `Truncated`
ends the walk after some steps.

TESLA: Cui, Wang, Si and Hsieh, "Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory", 2022,
arXiv:2211.10586. Truncation: Feng, Vedantam and Kempe, "Embarrassingly Simple Dataset Distillation" (RaT-BPTT), 2023,
arXiv:2311.07025.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from limbeck.matching.steps import StepDraw, StudentStep
from limbeck.runtime.checked import Count, check_fields
from limbeck.runtime.devices import to_host

Terminal = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Gradients:
    """L, a scalar, and its gradient by X (N, C, H, W), Y (N, K) and η (a scalar).

    Example:
        >>> import torch
        >>> Gradients(torch.tensor(0.9), torch.zeros(2, 3, 8, 8), torch.zeros(2, 2), torch.tensor(0.0)).loss
        tensor(0.9000)
    """

    loss: Tensor
    images: Tensor
    labels: Tensor
    syn_lr: Tensor


@dataclass(frozen=True, slots=True)
class InnerLoop:
    """The student: its step, θ_0 with shape (P,), and b_n and A_n of the T steps it takes.

    Example:
        >>> import torch
        >>> from limbeck.losses import cross_entropy
        >>> from limbeck.matching.distances import MatchingLoss
        >>> from limbeck.matching.steps import StudentStep, draw_steps
        >>> from limbeck.augmentation import NO_AUGMENTATION
        >>> from limbeck.networks.flat import flat_network
        >>> network = flat_network("ConvNetD2-w4", (3, 16, 16), 2)
        >>> theta = network.initial(torch.Generator().manual_seed(0))
        >>> x, y, eta = torch.rand(2, 3, 16, 16), torch.eye(2), torch.tensor(0.01)
        >>> draws = draw_steps((2, 3, 16, 16), None, 3, NO_AUGMENTATION, seed=0, iteration=0)
        >>> inner = InnerLoop(StudentStep(network, cross_entropy), theta, draws)
        >>> [found] = Exact()(inner, x, y, eta, MatchingLoss(theta, theta + 0.1))
        >>> found.images.shape
        torch.Size([2, 3, 16, 16])
    """

    step: StudentStep
    theta: Tensor
    draws: Sequence[StepDraw]


class Adjoint(ABC):
    """A way to the gradient.

    Example:
        >>> import torch
        >>> from limbeck.augmentation import Dsa
        >>> from limbeck.losses import soft_cross_entropy
        >>> from limbeck.matching.distances import MatchingLoss
        >>> from limbeck.matching.steps import StudentStep, draw_steps
        >>> from limbeck.networks.flat import flat_network
        >>> network, draws = flat_network("ConvNetD1-w8", (3, 8, 8), 10), torch.Generator().manual_seed(0)
        >>> start, target = network.initial(draws), network.initial(draws)
        >>> x, y, eta = torch.randn(10, 3, 8, 8, generator=draws), torch.eye(10), torch.tensor(0.01)
        >>> steps = draw_steps((10, 3, 8, 8), batch_syn=5, steps=4, augmentation=Dsa(), seed=0, iteration=0)
        >>> inner = InnerLoop(StudentStep(network, soft_cross_entropy), start, steps)
        >>> exact, unroll = (adjoint(inner, x, y, eta, MatchingLoss(start, target))[0] for adjoint in (Exact(), Unroll()))
        >>> exact.images.shape, torch.allclose(exact.images, unroll.images, rtol=1e-4, atol=1e-6)
        (torch.Size([10, 3, 8, 8]), True)
    """

    @abstractmethod
    def __call__(self, inner: InnerLoop, images: Tensor, labels: Tensor, syn_lr: Tensor, *losses: Terminal) -> list[Gradients]:
        """Take the student steps once and return the gradient of every one of `losses`.

        Args:
            inner: the student and its steps.
            images: X with shape (N, C, H, W).
            labels: Y with shape (N, K).
            syn_lr: η, a scalar.
            losses: differentiable functions of θ_T.
        """


class Unroll(Adjoint):
    """Plain back-propagation through the graph of all steps: the reference. The step's compiled functions are not used.

    Example:
        >>> isinstance(Unroll(), Adjoint)
        True
    """

    def __call__(self, inner: InnerLoop, images: Tensor, labels: Tensor, syn_lr: Tensor, *losses: Terminal) -> list[Gradients]:
        leaves = tuple(tensor.detach().requires_grad_() for tensor in (images, labels, syn_lr))
        x, y, eta = leaves
        step, theta = inner.step, inner.theta.detach().requires_grad_()
        for draw in inner.draws:
            batch = draw.augmentation(x[draw.index])
            (gradient,) = torch.autograd.grad(step.value(theta, batch, y[draw.index]), theta, create_graph=True)
            theta = theta - eta * gradient
        results = []
        for number, terminal in enumerate(losses):
            value = terminal(theta)
            grads = torch.autograd.grad(value, leaves, retain_graph=number + 1 < len(losses))
            results.append(Gradients(value.detach(), *grads))
        return results


@dataclass(slots=True)
class Trajectory:
    """The student's way: θ_0 … θ_T, and what the last steps have kept."""

    thetas: list[Tensor]
    kept: dict[int, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class WalkBack(Adjoint):
    """The hand-written walk back.

    Args:
        kept: how many of the last steps keep their intermediate results instead of computing them again; the gradient is the
            same.
        on_host: whether θ_0 … θ_T wait in the memory of the host instead of the device's.
    """

    kept: int = 0
    on_host: bool = False

    by_theta = True

    def __call__(self, inner: InnerLoop, images: Tensor, labels: Tensor, syn_lr: Tensor, *losses: Terminal) -> list[Gradients]:
        images, labels, syn_lr = images.detach(), labels.detach(), syn_lr.detach()
        way = self._forward(inner, images, labels, syn_lr)
        return [self._back(inner, way, images, labels, syn_lr, terminal) for terminal in losses]

    def steps_back(self, steps: int) -> int:
        """How many of T steps the walk back takes."""
        return steps

    def _forward(self, inner: InnerLoop, images: Tensor, labels: Tensor, syn_lr: Tensor) -> Trajectory:
        theta, way = inner.theta.detach(), Trajectory([])
        steps = len(inner.draws)
        for n, draw in enumerate(inner.draws):
            way.thetas.append(self._stored(theta) if n >= steps - self.steps_back(steps) else theta.new_empty(0))
            x, y = draw.augmentation(images[draw.index]), labels[draw.index]
            if n >= steps - min(self.kept, self.steps_back(steps)) and self.by_theta:
                gradient, way.kept[n] = inner.step.keep(theta, x, y)
            else:
                gradient = inner.step.gradient(theta, x, y)
            theta = theta - syn_lr * gradient
        way.thetas.append(theta)
        return way

    def _back(
        self, inner: InnerLoop, way: Trajectory, images: Tensor, labels: Tensor, syn_lr: Tensor, terminal: Terminal
    ) -> Gradients:
        last = way.thetas[-1].detach().requires_grad_()
        value = terminal(last)
        (cotangent,) = torch.autograd.grad(value, last)
        d_images, d_labels, d_syn_lr = torch.zeros_like(images), torch.zeros_like(labels), torch.zeros_like(syn_lr)
        steps = len(inner.draws)
        for n in reversed(range(steps - self.steps_back(steps), steps)):
            draw, theta = inner.draws[n], way.thetas[n].to(images.device, non_blocking=True)
            leaf = images[draw.index].requires_grad_()
            augmented = draw.augmentation(leaf)
            y = labels[draw.index]
            pulled = inner.step.pullback(theta, augmented.detach(), y, cotangent, way.kept.get(n), by_theta=self.by_theta)
            d_syn_lr -= pulled.slope
            # A_n alone goes through autograd, outside the compiled step: its six operations would be six graphs.
            (h_images,) = torch.autograd.grad(augmented, leaf, pulled.x)
            d_images.index_add_(0, draw.index.to(images.device), h_images * -syn_lr)
            d_labels.index_add_(0, draw.index.to(images.device), pulled.y * -syn_lr)
            if self.by_theta:
                cotangent = cotangent - syn_lr * pulled.theta
        return Gradients(value.detach(), d_images, d_labels, d_syn_lr)

    def _stored(self, theta: Tensor) -> Tensor:
        return to_host(theta) if self.on_host else theta


class Exact(WalkBack):
    """All steps: exact, in the memory of one step and T + 1 checkpoints (and of the steps kept).

    Example:
        >>> Exact().steps_back(3)
        3
    """


@dataclass(frozen=True)
class Truncated(WalkBack):
    """The last `steps` steps only: exact for them, as if X had no part in those before.

    Args:
        steps: how many; T or more is `Exact`.

    Example:
        >>> Truncated(steps=2).steps_back(3)
        2
    """

    steps: Count = 10

    def __post_init__(self) -> None:
        check_fields(self)

    def steps_back(self, steps: int) -> int:
        return min(self.steps, steps)


class Tesla(WalkBack):
    """λ constant: every step is treated as if later ones did not depend on its θ. Cheaper by a quarter, and an approximation.

    Example:
        >>> Tesla().steps_back(3)
        3
    """

    by_theta = False
