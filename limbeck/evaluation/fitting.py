"""One training and what comes of it: what the studies of usefulness rest on.

Architecture search, continual learning and membership inference train fresh networks on small sets and look at their logits. How a
network is trained — optimiser, epochs, augmentation, device — is the affair of the `Fit` that they are given; evaluations give a
`ProtocolFit`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from limbeck.accuracy import protocol_name
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.evaluator import REPEATS, Evaluator
from limbeck.evaluation.trials import Trial, Trials
from limbeck.networks.factory import Factory
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import require
from limbeck.runtime.ranks import Ranks
from limbeck.runtime.records import Record
from limbeck.training.images import Images, TensorImages
from limbeck.training.targets import Labels

Cell = dict[str, Any]
Network = str | nn.Module | Factory


class Fit(Protocol):
    """Train a fresh network and ask it about images."""

    def __call__(self, network: Network, small: SmallSet, *, seed: int, measure: Sequence[Images]) -> list[Tensor]:
        """The logits (n, K) of the trained network for each of the collections `measure`.

        Args:
            network: its name, a module for such images and classes, or a function that makes one.
            small: what to train it on.
            seed: of the start and of all draws.
            measure: what to ask about.
        """
        ...


@dataclass(frozen=True)
class Cells:
    """The single results of a study by key, so that an interrupted one goes on where it was.

    Args:
        done: the results that exist, of exactly the same study; they are taken as they are.
        after: told the key and the result of every new one, as soon as it is there. Results are plain JSON.
    """

    done: Mapping[str, Cell] = field(default_factory=dict)
    after: Callable[[str, Cell], None] = lambda key, cell: None

    def all(self, makers: Mapping[str, Callable[[], Cell]]) -> dict[str, Cell]:
        """The results of all keys: those that are done, and new ones, of which the ranks of a run make one each at a time."""
        here, found = Ranks.sharing(), {key: self.done[key] for key in makers if key in self.done}
        missing = [key for key in makers if key not in found]
        for begin in range(0, len(missing), here.count):
            some = missing[begin : begin + here.count]
            made = here.gathered(lambda some=some: [makers[key]() for key in some[here.number : here.number + 1]])  # type: ignore[misc]
            for key, cell in zip(some, (cell for part in made for cell in part), strict=True):
                self.after(key, cell)
                found[key] = cell
        return found


def right_share(logits: Tensor, labels: Tensor) -> float:
    """The share of images whose greatest logit is that of their class; 0 where a logit is not finite.

    A diverged network would guess class 0 everywhere, which is an accuracy by accident.

    Args:
        logits: with shape (n, K), n ≥ 1.
        labels: int64 with shape (n,).
    """
    if not bool(logits.isfinite().all()):
        return 0.0
    return (logits.argmax(1).cpu() == labels.cpu()).double().mean().item()


def check_measured(key: str, images: Images, labels: Tensor, num_classes: int) -> None:
    """Raise `UsageError`, naming `key`, unless there are images and each has a class in 0 … K − 1."""
    require(len(images) == len(labels) > 0, key, (len(images), len(labels)), "images and as many labels, at least one")
    found = sorted(set(labels.tolist()))
    require(found[0] >= 0 and found[-1] < num_classes, key, found, f"labels in 0 … {num_classes - 1}")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise `UsageError` unless there are seeds, all different: equal ones would be counted as independent."""
    require(len(seeds) == len(set(seeds)) > 0, "seeds", list(seeds), "one seed or several different ones")


def percentiles(draws: Tensor) -> list[float]:
    """[low, high], between which the middle 95 % of bootstrap draws with shape (B,) lie."""
    low, high = draws.double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [low, high]


@dataclass(frozen=True, kw_only=True)
class Trained(Record):
    """How the networks of a study were trained.

    Args:
        protocol: its name, version and epochs.
        batch_size: of every network; None takes that of so many images per class.
        lr: step size on the set.
        random_lr: on random images.
    """

    protocol: str
    batch_size: int | None
    lr: float | None
    random_lr: float


@dataclass(frozen=True)
class ProtocolFit:
    """A `Fit`.

    A set is trained on with its own step size, and random images, which have none, with the one chosen for those; as many images
    as the training split has are taken for it, and trained on as the full data are.

    Args:
        evaluator: whose protocol, which trains on stored labels, data and device count.
        random_lr: the step size for random images.
    """

    evaluator: Evaluator
    random_lr: float

    def __call__(self, network: Network, small: SmallSet, *, seed: int, measure: Sequence[Images]) -> list[Tensor]:
        """See `Fit`."""
        evaluator, labels, kind = self.evaluator, small.labels, small.kind
        flat = flat_network(network, small.shape, small.num_classes).to(evaluator.device)
        trials = Trials(flat, evaluator.seed, evaluator.device, evaluator.compile, REPEATS)
        if kind != "logits" and len(small) == len(evaluator.data.train):
            trials = replace(trials, repeats=1)
            how = evaluator.full_data.how
        else:
            ipc, rate = -(-len(small) // small.num_classes), small.syn_lr or self.random_lr
            if kind == "logits" and evaluator.protocol.mixes:
                labels, kind = small.probabilities(), "probabilities"
            how = evaluator.protocol.training(flat, evaluator.augment, rate, ipc, kind, evaluator.preprocessing)
        images = TensorImages(small.images.to(evaluator.device))
        trial = Trial(images, Labels(labels.float().to(evaluator.device)), how, ("fit", seed))
        (outcome,) = trials.run([trial], measure)
        return outcome.logits

    def trained(self, small: SmallSet) -> Trained:
        """How networks are trained on a set, and on random images beside it."""
        protocol = self.evaluator.protocol
        return Trained(
            protocol=protocol_name(protocol.facts), batch_size=protocol.batch_size, lr=small.syn_lr, random_lr=self.random_lr
        )


def training_images(evaluator: Evaluator) -> SmallSet:
    """All training images as networks take them, with their classes."""
    train = evaluator.data.train
    images = torch.cat(
        [evaluator.preprocessing.prepare(train.images(part.numpy())) for part in torch.arange(len(train)).split(1024)]
    )
    return SmallSet.of_classes(images, torch.from_numpy(train.labels), evaluator.data.num_classes)
