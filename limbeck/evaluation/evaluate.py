"""The evaluation protocol `dd` (PAPER § 8) and the two figures that stand beside every result.

distilled   fresh networks trained on (X, Y): SGD, step size η, momentum 0.9, weight decay 5e-4, ×0.1 after half of the
            epochs with momentum reset, the distillation's augmentation, soft cross-entropy
random      the same on random real images of the same number with hard labels, another draw for every seed
full        fresh networks on the whole training split under the same optimiser, hard labels
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.distilled.initial import real_subset
from limbeck.evaluation.settings import EvalSettings
from limbeck.evaluation.statistics import summarise
from limbeck.losses import cross_entropy, soft_cross_entropy
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.cache import cache_root, lock
from limbeck.runtime.errors import Failure
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.random import generator
from limbeck.training.images import Held, Images, prepare_split, sample
from limbeck.training.sgd import DropAtHalf, Sgd
from limbeck.training.train import Loss, Training, accuracy, train

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
FULL_FORMAT = 1  # raised when a change of the trainer makes cached accuracies of full data untrue
RANDOM_RATES = (0.001, 0.005, 0.01, 0.05, 0.1)


@dataclass(frozen=True)
class Evaluator:
    """Trains fresh networks and measures them.

    Args:
        data: the images to measure on.
        preprocessing: the one the small set was made under.
        network: the architecture.
        settings: the keys `eval.*`.
        augment: the keys `augment.*`.
        seed: of the draws.
        device: to compute on.
    """

    data: ImageSet
    preprocessing: Preprocessing
    network: FlatNetwork
    settings: EvalSettings
    augment: AugmentSettings
    seed: int
    device: torch.device

    def distilled(
        self,
        images: Tensor,
        labels: Tensor,
        syn_lr: float,
        *,
        seeds: Sequence[int],
        split: str = "test",
        hard: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Accuracy on `split` (`val` or `test`) of networks trained on a small set; see `summarise` for the result.

        Args:
            images: X as the network takes them, with shape (N, C, H, W).
            labels: Y with shape (N, K): logits, or with `hard` probabilities.
            syn_lr: η.
            seeds: one network each.
            split: what to measure on.
            hard: how `labels` are meant.
            progress: where to report.
        """
        how = self._training(syn_lr, cross_entropy if hard else soft_cross_entropy)
        held = Held(images.to(self.device))
        with (progress or NoProgress()).stage("evaluate", len(seeds)) as stage:
            values = []
            for seed in seeds:
                values.append(self._accuracy(held, labels.to(self.device), how, ("evaluation", seed), split))
                stage.advance(accuracy=values[-1])
        return summarise(values)

    def random(self, ipc: int, syn_lr: float, progress: Progress | None = None) -> dict[str, Any]:
        """Accuracy of random real subsets of `ipc` images per class under the same protocol, on the test split.

        The step size is `random_lr`, or else the best on the validation split of `syn_lr` and five usual ones, so that the
        baseline is not handicapped by a step size learned for other images.
        """
        rate = self.settings.random_lr
        with (progress or NoProgress()).stage("random subset", self.settings.seeds) as stage:
            if rate is None:
                rates = sorted({syn_lr, *RANDOM_RATES})
                rate = max(rates, key=lambda lr: self._random_accuracy(ipc, lr, "choose", "val"))
            values = []
            for number in range(self.settings.seeds):
                values.append(self._random_accuracy(ipc, rate, number, "test"))
                stage.advance(accuracy=values[-1])
        return {**summarise(values), "lr": rate}

    def full(self, progress: Progress | None = None) -> dict[str, Any]:
        """Accuracy of fresh networks trained on the whole training split, on the test split; kept in the cache."""
        settings, tensors = self.settings, self.preprocessing.tensors()
        key = {
            "data": self.data.fingerprint,
            "format": FULL_FORMAT,
            "preprocessing": [self.preprocessing.kind, array_fingerprint(*(tensor.numpy() for tensor in tensors.values()))],
            "network": self.network.name,
            "optimiser": [settings.full_lr, MOMENTUM, WEIGHT_DECAY, "drop at half"],
            "epochs": settings.full_epochs,
            "batch_size": settings.full_batch_size,
            "augment": self.augment,
            "seed": self.seed,
        }
        path = cache_root() / "full" / f"{fingerprint(key)}.json"
        with lock(path):
            values = _kept(path)
            total = settings.full_seeds * settings.full_epochs
            if len(values) < settings.full_seeds:
                with (progress or NoProgress()).stage("full data", total, len(values) * settings.full_epochs) as stage:
                    images = prepare_split(self.data.train, self.preprocessing, self.device)
                    labels = one_hot(torch.from_numpy(self.data.train.labels), self.data.num_classes).float().to(self.device)
                    how = self._training(settings.full_lr, cross_entropy, settings.full_epochs, settings.full_batch_size)
                    for number in range(len(values), settings.full_seeds):
                        key_of = ("full", number)
                        values.append(self._accuracy(images, labels, how, key_of, "test", after_epoch=lambda *_: stage.advance()))
                        write_json(path, {**key, "values": values})
        return {**summarise(values[: settings.full_seeds]), "epochs": settings.full_epochs, "lr": settings.full_lr}

    def _random_accuracy(self, ipc: int, rate: float, number: int | str, split: str) -> float:
        index = real_subset(self.data.train, self.data.num_classes, ipc, self.seed, f"random subset {number}")
        images = Held(self.preprocessing.prepare(self.data.train.images(index.numpy())).to(self.device))
        labels = one_hot(torch.from_numpy(self.data.train.labels)[index], self.data.num_classes).float().to(self.device)
        return self._accuracy(images, labels, self._training(rate, cross_entropy), ("evaluation", number), split)

    def _training(self, rate: float, loss: Loss, epochs: int | None = None, batch_size: int | None = None) -> Training:
        return Training(
            optimiser=Sgd(rate, MOMENTUM, WEIGHT_DECAY),
            loss=loss,
            epochs=epochs or self.settings.epochs,
            batch_size=batch_size or self.settings.batch_size,
            augment=self.augment,
            rate=DropAtHalf(),
        )

    def _accuracy(
        self,
        images: Images,
        labels: Tensor,
        how: Training,
        key: tuple[str, int | str],
        split: str,
        after_epoch: Any = lambda *_: None,
    ) -> float:
        start = self.network.initial(generator(self.seed, *key, "initial")).to(self.device)
        theta = train(self.network, start, images, labels, how, seed=self.seed, key=key, after_epoch=after_epoch)
        if not bool(theta.isfinite().all()):
            if key[0] == "full":
                raise Failure(f"a network on the full data diverged; eval.full_lr ({how.optimiser.lr}) is too large")
            return 0.0  # its guesses would all be class 0, which is an accuracy by accident
        module = self.network.with_parameters(theta, lambda: sample(images))
        measured, labels_of = self._val if split == "val" else self._test
        return accuracy(module, measured, labels_of)

    @cached_property
    def _val(self) -> tuple[Images, Tensor]:
        return prepare_split(self.data.val, self.preprocessing, self.device), torch.from_numpy(self.data.val.labels)

    @cached_property
    def _test(self) -> tuple[Images, Tensor]:
        return prepare_split(self.data.test, self.preprocessing, self.device), torch.from_numpy(self.data.test.labels)


def _kept(path: Path) -> list[float]:
    """The accuracies in a file of the cache; none where it is absent or broken, so that they are measured again."""
    try:
        values = read_json(path)["values"]
        return values if all(0 <= value <= 1 for value in values) else []
    except (OSError, ValueError, TypeError, KeyError):
        return []


def recovery_ratio(distilled: dict[str, Any], full: dict[str, Any]) -> float | None:
    """Distilled accuracy / full-data accuracy; None where the latter is 0."""
    return distilled["mean"] / full["mean"] if full["mean"] else None
