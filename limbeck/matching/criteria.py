"""Which parameters the matching loss keeps, and the loss itself (PAPER §§ 3, 4).

    l_p = (θ_T − θ*_{t+M})²_p        d_p = (θ*_t − θ*_{t+M})²_p        L = Σ_{p∈κ} l_p / Σ_{p∈κ} d_p

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
from typing import Literal

import torch
from torch import Tensor

from limbeck.matching.settings import MatchSettings


class Criterion(ABC):
    """Chooses κ."""

    @abstractmethod
    def keep(self, losses: Tensor) -> Tensor:
        """The mask of kept parameters, bool with shape (P,), for l with shape (P,)."""


class KeepAll(Criterion):
    """κ is every parameter."""

    def keep(self, losses: Tensor) -> Tensor:
        return torch.ones_like(losses, dtype=torch.bool)


@dataclass(frozen=True)
class LowLossDropout(Criterion):
    """κ is all but the ⌊αP⌋ parameters of lowest loss; of equal losses the earlier parameter is dropped first."""

    drop_ratio: float

    def keep(self, losses: Tensor) -> Tensor:
        return _without(losses, losses.sort(stable=True).indices[: _share(self.drop_ratio, len(losses))])


@dataclass(frozen=True)
class HighLossDropout(Criterion):
    """κ is all but the ⌊αP⌋ parameters of highest loss; of equal losses the earlier parameter is dropped first."""

    drop_ratio: float

    def keep(self, losses: Tensor) -> Tensor:
        order = losses.sort(stable=True, descending=True).indices
        return _without(losses, order[: _share(self.drop_ratio, len(losses))])


@dataclass(frozen=True)
class RandomDropout(Criterion):
    """κ is all but ⌊αP⌋ parameters, any of them equally likely; every call draws on from a CPU generator."""

    drop_ratio: float
    generator: torch.Generator | None

    def keep(self, losses: Tensor) -> Tensor:
        assert self.generator is not None, "`random` needs a generator"
        return _without(losses, _some(len(losses), self.drop_ratio, self.generator))


@dataclass(frozen=True)
class UniformDropout(Criterion):
    """κ is all but ⌊αQ⌋ parameters of every layer of Q, any of them equally likely: ⌊αP⌋ in all, less what is rounded off."""

    drop_ratio: float
    layers: Sequence[slice]
    generator: torch.Generator | None

    def keep(self, losses: Tensor) -> Tensor:
        assert self.generator is not None, "`uniform` needs a generator"
        sizes = _sizes(self.layers, losses)
        parts = [layer.start + _some(size, self.drop_ratio, self.generator) for layer, size in zip(self.layers, sizes, strict=True)]
        return _without(losses, torch.cat(parts))


@dataclass(frozen=True)
class LayerDropout(Criterion):
    """κ is all but ⌊αP⌋ parameters, taken layer by layer.

    Whole layers are dropped while they fit; the one that does not loses only its first parameters, as many as are still
    missing, so that every criterion drops equally many.

    Args:
        drop_ratio: α.
        layers: where the layers lie in θ, in the order of depth.
        where: the layers that go first: from the first on, from the last back, or from the one in the middle outwards (of two
            equally far the shallower).
    """

    drop_ratio: float
    layers: Sequence[slice]
    where: Literal["first", "middle", "last"]

    def keep(self, losses: Tensor) -> Tensor:
        _sizes(self.layers, losses)
        order = torch.cat([torch.arange(layer.start, layer.stop) for layer in self._ordered()])
        return _without(losses, order[: _share(self.drop_ratio, len(losses))])

    def _ordered(self) -> list[slice]:
        depth = len(self.layers)
        keys = {"first": lambda i: i, "last": lambda i: -i, "middle": lambda i: abs(2 * i - (depth - 1))}
        return [self.layers[i] for i in sorted(range(depth), key=keys[self.where])]


def criterion_of(
    settings: MatchSettings, slices: Mapping[str, slice] | None = None, generator: torch.Generator | None = None
) -> Criterion:
    """The criterion that the settings name.

    Args:
        settings: `criterion`, `drop_ratio` and `drop_side` count here.
        slices: where each named parameter lies in θ, in the order of depth; `uniform`, `first`, `middle` and `last` need it
            before they choose.
        generator: a CPU generator, one for every iteration; `random` and `uniform` need it before they choose.
    """
    ratio, layers = settings.drop_ratio, layers_of(slices or {})
    if settings.criterion == "none" or ratio == 0:
        return KeepAll()
    if settings.criterion == "loss":
        return LowLossDropout(ratio) if settings.drop_side == "low" else HighLossDropout(ratio)
    if settings.criterion == "random":
        return RandomDropout(ratio, generator)
    if settings.criterion == "uniform":
        return UniformDropout(ratio, layers, generator)
    return LayerDropout(ratio, layers, settings.criterion)


def layers_of(slices: Mapping[str, slice]) -> list[slice]:
    """Where the layers lie in θ: a layer is a module that owns parameters, such as a convolution or a norm, with its bias."""
    owners = groupby(slices.items(), key=lambda item: item[0].rpartition(".")[0])
    parts = [[part for _, part in owned] for _, owned in owners]
    return [slice(owned[0].start, owned[-1].stop) for owned in parts]


class MatchingLoss:
    """L as a function of θ_T, with κ chosen at its first call.

    Args:
        start: θ*_t with shape (P,).
        target: θ*_{t+M} with shape (P,).
        criterion: chooses κ.
    """

    def __init__(self, start: Tensor, target: Tensor, criterion: Criterion) -> None:
        self.target, self.criterion = target, criterion
        self.distances = (start - target).square()
        self.kept: Tensor | None = None

    def __call__(self, theta: Tensor) -> Tensor:
        """L, a scalar, at θ_T with shape (P,); `kept` is then κ, bool with shape (P,)."""
        losses = (theta - self.target).square()
        if isinstance(self.criterion, KeepAll):
            return losses.sum() / self.distances.sum()
        if self.kept is None:
            self.kept = self.criterion.keep(losses.detach())
        return (losses * self.kept).sum() / (self.distances * self.kept).sum()


def _share(drop_ratio: float, count: int) -> int:
    """⌊α · count⌋."""
    # Fraction(str(α)), because in floating point 0.29 · 100 is below 29.
    return math.floor(Fraction(str(drop_ratio)) * count)


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
