"""Accuracies of fresh networks under a protocol, and the two figures that stand beside every result.

distilled   networks trained on (X, Y) under the protocol
random      the same on random real images of the same number, another draw for every seed
full        networks trained on the whole training split

A set and the random images beside it are treated alike. Where the protocol has a step size, both take that. Otherwise each takes
its own, if it has one: a set the η that it learned, with the network, the labels and the augmentation that it learned it with;
random images, and sets that learned none or learned it otherwise, the best of `RATES` and that η on validation images, or without
those on training images outside of the random subset. `eval.random_lr` gives a step size instead of all this choosing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.accuracy import Accuracy, StepSize
from limbeck.augmentation import Augmentation, Dsa
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.data.split import Split
from limbeck.distilled.initial import real_subset
from limbeck.distilled.read import SYN_LR
from limbeck.distilled.settings import ViewLabelSettings
from limbeck.distilled.small_set import Kind, SmallSet
from limbeck.distilled.view_labels import StoredViews, label_views
from limbeck.evaluation import view_labels
from limbeck.evaluation.full import FullData
from limbeck.evaluation.predictions import accuracy
from limbeck.evaluation.protocols import Protocol, resolve
from limbeck.evaluation.settings import EvalSettings
from limbeck.evaluation.statistics import summarise
from limbeck.evaluation.trials import Answers, Outcome, Trial, Trials, Watch
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.networks.names import same_network
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.random import generator
from limbeck.runtime.ranks import Ranks
from limbeck.training.compute import Compile
from limbeck.training.images import Images, TensorImages, prepare_split
from limbeck.training.targets import AnyTargets, Labels, Teacher
from limbeck.training.train import Training
from limbeck.views import Views

RATES = (0.001, 0.005, 0.01, 0.05, 0.1)
FULL_SEED = 0  # the full data's networks are the data's own: no seed of a distillation changes them
REPEATS = 3  # compiling is for all networks of a set, of the random images beside it and of the step sizes that are tried
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
    ) -> Answers:
        """What a network of every seed, trained on the set, says of the images of `split`, each with shape (n, K).

        Where the protocol looks at networks on the way and the split is `test`, they are those of the look that validation chooses,
        with the best accuracy of all looks beside them.

        Raises:
            UsageError: when the set's labels of views are not those that the protocol needs.
        """
        if (stored := self.stored_views(small)) is not None:
            how = self._training(small, "logits")
            view_labels.check_fit(stored, small, how, self.protocol, self.settings.teacher)
        trials = [self._trial(small, ("evaluation", seed)) for seed in seeds]
        return self._run(trials, self.images_of(split), name, progress, self._watch if split == "test" else None)

    def on_splits(
        self, small: SmallSet, seeds: Sequence[int], splits: Sequence[str], progress: Progress | None = None, name: str = "evaluate"
    ) -> list[Answers]:
        """For each of `splits`, what the networks of `logits` say of its images; looked at on the way where the first is `test`."""
        trials = [self._trial(small, ("evaluation", seed)) for seed in seeds]
        watch = self._watch if splits[0] == "test" else None
        found = self._outcomes(trials, [self.images_of(split) for split in splits], name, progress, watch)
        return [Answers.of(found, number) for number in range(len(splits))]

    def looked_at(self, small: SmallSet, seeds: Sequence[int]) -> Accuracy:
        """Accuracy on `val` of such networks, and beside it that of the same networks on `test`, as the best on test so far."""
        splits = ("val", "test")
        val, test = (
            self.accuracies(found, split) for found, split in zip(self.on_splits(small, seeds, splits), splits, strict=True)
        )
        return replace(val, best_on_test=test)

    def live_logits(self, small: SmallSet, seeds: Sequence[int], split: str = "test", progress: Progress | None = None) -> Answers:
        """The same with a live teacher, asked about the views whose labels `label_views` keeps: what these lose shows beside it."""
        live = replace(small, views=None)
        trials = [replace(self._trial(live, ("evaluation", seed)), draws=view_labels.DRAWS) for seed in seeds]
        return self._run(trials, self.images_of(split), "live teacher", progress, self._watch if split == "test" else None)

    def stored_views(self, small: SmallSet) -> StoredViews | None:
        """The labels of views that networks are trained on; None where the protocol, `eval.view_labels` or the set have none."""
        return small.views if view_labels.asks(self.protocol) and self.settings.view_labels == "stored" else None

    def label_views(
        self, small: SmallSet, path: Path, settings: ViewLabelSettings, progress: Progress | None = None
    ) -> StoredViews:
        """Ask the teacher about the views of all epochs of the protocol and keep what it says in the file `path`.

        What was written before, even by a call that was stopped, is not asked again. All ranks of a run ask, the first one writes.

        Raises:
            UsageError: when the protocol asks no teacher about views, or `view_labels.top` is not below the number of classes.
        """
        view_labels.check_storable(replace(settings, store=True), self.protocol, self.data.num_classes)
        teacher = self.teacher
        # The teacher's answers have no step size, which a set may lack yet.
        how, held = self._training(replace(small, syn_lr=SYN_LR), "logits"), TensorImages(small.images.to(self.device))
        assert isinstance(how.augment, Views), "checked above"
        with (progress or NoProgress()).stage("label views", min(how.epochs, settings.pool or how.epochs)) as stage:
            return label_views(
                path,
                teacher,
                held,
                how.augment,
                epochs=how.epochs,
                batch_size=how.batch_size,
                seed=self.seed,
                key=view_labels.DRAWS,
                coding=view_labels.coding_of(settings, self.protocol),
                pool=settings.pool,
                name=self.settings.teacher or self.network.name,
                after_epoch=lambda count: stage.advance(),
                code=small.code,
                ranks=Ranks.sharing(),
            )

    def accuracies(self, logits: Sequence[Tensor], split: str = "test") -> Accuracy:
        """The accuracies of such logits on `split`; what is not finite is wrong."""
        labels, best = self.labels_of(split), logits.best if isinstance(logits, Answers) else ()
        failed = sum(not bool(found.isfinite().all(1).any()) for found in logits)
        found = replace(summarise([accuracy(found, labels) for found in logits]), failed=failed or None)
        return replace(found, best_on_test=summarise(best)) if best else found

    def random_logits(self, ipc: int, rate: float, seeds: Sequence[int], progress: Progress | None = None) -> Answers:
        """What networks trained on random real subsets with that step size, one for every seed, say of the test images."""
        trials = [self._trial(self.random_subset(ipc, rate, seed), ("evaluation", seed)) for seed in seeds]
        return self._run(trials, self.images_of("test"), "random subset", progress, self._watch)

    def random_subset(self, ipc: int, syn_lr: float | None, number: int | str) -> SmallSet:
        """Random real images with hard labels; a larger `ipc` holds all of a smaller one's."""
        index = self.random_index(ipc, number)
        images = self.preprocessing.prepare(self.data.train.images(index.numpy())).to(self.device)
        return SmallSet.of_classes(images, torch.from_numpy(self.data.train.labels)[index], self.data.num_classes, syn_lr)

    def full(self, progress: Progress | None = None) -> Accuracy:
        """Accuracy of networks trained on the whole training split, on the test split; kept in the cache."""
        found, settings = self.full_data.found(lambda: self.images_of("test"), progress), self.settings
        figure = self.accuracies(list(found.logits)).at(StepSize(settings.full_lr, "given"))
        return replace(figure, epochs=settings.full_epochs, trained=found.trained)

    def decided(self, ipc: int) -> "Evaluator":
        """The same, with whether training is compiled decided for so many images per class, whatever else is changed later."""
        protocol, count = self.protocol, ipc * self.data.num_classes
        how = protocol.training(self.network, self.augment, SYN_LR, ipc, "logits")
        compiled = self.trials.compiles(how, count, self.data.shape)
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
        return Trials(self.network, self.seed, self.device, self.compile, REPEATS)

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
            trials=Trials(network, FULL_SEED, self.device, self.compile_full or self.compile),
            settings=self.settings,
            augment=self.augment,
        )

    def _trial(self, small: SmallSet, key: tuple[str, int | str]) -> Trial:
        targets, kind = self._targets(small)
        return Trial(TensorImages(small.images.to(self.device)), targets, self._training(small, kind), key)

    def _training(self, small: SmallSet, kind: Kind) -> Training:
        return self.protocol.training(self.network, self.augment, small.syn_lr, small.ipc, kind, self.preprocessing)

    def _targets(self, small: SmallSet) -> tuple[AnyTargets, Kind]:
        """What the protocol trains towards, and what these are."""
        asked = self.protocol.labels
        if asked == "teacher":
            return self.stored_views(small) or Teacher(self.teacher), "logits"
        if asked == "hard":
            return Labels(small.hard().to(self.device)), "hard"
        if small.kind == "logits" and self.protocol.mixes:  # logits cannot be mixed as images are, probabilities can
            return Labels(small.probabilities().to(self.device)), "probabilities"
        return Labels(small.labels.to(self.device)), small.kind

    def _run(
        self, trials: Sequence[Trial], asked: Images, name: str, progress: Progress | None, watch: Watch | None = None
    ) -> Answers:
        return Answers.of(self._outcomes(trials, [asked], name, progress, watch))

    def _outcomes(
        self, trials: Sequence[Trial], asked: Sequence[Images], name: str, progress: Progress | None, watch: Watch | None
    ) -> list[Outcome]:
        epochs = sum(trial.how.epochs for trial in trials)
        with (progress or NoProgress()).stage(name, epochs) as stage:
            return list(self.trials.run(trials, asked, stage.advance, watch))

    @property
    def _watch(self) -> Watch | None:
        """How networks are looked at while they are trained, where the protocol says so."""
        choose = (self.images_of("val"), self.labels_of("val")) if len(self.data.val) else None
        return Watch(looks, self.labels_of("test"), choose) if (looks := self.protocol.looks) else None

    def step_size(
        self, small: SmallSet, own: StepSize | None = None, progress: Progress | None = None, also: Sequence[float] = ()
    ) -> StepSize:
        """The step size to train with on a set.

        Args:
            small: the set; its η is among those that are tried.
            own: what counts as its own here (`own_step_size`); None where nothing does.
            progress: where to report.
            also: what is tried besides.
        """
        eta, given = small.syn_lr, self.settings.random_lr
        if (found := self._protocols or own) is not None:
            return found
        if given is not None:
            return StepSize(given, "given") if eta is None else StepSize(eta, "elsewhere")
        return self._best(lambda rate: replace(small, syn_lr=rate), small.ipc, (eta, *also), "step sizes", progress)

    def random_step_size(self, ipc: int, syn_lr: float | None, progress: Progress | None = None) -> StepSize:
        """The step size for random images beside a set with that η."""
        if (found := self._protocols) is not None:
            return found
        if self.settings.random_lr is not None:
            return StepSize(self.settings.random_lr, "given")
        of = lambda rate: self.random_subset(ipc, rate, "choose")  # noqa: E731
        return self._best(of, ipc, (syn_lr,), "random subset, step sizes", progress)

    def own_step_size(self, small: SmallSet, network: str, origin: str = "own") -> StepSize | None:
        """η of a set as its own; None where it has none, or it was learned with other labels or augmentation, or another `network`.

        Args:
            small: the set.
            network: the name of the one that it was distilled for.
            origin: how η was come by.
        """
        labels = self.protocol.labels == "stored" or (self.protocol.labels == "hard" and small.kind == "hard")
        p, plain = self.protocol, isinstance(self.augment, Dsa) and not self.augment.operations
        augmented = p.policy == "none" and (p.augment == "set" or (p.augment == "none" and plain))
        alike = same_network(network, self.network.name) and labels and augmented
        return StepSize(small.syn_lr, origin) if alike and small.syn_lr is not None else None

    @property
    def _protocols(self) -> StepSize | None:
        """The protocol's, where it has one."""
        return None if self.protocol.lr is None else StepSize(self.protocol.step_size(self.network.name, None), "protocol")

    def _best(
        self, of: Callable[[float], SmallSet], ipc: int, also: Sequence[float | None], name: str, progress: Progress | None
    ) -> StepSize:
        """The best of `RATES` and `also` on images that are not tested, of the sets `of` them; of equal ones the least."""
        # What single precision has moved is no other step size.
        known = {rate for rate in also if rate is not None and not any(math.isclose(rate, usual, rel_tol=1e-6) for usual in RATES)}
        rates = sorted({*RATES, *known})
        split = self._to_choose_on(ipc, of(rates[0]))
        if len(split) == 0:
            return StepSize(next((rate for rate in also if rate is not None), SYN_LR), "assumed")
        kept_apart = len(self.data.val) > 0
        asked = self.images_of("val") if kept_apart else prepare_split(split, self.preprocessing, self.device)
        trials = [self._trial(of(rate), ("evaluation", "choose")) for rate in rates]
        labels = torch.from_numpy(split.labels)
        found = [accuracy(logits, labels) for logits in self._run(trials, asked, name, progress)]
        best = rates[max(range(len(rates)), key=lambda i: found[i])]
        return StepSize(best, "validation" if kept_apart else "training", tuple(rates))

    def _to_choose_on(self, ipc: int, small: SmallSet) -> Split:
        """The validation images; without those some training images that are in neither the random subset of that size nor the set.

        What is trained on is known again by its content: a coreset, or the images that a distillation began with.
        """
        train = self.data.train
        if len(self.data.val):
            return self.data.val
        rest = torch.ones(len(train), dtype=torch.bool)
        rest[self.random_index(ipc, "choose")] = False
        spare = rest.nonzero().flatten()
        order = torch.randperm(len(spare), generator=generator(self.seed, "spare images"))[: SPARE + len(small)]
        index, own = spare[order].numpy(), {image.tobytes() for image in small.images.cpu().numpy()}
        # Few at a time: prepared, large images take much room.
        parts = (self.preprocessing.prepare(train.images(index[i : i + 64])).cpu().numpy() for i in range(0, len(index), 64))
        other = np.array([image.tobytes() not in own for part in parts for image in part], bool)
        return train.take(index[other][:SPARE])

    def random_index(self, ipc: int, number: int | str) -> Tensor:
        """The positions of such images in the training split, int64 with shape (K · ipc,)."""
        return real_subset(self.data.train, self.data.num_classes, ipc, self.seed, f"random subset {number}")

    @cached_property
    def _val(self) -> Images:
        return prepare_split(self.data.val, self.preprocessing, self.device)

    @cached_property
    def _test(self) -> Images:
        return prepare_split(self.data.test, self.preprocessing, self.device)
