"""What a method may ask of a run: the interface; `runs/workspace.py` implements it, and a test may.

Everything is made when it is asked for, and kept: experts and networks of the full data are trained where they are missing.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import nn

from limbeck.augmentation import Augmentation
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.evaluation.difficulty import Difficulties
from limbeck.experts.store import TrajectoryStore
from limbeck.matching.criteria import Criterion, KeepAll
from limbeck.matching.distances import Distance, SquaredError
from limbeck.matching.schedules import Schedule, Sequential
from limbeck.matching.settings import SmallChunk
from limbeck.matching.spread import Spread
from limbeck.methods.enhance import Enhancement
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.progress import Progress
from limbeck.training.compute import Compile
from limbeck.training.images import Images

Own = TypeVar("Own")


@dataclass(frozen=True, kw_only=True)
class Matching:
    """What is matched with what.

    Args:
        criterion: which parameters (or weights, or features) are compared.
        distance: how.
        schedule: the epochs of the experts that an iteration may start from.
        syn_steps: T, student steps per iteration.
        expert_epochs: M, epochs that the target lies ahead.
        batch_syn: B, synthetic images per student step; None, or more than there are, takes all.
        small_chunk: which chunk of a permutation is smaller where B does not divide their number.
        relabel: whether Y is what the target checkpoint says of X, anew in each iteration.
    """

    criterion: Criterion = KeepAll()
    distance: Distance = SquaredError()
    schedule: Schedule = Sequential()
    syn_steps: int = 40
    expert_epochs: int = 2
    batch_syn: int | None = None
    small_chunk: SmallChunk = "last"
    relabel: bool = False


class Materials(Protocol):
    """What a method may ask for."""

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

    @property
    def ipc(self) -> int:
        """Images of every class, as networks see them; where they are decoded from slots, those of all of them."""

    @property
    def seed(self) -> int:
        """Of every draw; draws are keyed: `generator(seed, "use", iteration)`."""

    @property
    def augmentation(self) -> Augmentation:
        """Of synthetic images while networks are trained on them, and of real ones that they are compared with."""

    @property
    def matching(self) -> Matching:
        """What is matched with what."""

    @property
    def experts(self) -> TrajectoryStore:
        """The experts, with every epoch that the schedule can reach."""

    @property
    def num_experts(self) -> int:
        """How many of them to draw from."""

    @property
    def device(self) -> torch.device:
        """Where to compute."""

    @property
    def compile(self) -> Compile:
        """Whether gradients are compiled: `yes`, `no` or, where there are steps enough, `auto`."""

    @property
    def spread(self) -> Spread:
        """How batches, and X with its labels, lie on the ranks of the run."""

    @property
    def progress(self) -> Progress:
        """Where to report."""

    def own(self, kind: type[Own]) -> Own:
        """The settings of that class: a branch of the run's, or what the method was given, or else `kind()`."""

    def network_of(self, name: str) -> FlatNetwork:
        """The network of that name for these images.

        Raises:
            UsageError: when there is none.
        """

    def teacher(self, name: str | None = None) -> nn.Module:
        """The network of that name (None: the one distilled for), trained on the full data, frozen, in evaluation mode."""

    def enhancement(self, classes: torch.Tensor, network: nn.Module | None = None) -> Enhancement:
        """Maps and weights for images of those classes, by that network or by that of `enhance.cam_network`."""

    def features(self) -> torch.Tensor:
        """What a trained network makes of all training images before its last layer, with shape (N, D), on the CPU."""

    def difficulties(self) -> Difficulties:
        """How difficult every training image was to networks while they learned, as `coreset.*` has it."""
