"""Accuracies of fresh networks under a protocol, and the two figures that stand beside every result.

distilled   networks trained on (X, Y) under the protocol
random      the same on random real images of the same number, another draw for every seed
full        networks trained on the whole training split
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from limbeck.accuracy import Accuracy
from limbeck.augmentation import Augmentation
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.distilled.initial import real_subset
from limbeck.distilled.settings import ViewLabelSettings
from limbeck.distilled.small_set import Kind, SmallSet
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
        factor: how many parts RDED stitches a side of such images from.
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
    factor: int = 1

    @cached_property
    def protocol(self) -> Protocol:
        """How the networks are trained."""
        return resolve(self.settings).of_parts(self.factor)

    def distilled(
        self, small: SmallSet, *, seeds: Sequence[int], split: str = "test", progress: Progress | None = None
    ) -> Accuracy:
        """Accuracy on `split` (`val` or `test`) of networks, one for each seed, trained on a small set."""
        return self.accuracies(self.logits(small, seeds, split, progress), split)

    def logits(
        self, small: SmallSet, seeds: Sequence[int], split: str = "test", progress: Progress | None = None, name: str = "evaluate"
    ) -> list[Tensor]:
        """What a network of every seed, trained on the set, says of the images of `split`, each with shape (n, K).

        Raises:
            UsageError: when the set's labels of views are not those that the protocol needs.
        """
        if (stored := self.stored_views(small)) is not None:
            how = self._training(small, "logits")
            view_labels.check_fit(stored, TensorImages(small.images), how, self.protocol, self.settings.teacher)
        return self._run([self._trial(small, ("evaluation", seed)) for seed in seeds], self.images_of(split), name, progress)

    def live_logits(
        self, small: SmallSet, seeds: Sequence[int], split: str = "test", progress: Progress | None = None
    ) -> list[Tensor]:
        """The same with a live teacher, asked about the views whose labels `label_views` keeps: what these lose shows beside it."""
        live = replace(small, views=None)
        trials = [replace(self._trial(live, ("evaluation", seed)), draws=view_labels.DRAWS) for seed in seeds]
        return self._run(trials, self.images_of(split), "live teacher", progress)

    def stored_views(self, small: SmallSet) -> StoredViews | None:
        """The labels of views that networks are trained on; None where the protocol, `eval.view_labels` or the set have none."""
        return small.views if view_labels.asks(self.protocol) and self.settings.view_labels == "stored" else None

    def label_views(
        self, small: SmallSet, path: Path, settings: ViewLabelSettings, progress: Progress | None = None
    ) -> StoredViews:
        """Ask the teacher about the views of all epochs of the protocol and keep what it says in the file `path`.

        What was written before, even by a call that was stopped, is not asked again.

        Raises:
            UsageError: when the protocol asks no teacher about views, or `view_labels.top` is not below the number of classes.
        """
        view_labels.check_storable(replace(settings, store=True), self.protocol, self.data.num_classes)
        how, held = self._training(small, "logits"), TensorImages(small.images.to(self.device))
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

    def accuracies(self, logits: Sequence[Tensor], split: str = "test") -> Accuracy:
        """The accuracies of such logits on `split`; what is not finite is wrong."""
        labels = self.labels_of(split)
        return summarise([accuracy(found, labels) for found in logits])

    def random(self, ipc: int, syn_lr: float, progress: Progress | None = None) -> Accuracy:
        """Accuracy of random real subsets of `ipc` images per class under the same protocol, on the test split.

        Where the protocol takes the set's learned step size, theirs is `random_lr`, or else the best of `syn_lr` and five usual
        ones on images that are neither tested nor in the subset, so that the baseline is not handicapped by a step size learned
        for other images.
        """
        logits, rate = self.random_logits(ipc, syn_lr, range(self.settings.seeds), progress)
        return replace(self.accuracies(logits), lr=rate)

    def random_logits(
        self, ipc: int, syn_lr: float | None, seeds: Sequence[int], progress: Progress | None = None
    ) -> tuple[list[Tensor], float]:
        """What networks trained on random real subsets, one for every seed, say of the test images, and their step size."""
        rate = self.random_rate(ipc, syn_lr, progress)
        trials = [self._trial(self.random_subset(ipc, rate, seed), ("evaluation", seed)) for seed in seeds]
        return self._run(trials, self.images_of("test"), "random subset", progress), rate

    def random_subset(self, ipc: int, syn_lr: float | None, number: int | str) -> SmallSet:
        """Random real images with hard labels; a larger `ipc` holds all of a smaller one's."""
        index = self.random_index(ipc, number)
        images = self.preprocessing.prepare(self.data.train.images(index.numpy())).to(self.device)
        return SmallSet.of_classes(images, torch.from_numpy(self.data.train.labels)[index], self.data.num_classes, syn_lr)

    def full(self, progress: Progress | None = None) -> Accuracy:
        """Accuracy of networks trained on the whole training split, on the test split; kept in the cache."""
        logits = self.full_data.logits(lambda: self.images_of("test"), progress)
        settings = self.settings
        return replace(self.accuracies(list(logits)), epochs=settings.full_epochs, lr=settings.full_lr)

    def decided(self, ipc: int) -> "Evaluator":
        """The same, with whether training is compiled decided for so many images per class, whatever else is changed later."""
        protocol, count = self.protocol, ipc * self.data.num_classes
        how = protocol.training(self.network, self.augment, 0.01, ipc, "logits")
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
        return torch.from_numpy((self.data.val if split == "val" else self.data.test).labels)

    def _full_data(self, network: FlatNetwork) -> FullData:
        return FullData(
            data=self.data,
            preprocessing=self.preprocessing,
            trials=replace(self.trials, network=network, seed=FULL_SEED, compile=self.compile_full or self.compile),
            settings=self.settings,
            augment=self.augment,
        )

    def _trial(self, small: SmallSet, key: tuple[str, int | str]) -> Trial:
        targets, kind = self._targets(small)
        return Trial(TensorImages(small.images.to(self.device)), targets, self._training(small, kind), key)

    def _training(self, small: SmallSet, kind: Kind) -> Training:
        return self.protocol.training(self.network, self.augment, small.syn_lr, small.ipc, kind)

    def _targets(self, small: SmallSet) -> tuple[Targets, Kind]:
        """What the protocol trains towards, and what these are."""
        asked = self.protocol.labels
        if asked == "teacher":
            return self.stored_views(small) or Teacher(self.teacher), "logits"
        if asked == "hard":
            return Labels(small.hard().to(self.device)), "hard"
        if small.kind == "logits" and self.protocol.mixes:  # logits cannot be mixed as images are, probabilities can
            return Labels(small.probabilities().to(self.device)), "probabilities"
        return Labels(small.labels.to(self.device)), small.kind

    def _run(self, trials: Sequence[Trial], asked: Images, name: str, progress: Progress | None) -> list[Tensor]:
        epochs = sum(trial.how.epochs for trial in trials)
        with (progress or NoProgress()).stage(name, epochs) as stage:
            return [outcome.logits[0] for outcome in self.trials.run(trials, [asked], stage.advance)]

    def random_rate(self, ipc: int, syn_lr: float | None, progress: Progress | None = None) -> float:
        """The step size for random images: `eval.random_lr`, the protocol's own, or else the best; see `random`."""
        return self.settings.random_lr or self.protocol.lr or self._best_rate(ipc, syn_lr, progress)

    def _best_rate(self, ipc: int, syn_lr: float | None, progress: Progress | None) -> float:
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
        rates = sorted({*RANDOM_RATES, *([] if syn_lr is None else [syn_lr])})
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
