"""The `Fit` of an evaluation: trains as its protocol says, and on all training images as its full-data networks are trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.protocols import PROTOCOLS, Protocol
from limbeck.evaluation.trials import Trial, Trials
from limbeck.networks.flat import flat_network
from limbeck.training.images import Images, TensorImages
from limbeck.training.targets import Labels
from limbeck.training.train import Training


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
    syn_lr: float
    random_lr: float

    @cached_property
    def protocol(self) -> Protocol:
        """How small sets are trained on."""
        found, settings = self.evaluator.protocol, self.evaluator.settings
        return found if found.labels == "stored" else replace(PROTOCOLS["dd"], epochs=settings.epochs or PROTOCOLS["dd"].epochs)

    def __call__(
        self, network: str, images: Tensor, labels: Tensor, *, hard: bool, seed: int, measure: Sequence[Images], num_classes: int
    ) -> list[Tensor]:
        """See `fitting.Fit`."""
        evaluator = self.evaluator
        flat = flat_network(network, (images.shape[1], images.shape[2], images.shape[3]), num_classes).to(evaluator.device)
        trials = Trials(flat, evaluator.seed, evaluator.device, evaluator.compile)
        if hard and len(images) == len(evaluator.data.train):
            how = evaluator.full_data.how
        else:
            ipc, rate = -(-len(images) // num_classes), self.random_lr if hard else self.syn_lr
            soft = not hard and not self.protocol.mixes
            labels = labels.softmax(1) if not hard and self.protocol.mixes else labels
            how = self.protocol.training(flat, evaluator.augment, rate, ipc, soft=soft)
        trial = self._trial(images, labels, how, seed)
        (outcome,) = trials.run([trial], measure)
        return outcome.logits

    def _trial(self, images: Tensor, labels: Tensor, how: Training, seed: int) -> Trial:
        device = self.evaluator.device
        return Trial(TensorImages(images.to(device)), Labels(labels.float().to(device)), how, ("fit", seed))


def training_images(evaluator: Evaluator) -> tuple[Tensor, Tensor]:
    """All training images as networks take them, with shape (N, C, H, W), and their one-hot labels (N, K)."""
    from torch.nn.functional import one_hot

    train = evaluator.data.train
    images = torch.cat(
        [evaluator.preprocessing.prepare(train.images(part.numpy())) for part in torch.arange(len(train)).split(1024)]
    )
    return images, one_hot(torch.from_numpy(train.labels), evaluator.data.num_classes).float()
