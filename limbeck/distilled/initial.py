"""The start of the synthetic set: images X, label logits Y.

    correct   real images that the first expert's last epoch classifies correctly (the next expert only where a class is
              exhausted); Y_i the mean logits of the experts that classify image i correctly
    real      random real images; Y_i the logits of one expert
    noise     x ~ N(0, 1) where the network sees it; Y_i the mean logits of the class's real images of `correct`
    centre    the images nearest to the centres of k-means in their class, in the features of a trained network
              (`selection.centres`); Y_i the mean logits of the experts that classify image i correctly
    a set     X, Y, η and the classes of a distilled set, ours or another program's

Hard labels are the classes, one-hot; then only `correct` reads experts. A set with hard labels, continued with soft ones, takes
those of `centre`; one with soft labels, continued with hard ones, its classes.

Guo et al., "Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching" (DATM), 2024, arXiv:2310.05773.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.data.split import Split
from limbeck.distilled.foreign import ForeignOptions
from limbeck.distilled.plausibility import OWN_NUMBERS, check_fit
from limbeck.distilled.read import read_set
from limbeck.distilled.selection import centres
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.settings import STARTS
from limbeck.distilled.small_set import Kind, SmallSet
from limbeck.experts.store import TrajectoryStore
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.located import here
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.random import generator
from limbeck.training.images import Images, LazyImages, TensorImages, prepare_split, sample
from limbeck.training.train import logits_in_blocks

LEAST_SYN_LR, GREATEST_SYN_LR = 1e-6, 1e38  # as `outer.syn_lr_init`
NOT_NEEDED, GIVEN = "syn_lr is not needed: the files say it", "that was given"  # what `read_set` says of an η that it was given
OPTION = re.compile(r" \(--normalised [^()]*\)")  # of `limbeck evaluate`
SHOWN = 3  # classes that a warning names


@dataclass(frozen=True)
class Initial:
    """What a start is made from.

    Args:
        data: the images; only the training split is used.
        preprocessing: of the images.
        network: the experts' network.
        store: gives the experts, asked only where they are read.
        label_experts: how many experts give the labels.
        last_epoch: E.
        ipc: images per class.
        seed: of the draws.
        device: to compute on.
        syn_lr: η.
        features: gives those of the training images, with shape (N, D), on the CPU, asked only for `Centre`.
        progress: where to report.

    Raises:
        UsageError: when a class has fewer than `ipc` training images.
    """

    data: ImageSet
    preprocessing: Preprocessing
    network: FlatNetwork
    store: Callable[[], TrajectoryStore]
    label_experts: int
    last_epoch: int
    ipc: int
    seed: int
    device: torch.device
    syn_lr: float
    features: Callable[[], Tensor]
    progress: Progress = NoProgress()  # noqa: RUF009 (it has no state)

    def __post_init__(self) -> None:
        check_ipc(self.data, self.ipc)

    def prepared(self, index: Tensor) -> Tensor:
        """The training images at these positions, as networks take them."""
        return self.preprocessing.prepare(self.data.train.images(index.numpy())).to(self.device)

    def real(self) -> Tensor:
        """The positions of random training images, class by class."""
        return real_subset(self.data.train, self.data.num_classes, self.ipc, self.seed, "initial")

    def labelled(self, images: Tensor, kind: Kind, logits: Tensor | None = None) -> SmallSet:
        """Images, `ipc` of every class, class by class, with labels of that kind: `logits` or `hard`.

        Args:
            images: with shape (K · ipc, C, H, W).
            kind: of the labels.
            logits: with shape (K · ipc, K); None takes the mean of those of the experts that are right about an image.
        """
        k = self.data.num_classes
        classes = torch.arange(k).repeat_interleave(self.ipc)
        if kind == "hard":
            return SmallSet.of_classes(images, classes, k, self.syn_lr)
        labels = self.voted_for(images, classes) if logits is None else logits
        return SmallSet(images, labels.clone().to(self.device), classes, self.syn_lr, kind)

    def logits(self, expert: int, images: Images) -> Iterator[Tensor]:
        """The logits of that expert's last epoch for `images`, in blocks with shape (n, K), on the CPU."""
        theta = self.store().read(expert, self.last_epoch, self.device)
        module = self.network.with_parameters(theta, lambda: sample(self._train))
        for block in logits_in_blocks(module, images):
            if not bool(block.isfinite().all()):
                cause = f"experts.expert_lr or experts.weight_decay is too large, or a file in {str(self.store().path)!r} is broken"
                raise Failure(f"expert {expert} gives logits that are not finite; {cause}")
            yield block.cpu()

    @property
    def _train(self) -> Images:
        """The training images, prepared when they are fetched."""
        return LazyImages(self.data.train, self.preprocessing, self.device)

    def voted_for(self, images: Tensor, classes: Tensor) -> Tensor:
        """Y of images (n, C, H, W) of those classes, with shape (n, K), on the CPU.

        Y_i is the mean logits of the experts that are right about image i, or of all where none is.
        """
        (own, total), votes = torch.zeros(2, len(images), self.data.num_classes), torch.zeros(len(images), 1)
        for expert in range(self.label_experts):
            logits = torch.cat(list(self.logits(expert, TensorImages(images))))
            right = (logits.argmax(1) == classes).unsqueeze(1)
            own, total, votes = own + logits * right, total + logits, votes + right
        return torch.where(votes > 0, own / votes.clamp(min=1), total / self.label_experts)

    def correct(self) -> Tensor:
        """The positions of images that experts classify correctly, class by class.

        Only until every class has its images are experts asked about all of the training images, and nothing but the first expert
        that is right about an image is kept of it.
        """
        labels = torch.from_numpy(self.data.train.labels)
        orders = class_orders(self.data.train, self.data.num_classes, self.seed, "initial")
        images = prepare_split(self.data.train, self.preprocessing, self.device)
        none = self.label_experts  # images that no expert is right about come last
        first = torch.full((len(labels),), none)
        for expert in range(self.label_experts):
            right = torch.cat([block.argmax(1) for block in self.logits(expert, images)]) == labels
            first[right & (first == none)] = expert
            if all(int((first[order] < none).sum()) >= self.ipc for order in orders):
                break
        chosen = [order[first[order].sort(stable=True).indices[: self.ipc]] for order in orders]
        index = torch.cat(chosen)
        self._say_unknown(first[index] == none, labels[index])
        return index

    def _say_unknown(self, unknown: Tensor, classes: Tensor) -> None:
        """Say of how many of the images chosen, bools (n,), no expert knows the class, and which classes have most of them."""
        counts = torch.bincount(classes[unknown], minlength=self.data.num_classes)
        found = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())].tolist()
        if not found:
            return
        shown = ", ".join(f"{self.data.class_names[k]!r} {int(counts[k])}" for k in found[:SHOWN])
        rest = ", …" if len(found) > SHOWN else ""
        total = f"{int(unknown.sum())} of the {len(unknown)} initial images, in {len(found)} of {self.data.num_classes} classes"
        self.progress.say(f"warning: no expert classifies {total}, correctly ({shown}{rest})")


class Initialisation(ABC):
    """What the outer loop starts from."""

    @abstractmethod
    def __call__(self, initial: Initial, kind: Kind) -> SmallSet:
        """X, Y of that kind, `logits` or `hard`, and the classes: `ipc` images of every class, class by class.

        Raises:
            UsageError: when a class has fewer than `ipc` training images.
        """

    def reads_experts(self, kind: Kind) -> bool:
        """Whether labels of that kind take experts."""
        return kind == "logits"


@dataclass(frozen=True)
class Correct(Initialisation):
    """Real images that experts classify correctly."""

    def __call__(self, initial: Initial, kind: Kind) -> SmallSet:
        return initial.labelled(initial.prepared(initial.correct()), kind)

    def reads_experts(self, kind: Kind) -> bool:
        return True


@dataclass(frozen=True)
class Real(Initialisation):
    """Random real images; the logits are one expert's."""

    def __call__(self, initial: Initial, kind: Kind) -> SmallSet:
        images = initial.prepared(initial.real())
        logits = torch.cat(list(initial.logits(0, TensorImages(images)))) if kind == "logits" else None
        return initial.labelled(images, kind, logits)


@dataclass(frozen=True)
class Noise(Initialisation):
    """x ~ N(0, 1) where the network sees it; the logits are the class's mean of `Correct`."""

    def __call__(self, initial: Initial, kind: Kind) -> SmallSet:
        k, ipc = initial.data.num_classes, initial.ipc
        draws = generator(initial.seed, "initial noise")
        images = torch.randn((k * ipc, *initial.data.shape), generator=draws).to(initial.device)
        if kind == "hard":
            return initial.labelled(images, kind)
        logits = initial.labelled(initial.prepared(initial.correct()), kind).labels.view(k, ipc, -1)
        return initial.labelled(images, kind, logits.mean(1, keepdim=True).expand(-1, ipc, -1).flatten(0, 1))


@dataclass(frozen=True)
class Centre(Initialisation):
    """The images nearest to the centres of k-means in their class."""

    def __call__(self, initial: Initial, kind: Kind) -> SmallSet:
        labels = torch.from_numpy(initial.data.train.labels)
        chosen = centres(initial.features(), labels, initial.ipc, initial.seed)
        return initial.labelled(initial.prepared(chosen), kind)


@dataclass(frozen=True, eq=False)
class Continued(Initialisation):
    """A set that fits, class by class, with its η."""

    set: SmallSet

    def __call__(self, initial: Initial, kind: Kind) -> SmallSet:
        held = self.set
        order = held.classes.argsort(stable=True)
        images, classes = held.images[order].to(initial.device), held.classes[order]
        if kind == "hard":
            return SmallSet.of_classes(images, classes, held.num_classes, held.syn_lr)
        labels = initial.voted_for(images, classes) if self.reads_experts(kind) else held.labels[order]
        return SmallSet(images, labels.to(initial.device), classes, held.syn_lr, kind)

    def reads_experts(self, kind: Kind) -> bool:
        return kind == "logits" and self.set.kind != "logits"  # soft labels are taken as they are


INITIALISATIONS: dict[str, Initialisation] = {"correct": Correct(), "real": Real(), "noise": Noise(), "centre": Centre()}


def read_start(
    path: Path | str, ipc: int, syn_lr: float, data: ImageSet, preprocessing: Preprocessing, per_slot: int = 1
) -> tuple[DistilledSet, list[str]]:
    """The set to start from, and what a reader should know of it, a sentence each; usually nothing.

    Args:
        path: whatever `read_set` reads, or the folder of a run.
        ipc: slots per class, as a rule images.
        syn_lr: η where the files do not say it.
        data: the images to distil.
        preprocessing: of its training split.
        per_slot: images of a slot.

    Raises:
        UsageError: when nothing is there, it cannot be read, or its classes, their number of images, the images' shape or their
            preprocessing are others.
    """
    told, path = str(path), Path(os.path.expanduser(here("init", str(path))))
    require(os.path.exists(path), "init", told, f"one of {', '.join(STARTS)}, or the path of a distilled set")
    if os.path.isdir(path / "distilled"):  # which is no error where nobody may look
        path = path / "distilled"
    elif os.path.exists(path / "state.json"):
        raise UsageError(f"init: {told!r} is a run that has not ended; finish it with `limbeck distill … --resume`")
    try:
        held = read_set(path, data, preprocessing, options=ForeignOptions(syn_lr=syn_lr))
    except UsageError as error:
        raise UsageError(f"init: {_without_options(str(error), told)}") from error
    held, notes = check_start(held, told, ipc, data, preprocessing, per_slot)
    assumed = held.metadata.get("assumed")
    told_of = [str(note) for note in assumed] if isinstance(assumed, list) else []
    # That a file's η goes before `outer.syn_lr_init` is how it is meant here.
    told_of = [note for note in told_of if not (note == NOT_NEEDED or (note.startswith("the step size") and note.endswith(GIVEN)))]
    return held, [OPTION.sub("", note) for note in told_of + notes]


def check_start(
    held: DistilledSet, told: str, ipc: int, data: ImageSet, preprocessing: Preprocessing, per_slot: int = 1
) -> tuple[DistilledSet, list[str]]:
    """The set to start from, called `told`, prepared as the data are, and what a reader should know of it.

    Raises:
        UsageError: when it does not fit, as for `read_start`.
    """
    try:
        notes = check_fit(held, data, preprocessing)
    except UsageError as error:
        raise UsageError(f"init: {_without_options(str(error), told)}") from error
    counts = torch.bincount(held.classes, minlength=held.num_classes)
    low, high = int(counts.min()), int(counts.max())
    found = str(low) if low == high else f"{low} … {high}"
    accepted = f"{found}, the number of images of a class in {told!r}, which init starts from"
    if per_slot > 1:
        accepted = f"such that ipc · {per_slot}, the images of its slots, is {accepted}"
    require(low == high == ipc * per_slot, "ipc", ipc, accepted)
    known = LEAST_SYN_LR <= held.syn_lr <= GREATEST_SYN_LR
    require(known, "init", told, f"a set with a step size in [{LEAST_SYN_LR:g}, {GREATEST_SYN_LR:g}]: it has {held.syn_lr:g}")
    if any(note.endswith(OWN_NUMBERS) for note in notes):  # the same pixels by the numbers of this run
        images = preprocessing.forward(held.preprocessing.inverse(held.images))
        held = replace(held, set=replace(held.set, images=images, code=None), preprocessing=preprocessing)
        notes = [note.replace(OWN_NUMBERS, "; its pixels are prepared anew") for note in notes]
    return held, notes


def content_of(held: DistilledSet) -> str:
    """Sixteen hexadecimal digits that identify what is taken from a set to start from."""
    # Of what is stored: images that are decoded anew elsewhere are the same up to rounding only.
    arrays = (held.set.stored, held.labels, held.classes)
    decoded = [] if held.set.code is None else [str(held.set.code)]
    return fingerprint(array_fingerprint(*(array.cpu().numpy() for array in arrays)), held.label_kind, held.syn_lr, *decoded)


def _without_options(message: str, path: str) -> str:
    """What is wrong with the set at `path`, without the options that `limbeck evaluate` has for it."""
    for advice in ("; --resize", ": say --normalised "):
        message = message.partition(advice)[0]
    return message.removeprefix("path: ") if message.startswith("path: ") else f"{path!r}: {message}"


def check_ipc(data: ImageSet, ipc: int, per_slot: int = 1) -> None:
    """Raise `UsageError` when a class has fewer training images than `ipc` slots of `per_slot` images begin as."""
    count, name = min((len(data.train.of_class(k)), name) for k, name in enumerate(data.class_names))
    images = f"the {count} training images of class {name!r} (validation images kept apart)"
    accepted = f"at most {images}" if per_slot == 1 else f"at most {count // per_slot}: each slot begins as {per_slot} of {images}"
    require(ipc * per_slot <= count, "ipc", ipc, accepted)


def class_orders(split: Split, num_classes: int, seed: int, use: str) -> list[Tensor]:
    """The positions of every class's images in `split`, each list in a random order drawn for `use`."""
    orders = []
    for k in range(num_classes):
        positions = torch.from_numpy(split.of_class(k))
        orders.append(positions[torch.randperm(len(positions), generator=generator(seed, use, "class", k))])
    return orders


def real_subset(split: Split, num_classes: int, ipc: int, seed: int, use: str) -> Tensor:
    """Positions in `split` of `ipc` random images per class, class by class, int64 with shape (K · ipc,)."""
    return torch.cat([order[:ipc] for order in class_orders(split, num_classes, seed, use)])
