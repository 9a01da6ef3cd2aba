"""LeNet-5: two 5×5 convolutions, each with ReLU and 2×2 max pooling, and three linear layers.

LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998; with ReLU and max pooling as
Zhao, Mopuri and Bilen, 2020, arXiv:2006.05929, have it. From 64 pixels the first convolution has a stride.
"""

from torch import Tensor, nn

from limbeck.networks.blocks import ConvBlock, first_stride, grey_padding, max_pools

LEAST = 16


class LeNet(nn.Module):
    """A LeNet-5.

    Args:
        channels: C of the images.
        height: H of the images, at least `LEAST`.
        width_pixels: W of the images, at least `LEAST`.
        num_classes: K.
    """

    def __init__(self, channels: int, height: int, width_pixels: int, num_classes: int) -> None:
        super().__init__()
        padding, stride = grey_padding(channels), first_stride(height, width_pixels)
        first = ConvBlock(channels, 6, "none", kernel=5, stride=stride, padding=padding)
        self.blocks = nn.ModuleList([first, ConvBlock(6, 16, "none", kernel=5, padding=0)])
        self.pools = max_pools(2, (0, 1))
        rows, columns = ((((side + 2 * padding - 5) // stride + 1) // 2 - 4) // 2 for side in (height, width_pixels))
        self.hidden = nn.Sequential(nn.Linear(16 * rows * columns, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
        self.classifier = nn.Linear(84, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The input of the classifier, with shape (N, 84), for images with shape (N, C, H, W)."""
        for block, pool in zip(self.blocks, self.pools, strict=True):
            x = pool(block(x))
        hidden: Tensor = self.hidden(x.flatten(1))
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        """Logits with shape (N, K) for images with shape (N, C, H, W)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits
