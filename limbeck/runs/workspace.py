"""What a method may ask for: images, experts, map network, evaluation — made when they are missing, kept in the cache.

What is decided automatically (device, threads, compiled or not) is decided once (`decided.py`), and stored with the run.
"""

import math
import os
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import nn

from limbeck.augmentation import Augmentation, Dsa
from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.preprocessing import Normalise, Preprocessing, fit_preprocessing
from limbeck.distilled.coded import stored_by
from limbeck.distilled.initial import Continued, Initial, Initialisation, check_start, content_of, read_start
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.settings import STARTS
from limbeck.distilled.small_set import Kind, SmallSet
from limbeck.evaluation.difficulty import Difficulties, of_experts, watched
from limbeck.evaluation.distances import features_in_parts
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.protocols import Protocol
from limbeck.evaluation.protocols import resolve as resolve_protocol
from limbeck.experts.store import TrajectoryStore
from limbeck.experts.train import ExpertTask, train_experts
from limbeck.matching.adjoint import Adjoint
from limbeck.matching.engine import Arrangement, Problem, prepare
from limbeck.matching.spread import Spread
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.methods.enhance import Enhancement
from limbeck.methods.materials import Matching, Own
from limbeck.methods.method import Method
from limbeck.methods.registry import method_of, name_of
from limbeck.networks.factory import Factory
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.parametrisations.parametrisation import Decoder
from limbeck.runs import build
from limbeck.runs.decided import Fingerprints
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.devices import resolve_device
from limbeck.runtime.errors import Failure, require
from limbeck.runtime.executor import Shard
from limbeck.runtime.plugins import is_foreign
from limbeck.runtime.progress import Progress
from limbeck.runtime.ranks import Ranks
from limbeck.training.compute import Compile
from limbeck.training.images import Images, LazyImages, prepare_split, sample

SHARDED_FROM = 128 * 2**20  # bytes of X: of 50 000 images of MNIST and more


@dataclass
class Workspace:
    """Hands out what a run needs.

    Args:
        settings: of the run.
        progress: where to report.
        store: the experts, instead of those of the cache.
        classes: of the images of the start, int64 with shape (N,), once they are known (`lay_out`).
    """

    settings: DistillSettings
    progress: Progress
    store: TrajectoryStore | None = None
    classes: torch.Tensor | None = None

    @cached_property
    def device(self) -> torch.device:
        """The device to compute on."""
        return resolve_device(self.settings.engine.device)

    @cached_property
    def method(self) -> Method:
        """What is run."""
        return method_of(self.settings.method)

    @cached_property
    def data(self) -> ImageSet:
        """The images; without a validation split where the protocol has none."""
        data = self.settings.data
        return load_data(data if self.protocol.validation else replace(data, val_fraction=0.0), self.progress)

    @cached_property
    def protocol(self) -> Protocol:
        """How fresh networks are trained: read once, so that all figures of a run have one, whatever becomes of its file."""
        return resolve_protocol(replace(self.settings.eval, protocol=self.protocol_named))

    @cached_property
    def protocol_named(self) -> Protocol:
        """The same before `eval.epochs` and `eval.batch_size`: what its file says."""
        return resolve_protocol(replace(self.settings.eval, epochs=None, batch_size=None))

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Fitted on the training split."""
        return fit_preprocessing(self.settings.data, self.data.train)

    @cached_property
    def network(self) -> FlatNetwork:
        """The network to distil for."""
        return self.network_of(self.settings.network)

    def network_of(self, network: str | nn.Module | Factory) -> FlatNetwork:
        """The network of that name, or the module itself, or what a function makes, for these images."""
        return flat_network(network, self.data.shape, self.data.num_classes).to(self.device)

    def check_shards(self) -> None:
        """Raise `UsageError` where X is to lie in shards and must not."""
        why = self.settings.engine.shard == "yes" and self.must_hold_all
        require(not why, "engine.shard", "yes", f"auto or no: {why}")

    @cached_property
    def experts(self) -> TrajectoryStore:
        """The experts, with every epoch that the schedule can reach, and the last of those that give labels."""
        if self.store is not None:
            self.expert_task.check_store(self.store, self.reachable_epochs)
        store = self.store or self.train_experts(Shard())
        if store.imported and type(self.preprocessing) is Normalise:  # fitted: published code has numbers that are fixed
            self.progress.say(
                "warning: data.normalise: 'fitted' is not how published code normalises, and these experts were imported; "
                "data.normalise=cifar10, imagenet or mnist has the numbers that they most likely saw"
            )
        return store

    def train_experts(self, shard: Shard) -> TrajectoryStore:
        """The store of the experts with a share of them in it; complete when all shares are."""
        return train_experts(self.expert_task, self.reachable_epochs, self.progress, shard)

    @property
    def expert_task(self) -> ExpertTask:
        """What determines the experts."""
        s = self.settings
        parts = (self.data, self.preprocessing, self.network, s.experts, self.augmentation, s.seed, self.device, s.engine.compile)
        return ExpertTask(*parts)

    @property
    def reachable_epochs(self) -> list[int]:
        """The epochs of the experts that an iteration can read."""
        return build.epochs_of(self.settings)

    def lay_out(self, classes: torch.Tensor) -> None:
        """Take note of the classes of the start, with which all ranks may have to hold all of X after all.

        Raises:
            UsageError: where engine.shard=yes has it otherwise.
        """
        sharded, self.classes = self.spread.sharded, classes.cpu()
        del self.spread  # as it was without them
        if sharded:
            self.check_shards()
        if sharded and not self.spread.sharded:
            self.progress.say(f"note: engine.shard: each process holds all of X: {self.must_hold_all}")

    @cached_property
    def spread(self) -> Spread:
        """How batches, and X with its labels, lie on the ranks of the run; the start may yet change it (`lay_out`)."""
        ranks, total = Ranks.here(), self.data.num_classes * self.ipc if self.classes is None else len(self.classes)
        whole = self.ipc if self.method.shards == "classes" else 1
        return Spread(ranks, total if not ranks.alone and self.shards else None, whole)

    @property
    def shards(self) -> bool:
        """Whether several ranks hold but a part of X each."""
        asked, total = self.settings.engine.shard, self.data.num_classes * self.ipc
        large = 4 * total * math.prod(self.data.shape) >= SHARDED_FROM
        return asked == "yes" or (asked == "auto" and large and not self.must_hold_all)

    @property
    def must_hold_all(self) -> str:
        """Why every rank has to hold all of X, in words; empty where it need not."""
        s = self.settings
        if not self.decoder.trivial:
            return f"the images are decoded from what parametrisation.kind={s.parametrisation.kind!r} stores"
        if self.method.shards == "no":
            return f"nothing is known of which images method {name_of(s.method)} looks at together"
        if self.network.has_batch_norm and not self.method.norms:
            return f"{self.network.name} has batch norm, whose statistics are those of a whole batch"
        if self.method.shards == "classes" and self.data.num_classes < (count := Ranks.here().count):
            return f"{count} processes cannot each hold some of {self.data.num_classes} classes"
        if self.method.shards == "classes" and self.classes is not None:
            in_order = torch.arange(self.data.num_classes).repeat_interleave(self.ipc)
            if not torch.equal(self.classes, in_order):
                return f"the start does not give {self.ipc} images of every class, class by class"
        if self.method.steps and not isinstance(self.augmentation, Dsa):
            return "the augmentation may mix images"
        return build.looks_at_all(s, self.method)

    @cached_property
    def matching(self) -> Matching:
        """What is matched with what."""
        return build.matching_of(self.settings, self.slots)

    @cached_property
    def augmentation(self) -> Augmentation:
        """Of student steps, experts and evaluation."""
        return build.augmentation_of(self.settings.augment)

    @property
    def slots(self) -> int:
        """How many the set has."""
        return self.settings.ipc * self.data.num_classes

    @property
    def ipc(self) -> int:
        """Images of every class, of each slot as many as are decoded from it."""
        return self.settings.ipc * self.decoder.images_per_slot

    @cached_property
    def decoder(self) -> Decoder:
        """What leads from what is stored to images."""
        return Decoder(build.parametrisation_of(self.settings.parametrisation), self.data.shape)

    @property
    def seed(self) -> int:
        """Of every draw but those of the data."""
        return self.settings.seed

    @property
    def num_experts(self) -> int:
        """How many experts iterations draw from."""
        return self.settings.experts.num_experts

    @property
    def compile(self) -> Compile:
        """Whether gradients are compiled."""
        return self.settings.engine.compile

    def own(self, kind: type[Own]) -> Own:
        """The branch of the settings of that class."""
        branches = (getattr(self.settings, field.name) for field in fields(self.settings))
        return next((branch for branch in branches if isinstance(branch, kind)), None) or kind()

    @cached_property
    def map_network(self) -> nn.Module:
        """G, resident on the device: the last epoch of the first expert, or without experts a network trained on the full data."""
        if not self.needs_experts:
            evaluator = self.evaluator()
            return evaluator.full_data.teacher(lambda: evaluator.images_of("test"), self.progress)
        theta = self.experts.read(0, self.settings.experts.train_epochs, self.device)
        if not bool(theta.isfinite().all()):
            raise Failure(f"expert 0 in {str(self.experts.path)!r} holds numbers that are not finite, and maps are made of it")
        images = LazyImages(self.data.train, self.preprocessing, self.device)
        return self.network.with_parameters(theta, lambda: sample(images))

    def evaluator(self) -> Evaluator:
        """Evaluation with the network that is distilled for."""
        return self.evaluator_of(self.network)

    def evaluator_of(self, network: FlatNetwork) -> Evaluator:
        """Evaluation with that network."""
        s = self.settings
        settings = replace(s.eval, protocol=self.protocol)
        parts = (self.data, self.preprocessing, network, settings, self.augmentation, s.seed, self.device)
        return Evaluator(*parts, s.engine.compile, factor=s.rded.factor_for(*self.data.shape[1:]))

    def teacher(self, name: str | None = None) -> nn.Module:
        """The network of that name (None: the one distilled for), trained on the full data, frozen, in evaluation mode."""
        return self.evaluator().trained(name)

    def features(self) -> torch.Tensor:
        """What `map_network` makes of all training images before its last layer, with shape (N, D), on the CPU."""
        images = LazyImages(self.data.train, self.preprocessing, self.device)
        return features_in_parts(self.map_network, images, f"init: {self.settings.init!r}")

    def difficulties(self) -> Difficulties:
        """How difficult every training image was to networks while they learned, as `coreset.*` has it."""
        own, labels = self.settings.coreset, torch.from_numpy(self.data.train.labels)
        if own.judges == "full":
            return watched(self.evaluator().full_data, own.epoch, self.progress)
        parts = (self.experts, self.num_experts, self.reachable_epochs, self.network, self.train_images)
        return of_experts(*parts, labels, own.epoch)

    @cached_property
    def start(self) -> DistilledSet | None:
        """The set that `init` is or whose path it is; None where it is another kind of start."""
        s, init = self.settings, cast(Any, self.settings.init)
        if isinstance(init, DistilledSet):
            held, notes = check_start(init, "the given set", s.ipc, self.data, self.preprocessing, self.decoder.images_per_slot)
        elif not isinstance(init, str) or init in STARTS or (is_foreign(init) and not os.path.exists(init)):
            return None
        else:
            parts = (s.outer.syn_lr_init, self.data, self.preprocessing, self.decoder.images_per_slot)
            held, notes = read_start(init, s.ipc, *parts)
        for note in notes:
            self.progress.say(f"note: init: {note}")
        return held

    @cached_property
    def initialisation(self) -> Initialisation:
        """What the outer loop starts from."""
        return build.initialisation_of(self.settings.init) if self.start is None else Continued(self.start.set)

    @property
    def syn_lr(self) -> float:
        """η at the start."""
        return self.settings.outer.syn_lr_init if self.start is None else self.start.syn_lr

    def initial(self) -> SmallSet:
        """The set to start from, with what its images are decoded from; `spread` is then how it lies.

        Raises:
            UsageError: where it cannot be made, or not lie as it is asked for.
        """
        settings = self.settings
        labellers = settings.experts.label_experts or settings.experts.num_experts
        parts = (self.data, self.preprocessing, self.network, lambda: self.experts, labellers, settings.experts.train_epochs)
        rest = (self.ipc, settings.seed, self.device, self.syn_lr, self.features, self.progress)
        start = self.initialisation(Initial(*parts, *rest), self.kind)
        self.lay_out(start.classes)
        return stored_by(self.decoder, start, None if self.start is None else self.start.set)

    def enhancement(self, classes: torch.Tensor, network: nn.Module | None = None) -> Enhancement:
        """Maps and weights for images of those classes, by that network or by the maps' own."""
        s = self.settings.enhance
        parts = (classes, self.settings.seed, build.cam_of(s), build.weighting_of(s), s.cam_every)
        return Enhancement(self.map_network if network is None else network, *parts)

    def engine(self, arrangement: Arrangement | None = None) -> tuple[StudentStep, Adjoint, Arrangement]:
        """The student's step, the way to the gradient and what was decided about them, or what `arrangement` says again.

        What was decided for another number of ranks is decided anew, but for the precision.
        """
        settings, ranks, problem = self.settings.engine, self.spread.ranks.count, self.problem()
        if arrangement is None or arrangement.ranks == ranks:
            step, adjoint, found = prepare(problem, build.adjoint_of(settings), settings, self.progress, arrangement)
            return step, adjoint, replace(found, ranks=ranks)
        fixed = replace(settings, precision=arrangement.precision or settings.precision)
        step, adjoint, found = prepare(problem, build.adjoint_of(settings), fixed, self.progress)
        return step, adjoint, replace(found, precision=arrangement.precision, ranks=ranks)

    def problem(self) -> Problem:
        """What the engine is set up for."""
        settings, match = self.settings, self.settings.match
        shape = (self.data.num_classes * self.ipc, *self.data.shape)
        draws = draw_steps(shape, build.batch_of(match, self.slots), match.syn_steps, self.augmentation, 0, 0, match.small_chunk)
        whole, spread, loss = self.network.has_batch_norm, self.spread, build.loss_of(settings)
        # Of a rank's part; one without images computes nothing.
        parts = {len(draw.index) if whole else len(spread.part(draw).labels) for draw in draws}
        batches = sorted(size for size in parts if size) or [1]
        steps, iterations, even = match.syn_steps, settings.outer.iterations, not spread.sharded
        shape = (len(range(shape[0])[spread.rows]), *self.data.shape)
        return Problem(self.network, shape, self.data.num_classes, batches, steps, iterations, loss, even)

    @property
    def kind(self) -> Kind:
        """What Y are: logits, or one-hot rows."""
        return "logits" if self.settings.labels == "soft" else "hard"

    @property
    def needs_experts(self) -> bool:
        """Whether anything of the run reads experts."""
        if self.method.experts or self.method.kind != "objective":
            return self.method.experts or (self.method.difficulties and self.settings.coreset.judges == "experts")
        return self.initialisation.reads_experts(self.kind)

    @cached_property
    def train_images(self) -> Images:
        """The training split as networks take it, and its labels by `data.train.labels`."""
        return prepare_split(self.data.train, self.preprocessing, self.device)

    def record(self) -> Fingerprints:
        """Of what the result rests on."""
        init = None if self.start is None else content_of(self.start)
        experts = (self.experts.path.name, self.settings.experts) if self.needs_experts else ()  # asking trains them
        return Fingerprints(self.data.fingerprint, init, *experts)
