"""How difficult the training images of a task are, computed once and kept in the cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.augmentation import Augmentation
from limbeck.experts.curriculum import EPOCHS, NETWORKS, Curriculum, Measure, difficulty
from limbeck.losses import cross_entropy
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.cache import cache_root, lock
from limbeck.runtime.errors import Failure
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.progress import Progress
from limbeck.runtime.random import generator
from limbeck.training.images import Images
from limbeck.training.optimisers import Sgd
from limbeck.training.targets import Labels
from limbeck.training.train import AfterEpoch, Pool, Training, train

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What determines the difficulties: those after a few epochs of a few networks of plain SGD.

    Args:
        network: that the scores are taken with.
        images: the training images.
        labels: one-hot, with shape (N, K).
        measure: `grand` or `el2n`.
        lr, batch_size, augment: of that SGD.
        identity: what the images are, such as their fingerprint.
        seed: of the draws.
    """

    network: FlatNetwork
    images: Images
    labels: Tensor
    measure: Measure
    lr: float
    batch_size: int
    augment: Augmentation
    identity: dict[str, Any]
    seed: int

    @property
    def made_with(self) -> dict[str, Any]:
        """Whoever agrees in it finds the same scores in the cache."""
        how = {
            "lr": self.lr,
            "batch_size": self.batch_size,
            "augment": self.augment.identity(),
            "networks": NETWORKS,
            "epochs": EPOCHS,
        }
        what = {"network": self.network.name, "measure": self.measure, "images": self.identity, "seed": self.seed}
        return {"format": FORMAT, **how, **what}

    @property
    def path(self) -> Path:
        """Where the scores are kept."""
        return cache_root() / "difficulty" / f"{fingerprint(self.made_with)}.safetensors"

    @property
    def how(self) -> Training:
        """How the networks are trained."""
        return Training(optimiser=Sgd(self.lr), loss=cross_entropy, epochs=EPOCHS, batch_size=self.batch_size, augment=self.augment)

    def held(self) -> Curriculum | None:
        """PAD's curriculum, where the scores are in the cache."""
        if self.path.exists():
            scores = read_tensors(self.path)[0]["scores"]
            if scores.shape == (len(self.images),) and bool(scores.isfinite().all()):
                return self._curriculum(scores)
        return None

    def curriculum(self, progress: Progress) -> Curriculum:
        """PAD's curriculum, found or computed.

        Args:
            progress: where to report.

        Raises:
            Failure: when these networks diverge.
        """
        with lock(self.path):
            if (found := self.held()) is not None:
                return found
            thetas = []
            with progress.stage("difficulty of images", NETWORKS * EPOCHS + NETWORKS) as stage:
                for number in range(NETWORKS):
                    thetas.append(self.train(number, self.how, lambda *_: stage.advance()))
                scores = torch.from_numpy(difficulty(self.network, thetas, self.images, self.labels, cross_entropy, self.measure))
                stage.advance(NETWORKS)
            if not bool(scores.isfinite().all()):
                raise Failure(f"a network diverged while images were scored; experts.expert_lr ({self.lr}) is too large")
            write_tensors(self.path, {"scores": scores}, self.made_with)
        return self._curriculum(scores)

    def train(self, number: int, how: Training, after_epoch: AfterEpoch, pool: Pool | None = None) -> Tensor:
        """The parameters of network `number`, trained as `how` says on the images of `pool` (all); see `train`."""
        key = ("difficulty", number)
        start = self.network.initial(generator(self.seed, *key, "initial")).to(self.images.device)
        targets = Labels(self.labels)
        return train(self.network, start, self.images, targets, how, seed=self.seed, key=key, pool=pool, after_epoch=after_epoch)

    def record(self, curriculum: Curriculum, class_names: Sequence[str]) -> dict[str, Any]:
        """What a store notes of the scores: what they are, their `fingerprint`, and `Curriculum.statistics`."""
        made = {"measure": self.measure, "networks": NETWORKS, "epochs": EPOCHS}
        return {**made, "fingerprint": array_fingerprint(curriculum.scores), **curriculum.statistics(class_names)}

    def _curriculum(self, scores: Tensor) -> Curriculum:
        return Curriculum(scores.numpy(), self.labels.argmax(1).cpu().numpy())
