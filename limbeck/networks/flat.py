"""A network as a function of one flat vector: f(θ, x) with θ of shape (P,).

The vector holds the parameters in the order of `named_parameters()`; a checkpoint, a difference of two checkpoints and a
gradient all have this shape, and SGD on it is one line.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from limbeck.networks.convnet import BatchNorm
from limbeck.networks.names import build_network
from limbeck.networks.stages import Stage


class FlatNetwork:
    """f(θ, x): `module` called with the parameters that the flat vector θ holds.

    Args:
        module: any module; its own parameters are never changed. It is used in training mode.
        name: its name, for messages and files.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module.train(), name
        self.shapes = {key: value.shape for key, value in module.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]

    @property
    def num_parameters(self) -> int:
        """P."""
        return sum(self.sizes)

    @property
    def has_batch_norm(self) -> bool:
        """Whether what the network makes of an image depends on the others of its batch."""
        return any(isinstance(part, (BatchNorm, nn.modules.batchnorm._BatchNorm)) for part in self.module.modules())

    @property
    def slices(self) -> dict[str, slice]:
        """Where each named parameter lies in θ."""
        ends = torch.tensor(self.sizes).cumsum(0).tolist()
        return {name: slice(end - size, end) for name, end, size in zip(self.shapes, ends, self.sizes, strict=True)}

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        """The named parameters, as views of θ."""
        parts = theta.split(self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """Logits with shape (N, K) of images x with shape (N, C, H, W) under θ with shape (P,)."""
        logits: Tensor = functional_call(self.module, self.parameters(theta), (x,))
        return logits

    def stages(self, dtype: torch.dtype | None = None) -> list[Stage] | None:
        """The network as stages that convolve in `dtype` (None: in that of θ); None where it has no such form."""
        found: Callable[[torch.dtype | None], list[Stage] | None] = getattr(self.module, "stages", lambda _: None)
        return found(dtype)

    def initial(self, generator: torch.Generator) -> Tensor:
        """Fresh parameters with shape (P,), float32: U(−1/√n, 1/√n) with n inputs for weights and biases, 1 and 0 for norms."""
        parts = []
        for module in self.module.modules():
            weight = getattr(module, "weight", None)
            for name, value in module.named_parameters(recurse=False):
                if isinstance(module, (nn.Conv2d, nn.Linear)) and isinstance(weight, Tensor):
                    bound = 1 / math.sqrt(weight[0].numel())
                    parts.append(torch.rand(value.numel(), generator=generator) * 2 * bound - bound)
                else:
                    parts.append(torch.full((value.numel(),), 0.0 if name == "bias" else 1.0))
        return torch.cat(parts)

    def with_parameters(self, theta: Tensor, statistics_from: Callable[[], Tensor] | None = None) -> nn.Module:
        """A copy of the module that holds θ, in evaluation mode.

        Args:
            theta: with shape (P,).
            statistics_from: gives images with shape (N, C, H, W), as the network takes them, on which the mean and variance
                of batch norms are measured; asked only where there are any. Without it they keep their fresh statistics.
        """
        module = copy.deepcopy(self.module).to(theta.device, theta.dtype)
        with torch.no_grad():
            for name, value in self.parameters(theta).items():
                module.get_parameter(name).copy_(value)
        if statistics_from is not None and any(isinstance(part, BatchNorm) for part in module.modules()):
            measure_statistics(module, statistics_from())
        return module.eval()

    def to(self, device: torch.device) -> "FlatNetwork":
        """The same on another device (its buffers move)."""
        self.module.to(device)
        return self


def flat_network(name: str, shape: tuple[int, int, int], num_classes: int) -> FlatNetwork:
    """The network `name` for images with shape (C, H, W); see `build_network` for the errors."""
    channels, height, width = shape
    return FlatNetwork(build_network(name, channels, height, width, num_classes), name)


def measure_statistics(module: nn.Module, images: Tensor, batch_size: int = 128) -> None:
    """Fill the mean and variance of every `BatchNorm` of `module` with those of `images` with shape (N, C, H, W)."""
    norms = [part for part in module.modules() if isinstance(part, BatchNorm)]
    sums: dict[nn.Module, list[Tensor]] = {norm: [torch.zeros_like(norm.mean) for _ in range(3)] for norm in norms}

    def record(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        count, total, square = sums[norm]
        count += x[:, 0].numel()
        total += x.sum((0, 2, 3))
        square += x.square().sum((0, 2, 3))

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    try:
        with torch.no_grad():
            module.train()
            for batch in images.split(batch_size):
                module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for norm in norms:
        count, total, square = sums[norm]
        norm.mean.copy_(total / count)
        norm.variance.copy_((square / count - (total / count).square()).clamp_min(0))
