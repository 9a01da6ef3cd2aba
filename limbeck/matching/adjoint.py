"""The gradient of the matching loss through all T student steps, two ways.

`Unroll` lets autograd keep the graph of all steps: memory grows with T. `Exact` keeps only θ_0 … θ_T and walks back:

    λ_T = ∂L/∂θ_T
    for n = T−1 … 0:   (h_θ, h_x, h_y) = vjp of g at (θ_n, x_n, y_n) with cotangent λ_{n+1}
        ∂L/∂η −= ⟨g, λ_{n+1}⟩     ∂L/∂X[b_n] −= η A_nᵀ h_x     ∂L/∂Y[b_n] −= η h_y
        λ_n = λ_{n+1} − η h_θ

Invariant: at the top of the loop `cotangent` is λ_{n+1} = ∂L/∂θ_{n+1}. Both give the same gradient to rounding.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck import augmentation
from limbeck.matching.steps import StepDraw, StudentStep

Terminal = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Gradients:
    """L, a scalar, and its gradient by X (N, C, H, W), Y (N, K) and η (a scalar)."""

    loss: Tensor
    images: Tensor
    labels: Tensor
    syn_lr: Tensor


@dataclass(frozen=True, slots=True)
class InnerLoop:
    """The student: its step, θ_0 with shape (P,), and b_n and A_n of the T steps it takes."""

    step: StudentStep
    theta: Tensor
    draws: Sequence[StepDraw]


class Adjoint(ABC):
    """A way to the gradient."""

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
    """Plain back-propagation through the graph of all steps: the reference."""

    def __call__(self, inner: InnerLoop, images: Tensor, labels: Tensor, syn_lr: Tensor, *losses: Terminal) -> list[Gradients]:
        leaves = tuple(tensor.detach().requires_grad_() for tensor in (images, labels, syn_lr))
        x, y, eta = leaves
        step, theta = inner.step, inner.theta.detach().requires_grad_()
        for draw in inner.draws:
            batch = augmentation.apply(draw.augmentation, x[draw.index])
            loss = step.loss(step.network(theta, batch), y[draw.index])
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            theta = theta - eta * gradient
        results = []
        for number, terminal in enumerate(losses):
            value = terminal(theta)
            grads = torch.autograd.grad(value, leaves, retain_graph=number + 1 < len(losses))
            results.append(Gradients(value.detach(), *grads))
        return results


class Exact(Adjoint):
    """The hand-written walk back: exact, in the memory of one step and T + 1 checkpoints."""

    def __call__(self, inner: InnerLoop, images: Tensor, labels: Tensor, syn_lr: Tensor, *losses: Terminal) -> list[Gradients]:
        images, labels, syn_lr = images.detach(), labels.detach(), syn_lr.detach()
        thetas = [inner.theta.detach()]
        for draw in inner.draws:
            gradient = inner.step.gradient(thetas[-1], _batch(draw, images), labels[draw.index])
            thetas.append(thetas[-1] - syn_lr * gradient.detach())
        return [_walk_back(inner, thetas, images, labels, syn_lr, terminal) for terminal in losses]


def _walk_back(
    inner: InnerLoop, thetas: list[Tensor], images: Tensor, labels: Tensor, syn_lr: Tensor, terminal: Terminal
) -> Gradients:
    last = thetas[-1].detach().requires_grad_()
    value = terminal(last)
    (cotangent,) = torch.autograd.grad(value, last)
    d_images, d_labels, d_syn_lr = torch.zeros_like(images), torch.zeros_like(labels), torch.zeros_like(syn_lr)
    for theta, draw in zip(reversed(thetas[:-1]), reversed(inner.draws), strict=True):
        leaf = images[draw.index].requires_grad_()
        augmented = augmentation.apply(draw.augmentation, leaf)
        gradient, h_theta, h_x, h_y = inner.step.pullback(theta, augmented.detach(), labels[draw.index], cotangent)
        d_syn_lr -= torch.dot(gradient, cotangent)
        # A_n alone goes through autograd, outside the compiled step: its six operations would be six graphs.
        (pulled,) = torch.autograd.grad(augmented, leaf, h_x)
        d_images.index_add_(0, draw.index.to(images.device), pulled * -syn_lr)
        d_labels.index_add_(0, draw.index.to(images.device), h_y * -syn_lr)
        cotangent = cotangent - syn_lr * h_theta
    return Gradients(value.detach(), d_images, d_labels, d_syn_lr)


def _batch(draw: StepDraw, images: Tensor) -> Tensor:
    return augmentation.apply(draw.augmentation, images[draw.index])
