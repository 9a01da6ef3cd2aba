"""ResNet-18: a stem, four layers of two residual blocks, mean over space, linear head.

    x' = ReLU(F(x) + s(x))      F = norm ∘ conv ∘ ReLU ∘ norm ∘ conv,   s = x, or norm ∘ 1×1 conv where the shape changes

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385. The stem depends on the images, so
that the last maps have 4×4 pixels at 32, 64 and 128: below 64 pixels it is a 3×3 convolution (Zhao, Mopuri and Bilen, 2020,
arXiv:2006.05929), below 128 one with stride 2 (Guo et al., 2023, arXiv:2310.05773), and from there on the 7×7 convolution with
stride 2 and the 3×3 max pooling of the original (Cazenavette et al., 2022, arXiv:2203.11932).
"""

from torch import Tensor, nn
from torch.nn.functional import relu

from limbeck.networks.blocks import LinearHead, first_stride, norm_layer
from limbeck.networks.stages import Norm

LEAST = 16


class Residual(nn.Module):
    """x' = ReLU(F(x) + s(x)); the first convolution has the stride."""

    def __init__(self, channels: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            norm_layer(norm, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm_layer(norm, width),
        )
        shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), norm_layer(norm, width))
        self.shortcut: nn.Module = shortcut if stride > 1 or channels != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x' with shape (N, width, H/stride, W/stride), rounded up, for x with shape (N, C, H, W)."""
        return relu(self.body(x) + self.shortcut(x))


class ResNet18(LinearHead):
    """A ResNet-18.

    Args:
        channels, height, width_pixels: C, H and W of the images, the latter two at least `LEAST`.
        num_classes: K.
        width: channels of the stem and of the first layer, which double from layer to layer.
        norm: `instance`, `group`, `batch` or `none`.
    """

    def __init__(
        self, channels: int, height: int, width_pixels: int, num_classes: int, *, width: int = 64, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        stride = first_stride(height, width_pixels)
        if stride < 4:
            parts: list[nn.Module] = [nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)]
        else:
            parts = [nn.Conv2d(channels, width, 7, 2, padding=3, bias=False)]
        parts += [norm_layer(norm, width), nn.ReLU()]
        self.stem = nn.Sequential(*parts, *([nn.MaxPool2d(3, 2, padding=1)] if stride == 4 else []))
        self.layer1 = nn.Sequential(Residual(width, width, 1, norm), Residual(width, width, 1, norm))
        self.layer2 = nn.Sequential(Residual(width, 2 * width, 2, norm), Residual(2 * width, 2 * width, 1, norm))
        self.layer3 = nn.Sequential(Residual(2 * width, 4 * width, 2, norm), Residual(4 * width, 4 * width, 1, norm))
        self.layer4 = nn.Sequential(Residual(4 * width, 8 * width, 2, norm), Residual(8 * width, 8 * width, 1, norm))
        self.classifier = nn.Linear(8 * width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The input of the classifier, with shape (N, D), for images with shape (N, C, H, W)."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return x.mean((2, 3))
