"""How far two sets of features lie apart, by their characteristic functions.

    Φ(t) = mean_i exp(j⟨t, f_i⟩)
    D = mean_t √( α (|Φ_r| − |Φ_s|)² + 2β (|Φ_r||Φ_s| − Re(Φ_r Φ̄_s)) )

The first part compares amplitudes, how widely the features are spread, the second phases, where they lie; with α = β the root is
√α |Φ_r − Φ_s|. Rounding can take the second part below 0, and no root has a derivative at 0: that part counts as 10⁻¹² at least,
with gradient 0 below.

Wang et al., "Dataset Distillation with Neural Characteristic Function: A Minmax Perspective" (NCFM), 2025, arXiv:2502.20653.
"""

import torch
from torch import Tensor

LEAST_PHASE = 1e-12
LEAST = 1e-30  # of what else a root is taken of


def characteristic(features: Tensor, t: Tensor) -> Tensor:
    """Φ at F frequencies t (F, D), of features (N, D): real and imaginary parts, with shape (2, F)."""
    angles = features @ t.T
    return torch.stack([angles.cos().mean(0), angles.sin().mean(0)])


def discrepancy(real: Tensor, synthetic: Tensor, amplitude: float = 0.5, phase: float = 0.5) -> Tensor:
    """D, a scalar, of Φ_r and Φ_s, both (2, F), with weights α and β.

    Example:
        >>> t, f = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5]])
        >>> discrepancy(characteristic(f, t), characteristic(-f, t)).item()  # mean of √½ |exp(jt/2) − exp(−jt/2)| = √2 sin(t/2)
        0.934...
    """
    ours, theirs = _length(real), _length(synthetic)
    apart = (ours * theirs - (real * synthetic).sum(0)).mul(2).clamp_min(LEAST_PHASE)
    return (amplitude * (ours - theirs).square() + phase * apart).clamp_min(LEAST).sqrt().mean()


def _length(phi: Tensor) -> Tensor:
    return phi.square().sum(0).clamp_min(LEAST).sqrt()
