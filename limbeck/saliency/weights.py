"""Weights of the pixel gradient, made from activation maps: Discriminative Area Enhancement and its controls.

    ∇X ← ∇X ∘ F(M, β),   F(M, β) = 1 where M < mean(M),  β + M elsewhere

with M in [0, 1] the activation map of each image and the mean over its own pixels; the controls keep the size of F but not
its place. After K. Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios", 2024,
arXiv:2410.17193.
"""

import torch
from torch import Tensor

from limbeck.saliency.settings import EnhanceSettings


def gradient_weights(maps: Tensor, settings: EnhanceSettings, generator: torch.Generator) -> Tensor:
    """What the pixel gradient is multiplied by, with shape (N, 1, H, W).

    Args:
        maps: activation maps in [0, 1] with shape (N, H, W).
        settings: `weighting`, `beta` and `cam_threshold` count here.
        generator: a CPU generator; only `shuffled` draws from it.
    """
    if settings.weighting == "none":
        return torch.ones_like(maps)[:, None]
    weights = enhancement(maps, settings.beta, None if settings.cam_threshold == "mean" else float(settings.cam_threshold))
    if settings.weighting == "constant":
        weights = weights.mean((1, 2), keepdim=True).expand_as(weights)
    elif settings.weighting == "shuffled":
        weights = weights[_other_images(len(weights), generator).to(weights.device)]
    return weights[:, None]


def enhancement(maps: Tensor, beta: float, threshold: float | None = None) -> Tensor:
    """F(M, β) with shape (N, H, W); `threshold` takes the place of each map's mean."""
    # In float64 the mean of equal float32 values is that value; a mean rounded up would put all of a flat map below it.
    wide = maps.double()
    bar = wide.mean((1, 2), keepdim=True) if threshold is None else threshold
    return torch.where(wide < bar, torch.ones_like(maps), beta + maps)


def _other_images(number: int, generator: torch.Generator) -> Tensor:
    """For each of `number` images another one, each used once: the cycle through all of them in random order."""
    order = torch.randperm(number, generator=generator)
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other
