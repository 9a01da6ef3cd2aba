"""Optimisers as functions of a flat vector θ (P,), or of S of them stacked (S, P), each of which then goes its own way.

With g = ∇_θ ℓ of the batch at θ and lr the step size, already times the schedule's factor:

    Sgd      v ← μ v + g + w θ                               θ ← θ − lr · v
    AdamW    m ← β₁ m + (1 − β₁) g,  s ← β₂ s + (1 − β₂) g²   θ ← θ − lr · (m̂ / (√ŝ + ε) + w θ),
             m̂ = m / (1 − β₁ᵗ), ŝ = s / (1 − β₂ᵗ)            w only where θ decays
    Gsam     e = ρ θ² ∘ g / ‖|θ| ∘ g‖  (adaptive)  or  ρ g / ‖g‖,   g_p = ∇_θ ℓ of the same batch at θ + e
             Sgd along  g_p − α g_⊥,   g_⊥ = g − ⟨g, u⟩ u,   u = g_p / ‖g_p‖
             ρ = ρ_min + (ρ_max − ρ_min) (lr − lr_min) / (lr_max − lr_min)

Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv:1711.05101.
Zhuang, Gong, Yuan, Cui, Adam, Dvornek, Tatikonda, Duncan and Liu, "Surrogate Gap Minimization Improves Sharpness-Aware
Training", 2022, arXiv:2203.08065; the adaptive e: Kwon, Kim, Park and Choi, "ASAM", 2021, arXiv:2102.11600.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from limbeck.runtime.errors import require

GradientAt = Callable[[Tensor], Tensor]


class Optimiser(ABC):
    """Turns gradients into steps; what it remembers between them is the state that the caller holds."""

    lr: float

    @abstractmethod
    def state(self, theta: Tensor) -> tuple[Tensor, ...]:
        """The state before the first step at θ with shape (P,) or (S, P), on θ's device."""

    @abstractmethod
    def step(self, theta: Tensor, state: tuple[Tensor, ...], gradient: GradientAt, factor: Tensor | float = 1.0) -> None:
        """Change θ and the state in place.

        Args:
            theta: with shape (P,) or (S, P).
            state: the one that `state` made for a θ of this shape.
            gradient: θ' ↦ ∇_θ ℓ of this step's batch at θ', both of θ's shape; called in the caller's mode of autograd.
            factor: multiplies the step size; a tensor has shape () or (S, 1) and θ's type.
        """

    @abstractmethod
    def slowed(self, share: float) -> "Optimiser":
        """The same with `share` of the step size, in (0, 1], all else as it was at every factor."""


@dataclass(frozen=True, slots=True)
class Sgd(Optimiser):
    """Step size lr, momentum μ and weight decay w. The state is v."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def state(self, theta: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros_like(theta),)

    def step(self, theta: Tensor, state: tuple[Tensor, ...], gradient: GradientAt, factor: Tensor | float = 1.0) -> None:
        self.descend(theta, state[0], gradient(theta), factor)

    def slowed(self, share: float) -> "Sgd":
        return replace(self, lr=self.lr * share)

    @torch.no_grad()
    def descend(self, theta: Tensor, velocity: Tensor, direction: Tensor, factor: Tensor | float) -> None:
        """Change θ and v in place, with `direction` for g."""
        velocity.mul_(self.momentum).add_(direction)
        if self.weight_decay:
            velocity.add_(theta, alpha=self.weight_decay)
        _subtract(theta, velocity, self.lr * factor)


@dataclass(frozen=True, slots=True)
class AdamW(Optimiser):
    """Step size lr, (β₁, β₂), ε and weight decay w.

    The state is m, s, the number of steps t and, where there is one, the mask `decayed` for every row of θ, on its device.

    Args:
        decayed: bool with shape (P,), which entries of θ decay; None: all (see `decays`).

    Raises:
        UsageError: when a value is not accepted.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    decayed: Tensor | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        require(all(0 <= beta < 1 for beta in self.betas), "optimiser.betas", self.betas, "two numbers in [0, 1)")
        _require_finite("eps", self.eps)
        _require_finite("weight_decay", self.weight_decay)

    def state(self, theta: Tensor) -> tuple[Tensor, ...]:
        # float64, because 1 − β₂ᵗ would lose half of its digits in float32.
        steps = torch.zeros(*theta.shape[:-1], 1, dtype=torch.float64, device=theta.device)
        mask = () if self.decayed is None else (self.decayed.to(theta.device, torch.bool).expand(theta.shape).clone(),)
        return torch.zeros_like(theta), torch.zeros_like(theta), steps, *mask

    def step(self, theta: Tensor, state: tuple[Tensor, ...], gradient: GradientAt, factor: Tensor | float = 1.0) -> None:
        self._descend(theta, state, gradient(theta), factor)

    def slowed(self, share: float) -> "AdamW":
        return replace(self, lr=self.lr * share)

    @torch.no_grad()
    def _descend(self, theta: Tensor, state: tuple[Tensor, ...], g: Tensor, factor: Tensor | float) -> None:
        mean, square, steps, *decayed = state
        first, second = self.betas
        steps.add_(1)
        mean.lerp_(g, 1 - first)
        square.mul_(second).addcmul_(g, g, value=1 - second)
        # The outer loop holds t in single precision.
        to_mean, to_square = ((1 - beta ** steps.double()).reciprocal().to(theta) for beta in self.betas)
        direction = (mean * to_mean).div_((square * to_square).sqrt_().add_(self.eps))
        if self.weight_decay:
            direction.add_(theta * decayed[0] if decayed else theta, alpha=self.weight_decay)
        _subtract(theta, direction, self.lr * factor)


@dataclass(frozen=True, slots=True)
class Gsam(Optimiser):
    """Surrogate-gap guided sharpness-aware minimisation around SGD: two gradients a step. The state is SGD's v.

    Args:
        lr: the step size, lr_max at the schedule's factor 1.
        momentum, weight_decay: μ and w of the SGD along g_p − α g_⊥.
        rho_min: ρ at the step size lr_min.
        rho_max: ρ at the step size lr.
        alpha: α; 0 is sharpness-aware minimisation (SAM).
        adaptive: whether e scales with θ², so that it does not depend on how parameters are scaled.
        eps: added to norms that are divided by, so that where the gradient is 0 nothing is NaN.
        lr_min: the least step size of the schedule, below lr.

    Raises:
        UsageError: when a value is not accepted.
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    rho_min: float = 0.01
    rho_max: float = 0.01
    alpha: float = 0.4
    adaptive: bool = True
    eps: float = 1e-12
    lr_min: float = 0.0

    def __post_init__(self) -> None:
        for name in ("alpha", "eps"):
            _require_finite(name, getattr(self, name))
        ordered = 0 <= self.rho_min <= self.rho_max < float("inf")
        require(ordered, "optimiser.rho_max", self.rho_max, f"finite and at least rho_min ({self.rho_min}), which is at least 0")
        require(0 <= self.lr_min < self.lr, "optimiser.lr_min", self.lr_min, f"at least 0 and below lr ({self.lr})")

    def state(self, theta: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros_like(theta),)

    def step(self, theta: Tensor, state: tuple[Tensor, ...], gradient: GradientAt, factor: Tensor | float = 1.0) -> None:
        g = gradient(theta).clone()  # a CUDA graph writes the next gradient where this one lies
        direction = self._direction(g, gradient(self._climbed(theta, g, factor)))
        Sgd(self.lr, self.momentum, self.weight_decay).descend(theta, state[0], direction, factor)

    def slowed(self, share: float) -> "Gsam":
        return replace(self, lr=self.lr * share, lr_min=self.lr_min * share)  # ρ stays that of the factor

    def rho(self, factor: Tensor | float) -> Tensor | float:
        """ρ at the step size lr · factor."""
        return self.rho_min + (self.rho_max - self.rho_min) * (self.lr * factor - self.lr_min) / (self.lr - self.lr_min)

    @torch.no_grad()
    def _climbed(self, theta: Tensor, g: Tensor, factor: Tensor | float) -> Tensor:
        """θ + e."""
        scale = theta.abs() if self.adaptive else 1.0
        scaled = scale * g
        return theta + scale * scaled * (self.rho(factor) / (_norm(scaled) + self.eps))

    @torch.no_grad()
    def _direction(self, g: Tensor, perturbed: Tensor) -> Tensor:
        """g_p − α g_⊥."""
        unit = perturbed / (_norm(perturbed) + self.eps)
        orthogonal = g - (g * unit).sum(-1, keepdim=True) * unit
        return perturbed - self.alpha * orthogonal


def decays(shapes: Iterable[torch.Size]) -> Tensor:
    """Which entries of θ belong to parameters of two dimensions or more: bool with shape (P,), for parameters of `shapes`.

    Biases and the parameters of norms, which have one dimension, do not decay in the protocols with knowledge distillation.
    """
    parts = [torch.full((shape.numel(),), len(shape) >= 2) for shape in shapes]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool)


def _norm(rows: Tensor) -> Tensor:
    """The Euclidean norm of each row, with shape (1,) or (S, 1)."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return lengths


def _subtract(theta: Tensor, direction: Tensor, rate: Tensor | float) -> None:
    if isinstance(rate, Tensor):
        theta.sub_(direction * rate)
    else:
        theta.sub_(direction, alpha=rate)


def _require_finite(name: str, value: float) -> None:
    require(0 <= value < float("inf"), f"optimiser.{name}", value, "at least 0 and finite")
