"""Which parameters a loss keeps.

    l_p = (θ_T − θ*_{t+M})²_p        L over p ∈ κ

Common Pattern Dropout: κ is all but the ⌊αP⌋ parameters of lowest l_p; κ is a constant in the gradient. The others are what it
is compared with: those of highest l_p, any parameters, the same share of every layer, and the first, middle or last layers.
Dropping the first layers is also the masking of shallow layers by depth that "Prioritize Alignment in Dataset Distillation" (PAD),
2024, arXiv:2408.03360, describes.

Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios" (EDF), 2025,
arXiv:2410.17193.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import ClassVar, Literal

import torch
from torch import Tensor

from limbeck.runtime.checked import Share, check_fields


class Criterion(ABC):
    """Chooses κ.

    Example:
        >>> import torch
        >>> class Even(Criterion):
        ...     def keep(self, losses, *, layers, generator):
        ...         return torch.arange(len(losses)) % 2 == 0
        >>> Even().keep(torch.rand(4), layers=[], generator=torch.Generator())
        tensor([ True, False,  True, False])
    """

    layered: ClassVar[bool] = False
    """Whether it reads `layers`."""

    @abstractmethod
    def keep(self, losses: Tensor, *, layers: Sequence[slice], generator: torch.Generator) -> Tensor:
        """The mask of kept parameters, bool with shape (P,).

        Args:
            losses: l with shape (P,).
            layers: where the layers lie in θ, in the order of depth (`layers_of`).
            generator: a CPU generator, one for every iteration.
        """


@dataclass(frozen=True)
class KeepAll(Criterion):
    """κ is every parameter.

    Example:
        >>> import torch
        >>> KeepAll().keep(torch.rand(3))
        tensor([True, True, True])
    """

    def keep(self, losses: Tensor, *, layers: Sequence[slice] = (), generator: torch.Generator | None = None) -> Tensor:
        return torch.ones_like(losses, dtype=torch.bool)


@dataclass(frozen=True)
class _Dropout(Criterion):
    """What drops a share α in [0, 1)."""

    drop_ratio: Share

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class LowLossDropout(_Dropout):
    """κ is all but the ⌊αP⌋ parameters of lowest loss; of equal losses the earlier parameter is dropped first.

    Example:
        >>> import torch
        >>> LowLossDropout(0.5).keep(torch.tensor([3.0, 1.0, 2.0, 4.0]))
        tensor([ True, False, False,  True])
    """

    def keep(self, losses: Tensor, *, layers: Sequence[slice] = (), generator: torch.Generator | None = None) -> Tensor:
        return ~_lowest(losses, _share(self.drop_ratio, len(losses)))


@dataclass(frozen=True)
class HighLossDropout(_Dropout):
    """κ is all but the ⌊αP⌋ parameters of highest loss; of equal losses the earlier parameter is dropped first.

    Example:
        >>> import torch
        >>> HighLossDropout(0.5).keep(torch.tensor([3.0, 1.0, 2.0, 4.0]))
        tensor([False,  True,  True, False])
    """

    def keep(self, losses: Tensor, *, layers: Sequence[slice] = (), generator: torch.Generator | None = None) -> Tensor:
        return ~_lowest(-losses, _share(self.drop_ratio, len(losses)))


@dataclass(frozen=True)
class RandomDropout(_Dropout):
    """κ is all but ⌊αP⌋ parameters, any of them equally likely.

    Example:
        >>> import torch
        >>> RandomDropout(0.25).keep(torch.rand(8), generator=torch.Generator().manual_seed(0)).sum()
        tensor(6)
    """

    def keep(self, losses: Tensor, *, layers: Sequence[slice] = (), generator: torch.Generator) -> Tensor:
        return _without(losses, _some(len(losses), self.drop_ratio, generator))


@dataclass(frozen=True)
class UniformDropout(_Dropout):
    """κ is all but ⌊αQ⌋ parameters of every layer of Q, any of them equally likely: ⌊αP⌋ in all, less what is rounded off.

    Example:
        >>> import torch
        >>> layers = [slice(0, 4), slice(4, 10)]
        >>> kept = UniformDropout(0.5).keep(torch.rand(10), layers=layers, generator=torch.Generator().manual_seed(0))
        >>> [int(kept[layer].sum()) for layer in layers]
        [2, 3]
    """

    layered = True

    def keep(self, losses: Tensor, *, layers: Sequence[slice], generator: torch.Generator) -> Tensor:
        sizes = _sizes(layers, losses)
        parts = [layer.start + _some(size, self.drop_ratio, generator) for layer, size in zip(layers, sizes, strict=True)]
        return _without(losses, torch.cat(parts))


@dataclass(frozen=True)
class LayerDropout(_Dropout):
    """κ is all but ⌊αP⌋ parameters, taken layer by layer.

    Whole layers are dropped while they fit; the one that does not loses only its first parameters, as many as are still
    missing, so that every criterion drops equally many.

    Args:
        drop_ratio: α.
        where: the layers that go first: from the first on, from the last back, or from the one in the middle outwards (of two
            equally far the shallower).

    Example:
        >>> import torch
        >>> LayerDropout(0.5, "last").keep(torch.rand(4), layers=[slice(0, 1), slice(1, 4)])
        tensor([ True, False, False,  True])
    """

    where: Literal["first", "middle", "last"] = "first"

    layered = True

    def keep(self, losses: Tensor, *, layers: Sequence[slice], generator: torch.Generator | None = None) -> Tensor:
        _sizes(layers, losses)
        order = torch.cat([torch.arange(layer.start, layer.stop) for layer in self._ordered(layers)])
        return _without(losses, order[: _share(self.drop_ratio, len(losses))])

    def _ordered(self, layers: Sequence[slice]) -> list[slice]:
        depth = len(layers)
        keys = {"first": lambda i: i, "last": lambda i: -i, "middle": lambda i: abs(2 * i - (depth - 1))}
        return [layers[i] for i in sorted(range(depth), key=keys[self.where])]


def layers_of(slices: Mapping[str, slice]) -> list[slice]:
    """Where the layers lie in θ: a layer is a module that owns parameters, such as a convolution or a norm, with its bias."""
    owners = groupby(slices.items(), key=lambda item: item[0].rpartition(".")[0])
    parts = [[part for _, part in owned] for _, owned in owners]
    return [slice(owned[0].start, owned[-1].stop) for owned in parts]


def _share(drop_ratio: float, count: int) -> int:
    """⌊α · count⌋."""
    # Fraction(str(α)), because in floating point 0.29 · 100 is below 29.
    return math.floor(Fraction(str(drop_ratio)) * count)


def _lowest(values: Tensor, count: int) -> Tensor:
    """Where the `count` lowest are, of equal ones the earlier; bool."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    # To sort them all takes four times as long.
    greatest = values.topk(count, largest=False, sorted=False).values.max()
    below, equal = values < greatest, values == greatest
    return below | (equal & (equal.cumsum(0) <= count - below.sum()))


def _some(count: int, drop_ratio: float, generator: torch.Generator) -> Tensor:
    """⌊α · count⌋ different numbers below `count`."""
    return torch.randperm(count, generator=generator)[: _share(drop_ratio, count)]


def _without(losses: Tensor, dropped: Tensor) -> Tensor:
    mask = torch.ones_like(losses, dtype=torch.bool)
    mask[dropped.to(losses.device)] = False
    return mask


def _sizes(layers: Sequence[slice], losses: Tensor) -> list[int]:
    """The sizes of the layers, which hold every parameter once."""
    sizes = [layer.stop - layer.start for layer in layers]
    assert sum(sizes) == len(losses), f"layers of {sum(sizes)} parameters do not make up the {len(losses)} of the loss"
    return sizes
