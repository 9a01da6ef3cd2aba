"""The steps of the outer loop, in place: those of training's optimisers (`training/optimisers.py`), of tensors of any shape."""

from torch import Tensor

from limbeck.training.optimisers import AdamW, Sgd


def sgd(value: Tensor, velocity: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
    """A step with momentum."""
    Sgd(lr, momentum).descend(value, velocity, gradient, 1.0)


def adamw(
    value: Tensor, moments: tuple[Tensor, Tensor, Tensor], gradient: Tensor, lr: float, betas: tuple[float, float], decay: float
) -> None:
    """A step of AdamW.

    Args:
        value: what it is a step of.
        moments: m and s, with its shape, and how many steps were made, a scalar.
        gradient: g.
        lr: step size.
        betas: β₁ and β₂.
        decay: w.
    """
    AdamW(lr, betas, weight_decay=decay).step(value, moments, lambda at: gradient)
