"""Accuracies of fresh networks under a protocol, and the two figures that stand beside every result.

distilled   networks trained on (X, Y) under the protocol
random      the same on random real images of the same number, another draw for every seed
full        networks trained on the whole training split
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from limbeck.augmentation import Augmentation
from limbeck.data.imageset import ImageSet, Split
from limbeck.data.preprocessing import Preprocessing
from limbeck.distilled.initial import real_subset
from limbeck.distilled.settings import ViewLabelSettings
from limbeck.distilled.view_labels import StoredViews, label_views
from limbeck.evaluation import view_labels
from limbeck.evaluation.full import FullData
from limbeck.evaluation.predictions import accuracy
from limbeck.evaluation.protocols import Protocol, resolve
from limbeck.evaluation.settings import EvalSettings
from limbeck.evaluation.statistics import summarise
from limbeck.evaluation.trials import Trial, Trials
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.random import generator
from limbeck.training.compute import Compile
from limbeck.training.images import Counted, Images, TensorImages, prepare_split
from limbeck.training.targets import Labels, Targets, Teacher
from limbeck.training.train import Training
from limbeck.views import Views

RANDOM_RATES = (0.001, 0.005, 0.01, 0.05, 0.1)
FULL_SEED = 0  # the full data's networks are the data's own: no seed of a distillation changes them
SPARE = 2000  # training images to choose a step size on where there is no validation split


@dataclass(frozen=True, eq=False)
class Subset:
    """A small set as networks are trained on it.

    Args:
        images: X as the network takes them, with shape (N, C, H, W).
        labels: Y with shape (N, K): logits, or with `soft` False probabilities.
        soft: how `labels` are meant.
        classes: the class of each image, int64 with shape (N,).
        syn_lr: η.
        views: labels of views of these images, where there are any.
    """

    images: Tensor
    labels: Tensor
    soft: bool
    classes: Tensor
    syn_lr: float
    views: StoredViews | None = None

    @property
    def ipc(self) -> int:
        """The greatest number of images that a class has."""
        return int(torch.bincount(self.classes).max())


@dataclass(frozen=True)
class Evaluator:
    """Trains fresh networks and measures them.

    Args:
        data: the images to measure on.
        preprocessing: the one the small set was made under.
        network: the architecture.
        settings: the keys `eval.*`.
        augment: that of the distillation, which protocols may take up.
        seed: of the draws.
        device: to compute on.
        compile: whether training is compiled, as `engine.compile`.
        compile_full: the same for networks of the full data; None is as `compile`.
    """

    data: ImageSet
    preprocessing: Preprocessing
    network: FlatNetwork
    settings: EvalSettings
    augment: Augmentation
    seed: int
    device: torch.device
    compile: Compile = "auto"
    compile_full: Compile | None = None

    @cached_property
    def protocol(self) -> Protocol:
        """How the networks are trained."""
        return resolve(self.settings)

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
        subset = Subset(images, labels, not hard, labels.argmax(1), syn_lr)
        return self.accuracies(self.logits(subset, seeds, split, progress), split)

    def logits(
        self, subset: Subset, seeds: Sequence[int], split: str = "test", progress: Progress | None = None, name: str = "evaluate"
    ) -> list[Tensor]:
        """What a network of every seed, trained on the subset, says of the images of `split`, each with shape (n, K).

        Raises:
            UsageError: when the subset's labels of views are not those that the protocol needs.
        """
        if (stored := self.stored_views(subset)) is not None:
            how = self._training(subset, soft=True)
            view_labels.check_fit(stored, TensorImages(subset.images), how, self.protocol, self.settings.teacher)
        return self._run([self._trial(subset, ("evaluation", seed)) for seed in seeds], self.images_of(split), name, progress)

    def live_logits(
        self, subset: Subset, seeds: Sequence[int], split: str = "test", progress: Progress | None = None
    ) -> list[Tensor]:
        """The same with a live teacher, asked about the views whose labels `label_views` keeps: what these lose shows beside it."""
        live = replace(subset, views=None)
        trials = [replace(self._trial(live, ("evaluation", seed)), draws=view_labels.DRAWS) for seed in seeds]
        return self._run(trials, self.images_of(split), "live teacher", progress)

    def stored_views(self, subset: Subset) -> StoredViews | None:
        """The labels of views that networks are trained on; None where the protocol, `eval.view_labels` or the subset have none."""
        return subset.views if view_labels.asks(self.protocol) and self.settings.view_labels == "stored" else None

    def label_views(self, subset: Subset, path: Path, settings: ViewLabelSettings, progress: Progress | None = None) -> StoredViews:
        """Ask the teacher about the views of all epochs of the protocol and keep what it says in the file `path`.

        What was written before, even by a call that was stopped, is not asked again.

        Raises:
            UsageError: when the protocol asks no teacher about views, or `view_labels.top` is not below the number of classes.
        """
        view_labels.check_storable(replace(settings, store=True), self.protocol, self.data.num_classes)
        how, held = self._training(subset, soft=True), TensorImages(subset.images.to(self.device))
        assert isinstance(how.augment, Views), "checked above"
        with (progress or NoProgress()).stage("label views", how.epochs) as stage:
            return label_views(
                path,
                self.teacher,
                held,
                how.augment,
                epochs=how.epochs,
                batch_size=how.batch_size,
                seed=self.seed,
                key=view_labels.DRAWS,
                coding=view_labels.coding_of(settings, self.protocol),
                name=self.settings.teacher or self.network.name,
                after_epoch=lambda count: stage.advance(),
            )

    def accuracies(self, logits: Sequence[Tensor], split: str = "test") -> dict[str, Any]:
        """The summary of the accuracies of such logits on `split`; what is not finite is wrong."""
        labels = self.labels_of(split)
        return summarise([accuracy(found, labels) for found in logits])

    def random(self, ipc: int, syn_lr: float, progress: Progress | None = None) -> dict[str, Any]:
        """Accuracy of random real subsets of `ipc` images per class under the same protocol, on the test split.

        Where the protocol takes the set's learned step size, theirs is `random_lr`, or else the best of `syn_lr` and five usual
        ones on images that are neither tested nor in the subset, so that the baseline is not handicapped by a step size learned
        for other images.
        """
        logits, rate = self.random_logits(ipc, syn_lr, range(self.settings.seeds), progress)
        return {**self.accuracies(logits), "lr": rate}

    def random_logits(
        self, ipc: int, syn_lr: float, seeds: Sequence[int], progress: Progress | None = None
    ) -> tuple[list[Tensor], float]:
        """What networks trained on random real subsets, one for every seed, say of the test images, and their step size."""
        rate = self.random_rate(ipc, syn_lr, progress)
        trials = [self._trial(self.random_subset(ipc, rate, seed), ("evaluation", seed)) for seed in seeds]
        return self._run(trials, self.images_of("test"), "random subset", progress), rate

    def random_subset(self, ipc: int, syn_lr: float, number: int | str) -> Subset:
        """Random real images with hard labels; a larger `ipc` holds all of a smaller one's."""
        index = self.random_index(ipc, number)
        images = self.preprocessing.prepare(self.data.train.images(index.numpy())).to(self.device)
        classes = torch.from_numpy(self.data.train.labels)[index]
        labels = one_hot(classes, self.data.num_classes).float()
        return Subset(images, labels, False, classes, syn_lr)

    def full(self, progress: Progress | None = None) -> dict[str, Any]:
        """Accuracy of networks trained on the whole training split, on the test split; kept in the cache."""
        logits = self.full_data.logits(lambda: self.images_of("test"), progress)
        settings = self.settings
        return {**self.accuracies(list(logits)), "epochs": settings.full_epochs, "lr": settings.full_lr}

    def decided(self, ipc: int) -> "Evaluator":
        """The same, with whether training is compiled decided for so many images per class, whatever else is changed later."""
        protocol, count = self.protocol, ipc * self.data.num_classes
        how = protocol.training(self.network, self.augment, 0.01, ipc, soft=True)
        compiled = self.trials.compiles(Trial(Counted(count), Labels(torch.empty(0)), how, ()))
        # The networks of the full data are shared by sets of every size, and decide for themselves.
        return replace(self, compile="yes" if compiled else "no", compile_full=self.compile_full or self.compile)

    @cached_property
    def full_data(self) -> FullData:
        """Networks of this architecture, trained on the whole training split."""
        return self._full_data(self.network)

    @cached_property
    def teacher(self) -> nn.Module:
        """The teacher of knowledge distillation."""
        return self.trained(self.settings.teacher)

    def trained(self, name: str | None = None) -> nn.Module:
        """The network of that name (None: this one), trained on the full data, frozen, in evaluation mode."""
        network = self.network
        if name not in (None, network.name):
            network = flat_network(str(name), self.data.shape, self.data.num_classes).to(self.device)
        return self._full_data(network).teacher(lambda: self.images_of("test"))

    @cached_property
    def trials(self) -> Trials:
        """What trains the networks."""
        return Trials(self.network, self.seed, self.device, self.compile)

    def images_of(self, split: str) -> Images:
        """The prepared images of `val` or `test`."""
        return self._val if split == "val" else self._test

    def labels_of(self, split: str) -> Tensor:
        """Their labels, int64."""
        return torch.from_numpy(self._split(split).labels)

    def _split(self, split: str) -> Split:
        return self.data.val if split == "val" else self.data.test

    def _full_data(self, network: FlatNetwork) -> FullData:
        return FullData(
            data=self.data,
            preprocessing=self.preprocessing,
            trials=replace(self.trials, network=network, seed=FULL_SEED, compile=self.compile_full or self.compile),
            settings=self.settings,
            augment=self.augment,
        )

    def _trial(self, subset: Subset, key: tuple[str, int | str]) -> Trial:
        targets, soft = self._targets(subset)
        return Trial(TensorImages(subset.images.to(self.device)), targets, self._training(subset, soft=soft), key)

    def _training(self, subset: Subset, *, soft: bool) -> Training:
        return self.protocol.training(self.network, self.augment, subset.syn_lr, subset.ipc, soft=soft)

    def _targets(self, subset: Subset) -> tuple[Targets, bool]:
        """What the protocol trains towards, and whether these are logits."""
        kind = self.protocol.labels
        if kind == "teacher":
            return self.stored_views(subset) or Teacher(self.teacher), True
        if kind == "hard":
            return Labels(one_hot(subset.classes, subset.labels.shape[1]).float().to(self.device)), False
        if subset.soft and self.protocol.mixes:  # logits cannot be mixed as images are, probabilities can
            return Labels(subset.labels.softmax(1).to(self.device)), False
        return Labels(subset.labels.to(self.device)), subset.soft

    def _run(self, trials: Sequence[Trial], asked: Images, name: str, progress: Progress | None) -> list[Tensor]:
        epochs = sum(trial.how.epochs for trial in trials)
        with (progress or NoProgress()).stage(name, epochs) as stage:
            return [outcome.logits[0] for outcome in self.trials.run(trials, [asked], stage.advance)]

    def random_rate(self, ipc: int, syn_lr: float, progress: Progress | None = None) -> float:
        """The step size for random images: `eval.random_lr`, the protocol's own, or else the best; see `random`."""
        return self.settings.random_lr or self.protocol.lr or self._best_rate(ipc, syn_lr, progress)

    def _best_rate(self, ipc: int, syn_lr: float, progress: Progress | None) -> float:
        index = self.random_index(ipc, "choose")
        if len(self.data.val):
            asked, labels = self.images_of("val"), self.labels_of("val")
        else:
            rest = torch.ones(len(self.data.train), dtype=torch.bool)
            rest[index] = False
            spare = rest.nonzero().flatten()
            order = torch.randperm(len(spare), generator=generator(self.seed, "spare images"))[:SPARE]
            split = self.data.train.take(spare[order].numpy())
            asked, labels = prepare_split(split, self.preprocessing, self.device), torch.from_numpy(split.labels)
        rates = sorted({syn_lr, *RANDOM_RATES})
        trials = [self._trial(self.random_subset(ipc, rate, "choose"), ("evaluation", "choose")) for rate in rates]
        found = [accuracy(logits, labels) for logits in self._run(trials, asked, "random subset, step sizes", progress)]
        return rates[max(range(len(rates)), key=lambda i: found[i])]

    def random_index(self, ipc: int, number: int | str) -> Tensor:
        """The positions of such images in the training split, int64 with shape (K · ipc,)."""
        return real_subset(self.data.train, self.data.num_classes, ipc, self.seed, f"random subset {number}")

    @cached_property
    def _val(self) -> Images:
        return prepare_split(self.data.val, self.preprocessing, self.device)

    @cached_property
    def _test(self) -> Images:
        return prepare_split(self.data.test, self.preprocessing, self.device)
