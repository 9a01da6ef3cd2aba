"""Networks trained on the whole training split: the accuracy to recover, and the teacher of knowledge distillation.

Their accuracies, their logits on the test split's images and the first one's parameters are kept in the cache, under everything
that they depend on. Of a run's ranks the first looks there and keeps them; all train them, each a share of them or all of them one
after the other, which rounds differently (`Trials.shares`) and is kept under the same name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.augmentation import Augmentation
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.evaluation.predictions import accuracy
from limbeck.evaluation.settings import EvalSettings
from limbeck.evaluation.trials import Outcome, Trial, Trials
from limbeck.losses import cross_entropy
from limbeck.networks.names import usual_name
from limbeck.runtime.errors import Failure
from limbeck.runtime.fingerprint import array_fingerprint
from limbeck.runtime.kept import Kept, place
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.ranks import Ranks
from limbeck.runtime.records import Record
from limbeck.training.images import Chosen, Images, prepare_split, sample
from limbeck.training.optimisers import Sgd
from limbeck.training.rates import DropAtHalf
from limbeck.training.targets import Hard
from limbeck.training.train import RETURNS, SMALLER, Training

FORMAT = 2  # raised when a change of the trainer makes cached networks untrue
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
LOOKED_AT = 5000  # training images at most that a network is asked about when it is trained


@dataclass(frozen=True, kw_only=True)
class MadeWith(Record):
    """Everything that networks of the full data depend on."""

    data: str
    format: int = FORMAT
    preprocessing: tuple[str, ...]
    network: str
    structure: str
    optimiser: tuple[float | str, ...]
    epochs: int
    batch_size: int
    augment: Mapping[str, Any]
    seed: int
    compile: bool


@dataclass(frozen=True, eq=False)
class Found:
    """What networks say of the test images, with shape (S, n, K), and how many of their training images they know.

    `trained` is the mean share, of a sample; None where it was not looked at, as in caches of earlier versions.
    """

    logits: Tensor
    trained: float | None


@dataclass(frozen=True, kw_only=True)
class FullData:
    """Trains networks on all training images: SGD, momentum 0.9, weight decay 5e-4, ×0.1 after half of the epochs, hard labels.

    Args:
        data: the images.
        preprocessing: of them.
        trials: that run the training.
        settings: the keys `eval.*`, of which `full_*` count.
        augment: of the training images.
    """

    data: ImageSet
    preprocessing: Preprocessing
    trials: Trials
    settings: EvalSettings
    augment: Augmentation

    def found(self, test: Callable[[], Images], progress: Progress | None = None) -> Found:
        """What `eval.full_seeds` networks say.

        Raises:
            Failure: when a network diverges.
        """
        held, wanted = self._held(test, progress), self.settings.full_seeds
        known = held.get("trained", torch.empty(0))[:wanted]
        looked_at = len(known) == wanted and bool(known.isfinite().all())
        return Found(held["logits"][:wanted], float(known.double().mean()) if looked_at else None)

    def teacher(self, test: Callable[[], Images], progress: Progress | None = None) -> nn.Module:
        """The first of these networks, frozen, in evaluation mode, on the device that computes."""
        held = self._held(test, progress)
        network, device = self.trials.network, self.trials.device
        images = self._images if network.has_batch_norm else None
        module = network.with_parameters(held["theta"].to(device), None if images is None else lambda: sample(images()))
        return module.requires_grad_(False)

    def complete(self) -> bool:
        """Whether all of these networks are kept."""
        held = self.kept.held()
        return held is not None and len(held["logits"]) >= self.settings.full_seeds

    def _held(self, test: Callable[[], Images], progress: Progress | None) -> dict[str, Tensor]:
        """What is kept of `eval.full_seeds` networks, once all of them are trained."""
        here = Ranks.sharing()
        if not here.first:
            return self._helped(here, test)

        def more(held: dict[str, Tensor] | None) -> Iterator[dict[str, Tensor]]:
            here.told(lambda: (held or {}, False))
            yield from self._more(held, test(), progress or NoProgress())

        found = self.kept.grown(lambda held: len(held["logits"]) >= self.settings.full_seeds, more)
        here.told(lambda: (found, True))
        return found

    def _helped(self, here: Ranks, test: Callable[[], Images]) -> dict[str, Tensor]:
        """What the first rank finds, or makes of what this one trains with it."""
        while True:
            held, over = here.told(lambda: (dict[str, Tensor](), True))  # which the first rank says
            if over:
                return held
            for _ in self._more(held or None, test(), NoProgress()):
                pass

    @property
    def kept(self) -> Kept[dict[str, Tensor]]:
        """Where these networks are kept."""
        return Kept.tensors(place("full", self.made_with), _is_sound, self.made_with.to_dict())

    @property
    def made_with(self) -> MadeWith:
        """Everything that these networks depend on."""
        settings, tensors = self.settings, self.preprocessing.tensors()
        return MadeWith(
            data=self.data.fingerprint,
            preprocessing=(self.preprocessing.kind, array_fingerprint(*(tensor.numpy() for tensor in tensors.values()))),
            network=usual_name(self.trials.network.name),
            structure=self.trials.network.structure or str(self.trials.network.module),
            optimiser=(settings.full_lr, MOMENTUM, WEIGHT_DECAY, "drop at half"),
            epochs=settings.full_epochs,
            batch_size=settings.full_batch_size,
            augment=self.augment.identity(),
            seed=self.trials.seed,
            compile=self.trials.compiles(self.how, len(self.data.train), self.data.shape),
        )

    def trial(self, number: int) -> Trial:
        """The training of one of these networks."""
        return self._trials(range(number, number + 1))[0]

    def _trials(self, numbers: range) -> list[Trial]:
        images, how = self._images(), self.how
        labels = Hard(torch.from_numpy(self.data.train.labels).to(self.trials.device), self.data.num_classes)
        return [Trial(images, labels, how, ("full", number)) for number in numbers]

    def _more(self, held: dict[str, Tensor] | None, test: Images, progress: Progress) -> Iterator[dict[str, Tensor]]:
        """Train the missing ones."""
        settings, epochs, count = self.settings, self.settings.full_epochs, 0 if held is None else len(held["logits"])
        trials = self._trials(range(count, settings.full_seeds))
        images = trials[0].images
        run = self.trials.together if self.trials.shares(trials) else self.trials.run
        some = torch.arange(0, len(images), -(-len(images) // LOOKED_AT))
        classes = torch.from_numpy(self.data.train.labels)[some]
        with progress.stage("full data", settings.full_seeds * epochs, count * epochs) as stage:
            for outcome in run(trials, [test, Chosen(images, some)], stage.advance):
                if not bool(outcome.theta.isfinite().all()):
                    raise Failure(
                        f"a network on the full data diverged, with a {round(1 / SMALLER**RETURNS)}th of the step size too; "
                        f"eval.full_lr ({settings.full_lr}) is too large"
                    )
                held = _with(held, outcome, accuracy(outcome.logits[1], classes))
                yield held

    def _images(self) -> Images:
        return prepare_split(self.data.train, self.preprocessing, self.trials.device)

    @property
    def how(self) -> Training:
        """How they are trained."""
        settings = self.settings
        return Training(
            optimiser=Sgd(settings.full_lr, MOMENTUM, WEIGHT_DECAY),
            loss=cross_entropy,
            epochs=settings.full_epochs,
            batch_size=settings.full_batch_size,
            augment=self.augment,
            rate=DropAtHalf(),
            returns=RETURNS,
        )


def _with(held: dict[str, Tensor] | None, outcome: Outcome, trained: float) -> dict[str, Tensor]:
    """What is kept, with another network."""
    logits, known = outcome.logits[0][None], torch.tensor([trained])
    if held is None:
        return {"theta": outcome.theta, "logits": logits, "trained": known}
    # Of those that an earlier version trained it is not known.
    before = held.get("trained", torch.full((len(held["logits"]),), torch.nan))
    return {**held, "logits": torch.cat([held["logits"], logits]), "trained": torch.cat([before, known])}


def _is_sound(held: dict[str, Tensor]) -> bool:
    return held["logits"].ndim == 3 and bool(held["logits"].isfinite().all()) and held["theta"].ndim == 1
