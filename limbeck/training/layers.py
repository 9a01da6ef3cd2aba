"""How a batch is changed before a step: by an augmentation, by views, or by both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from limbeck import views
from limbeck.augmentation import Applied, Augmentation
from limbeck.views import Views


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """Views with something between the change of each image on its own and the mixture in pairs.

    Args:
        views: what is drawn first and last.
        between: augmentations, one after the other.
    """

    views: Views
    between: tuple[Augmentation, ...]


def drawn(
    augment: Augmentation | Views | Layers, generator: torch.Generator, shape: Sequence[int]
) -> tuple[Applied, Callable[[Tensor], Tensor]]:
    """How a batch of `shape` (B, C, H, W) is changed, and how labels of its images are mixed as the images are."""
    if isinstance(augment, Augmentation):
        return augment.draw(generator, shape), lambda labels: labels
    if isinstance(augment, Views):
        own = views.draw(augment, generator, shape)
        return partial(views.apply, own), partial(views.mix_targets, own)
    first = views.draw(replace(augment.views, mix="none"), generator, shape)
    between = [one.draw(generator, shape) for one in augment.between]
    last = views.draw(replace(augment.views, crop_scale=None, flip=False, patches=1, roll=0), generator, shape)

    def change(x: Tensor) -> Tensor:
        x = views.apply(first, x)
        for one in between:
            x = one(x)
        return views.apply(last, x)

    return change, partial(views.mix_targets, last)
