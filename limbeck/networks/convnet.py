"""ConvNet, the network that distillation is done with: depth × (3×3 convolution → norm → activation → 2×2 pooling), linear head.

Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", 2018, arXiv:1804.09458; in the form
that dataset distillation uses since Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching", 2020,
arXiv:2006.05929: the first convolution pads images of 28×28 pixels (MNIST, FashionMNIST) to 32×32, by 3 pixels on every side
where the others have 1, so that no pooling leaves a row out.
"""

import torch
from torch import Tensor, nn

from limbeck.networks.blocks import GROUPS, ConvBlock, LinearHead
from limbeck.networks.stages import Activation, Bias, Convolution, Dense, NetworkStage, Norm, NormActivatePool, Pooling

PADDED = 28  # the sides of images that are padded to 32 pixels


class ConvNet(LinearHead):
    """A ConvNet.

    Args:
        channels, height, width_pixels: C, H and W of the images.
        num_classes: K.
        depth: number of blocks, 1 to 8.
        width: channels of every block.
        norm: `instance` (a group norm with one channel a group), `group` (`GROUPS` groups), `batch` or `none`.
        pooling: `avg`, `max` or `none`.
        activation: `relu`, `leaky` (slope 0.01) or `sigmoid`.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width_pixels: int,
        num_classes: int,
        *,
        depth: int = 3,
        width: int = 128,
        norm: Norm = "instance",
        pooling: Pooling = "avg",
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.padding, self.kinds = first_padding(height, width_pixels), (norm, pooling, activation)
        height, width_pixels = (side + 2 * (self.padding - 1) for side in (height, width_pixels))
        self.shape = height, width_pixels  # as the first convolution leaves it
        first = ConvBlock(channels, width, norm, activation, padding=self.padding)
        self.blocks = nn.ModuleList([first, *(ConvBlock(width, width, norm, activation) for _ in range(depth - 1))])
        self.pool: nn.Module = {"avg": nn.AvgPool2d(2), "max": nn.MaxPool2d(2), "none": nn.Identity()}[pooling]
        shrink = 1 if pooling == "none" else 2**depth
        self.classifier = nn.Linear(width * (height // shrink) * (width_pixels // shrink), num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The input of the classifier, with shape (N, D), for images with shape (N, C, H, W)."""
        for block in self.blocks:
            x = self.pool(block(x))
        return x.flatten(1)

    def stages(self, dtype: torch.dtype | None = None) -> list[NetworkStage] | None:
        """The network as stages that convolve in `dtype`; None where a pooling leaves out a row or a column."""
        (height, width), (norm, pooling, activation) = self.shape, self.kinds
        halvings = 0 if pooling == "none" else len(self.blocks)
        if height % 2**halvings or width % 2**halvings:
            return None
        rest = NormActivatePool(norm, GROUPS, pooling, activation, dtype)
        norms = ("1.weight", "1.bias") if norm != "none" else ()
        names = [tuple(f"blocks.{i}.{part}" for part in ("0.weight", "0.bias", *norms)) for i in range(len(self.blocks))]
        head = Dense((height >> halvings, width >> halvings))
        paddings = [self.padding] + [1] * (len(self.blocks) - 1)
        blocks = [NetworkStage(Convolution(dtype, pads), rest, parts) for pads, parts in zip(paddings, names, strict=True)]
        return [*blocks, NetworkStage(head, Bias(), ("classifier.weight", "classifier.bias"))]


def first_padding(height: int, width: int) -> int:
    """By how many pixels on every side the first convolution of a ConvNet pads images of that size."""
    return 3 if height == width == PADDED else 1
