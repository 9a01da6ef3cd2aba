"""The gradient of the matching loss through the student steps, several ways.

`Exact` keeps only θ_0 … θ_T and walks back:

    λ_T = ∂L/∂θ_T
    for n = T−1 … 0:   (h_θ, h_x, h_y) = vjp of g at (θ_n, x_n, y_n) with cotangent λ_{n+1}
        ∂L/∂η −= ⟨g, λ_{n+1}⟩     ∂L/∂X[b_n] −= η A_nᵀ h_x     ∂L/∂Y[b_n] −= η h_y
        λ_n = λ_{n+1} − η h_θ

Invariant: at the top of the loop `cotangent` is λ_{n+1} = ∂L/∂θ_{n+1}. It is what back-propagation through the graph of all
steps (`Unroll`) gives, to rounding. Two approximations leave parts of it out: `Tesla` takes λ_n = λ_T for all n, `Truncated`
ends the walk after some steps.

Several ranks each compute their part of a batch: g is summed over them at every step forth, h_θ at every step back, beside what
else there is to compute, and the gradients by X, Y and η once, at the end. L and λ_T, with the mask of a criterion, are rank 0's.

TESLA: Cui, Wang, Si and Hsieh, "Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory", 2022,
arXiv:2211.10586. Truncation: Feng, Vedantam and Kempe, "Embarrassingly Simple Dataset Distillation" (RaT-BPTT), 2023,
arXiv:2311.07025.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from limbeck.matching.spread import Part, Spread
from limbeck.matching.steps import StepDraw, StudentStep
from limbeck.runtime.checked import Count, check_fields
from limbeck.runtime.devices import one_thread, to_host
from limbeck.runtime.ranks import Ranks

Terminal = Callable[[Tensor], Tensor]

SMALL = 2**20  # so many numbers a pass over memory takes in less time than other threads take to wake


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
    """The student: its step, θ_0 with shape (P,), b_n and A_n of the T steps it takes, and how batches are spread over ranks.

    An adjoint that knows nothing of ranks computes the same on each of them.

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
    spread: Spread = Spread()

    def threads(self, images: Tensor) -> AbstractContextManager[None]:
        """For what lies between compiled steps that run side by side: one thread, where θ and a batch of `images` are small."""
        batch = len(self.draws[0].index) * images[0].numel()
        return one_thread() if self.step.lanes > 1 and max(self.theta.numel(), batch) <= SMALL else nullcontext()


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

    @torch.enable_grad()
    def __call__(self, inner: InnerLoop, images: Tensor, labels: Tensor, syn_lr: Tensor, *losses: Terminal) -> list[Gradients]:
        leaves = tuple(tensor.detach().requires_grad_() for tensor in (images, labels, syn_lr))
        x, y, eta = leaves
        step, theta, ranks = inner.step, inner.theta.detach().requires_grad_(), inner.spread.ranks
        for part in inner.spread.parts(inner.draws):
            # Which hangs on θ and on a leaf, so that ranks without images take part in the sums on the way back.
            gradient = 0 * theta + 0 * eta
            if part.share:
                batch = part.augmentation(x[part.images])
                (gradient,) = torch.autograd.grad(step.value(theta, batch, y[part.labels]), theta, create_graph=True)
            theta = theta - eta * (gradient if ranks.alone else _Summed.apply(part.share * gradient, ranks))  # type: ignore[no-untyped-call]
        results = []
        for number, terminal in enumerate(losses):
            value, cotangent = _end(terminal, theta, ranks)
            # The sums that the graph goes through add up what every rank says, and that must be λ_T.
            said, last = cotangent if ranks.first else torch.zeros_like(cotangent), number + 1 == len(losses)
            found = torch.autograd.grad(theta, leaves, said, retain_graph=not last, materialize_grads=True)
            inner.spread.sum_(*found)
            results.append(Gradients(value, *found))
        return results


class _Summed(torch.autograd.Function):
    """Σ_r g_r, on every rank; back, the sum of what all ranks say of it."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.start_sum(gradient.clone()).wait()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.start_sum(cotangents[0].clone()).wait(), None


def _end(terminal: Terminal, theta: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """L, and λ_T = ∂L/∂θ_T, of rank 0: what a criterion keeps must be the same everywhere."""
    last = theta.detach().requires_grad_()
    if ranks.first:
        with torch.enable_grad():
            value = terminal(last)
        (cotangent,) = torch.autograd.grad(value, last)
        value = value.detach()
    else:
        value, cotangent = last.new_empty(()), torch.empty_like(last)
    ranks.broadcast_(value, cotangent)
    return value, cotangent


@dataclass(slots=True)
class Trajectory:
    """The student's way: θ_0 … θ_T, and what the last steps have kept."""

    thetas: list[Tensor]
    kept: dict[int, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
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
        parts, found = inner.spread.parts(inner.draws), []
        with inner.threads(images):
            way = self._forward(inner, parts, images, labels, syn_lr)
        for terminal in losses:
            value, cotangent = _end(terminal, way.thetas[-1], inner.spread.ranks)
            with inner.threads(images):
                found.append(self._back(inner, parts, way, images, labels, syn_lr, value, cotangent))
        return found

    def steps_back(self, steps: int) -> int:
        """How many of T steps the walk back takes."""
        return steps

    def _forward(self, inner: InnerLoop, parts: Sequence[Part], images: Tensor, labels: Tensor, syn_lr: Tensor) -> Trajectory:
        theta, way, ranks = inner.theta.detach(), Trajectory([]), inner.spread.ranks
        steps, batch = len(parts), _batch(parts[0], images, labels)
        for n, part in enumerate(parts):
            way.thetas.append(self._stored(theta) if n >= steps - self.steps_back(steps) else theta.new_empty(0))
            if not part.share:
                gradient = torch.zeros_like(theta)
            elif n >= steps - min(self.kept, self.steps_back(steps)) and self.by_theta:
                gradient, way.kept[n] = inner.step.keep(theta, *batch)
            else:
                gradient = inner.step.gradient(theta, *batch)
            summed = ranks.start_sum(_scaled(gradient, part.share))
            if n + 1 < steps:
                batch = _batch(parts[n + 1], images, labels)  # while the ranks add up
            theta = theta - syn_lr * summed.wait()
        way.thetas.append(theta)
        return way

    def _back(
        self,
        inner: InnerLoop,
        parts: Sequence[Part],
        way: Trajectory,
        images: Tensor,
        labels: Tensor,
        syn_lr: Tensor,
        value: Tensor,
        cotangent: Tensor,
    ) -> Gradients:
        ranks, steps = inner.spread.ranks, len(parts)
        d_images, d_labels, d_syn_lr = torch.zeros_like(images), torch.zeros_like(labels), torch.zeros_like(syn_lr)
        first = steps - self.steps_back(steps)
        for n in reversed(range(first, steps)):
            part, theta = parts[n], way.thetas[n].to(images.device, non_blocking=True)
            found = None
            if part.share:
                leaf = images[part.images].requires_grad_()
                with torch.enable_grad():
                    augmented = part.augmentation(leaf)
                y = labels[part.labels]
                found = inner.step.pullback(theta, augmented.detach(), y, cotangent, way.kept.get(n), by_theta=self.by_theta)
            summed = None
            if self.by_theta and n > first:  # λ of the first step is asked for by nobody
                summed = ranks.start_sum(torch.zeros_like(theta) if found is None else _scaled(found.theta, part.share))
            if found is not None:
                d_syn_lr -= part.share * found.slope
                # A_n alone goes through autograd, outside the compiled step: its six operations would be six graphs.
                (h_images,) = torch.autograd.grad(augmented, leaf, found.x)
                d_images.index_add_(0, part.images.to(images.device), h_images * (-syn_lr * part.share))
                d_labels.index_add_(0, part.labels.to(images.device), found.y * (-syn_lr * part.share))
            if summed is not None:
                cotangent = cotangent - syn_lr * summed.wait()
        inner.spread.sum_(d_images, d_labels, d_syn_lr)
        return Gradients(value, d_images, d_labels, d_syn_lr)

    def _stored(self, theta: Tensor) -> Tensor:
        return to_host(theta) if self.on_host else theta


def _batch(part: Part, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What the network is given of a step, and the labels of that; without images where there are none."""
    x = images[part.images]
    return (part.augmentation(x) if part.share else x), labels[part.labels]


def _scaled(gradient: Tensor, share: float) -> Tensor:
    return gradient if share == 1 else gradient * share


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
