"""The methods that take real images as they are (`distilled/selection.py`), from what a run has."""

import torch
from torch import Tensor

from limbeck.distilled import selection
from limbeck.methods.workspace import Workspace


def random(workspace: Workspace) -> Tensor:
    """Random images."""
    return selection.random_subset(_labels(workspace), workspace.settings.ipc, workspace.settings.seed)


def herding(workspace: Workspace) -> Tensor:
    """Images whose mean follows that of their class, in the features of a network trained on the full data."""
    return selection.herding(workspace.features(), _labels(workspace), workspace.settings.ipc)


def k_center(workspace: Workspace) -> Tensor:
    """Images that cover their class, in the same features."""
    return selection.k_center(workspace.features(), _labels(workspace), workspace.settings.ipc)


def _labels(workspace: Workspace) -> Tensor:
    return torch.from_numpy(workspace.data.train.labels)
