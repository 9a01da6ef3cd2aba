"""What SRe2L's images are recovered by: a teacher's answers, and how far its batch norms see other statistics than they know.

L = ℓ(teacher(x), classes) + w Σ_l m_l ( ‖μ_l(x) − μ_l‖₂ + ‖σ²_l(x) − σ²_l‖₂ )      `statistics_matching.py` has the symbols
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from limbeck.networks.batch_norm import BatchNorm
from limbeck.runtime.errors import UsageError, require


def check_teacher(teacher: nn.Module, name: str) -> None:
    """Raise `UsageError` unless the teacher has batch norms with statistics; `name` is for the message."""
    known = any(_statistics(part) is not None for part in teacher.modules())
    require(known, "sre2l.teacher", name, "a network with batch norm, such as ConvNetD3-batchnorm or ResNet18-batchnorm")


def recovery_loss(
    teacher: nn.Module, x: Tensor, classes: Tensor, bn_weight: float = 0.01, first_multiplier: float = 10.0
) -> Tensor:
    """L, a scalar.

    Args:
        teacher: a classifier with batch norms, in evaluation mode.
        x: A(X), with shape (B, C, H, W).
        classes: int64 with shape (B,).
        bn_weight: w.
        first_multiplier: m of the first batch norm.
    """
    with statistics_distances(teacher) as distances:
        loss = cross_entropy(teacher(x), classes)
    if not distances:
        raise UsageError("sre2l.teacher: none of the teacher's batch norms is run")
    first, *others = distances
    return loss + bn_weight * (first_multiplier * first + sum(others))


@contextmanager
def statistics_distances(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list that gets, whenever a batch norm of `module` is run in the block, ‖μ(x) − μ‖₂ + ‖σ²(x) − σ²‖₂ of its input x."""
    found: list[Tensor] = []

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x, held = inputs[0], _statistics(norm)
        assert held is not None, "only batch norms with statistics are asked"
        others = (0, *range(2, x.ndim))
        mean, variance = x.mean(others), x.var(others, unbiased=False)
        found.append(torch.linalg.vector_norm(mean - held[0]) + torch.linalg.vector_norm(variance - held[1]))

    hooks = [part.register_forward_pre_hook(measure) for part in module.modules() if _statistics(part) is not None]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _statistics(part: nn.Module) -> tuple[Tensor, Tensor] | None:
    """μ and σ² of a batch norm, ours or torch's."""
    if isinstance(part, BatchNorm):
        return part.mean, part.variance
    if isinstance(part, _BatchNorm) and part.running_mean is not None and part.running_var is not None:
        return part.running_mean, part.running_var
    return None
