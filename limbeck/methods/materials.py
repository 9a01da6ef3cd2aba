"""What a method may ask of a run: the interface; `runs/workspace.py` implements it, and a test may.

Everything is made when it is asked for, and kept: experts and networks of the full data are trained where they are missing.
"""

from typing import Any, Protocol

import torch
from torch import nn

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.experts.store import TrajectoryStore
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.progress import Progress
from limbeck.training.images import Images


class Materials(Protocol):
    """What a method may ask for."""

    @property
    def settings(self) -> Any:
        """The settings of the run."""

    @property
    def progress(self) -> Progress:
        """Where to report."""

    @property
    def device(self) -> torch.device:
        """Where to compute."""

    @property
    def data(self) -> ImageSet:
        """The images; only the training split is distilled."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What leads from pixels to what networks take."""

    @property
    def train_images(self) -> Images:
        """The training split as networks take it; its labels are `data.train.labels`."""

    @property
    def network(self) -> FlatNetwork:
        """The network to distil for."""

    def network_of(self, name: str) -> FlatNetwork:
        """The network of that name for these images.

        Raises:
            UsageError: when there is none.
        """

    @property
    def experts(self) -> TrajectoryStore:
        """The experts, with every epoch that the schedule can reach."""

    def teacher(self, name: str | None = None) -> nn.Module:
        """The network of that name (None: the one distilled for), trained on the full data, frozen, in evaluation mode."""

    def features(self) -> torch.Tensor:
        """What a trained network makes of all training images before its last layer, with shape (N, D), on the CPU."""
