"""What the walk back asks of a student step, and the general answer to it.

    g(θ, x, y) = ∇_θ ℓ(f(θ, x), y)        (h_θ, h_x, h_y) = the vector–Jacobian product of g with λ

`Reverse` takes both from reverse-mode differentiation and works for every network; `closed_form.Staged` has them in closed form.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vjp

from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.devices import autocast
from limbeck.training.gradient import Loss


class Pulled(NamedTuple):
    """⟨g, λ⟩, a scalar, and h_θ (P,), h_x (B, C, H, W), h_y (B, K); h_θ is empty where it was not asked for."""

    slope: Tensor
    theta: Tensor
    x: Tensor
    y: Tensor


class Derivatives(ABC):
    """g and its products at θ (P,), x (B, C, H, W) and y (B, K), as pure functions of tensors."""

    # Whether `torch.compile` can take `keep` and `pullback_kept` too: what is kept are tensors.
    keeps_tensors: bool

    @abstractmethod
    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """g with shape (P,)."""

    @abstractmethod
    def keep(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Any]:
        """g, and what `pullback_kept` can use of the work done for it."""

    @abstractmethod
    def pullback(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> Pulled:
        """The product with λ = `cotangent` (P,)."""

    @abstractmethod
    def pullback_kept(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor, kept: Any) -> Pulled:
        """The same, from what `keep` returned at the same place."""

    @abstractmethod
    def pullback_data(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> Pulled:
        """The same without h_θ."""


class Graph(NamedTuple):
    """A step that autograd has recorded: its inputs (θ, x, y), and g."""

    inputs: tuple[Tensor, Tensor, Tensor]
    gradient: Tensor


@dataclass(frozen=True)
class Reverse(Derivatives):
    """Reverse over reverse mode: forward mode has silently wrong norms and no `grid_sample`.

    Args:
        network: f.
        loss: ℓ(logits, y), twice differentiable.
        autocast: the precision of convolutions and matrix products; None leaves them in θ's.
    """

    network: FlatNetwork
    loss: Loss
    autocast: torch.dtype | None = None

    keeps_tensors = False

    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        gradient: Tensor = grad(self.value)(theta, x, y)
        return gradient

    def keep(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Graph]:
        with torch.enable_grad():
            inputs = (theta.detach().requires_grad_(), x.detach().requires_grad_(), y.detach().requires_grad_())
            (gradient,) = torch.autograd.grad(self.value(*inputs), inputs[0], create_graph=True)
        return gradient.detach(), Graph(inputs, gradient)

    def pullback(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> Pulled:
        gradient, pull = vjp(grad(self.value), theta, x, y)[:2]
        return Pulled(torch.dot(gradient, cotangent), *pull(cotangent))

    def pullback_kept(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor, kept: Graph) -> Pulled:
        # The graph stays: several losses may be walked back from one set of steps.
        products = torch.autograd.grad(kept.gradient, kept.inputs, cotangent, retain_graph=True)
        return Pulled(torch.dot(kept.gradient.detach(), cotangent), *products)

    def pullback_data(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> Pulled:
        gradient, pull = vjp(lambda x, y: grad(self.value)(theta, x, y), x, y)[:2]
        return Pulled(torch.dot(gradient, cotangent), theta[:0], *pull(cotangent))

    def value(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """ℓ, a scalar."""
        if self.autocast is None:
            return self.loss(self.network(theta, x), y)
        with autocast(theta.device, self.autocast):
            logits = self.network(theta, x)
        return self.loss(logits.to(y.dtype), y)
