"""Training the experts and keeping the checkpoints that will be read (PAPER § 1).

Cazenavette et al., "Dataset Distillation by Matching Training Trajectories" (MTT), 2022, arXiv:2203.11932.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.store import TrajectoryStore
from limbeck.losses import cross_entropy
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.cache import cache_root, lock
from limbeck.runtime.errors import Failure
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.progress import NoProgress, Progress, Stage
from limbeck.runtime.random import generator
from limbeck.training.images import Images, prepare_split, sample
from limbeck.training.sgd import Sgd
from limbeck.training.train import Training, accuracy, train


@dataclass(frozen=True)
class ExpertTask:
    """Everything that determines the experts.

    Args:
        data: the images; the training split is trained on, the validation split gives the accuracies.
        preprocessing: of the images.
        network: the network.
        settings: the keys `experts.*`.
        augment: the keys `augment.*`; its crop_ratio is replaced by the experts' own.
        seed: of the draws.
        device: to train on.
    """

    data: ImageSet
    preprocessing: Preprocessing
    network: FlatNetwork
    settings: ExpertSettings
    augment: AugmentSettings
    seed: int
    device: torch.device

    def metadata(self) -> dict[str, Any]:
        """What a store must have been made with; how many experts and which epochs it holds may differ."""
        free = ("num_experts", "label_experts", "dtype")
        settings = {
            field.name: getattr(self.settings, field.name) for field in dataclasses.fields(self.settings) if field.name not in free
        }
        return {
            "data": self.data.fingerprint,
            "source": self.data.source,
            "preprocessing": self.preprocessing.kind,
            "network": self.network.name,
            "num_parameters": self.network.num_parameters,
            "augment": dataclasses.asdict(self.augmentation),
            "optimiser": "sgd",
            "settings": settings,
            "seed": self.seed,
            "dtype": self.settings.dtype,
        }

    @property
    def augmentation(self) -> AugmentSettings:
        """The experts' augmentation."""
        return dataclasses.replace(self.augment, crop_ratio=self.settings.crop_ratio)


def train_experts(task: ExpertTask, epochs: Sequence[int], progress: Progress | None = None) -> TrajectoryStore:
    """A store that holds `epochs` and the last epoch of every expert: found in the cache, or trained.

    An expert that is held already is not trained again; a run that was stopped goes on with the first one missing.

    Raises:
        Failure: when an expert diverges.
    """
    metadata = task.metadata()
    path = cache_root() / "experts" / fingerprint(metadata)
    wanted = sorted({*epochs, task.settings.train_epochs})
    with lock(path):
        store = TrajectoryStore(path, metadata)
        missing = [expert for expert in range(task.settings.num_experts) if not store.holds(expert, wanted)]
        if missing:
            _train_missing(task, store, missing, wanted, progress or NoProgress())
    return store


def _train_missing(task: ExpertTask, store: TrajectoryStore, missing: list[int], wanted: list[int], progress: Progress) -> None:
    images = prepare_split(task.data.train, task.preprocessing, task.device)
    labels = one_hot(torch.from_numpy(task.data.train.labels), task.data.num_classes).float().to(task.device)
    held_out = prepare_split(task.data.val, task.preprocessing, task.device)
    total, settings = task.settings.num_experts, task.settings
    with progress.stage("experts", total * settings.train_epochs, (total - len(missing)) * settings.train_epochs) as stage:
        for expert in missing:
            _train_one(task, store, expert, wanted, images, labels, held_out, stage)


def _train_one(
    task: ExpertTask,
    store: TrajectoryStore,
    expert: int,
    wanted: list[int],
    images: Images,
    labels: Tensor,
    held_out: Images,
    stage: Stage,
) -> None:
    settings = task.settings
    wanted = sorted({*wanted, *store.held(expert)})
    start = task.network.initial(generator(task.seed, "expert", expert, "initial")).to(task.device)
    checkpoints = {0: start.cpu()} if 0 in wanted else {}
    accuracies: list[float] = []
    val_labels = torch.from_numpy(task.data.val.labels)

    def after_epoch(epoch: int, theta: Tensor) -> None:
        if not math.isfinite(theta.sum().item()):
            raise Failure(f"expert {expert} diverged in epoch {epoch}; experts.expert_lr ({settings.expert_lr}) is too large")
        module = task.network.with_parameters(theta, lambda: sample(images))
        accuracies.append(accuracy(module, held_out, val_labels))
        if epoch in wanted:
            checkpoints[epoch] = theta.cpu().clone()
        stage.advance(expert=expert + 1, accuracy=accuracies[-1])

    how = Training(
        optimiser=Sgd(settings.expert_lr, settings.momentum, settings.weight_decay),
        loss=cross_entropy,
        epochs=settings.train_epochs,
        batch_size=settings.batch_size,
        augment=task.augmentation,
    )
    train(task.network, start, images, labels, how, seed=task.seed, key=("expert", expert), after_epoch=after_epoch)
    store.write(expert, checkpoints, {"val_accuracy": accuracies})
