"""The `Fit` of an evaluation: trains as its protocol says, and on all training images as its full-data networks are trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.protocols import PROTOCOLS, Protocol
from limbeck.evaluation.trials import Trial, Trials
from limbeck.networks.flat import flat_network
from limbeck.training.images import Images, TensorImages
from limbeck.training.targets import Labels


@dataclass(frozen=True)
class ProtocolFit:
    """A `Fit`.

    Soft labels are trained on with the distilled set's step size; hard ones, which random images have, with the step size
    chosen for those; as many images as the training split has are taken for it, and trained on as the full data are.

    Args:
        evaluator: whose protocol, data and device count. A protocol that does not train on stored labels is replaced by `dd`.
        syn_lr: η.
        random_lr: the step size for random images.
    """

    evaluator: Evaluator
    syn_lr: float | None
    random_lr: float

    @cached_property
    def protocol(self) -> Protocol:
        """How small sets are trained on."""
        found, settings = self.evaluator.protocol, self.evaluator.settings
        return found if found.labels == "stored" else replace(PROTOCOLS["dd"], epochs=settings.epochs or PROTOCOLS["dd"].epochs)

    def __call__(self, network: str, small: SmallSet, *, seed: int, measure: Sequence[Images]) -> list[Tensor]:
        """See `fitting.Fit`."""
        evaluator, labels, kind = self.evaluator, small.labels, small.kind
        flat = flat_network(network, small.shape, small.num_classes).to(evaluator.device)
        trials = Trials(flat, evaluator.seed, evaluator.device, evaluator.compile)
        if kind != "logits" and len(small) == len(evaluator.data.train):
            how = evaluator.full_data.how
        else:
            ipc, rate = -(-len(small) // small.num_classes), self.syn_lr if kind == "logits" else self.random_lr
            if kind == "logits" and self.protocol.mixes:
                labels, kind = small.probabilities(), "probabilities"
            how = self.protocol.training(flat, evaluator.augment, rate, ipc, kind)
        images = TensorImages(small.images.to(evaluator.device))
        trial = Trial(images, Labels(labels.float().to(evaluator.device)), how, ("fit", seed))
        (outcome,) = trials.run([trial], measure)
        return outcome.logits


def training_images(evaluator: Evaluator) -> SmallSet:
    """All training images as networks take them, with their classes."""
    train = evaluator.data.train
    images = torch.cat(
        [evaluator.preprocessing.prepare(train.images(part.numpy())) for part in torch.arange(len(train)).split(1024)]
    )
    return SmallSet.of_classes(images, torch.from_numpy(train.labels), evaluator.data.num_classes)
