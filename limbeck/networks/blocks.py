"""What the networks share: the block, norms and activations by name, and how networks made for 32 pixels take other images; what
looks at their parts while one runs.

Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching", 2020, arXiv:2006.05929, have the networks of the field for
32 pixels, with grey images of 28 pixels padded to 32 by the first convolution. For 64 pixels Guo et al., "Towards Lossless Dataset
Distillation via Difficulty-Aligned Trajectory Matching", 2023, arXiv:2310.05773, give first layers a stride of 2.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from limbeck.networks.batch_norm import BatchNorm
from limbeck.networks.stages import Activation, Norm
from limbeck.runtime.errors import require

GROUPS = 4
GREY_PADDING = 2


class LinearHead(nn.Module, ABC):
    """What the networks share: logits are a linear layer of `features`."""

    classifier: nn.Linear

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The input of the classifier, with shape (N, D), for images with shape (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits with shape (N, K) for images with shape (N, C, H, W)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


class ConvBlock(nn.Sequential):
    """Convolution (3×3 unless told) → norm → activation; its output is what activation maps are made from."""

    def __init__(
        self,
        channels: int,
        width: int,
        norm: Norm,
        activation: Activation = "relu",
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
    ) -> None:
        convolution = nn.Conv2d(channels, width, kernel, stride, padding)
        super().__init__(convolution, norm_layer(norm, width), activation_layer(activation))


def norm_layer(name: Norm, width: int) -> nn.Module:
    """The norm of that name for `width` channels."""
    if name == "batch":
        return BatchNorm(width)
    if name == "none":
        return nn.Identity()
    # GroupNorm(C, C), because InstanceNorm2d's second derivative is silently wrong in reverse-over-forward mode.
    return nn.GroupNorm(width if name == "instance" else GROUPS, width)


def activation_layer(name: Activation) -> nn.Module:
    """The activation of that name."""
    parts: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "leaky": nn.LeakyReLU, "sigmoid": nn.Sigmoid}
    return parts[name]()


def max_pools(count: int, after: Collection[int]) -> nn.ModuleList:
    """For each of `count` blocks what follows it: a pooling of 2×2 cells, or nothing."""
    return nn.ModuleList(nn.MaxPool2d(2) if number in after else nn.Identity() for number in range(count))


def grey_padding(channels: int) -> int:
    """By how many more pixels on every side a first convolution pads images of one channel."""
    return GREY_PADDING if channels == 1 else 0


def first_stride(height: int, width: int) -> int:
    """By how much first layers shrink an image, so that the maps behind them are the same for 32, 64 and 128 pixels."""
    side = min(height, width)
    return 1 if side < 64 else 2 if side < 128 else 4


def black_images(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Two images (C, H, W) that `module` can be called with: on its device, in the precision of its parameters."""
    like = next(module.parameters(), torch.zeros(()))
    return torch.zeros(2, *shape, dtype=like.dtype, device=like.device)


def call_purely(module: nn.Module, x: Tensor) -> Any:
    """What `module` makes of `x`, writing into copies of its buffers; what it draws moves torch's global generator."""
    buffers = {name: value.clone() for name, value in module.named_buffers() if not is_lazy(value)}
    return functional_call(module, buffers, (x,))


def run_watched(module: Callable[[Tensor], object], x: Tensor, hooks: Mapping[nn.Module, Callable[..., Any]]) -> None:
    """Run `module` on `x` without gradients and call each part's hook, (part, inputs, output), as the part ends."""
    held = [part.register_forward_hook(hook) for part, hook in hooks.items()]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for one in held:
            one.remove()


def before_head(module: nn.Module, x: Tensor) -> Tensor:
    """What a classifier has of images before its last layer: what its method `features` gives, else what the linear layer that
    runs last is given.

    Raises:
        UsageError: when the module has neither.
    """
    own = getattr(module, "features", None)
    # VGG and AlexNet as others build them have a part of that name: their convolutions, whose output is no vector.
    if callable(own) and not isinstance(own, nn.Module):
        found: Tensor = own(x)
        return found
    seen: list[Tensor] = []

    def record(part: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[:] = inputs[:1]

    hooks = [part.register_forward_pre_hook(record) for part in module.modules() if isinstance(part, nn.Linear)]
    try:
        module(x)
    finally:
        for hook in hooks:
            hook.remove()
    require(len(seen) == 1, "network", type(module).__name__, "a network with a method `features` or with a linear layer")
    return seen[0]
