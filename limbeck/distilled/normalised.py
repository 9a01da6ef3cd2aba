"""By which means and deviations images were normalised that come without a description.

    said        by whoever reads them
    told        by their values: under one of the known ones alone the pixels A⁻¹(X) are bytes, k / 255, or reach in every channel
                from 0 to 1 exactly
    usual       tensors of research code, of data that published code normalises by fixed numbers
    otherwise   by those of the data that they are for

Every choice but the first comes back as a sentence. A wrong one changes the contrast: by CIFAR-10's fitted deviations, images that
were normalised by its published ones have 1.2 to 1.3 times the contrast that they had.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from limbeck.data.constants import CONSTANTS
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Constant, Normalise, Preprocessing, constant, describe
from limbeck.data.registry import known_names, wnids

LOOKED_AT = 64  # images
BYTE = 0.02  # of a level: how near to a whole number the levels of bytes come
ENDS = 1e-3  # how near to 0 and 1 the darkest and the lightest pixel come
CIFAR10 = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}
OF_CIFAR100 = {"aquarium_fish", "lawn_mower", "pickup_truck", "sweet_pepper", "willow_tree"}


def understood(x: Tensor, said: Any, own: Preprocessing, usual: str | None) -> tuple[Preprocessing, list[str]]:
    """What leads from pixels to the images, and on what grounds.

    Args:
        x: images as a network takes them, with shape (N, C, H, W).
        said: a name of `CONSTANTS` or numbers; None where nothing is said.
        own: of the data that they are for.
        usual: by which name published code normalises such data, or None.

    Raises:
        UsageError: when what is said is for another number of channels.
    """
    if said is not None:
        return constant(said, x.shape[1], "--normalised"), []
    if not isinstance(own, Normalise) or tells(x, own):
        return own, []
    known = dict(known_for(x.shape[1]))
    for name, made in known.items():
        if tells(x, made):
            return made, [f"images are taken as normalised by {name}, by which their pixels are bytes or reach from black to white"]
    if usual in known and not isinstance(own, Constant):
        made = known[usual]
        return made, [
            f"images are taken as normalised by {usual} ({describe(made)}), as published code does with such data; by "
            f"{describe(own)}, which fits these data, {apart(x, own, made)} (--normalised yes)"
        ]
    return own, []


def known_for(channels: int) -> Iterator[tuple[str, Constant]]:
    """The published means and deviations for so many channels."""
    return ((name, constant(name, channels, "")) for name, (mean, _) in CONSTANTS.items() if len(mean) == channels)


def usual_name(data: ImageSet) -> str | None:
    """By which name the code of trajectory matching normalises such data; None where that is not known."""
    names, channels = {name.casefold() for name in data.class_names}, data.shape[0]
    if channels == 1:
        digits = names == {str(digit) for digit in range(10)}
        return "mnist" if digits else "fashion-mnist" if "ankle boot" in names else None
    if channels != 3:
        return None
    if names == CIFAR10 or (len(names) == 100 and names > OF_CIFAR100):
        return "cifar10"
    return "imagenet" if names <= _imagenet() else None


def _imagenet() -> set[str]:
    return {name.casefold() for name in known_names().values()} | set(wnids())


def apart(x: Tensor, wrong: Normalise, right: Normalise) -> str:
    """How far pixels are off by the wrong one of two, in words."""
    looked_at = x[:LOOKED_AT].float()
    levels = 255 * float((wrong.inverse(looked_at) - right.inverse(looked_at)).abs().mean())
    contrast = float((wrong.std / right.std).log().mean().exp())
    return f"contrast is {contrast:.2f} times what it was, and pixels are {levels:.0f}/255 off"


def tells(x: Tensor, made: Normalise) -> bool:
    """Whether the values show that images were normalised so."""
    pixels = made.inverse(x[:LOOKED_AT].double())
    low, high = pixels.amin((0, 2, 3)), pixels.amax((0, 2, 3))
    if float(low.min()) < -ENDS or float(high.max()) > 1 + ENDS:
        return False
    if bool((low < ENDS).all() and (high > 1 - ENDS).all()):
        return True
    near = ((255 * pixels - (255 * pixels).round()).abs() < BYTE).double().mean((0, 2, 3))
    return bool((near > 0.99).all()) and len(torch.unique((255 * pixels).round())) > 16
