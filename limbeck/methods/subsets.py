"""The methods that take real images as they are (`distilled/selection.py`), from what a run has."""

import torch
from torch import Tensor

from limbeck.distilled import selection
from limbeck.methods.materials import Materials


def random(materials: Materials) -> Tensor:
    """Random images."""
    return selection.random_subset(_labels(materials), materials.ipc, materials.seed)


def herding(materials: Materials) -> Tensor:
    """Images whose mean follows that of their class, in the features of a network trained on the full data."""
    return selection.herding(materials.features(), _labels(materials), materials.ipc)


def k_center(materials: Materials) -> Tensor:
    """Images that cover their class, in the same features."""
    return selection.k_center(materials.features(), _labels(materials), materials.ipc)


def _labels(materials: Materials) -> Tensor:
    return torch.from_numpy(materials.data.train.labels)
