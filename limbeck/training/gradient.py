"""The gradient that training descends along:  g(θ, x, y) = ∇_θ ℓ(f(θ, x), y).

Uncompiled it is autograd's. Compiled it is the closed form of networks in stages, channels last and in micro-batches that fit
a CPU's cache; other networks, and several networks stacked, compile autograd's. The ranks of a run can share one's batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap

from limbeck.networks import micro_batches
from limbeck.networks.batch_norm import over_ranks
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.stages import NetworkStage, Parameters
from limbeck.runtime.ahead import Ahead
from limbeck.runtime.compiling import compiled
from limbeck.runtime.devices import new_step, on_gpu
from limbeck.runtime.ranks import Ranks

Loss = Callable[[Tensor, Tensor], Tensor]
Descent = Callable[[Tensor, Tensor, Tensor], Tensor]  # g, θ, x and y in that order


class Kept(NamedTuple):
    """What the closed form leaves behind: of every stage z, and the gradient by its x'."""

    z: list[Tensor]
    gx: list[Tensor]


@dataclass(frozen=True)
class StagedGradient:
    """g of a network in stages z = W ∘ x, x' = φ(z): one pass forth, one back.

    Args:
        network: whose parameters θ holds.
        stages: of the network.
        loss: ℓ(logits, y), differentiable, a mean over the batch.
    """

    network: FlatNetwork
    stages: Sequence[NetworkStage]
    loss: Loss

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """g with shape (P,) at θ (P,), x (B, C, H, W) and y, whatever ℓ takes."""
        return self.keep(theta, x, y)[0]

    def keep(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Kept]:
        """g, and what lay between."""
        parameters, kept, inputs = self.parameters(theta), Kept([], []), []
        value = rows(x)
        for stage, (weight, *p) in zip(self.stages, parameters, strict=True):
            inputs.append(value)
            kept.z.append(stage.linear.apply(value, weight))
            value = stage.rest.forward(kept.z[-1], tuple(p))
        gx: Tensor = grad(self.loss)(value, y)
        found: dict[str, Tensor] = {}
        for number in reversed(range(len(self.stages))):
            stage, (weight, *p) = self.stages[number], parameters[number]
            kept.gx.insert(0, gx)
            gz, gp = stage.rest.backward(gx, kept.z[number], tuple(p))
            found |= zip(stage.names, (stage.linear.to_weight(gz, inputs[number], weight), *gp), strict=True)
            if number:
                gx = stage.linear.to_input(gz, weight)
        return self.flat(found), kept

    def parameters(self, theta: Tensor) -> list[Parameters]:
        """The parameters of every stage."""
        named = self.network.parameters(theta)
        return [tuple(named[name] for name in stage.names) for stage in self.stages]

    def flat(self, found: dict[str, Tensor]) -> Tensor:
        """Gradients by name as one vector."""
        return torch.cat([found[name].reshape(-1) for name in self.network.shapes])


def rows(x: Tensor) -> Tensor:
    """Images (B, C, H, W) with channels last, (B, H, W, C)."""
    return x.permute(0, 2, 3, 1).contiguous()


@dataclass(frozen=True)
class Gradient:
    """g of one network or of several stacked ones.

    Args:
        network: f.
        loss: ℓ(logits, y), differentiable, a mean over the batch.
        compile: whether g is compiled, for each size of a micro-batch: ahead of time (`runtime/ahead.py`) on a CPU where the
            network is in stages, else through `torch.compile`.
        micro_batch: images at a time; None takes a batch whole.
        sizes: of micro-batches that are compiled for; others are computed uncompiled, None none of them.
    """

    network: FlatNetwork
    loss: Loss
    compile: bool = False
    micro_batch: int | None = None
    sizes: frozenset[int] | None = None
    _function: Callable[..., Any] = field(init=False, repr=False)
    _stacked: Callable[..., Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        stages = self.network.stages() if self.compile else None
        # On a CPU the closed form gains nothing uncompiled, and autograd frees what it has used. `vmap` does not go through the
        # memory layouts that the closed form asks for.
        together = vmap(grad(self._value), randomness="error")
        object.__setattr__(self, "_function", self._compiled(stages) if self.compile else self._by_autograd)
        object.__setattr__(self, "_stacked", compiled(together) if self.compile else together)

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """g with shape (P,) at θ (P,), x (B, C, H, W) and y with first dimension B; or all three stacked, (S, …), and g (S, P)."""
        if theta.ndim == 2:
            with torch.no_grad():
                return self._call(self._stacked, theta, x, y)
        parts = micro_batches.split((x, y), self.micro_batch)
        with torch.no_grad():
            if len(parts) == 1:
                return self._call(self._function, theta, *parts[0])
            total = torch.zeros_like(theta)
            for part in parts:  # one by one: a CUDA graph writes its results where the last call's lie
                total.add_(self._call(self._function, theta, *part), alpha=len(part[0]) / len(x))
            return total

    def _compiled(self, stages: Sequence[NetworkStage] | None) -> Callable[..., Any]:
        """Ahead of time for a CPU where the network is in stages, which are nothing but operations on their tensors."""
        if stages is None:
            return compiled(grad(self._value))
        function = StagedGradient(self.network, stages, self.loss)
        later, device = compiled(function), next(self.network.module.parameters()).device
        return later if on_gpu(device) else Ahead(function, otherwise=later)

    def _call(self, function: Callable[..., Any], theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if self.compile:
            new_step(theta.device)
        if self.sizes is not None and x.shape[theta.ndim - 1] not in self.sizes:
            function = vmap(grad(self._value), randomness="error") if theta.ndim == 2 else self._by_autograd
        gradient: Tensor = function(theta, x, y)
        return gradient

    def _value(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(self.network(theta, x), y)

    def _by_autograd(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = theta.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._value(leaf, x, y), leaf)
        return gradient


@dataclass(frozen=True)
class SharedGradient:
    """g of one network, each rank having B_r of the batch's B images:  g = Σ_r B_r / B · g_r, a sum of P numbers a step.

    All ranks have θ, x and y, and all get g, to the same bits. Batch norms take their statistics over all ranks. Where there are
    fewer images than ranks, it is rank 0's.

    Args:
        gradient: g_r; of a network with batch norms uncompiled.
        ranks: of the run.
    """

    gradient: Gradient
    ranks: Ranks

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """g with shape (P,)."""
        ranks, part = self.ranks, self.ranks.share(len(x))
        share = (part.stop - part.start) / len(x)
        if len(x) < ranks.count:
            found = self.gradient(theta, x, y) if ranks.first else torch.empty_like(theta)
            ranks.broadcast_(found)
            return found
        if self.gradient.network.has_batch_norm:
            with over_ranks(ranks):
                found = self._weighted(share)(theta, x[part], y[part])
        else:
            found = self.gradient(theta, x[part], y[part]) * share
        ranks.sum_(found)
        return found

    def _weighted(self, share: float) -> Gradient:
        """B_r / B · g_r, weighted before the way back, which leads through statistics that ranks have in common."""
        return Gradient(self.gradient.network, lambda logits, y: self.gradient.loss(logits, y) * share)
