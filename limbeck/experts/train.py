"""Training the experts and keeping the checkpoints that will be read (PAPER § 1).

Cazenavette et al., "Dataset Distillation by Matching Training Trajectories" (MTT), 2022, arXiv:2203.11932.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import one_hot

from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.experts.difficulty import curriculum_of
from limbeck.experts.fill import Shard, fill, say_lacking, want_of
from limbeck.experts.recorder import Recorder
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.store import FORMAT, TrajectoryStore
from limbeck.experts.trainer import Material, Trainer, optimiser_of
from limbeck.losses import cross_entropy
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.cache import cache_root
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.training.compute import Compile, Compute
from limbeck.training.images import prepare_split
from limbeck.training.train import Training


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
        compile: whether training is compiled, as `engine.compile`.
    """

    data: ImageSet
    preprocessing: Preprocessing
    network: FlatNetwork
    settings: ExpertSettings
    augment: AugmentSettings
    seed: int
    device: torch.device
    compile: Compile = "auto"

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
    material = _material(task, progress or NoProgress())
    with (progress or NoProgress()).stage("experts", total, max(0, total - left)) as stage:
        trainer = Trainer(material, lambda job: Recorder(store.shelf(job.expert), job, want.coding), stage.advance)
        fill(store, want, trainer.train, shard=shard, group=trainer.group)
    return store


def _material(task: ExpertTask, progress: Progress) -> Material:
    settings, data = task.settings, task.data
    images = prepare_split(data.train, task.preprocessing, task.device)
    labels = one_hot(torch.from_numpy(data.train.labels), data.num_classes).float().to(task.device)
    pool = None
    if settings.curriculum == "pad":
        pool = curriculum_of(
            task.network,
            images,
            labels,
            settings.difficulty,
            lr=settings.expert_lr,
            batch_size=settings.batch_size,
            augment=task.augmentation,
            identity={"data": data.fingerprint, "preprocessing": task.preprocessing.kind},
            seed=task.seed,
            progress=progress,
        ).positions
    return Material(
        compute=Compute(task.network, task.device, task.compile),
        images=images,
        labels=labels,
        held_out=prepare_split(data.val, task.preprocessing, task.device) if len(data.val) else None,
        held_out_labels=torch.from_numpy(data.val.labels),
        settings=settings,
        how=Training(
            optimiser=optimiser_of(settings),
            loss=cross_entropy,
            epochs=settings.train_epochs,
            batch_size=settings.batch_size,
            augment=task.augmentation,
        ),
        seed=task.seed,
        pool=pool,
    )
