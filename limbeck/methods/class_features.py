"""What a classifier sees in real and synthetic images of every class before its last layer, as many images at once as fit."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.methods.class_draws import ClassDraw, ClassDraws
from limbeck.networks.blocks import before_head
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.micro_batches import automatic_micro_batch, largest_activation
from limbeck.runtime.errors import require
from limbeck.training.images import Images

# Of the largest activation on an accelerator, in bytes; a graph holds some ten of that size.
AT_ONCE = 512 * 2**20


@dataclass(frozen=True, eq=False)
class ClassFeatures:
    """φ_θ of the images of classes, which go through the network group by group.

    Args:
        draws: of every class.
        network: φ.
        at_once: how many images go through it together.
    """

    draws: ClassDraws
    network: FlatNetwork
    at_once: int

    @classmethod
    def of(cls, draws: ClassDraws, network: FlatNetwork) -> "ClassFeatures":
        """Those of a classifier before its last layer."""
        return cls(draws, FlatNetwork(Features(network.module), network.name), images_at_once(network, draws.images))

    def groups(self, draws: Sequence[ClassDraw], images: Callable[[ClassDraw], int]) -> Iterator[list[ClassDraw]]:
        """Classes whose images go through the network together: as many as are taken at once, and at least one."""
        group: list[ClassDraw] = []
        for draw in draws:
            if group and sum(map(images, group)) + images(draw) > self.at_once:
                yield group
                group = []
            group.append(draw)
        if group:
            yield group

    @torch.no_grad()
    def real(self, theta: Tensor, group: Sequence[ClassDraw], like: Tensor) -> Tensor:
        """Those of A_k(R_k), with shape (images of the group, D), class by class."""
        x = torch.cat([self.draws.real(draw, like) for draw in group])
        # One class alone may be more than is taken at once.
        return torch.cat([self.network(theta, part) for part in x.split(self.at_once)])


def augmented(group: Sequence[ClassDraw], x: Tensor) -> Tensor:
    """A_k(X_k) of the group's synthetic images x, class by class."""
    parts = x.split([len(draw.synthetic) for draw in group])
    return torch.cat([draw.augmentation(own) for draw, own in zip(group, parts, strict=True)])


class Features(nn.Module):
    """φ: a classifier up to its last layer. It has the classifier's parameters, in the same order."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """The features, with shape (N, D), of images with shape (N, C, H, W)."""
        found = before_head(self.module, x)
        good = found.ndim == 2 and len(found) == len(x)
        require(good, "network", type(self.module).__name__, "a network whose features have shape (N, D)")
        return found


def images_at_once(network: FlatNetwork, images: Images) -> int:
    """Images that go through the network together; all where batch norm is to see them together."""
    if network.has_batch_norm:
        return 2**62
    cached = automatic_micro_batch(network, images.shape, images.device)
    return cached or max(1, AT_ONCE // largest_activation(network, images.shape))
