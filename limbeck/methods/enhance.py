"""Discriminative Area Enhancement in the outer loop: maps of X, and the weights on ∂L/∂X made from them.

∇X ← ∇X ∘ F(M, β)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.runtime.devices import all_true
from limbeck.runtime.errors import require
from limbeck.runtime.random import generator
from limbeck.saliency.maps import Cam, TorchCam, has_maps
from limbeck.saliency.weights import Activation, NoWeighting, Weighting


@dataclass(frozen=True)
class Enhancement:
    """Makes maps and weights.

    Args:
        network: G, which takes images as X is held (an expert: trained under the same preprocessing).
        classes: the class of each image, int64 with shape (N,).
        seed: of the draws.
        cam: what makes maps.
        weighting: what makes weights of them.
        every: iterations between two computations.
    """

    network: nn.Module
    classes: Tensor
    seed: int
    cam: Cam = TorchCam()
    weighting: Weighting = Activation()
    every: int = 100

    @property
    def active(self) -> bool:
        """Whether the weights can differ from one."""
        return not isinstance(self.weighting, NoWeighting)

    def maps(self, images: Tensor, iteration: int) -> Tensor:
        """M with shape (N, H, W), in [0, 1]; zeros where no weights are made of them and the network has no layer to show."""
        if not self.active and not has_maps(self.network, images[:1], self.cam):
            return images.new_zeros(len(images), *images.shape[2:])
        # torch-cam takes them as numbers of Python, everything else where the images are.
        classes = self.classes if isinstance(self.cam, TorchCam) else self.classes.to(images.device)
        maps, shape = self.cam(self.network, images, classes, generator(self.seed, "maps", iteration)), images[:, 0].shape
        good = isinstance(maps, Tensor) and maps.shape == shape and all_true((maps >= 0) & (maps <= 1))
        require(good, "enhance.cam", type(self.cam).__name__, f"one that gives maps in [0, 1] with shape {tuple(shape)}")
        return maps

    def weights(self, images: Tensor, iteration: int) -> Tensor:
        """F with shape (N, 1, H, W); ones, without computing maps, where the weighting is none."""
        if not self.active:
            return torch.ones(len(images), 1, *images.shape[2:], device=images.device, dtype=images.dtype)
        weights, shape = (
            self.weighting(self.maps(images, iteration), generator(self.seed, "weights", iteration)),
            images[:, :1].shape,
        )
        good = isinstance(weights, Tensor) and weights.shape == shape and all_true(weights.isfinite())
        require(
            good, "enhance.weighting", type(self.weighting).__name__, f"one that gives finite weights with shape {tuple(shape)}"
        )
        return weights.to(images)
