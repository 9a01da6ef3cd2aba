"""The methods that take real images as they are (`distilled/selection.py`, `distilled/scored.py`), from what a run has.

Features are those of a network trained on the full data, difficulties those that networks have seen while they learned
(`evaluation/difficulty.py`).
"""

import torch
from torch import Tensor

from limbeck.distilled import scored, selection
from limbeck.methods.materials import Materials
from limbeck.methods.settings import CoresetSettings


def random(materials: Materials) -> Tensor:
    """Random images."""
    return selection.random_subset(_labels(materials), materials.ipc, materials.seed)


def herding(materials: Materials) -> Tensor:
    """Images whose mean follows that of their class, in the features of a network trained on the full data."""
    return selection.herding(materials.features(), _labels(materials), materials.ipc)


def k_center(materials: Materials) -> Tensor:
    """Images that cover their class, in the same features."""
    return selection.k_center(materials.features(), _labels(materials), materials.ipc)


def k_means(materials: Materials) -> Tensor:
    """The images nearest to the centres of k-means, in the same features."""
    return selection.centres(materials.features(), _labels(materials), materials.ipc, materials.seed)


def moderate(materials: Materials) -> Tensor:
    """Images at a moderate distance from the mean of their class, in the same features."""
    return selection.moderate(materials.features(), _labels(materials), materials.ipc)


def el2n(materials: Materials) -> Tensor:
    """The images with the longest error vectors early in training, or the shortest."""
    keep = materials.own(CoresetSettings).keep
    return scored.ranked(materials.difficulties().el2n, _labels(materials), materials.ipc, materials.seed, keep)


def forgetting(materials: Materials) -> Tensor:
    """The images that were forgotten most often, or least."""
    keep = materials.own(CoresetSettings).keep
    return scored.ranked(materials.difficulties().forgetting, _labels(materials), materials.ipc, materials.seed, keep)


def ccs(materials: Materials) -> Tensor:
    """Images from all bins of difficulty but the hardest."""
    own, found = materials.own(CoresetSettings), materials.difficulties()
    scores = found.el2n if own.score == "el2n" else found.forgetting
    return scored.stratified(scores, _labels(materials), materials.ipc, materials.seed, own.cut, own.bins)


def _labels(materials: Materials) -> Tensor:
    return torch.from_numpy(materials.data.train.labels)
