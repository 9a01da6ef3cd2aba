"""AlexNet: two 5×5 and three 3×3 convolutions with ReLU, 2×2 max pooling after the first two and the last, linear head.

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012; in the small form,
without norms unless asked for, of Zhao, Mopuri and Bilen, 2020, arXiv:2006.05929. From 64 pixels the first convolution has a
stride.
"""

from torch import Tensor, nn

from limbeck.networks.blocks import ConvBlock, first_stride, grey_padding, max_pools
from limbeck.networks.stages import Norm

LEAST = 8
POOLED = (0, 1, 4)


class AlexNet(nn.Module):
    """An AlexNet.

    Args:
        channels: C of the images.
        height: H of the images, at least `LEAST`.
        width_pixels: W of the images, at least `LEAST`.
        num_classes: K.
        width: channels of the first block, even; the others have 3/2, 2, 3/2 and 3/2 times as many.
        norm: `instance`, `group`, `batch` or `none`.
    """

    def __init__(
        self, channels: int, height: int, width_pixels: int, num_classes: int, *, width: int = 128, norm: Norm = "none"
    ) -> None:
        super().__init__()
        wide, widest = 3 * width // 2, 2 * width
        padding, stride = 2 + grey_padding(channels), first_stride(height, width_pixels)
        self.blocks = nn.ModuleList(
            [
                ConvBlock(channels, width, norm, kernel=5, stride=stride, padding=padding),
                ConvBlock(width, wide, norm, kernel=5, padding=2),
                ConvBlock(wide, widest, norm),
                ConvBlock(widest, wide, norm),
                ConvBlock(wide, wide, norm),
            ]
        )
        self.pools = max_pools(len(self.blocks), POOLED)
        rows, columns = (((side + 2 * padding - 5) // stride + 1) // 8 for side in (height, width_pixels))
        self.classifier = nn.Linear(wide * rows * columns, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The input of the classifier, with shape (N, D), for images with shape (N, C, H, W)."""
        for block, pool in zip(self.blocks, self.pools, strict=True):
            x = pool(block(x))
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits with shape (N, K) for images with shape (N, C, H, W)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits
