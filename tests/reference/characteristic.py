"""NCFM's discrepancy (arXiv:2502.20653), frequency by frequency and image by image, in complex numbers."""

import torch
from torch import Tensor


def phi(features: list[Tensor], t: Tensor) -> Tensor:
    """Φ(t), a complex scalar, of features of shape (D,) each, as they are."""
    total = torch.zeros((), dtype=torch.complex128)
    for one in features:
        total = total + torch.exp(1j * sum(a * b for a, b in zip(t, one, strict=True)))
    return total / len(features)


def discrepancy(real: list[Tensor], synthetic: list[Tensor], frequencies: Tensor, alpha: float, beta: float) -> Tensor:
    """D, a scalar that can be differentiated by the features."""
    total = torch.zeros((), dtype=torch.float64)
    for t in frequencies:
        r, s = phi(real, t), phi(synthetic, t)
        apart = 2 * (r.abs() * s.abs() - (r * s.conj()).real)
        total = total + (alpha * (r.abs() - s.abs()) ** 2 + beta * apart).sqrt()
    return total / len(frequencies)
