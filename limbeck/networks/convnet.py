"""ConvNet, the network that distillation is done with: depth × (3×3 convolution → norm → activation → 2×2 pooling), linear head.

Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", 2018, arXiv:1804.09458; in the form
that dataset distillation uses since Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching", 2020,
arXiv:2006.05929.
"""

import torch
from torch import Tensor, nn

from limbeck.networks.stages import (
    Activation,
    Bias,
    Convolution,
    Dense,
    Norm,
    NormActivatePool,
    Pooling,
    Stage,
)

GROUPS = 4


class BatchNorm(nn.Module):
    """x̂ = (x − μ) / √(σ² + ε) · w + b over batch and space.

    In training mode μ and σ² are those of the batch and nothing is recorded, so that a student step is a pure function;
    in evaluation mode they are the buffers, which `measure` fills once training has ended.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x with shape (N, C, H, W)."""
        if self.training:
            # Written out, because torch's batch_norm in training mode has wrong second derivatives in some modes.
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        else:
            mean, variance = self.mean, self.variance
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


class Block(nn.Sequential):
    """3×3 convolution → norm → activation; its output is what activation maps are made from."""

    def __init__(self, channels: int, width: int, norm: Norm, activation: Activation) -> None:
        super().__init__(nn.Conv2d(channels, width, 3, padding=1), _norm(norm, width), _activation(activation))


class ConvNet(nn.Module):
    """A ConvNet.

    Args:
        channels: C of the images.
        height: H of the images.
        width_pixels: W of the images.
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
        self.shape, self.kinds = (height, width_pixels), (norm, pooling, activation)
        inputs = [channels] + [width] * (depth - 1)
        self.blocks = nn.ModuleList(Block(size, width, norm, activation) for size in inputs)
        self.pool: nn.Module = {"avg": nn.AvgPool2d(2), "max": nn.MaxPool2d(2), "none": nn.Identity()}[pooling]
        shrink = 1 if pooling == "none" else 2**depth
        self.classifier = nn.Linear(width * (height // shrink) * (width_pixels // shrink), num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The input of the classifier, with shape (N, D), for images with shape (N, C, H, W)."""
        for block in self.blocks:
            x = self.pool(block(x))
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits with shape (N, K) for images with shape (N, C, H, W)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

    def stages(self, dtype: torch.dtype | None = None) -> list[Stage] | None:
        """The network as stages that convolve in `dtype`; None where a pooling leaves out a row or a column."""
        (height, width), (norm, pooling, activation) = self.shape, self.kinds
        halvings = 0 if pooling == "none" else len(self.blocks)
        if height % 2**halvings or width % 2**halvings:
            return None
        rest = NormActivatePool(norm, GROUPS, pooling, activation, dtype)
        norms = ("1.weight", "1.bias") if norm != "none" else ()
        names = [tuple(f"blocks.{i}.{part}" for part in ("0.weight", "0.bias", *norms)) for i in range(len(self.blocks))]
        head = Dense((height >> halvings, width >> halvings))
        blocks = [Stage(Convolution(dtype), rest, parts) for parts in names]
        return [*blocks, Stage(head, Bias(), ("classifier.weight", "classifier.bias"))]


def _norm(name: Norm, width: int) -> nn.Module:
    if name == "batch":
        return BatchNorm(width)
    if name == "none":
        return nn.Identity()
    # GroupNorm(C, C), because InstanceNorm2d's second derivative is silently wrong in reverse-over-forward mode.
    return nn.GroupNorm(width if name == "instance" else GROUPS, width)


def _activation(name: Activation) -> nn.Module:
    parts: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "leaky": nn.LeakyReLU, "sigmoid": nn.Sigmoid}
    return parts[name]()
