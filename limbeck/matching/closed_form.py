"""The student's step of a network in stages: g, and its vector–Jacobian product by forward differentiation.

With θ̇ = λ the product of g = ∇_θ ℓ with λ is a derivative along a direction, and all of it comes from one pass forth and one
back that carry values and derivatives together:

    ⟨g, λ⟩ = ℓ̇      h_θ = ġ_θ      h_x = ġ_x      h_y = ġ_y

g_θ itself is not needed, so that this takes eight convolutions per layer where back-propagation through g takes nine.
Pearlmutter, "Fast Exact Multiplication by the Hessian", 1994.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, jvp

from limbeck.matching.derivatives import Derivatives, Pulled
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.stages import NetworkStage, Tangent
from limbeck.training.gradient import Kept, Loss, StagedGradient, rows


@dataclass(frozen=True)
class Staged(Derivatives):
    """g and its products of a network in stages.

    Args:
        network: whose parameters θ holds.
        stages: of the network.
        loss: ℓ(logits, y), twice differentiable, a mean over the batch.
    """

    network: FlatNetwork
    stages: Sequence[NetworkStage]
    loss: Loss

    keeps_tensors = True

    @property
    def first(self) -> StagedGradient:
        """g in closed form."""
        return StagedGradient(self.network, self.stages, self.loss)

    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.first(theta, x, y)

    def keep(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Kept]:
        return self.first.keep(theta, x, y)

    def pullback(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> Pulled:
        return self._pull(theta, x, y, cotangent, None, True)

    def pullback_kept(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor, kept: Kept) -> Pulled:
        return self._pull(theta, x, y, cotangent, kept, True)

    def pullback_data(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> Pulled:
        return self._pull(theta, x, y, cotangent, None, False)

    def _pull(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor, kept: Kept | None, by_theta: bool) -> Pulled:
        parameters, directions = self.first.parameters(theta), self.first.parameters(cotangent)
        inputs: list[Tensor] = []  # x and ẋ one upon the other; of the first stage x alone, ẋ being 0
        outputs: list[Tangent] = []
        last = Tangent(rows(x), x)
        for number, stage in enumerate(self.stages):
            weight, *p = parameters[number]
            direction, *pt = directions[number]
            along = stage.linear.apply(last.value, direction)
            inputs.append(torch.cat([last.value, last.dot]) if number else last.value)
            if number == 0:
                z = Tangent(kept.z[0] if kept else stage.linear.apply(last.value, weight), along)
            elif kept:
                z = Tangent(kept.z[number], stage.linear.apply(last.dot, weight) + along)
            else:
                value, dot = stage.linear.apply(inputs[-1], weight).chunk(2)
                z = Tangent(value, dot + along)
            outputs.append(z)
            last = stage.rest.forward_tangent(z, tuple(p), tuple(pt))
        slope, gx, h_y = self._loss_tangent(last, y)
        found: dict[str, Tensor] = {}
        for number in reversed(range(len(self.stages))):
            stage = self.stages[number]
            weight, *p = parameters[number]
            direction, *pt = directions[number]
            gz, gp = stage.rest.backward_tangent(gx, outputs[number], tuple(p), tuple(pt))
            both = torch.cat([gz.dot, gz.value]) if number else gz.dot
            if by_theta:
                found |= zip(stage.names, (stage.linear.to_weight(both, inputs[number], weight), *gp), strict=True)
            along = stage.linear.to_input(gz.value, direction)
            if number and kept:
                gx = Tangent(kept.gx[number - 1], stage.linear.to_input(gz.dot, weight) + along)
            elif number:
                dot, value = stage.linear.to_input(both, weight).chunk(2)
                gx = Tangent(value, dot + along)
        h_x = stage.linear.to_input(gz.dot, weight) + along
        return Pulled(
            slope, self.first.flat(found) if by_theta else theta[:0], h_x.to(x.dtype).permute(0, 3, 1, 2).contiguous(), h_y
        )

    def _loss_tangent(self, logits: Tangent, y: Tensor) -> tuple[Tensor, Tangent, Tensor]:
        """ℓ̇, (g, ġ) of the logits, and ġ_y."""

        def gradients(logits: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
            return grad_and_value(self.loss, argnums=(0, 1))(logits, y)

        values, dots = jvp(gradients, (logits.value,), (logits.dot,))[:2]
        ((g, _), _), ((g_dot, h_y), slope) = values, dots
        return slope, Tangent(g, g_dot), h_y
