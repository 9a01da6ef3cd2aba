"""AlexNet, VGG-11, LeNet-5 and an MLP, as Zhao, Mopuri and Bilen, 2020, arXiv:2006.05929, have them for 32 pixels.

    AlexNet   two 5×5 and three 3×3 convolutions with ReLU, 2×2 max pooling after the first two and the last, linear head
    VGG-11    eight blocks of a 3×3 convolution, norm and ReLU, 2×2 max pooling after five of them, linear head
    LeNet-5   two 5×5 convolutions, each with ReLU and 2×2 max pooling, and three linear layers
    MLP       two hidden layers with ReLU

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012; Simonyan and Zisserman,
"Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, arXiv:1409.1556; LeCun, Bottou, Bengio and Haffner,
"Gradient-Based Learning Applied to Document Recognition", 1998.

From 64 pixels the first convolutions of AlexNet and LeNet have a stride. VGG's last pooling leaves one of 32 pixels; of larger
images the head takes the mean over what it leaves, so that the parameters are the same for every size.
"""

from torch import Tensor, nn

from limbeck.networks.blocks import ConvBlock, LinearHead, first_stride, grey_padding, max_pools
from limbeck.networks.stages import Norm


class AlexNet(LinearHead):
    """An AlexNet.

    Args:
        channels, height, width_pixels: C, H and W of the images, the latter two at least `LEAST`.
        num_classes: K.
        width: channels of the first block, even; the others have 3/2, 2, 3/2 and 3/2 times as many.
        norm: `instance`, `group`, `batch` or `none`.
    """

    LEAST, POOLED = 8, (0, 1, 4)

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
        self.pools = max_pools(len(self.blocks), self.POOLED)
        rows, columns = (((side + 2 * padding - 5) // stride + 1) // 8 for side in (height, width_pixels))
        self.classifier = nn.Linear(wide * rows * columns, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The output of the last block, all pixels of it."""
        return _through(self.blocks, self.pools, x).flatten(1)


class VGG11(LinearHead):
    """A VGG-11.

    Args:
        channels, height, width_pixels: C, H and W of the images, the latter two at least `LEAST`.
        num_classes: K.
        width: channels of the first block; the others have `FACTORS` times as many.
        norm: `instance`, `group`, `batch` or `none`.
    """

    LEAST, FACTORS, POOLED = 32, (1, 2, 4, 4, 8, 8, 8, 8), (0, 1, 3, 5, 7)

    def __init__(
        self, channels: int, height: int, width_pixels: int, num_classes: int, *, width: int = 64, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        widths = [factor * width for factor in self.FACTORS]
        first = ConvBlock(channels, widths[0], norm, padding=1 + grey_padding(channels))
        rest = (ConvBlock(inputs, outputs, norm) for inputs, outputs in zip(widths, widths[1:], strict=False))
        self.blocks = nn.ModuleList([first, *rest])
        self.pools = max_pools(len(widths), self.POOLED)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The mean over space of the last block's output."""
        return _through(self.blocks, self.pools, x).mean((2, 3))


class LeNet(LinearHead):
    """A LeNet-5.

    Args:
        channels, height, width_pixels: C, H and W of the images, the latter two at least `LEAST`.
        num_classes: K.
    """

    LEAST = 16

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
        """The output of the hidden layers, with shape (N, 84)."""
        hidden: Tensor = self.hidden(_through(self.blocks, self.pools, x).flatten(1))
        return hidden


class MLP(LinearHead):
    """Three linear layers over all pixels.

    Args:
        channels, height, width_pixels: C, H and W of the images.
        num_classes: K.
        width: units of each hidden layer.
    """

    def __init__(self, channels: int, height: int, width_pixels: int, num_classes: int, *, width: int = 128) -> None:
        super().__init__()
        pixels = channels * height * width_pixels
        self.hidden = nn.Sequential(nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The output of the hidden layers, with shape (N, `width`)."""
        hidden: Tensor = self.hidden(x.flatten(1))
        return hidden


def _through(blocks: nn.ModuleList, pools: nn.ModuleList, x: Tensor) -> Tensor:
    for block, pool in zip(blocks, pools, strict=True):
        x = pool(block(x))
    return x
