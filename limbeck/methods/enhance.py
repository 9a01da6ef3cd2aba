"""Discriminative Area Enhancement in the outer loop: maps of X, and the weights on ∂L/∂X made from them (PAPER § 5).

∇X ← ∇X ∘ F(M, β)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.runtime.random import generator
from limbeck.saliency.maps import activation_maps, has_maps
from limbeck.saliency.settings import EnhanceSettings
from limbeck.saliency.weights import gradient_weights


@dataclass(frozen=True)
class Enhancement:
    """Makes maps and weights.

    Args:
        network: G, which takes images as X is held (an expert: trained under the same preprocessing).
        classes: the class of each image, int64 with shape (N,).
        settings: the keys `enhance.*`.
        seed: of the draws.
    """

    network: nn.Module
    classes: Tensor
    settings: EnhanceSettings
    seed: int

    @property
    def active(self) -> bool:
        """Whether the weights can differ from one."""
        return self.settings.weighting != "none"

    def maps(self, images: Tensor, iteration: int) -> Tensor:
        """M with shape (N, H, W), in [0, 1]; zeros where no weights are made of them and the network has no layer to show."""
        if not self.active and not has_maps(self.network, images[:1], self.settings):
            return images.new_zeros(len(images), *images.shape[2:])
        return activation_maps(self.network, images, self.classes, self.settings, generator(self.seed, "maps", iteration))

    def weights(self, images: Tensor, iteration: int) -> Tensor:
        """F with shape (N, 1, H, W); ones, without computing maps, where the weighting is `none`."""
        if not self.active:
            return torch.ones(len(images), 1, *images.shape[2:], device=images.device, dtype=images.dtype)
        draws = generator(self.seed, "weights", iteration)
        return gradient_weights(self.maps(images, iteration), self.settings, draws).to(images)
