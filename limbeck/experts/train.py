"""Training the experts and keeping the checkpoints that will be read (PAPER § 1).

Cazenavette et al., "Dataset Distillation by Matching Training Trajectories" (MTT), 2022, arXiv:2203.11932.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.experts.fill import Shard, fill, say_lacking, want_of
from limbeck.experts.recorder import Recorder
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.shelf import Job
from limbeck.experts.store import FORMAT, TrajectoryStore
from limbeck.losses import cross_entropy
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.cache import cache_root
from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.progress import NoProgress, Progress, Stage
from limbeck.runtime.random import generator
from limbeck.training.images import prepare_split, sample
from limbeck.training.optimisers import Sgd
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

    def identity(self) -> dict[str, Any]:
        """What determines the trajectories: whoever agrees in it shares a store."""
        return {
            "data": self.data.fingerprint,
            "preprocessing": self.preprocessing.kind,
            "num_parameters": self.network.num_parameters,
            **made_with(self.network.name, self.settings, self.augment, self.seed),
        }

    def open_store(self) -> TrajectoryStore:
        """The store of these experts, made where there is none.

        Raises:
            UsageError: when `experts.store` holds other experts.
        """
        identity, place = self.identity(), self.settings.store
        path = Path(place).expanduser() if place else cache_root() / "experts" / fingerprint(FORMAT, identity)
        made = (path / "metadata.json").exists()
        strange = place is not None and not made and path.exists() and not (path.is_dir() and not any(path.iterdir()))
        require(not strange, "experts.store", place, "a store, an empty folder or a new one")
        if made and TrajectoryStore(path).imported:
            identity = {key: identity[key] for key in ("network", "num_parameters")}  # no more is known of how they were trained
        return TrajectoryStore(path, identity, {"source": self.data.source})

    @property
    def augmentation(self) -> AugmentSettings:
        """The experts' augmentation."""
        return dataclasses.replace(self.augment, crop_ratio=self.settings.crop_ratio)


def made_with(network: str, settings: ExpertSettings, augment: AugmentSettings, seed: int) -> dict[str, Any]:
    """The part of the identity that settings decide.

    How many experts and epochs there are changes no trajectory, as long as no step depends on the number of epochs; nor does how
    exactly they are kept, nor where; nor what belongs to an optimiser or a curriculum that is not used.
    """
    free = {"num_experts", "train_epochs", "label_experts", "dtype", "store"}
    free |= {"rho_min", "rho_max", "alpha"} if settings.optimiser != "gsam" else set()
    free |= {"difficulty"} if settings.curriculum == "none" else set()
    return {
        "network": network,
        "augment": dataclasses.asdict(dataclasses.replace(augment, crop_ratio=settings.crop_ratio)),
        "experts": {key: value for key, value in dataclasses.asdict(settings).items() if key not in free},
        "seed": seed,
    }


def train_experts(
    task: ExpertTask, epochs: Sequence[int], progress: Progress | None = None, shard: Shard = Shard()
) -> TrajectoryStore:
    """A store that holds `epochs` of every expert and the last epoch of those that give labels: found, or filled by training.

    What is held already is not trained again; a run that was stopped goes on where it was. Other processes may fill the same
    store meanwhile.

    Args:
        task: what determines the experts.
        epochs: that the schedule can reach.
        progress: where to report.
        shard: the share of the experts to train; the store is complete once all shares are.

    Raises:
        UsageError: when the store lacks something and cannot be written, or was imported.
        Failure: when an expert diverges.
    """
    want, store = want_of(task.settings, epochs), task.open_store()
    lacking = {expert: missing for expert, missing in want.lacking(store).items() if shard.takes(expert)}
    if not lacking:
        return store
    if store.imported:
        raise UsageError(f"experts.store: {str(store.path)!r} was imported and {say_lacking(lacking)}")
    try:
        store.note(want)
    except OSError as error:
        said = f"{str(store.path)!r} {say_lacking(lacking)} and cannot be written ({error.strerror})"
        raise UsageError(f"experts: {said}") from error
    jobs = [job for expert in lacking if (job := store.shelf(expert).job(want.of(expert), want.coding))]
    left = sum(job.stop - job.start for job in jobs)
    total = sum(want.of(expert)[-1] for expert in range(want.num_experts) if shard.takes(expert))
    with (progress or NoProgress()).stage("experts", total, max(0, total - left)) as stage:
        trainer = _Trainer(task, store, want.coding, stage)
        fill(store, want, trainer.train, shard=shard)
    return store


class _Trainer:
    """Trains experts one after another."""

    def __init__(self, task: ExpertTask, store: TrajectoryStore, coding: str, stage: Stage) -> None:
        self.task, self.store, self.coding, self.stage = task, store, coding, stage
        self.images = prepare_split(task.data.train, task.preprocessing, task.device)
        self.labels = one_hot(torch.from_numpy(task.data.train.labels), task.data.num_classes).float().to(task.device)
        val = task.data.val
        self.held_out = prepare_split(val, task.preprocessing, task.device) if len(val) else None
        self.val_labels = torch.from_numpy(val.labels)

    def train(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._train_one(job, Recorder(self.store.shelf(job.expert), job, self.coding))

    def _train_one(self, job: Job, recorder: Recorder) -> None:
        task, settings, key = self.task, self.task.settings, ("expert", job.expert)
        optimiser = Sgd(settings.expert_lr, settings.momentum, settings.weight_decay)
        if job.restart is None:
            theta = task.network.initial(generator(task.seed, *key, "initial")).to(task.device)
            state = optimiser.state(theta)
            recorder.record(0, theta)
        else:
            theta = job.restart.theta.to(task.device)
            state = tuple(tensor.to(task.device) for tensor in job.restart.state) or optimiser.state(theta)

        def after_epoch(epoch: int, theta: Tensor) -> None:
            if not math.isfinite(theta.sum().item()):
                cause = f"experts.expert_lr ({settings.expert_lr}) is too large"
                raise Failure(f"expert {job.expert} diverged in epoch {epoch}; {cause}")
            reached = self._accuracy(theta)
            facts: dict[str, Any] = {} if reached is None else {"accuracy": reached}
            # Without momentum the next step needs nothing of this one.
            recorder.record(epoch, theta, reached, state if settings.momentum else ())
            self.stage.advance(expert=job.expert + 1, **facts)

        how = Training(
            optimiser=optimiser, loss=cross_entropy, epochs=job.stop, batch_size=settings.batch_size, augment=task.augmentation
        )
        parts = (task.network, theta, self.images, self.labels, how)
        train(*parts, seed=task.seed, key=key, first_epoch=job.start, state=state, after_epoch=after_epoch)

    def _accuracy(self, theta: Tensor) -> float | None:
        if self.held_out is None:
            return None
        module = self.task.network.with_parameters(theta, lambda: sample(self.images))
        return accuracy(module, self.held_out, self.val_labels)
