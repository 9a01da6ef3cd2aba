"""Batch norm whose training mode is a pure function, in the place of torch's.

    x̂ = (x − μ) / √(σ² + ε) · w + b      μ and σ² over batch and space

Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift", 2015,
arXiv:1502.03167. Torch's layer changes its running statistics at every call, which `torch.func` refuses and which would make a
student step depend on the steps before it. Here statistics for evaluation are measured once, when training has ended.
Where ranks share a batch (`over_ranks`), μ and σ² are those of all of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from limbeck.runtime.errors import UsageError
from limbeck.runtime.ranks import Ranks


class BatchNorm(nn.Module):
    """x̂ = (x − μ) / √(σ² + ε) · w + b for x with shape (N, C) or (N, C, …).

    In training mode μ and σ² are those of the batch and nothing is recorded, so that a student step is a pure function;
    in evaluation mode they are the buffers, which `measure_statistics` fills once training has ended.

    Args:
        channels: C.
        eps: ε.
        affine: whether there are w and b; otherwise they are 1 and 0.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, whose second dimension is C."""
        if self.training:
            # Written out, because torch's batch_norm in training mode has wrong second derivatives in some modes.
            mean, variance = _moments(x)
        else:
            mean, variance = self.mean, self.variance
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = self.weight * scale
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = (-1, *[1] * (x.ndim - 2))
        return x * scale.view(shape) + shift.view(shape)


def convert_batch_norms(module: nn.Module, name: str) -> nn.Module:
    """`module` with a `BatchNorm` in the place of each of torch's, in place; parameters, ε and running statistics are kept.

    Args:
        module: any module, perhaps itself a batch norm.
        name: the network's, for messages.

    Raises:
        UsageError: for a subclass of torch's batch norm that does something else.
    """
    made: dict[nn.Module, BatchNorm] = {}  # one that stands in several places stays one

    def pure(norm: _BatchNorm) -> BatchNorm:
        own = type(norm).forward not in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
        if own:
            raise UsageError(f"network: {name!r} has the batch norm {type(norm).__name__}, which is not one of torch's own")
        return made.setdefault(norm, _pure(norm))

    if _is_torchs(module):
        return pure(module)  # type: ignore[arg-type]
    for parent in list(module.modules()):
        for child_name, child in list(parent._modules.items()):
            if _is_torchs(child):
                setattr(parent, child_name, pure(child))  # type: ignore[arg-type]
    return module


def is_statistic(module: nn.Module, name: str) -> bool:
    """Whether the buffer of that name is a batch norm's, which training mode does not use."""
    return isinstance(module.get_submodule(name.rpartition(".")[0]), BatchNorm)


def measure_statistics(module: nn.Module, images: Tensor, batch_size: int = 128) -> None:
    """Fill the mean and variance of every `BatchNorm` of `module` with those of `images` with shape (N, C, H, W).

    Only the norms are in training mode meanwhile: dropout would disturb what they see. `module` is left in evaluation mode.
    """
    norms = [part for part in module.modules() if isinstance(part, BatchNorm)]
    near: dict[nn.Module, Tensor] = {}  # values near the means: what is summed is x less these, whose squares do not drown σ²
    sums: dict[nn.Module, list[Tensor]] = {norm: [torch.zeros_like(norm.mean) for _ in range(3)] for norm in norms}

    def record(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if norm not in near:
            near[norm] = x.mean(_others(x), keepdim=True)
        x = x - near[norm]
        count, total, square = sums[norm]
        count += x[:, 0].numel()
        total += x.sum(_others(x))
        square += x.square().sum(_others(x))

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    try:
        module.eval()
        for norm in norms:
            norm.train()
        with torch.no_grad():
            for batch in images.split(batch_size):
                module(batch)
    finally:
        module.eval()
        for hook in hooks:
            hook.remove()
    for norm in norms:
        count, total, square = sums[norm]
        if norm in near:
            norm.mean.copy_(near[norm].flatten() + total / count)
            norm.variance.copy_((square / count - (total / count).square()).clamp_min(0))


@contextmanager
def over_ranks(ranks: Ranks) -> Iterator[None]:
    """Inside the block every rank has a part of each batch, and batch norms in training mode take μ and σ² over all parts."""
    global _sharing
    before, _sharing = _sharing, ranks
    try:
        yield
    finally:
        _sharing = before


_sharing = Ranks()


class _Total(torch.autograd.Function):
    """The sum over ranks of a tensor of each, as a function of this rank's; the losses of all ranks are one sum, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, total = ranks, x.clone()
        ranks.sum_(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        ctx.ranks.sum_(total)
        return total, None


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """μ and σ², each with shape (C,)."""
    others = _others(x)
    if _sharing.alone:
        return x.mean(others), x.var(others, unbiased=False)
    own = torch.cat([x.sum(others), x.new_tensor([x.numel() / x.shape[1]])])
    total: Tensor = _Total.apply(own, _sharing)  # type: ignore[no-untyped-call]
    count, mean = total[-1].detach(), total[:-1] / total[-1].detach()
    centred = x - mean.view(-1, *[1] * (x.ndim - 2))
    square: Tensor = _Total.apply(centred.square().sum(others), _sharing)  # type: ignore[no-untyped-call]
    return mean, square / count


def _others(x: Tensor) -> tuple[int, ...]:
    """All dimensions but that of the channels."""
    return (0, *range(2, x.ndim))


def _is_torchs(part: nn.Module | None) -> bool:
    # A lazy one has no size yet; it becomes another class at its first call.
    return isinstance(part, _BatchNorm) and not isinstance(part, nn.modules.batchnorm._LazyNormBase)


def _pure(norm: _BatchNorm) -> BatchNorm:
    made = BatchNorm(norm.num_features, norm.eps, norm.affine)
    made.weight, made.bias = norm.weight, norm.bias
    if norm.running_mean is not None and norm.running_var is not None:
        made.mean, made.variance = norm.running_mean.detach().clone(), norm.running_var.detach().clone()
    return made.train(norm.training)
