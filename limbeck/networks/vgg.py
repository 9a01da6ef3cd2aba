"""VGG-11: eight blocks of a 3×3 convolution, norm and ReLU, 2×2 max pooling after five of them, linear head.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, arXiv:1409.1556; with norms and
one linear layer as Zhao, Mopuri and Bilen, 2020, arXiv:2006.05929, have it for 32 pixels. There the last pooling leaves one pixel;
of larger images the head takes the mean over what it leaves, so that the parameters are the same for every size.
"""

from torch import Tensor, nn

from limbeck.networks.blocks import ConvBlock, grey_padding, max_pools
from limbeck.networks.stages import Norm

LEAST = 32
FACTORS = (1, 2, 4, 4, 8, 8, 8, 8)
POOLED = (0, 1, 3, 5, 7)


class VGG11(nn.Module):
    """A VGG-11.

    Args:
        channels: C of the images.
        height: H of the images, at least `LEAST`.
        width_pixels: W of the images, at least `LEAST`.
        num_classes: K.
        width: channels of the first block; the others have `FACTORS` times as many.
        norm: `instance`, `group`, `batch` or `none`.
    """

    def __init__(
        self, channels: int, height: int, width_pixels: int, num_classes: int, *, width: int = 64, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        widths = [factor * width for factor in FACTORS]
        first = ConvBlock(channels, widths[0], norm, padding=1 + grey_padding(channels))
        rest = (ConvBlock(inputs, outputs, norm) for inputs, outputs in zip(widths, widths[1:], strict=False))
        self.blocks = nn.ModuleList([first, *rest])
        self.pools = max_pools(len(widths), POOLED)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The input of the classifier, with shape (N, D), for images with shape (N, C, H, W)."""
        for block, pool in zip(self.blocks, self.pools, strict=True):
            x = pool(block(x))
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits with shape (N, K) for images with shape (N, C, H, W)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits
