"""The steps of the outer loop, in place.

    SGD      v ← μ v + g                                   x ← x − lr v
    AdamW    m ← β₁ m + (1 − β₁) g    v ← β₂ v + (1 − β₂) g²    x ← (1 − lr λ) x − lr m̂ / (√v̂ + ε)

with m̂ = m / (1 − β₁ⁿ), v̂ = v / (1 − β₂ⁿ) in the n-th step, ε = 10⁻⁸.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101.
"""

from torch import Tensor

EPS = 1e-8


def sgd(value: Tensor, velocity: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
    """A step with momentum."""
    velocity.mul_(momentum).add_(gradient)
    value.sub_(velocity, alpha=lr)


def adamw(
    value: Tensor, moments: tuple[Tensor, Tensor, Tensor], gradient: Tensor, lr: float, betas: tuple[float, float], decay: float
) -> None:
    """A step of AdamW.

    Args:
        value: x.
        moments: m and v, with its shape, and how many steps were made, a scalar.
        gradient: g.
        lr: step size.
        betas: β₁ and β₂.
        decay: λ.
    """
    (first, second, steps), (b1, b2) = moments, betas
    steps.add_(1)
    first.mul_(b1).add_(gradient, alpha=1 - b1)
    second.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
    size = (second / (1 - b2**steps)).sqrt_().add_(EPS)
    value.mul_(1 - lr * decay).sub_(first / size.mul_(1 - b1**steps), alpha=lr)
