"""PAD's data curriculum: how difficult every training image is, and which of them an epoch takes.

    EL2N    ‖softmax(f(x)) − y‖                      the error vector's length
    GraNd   ‖∇_θ ℓ(f(θ, x), y)‖                      the gradient's length, by all parameters or, as PAD's release takes it, by
                                                     those of the last layer alone

as means over a few networks after a few epochs (an image that is still wrong then is difficult). Class by class, from easy to
difficult, epoch e = 0, 1, … takes

    the easiest share 0.75 + 0.25 e / 20     e < 20
    all                                      20 ≤ e ≤ 40
    all but the easiest tenth                40 < e ≤ 60
    all but the easiest fifth                60 < e

Li et al., "Prioritize Alignment in Dataset Distillation" (PAD), 2024, arXiv:2408.03360. Paul, Ganguli and Dziugaite, "Deep
Learning on a Data Diet: Finding Important Examples Early in Training", 2021, arXiv:2107.07075.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from limbeck.augmentation import Augmentation
from limbeck.experts.notes import ClassScores, Difficulty
from limbeck.losses import cross_entropy
from limbeck.matching.criteria import layers_of
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.devices import one_thread
from limbeck.runtime.errors import Failure
from limbeck.runtime.fingerprint import array_fingerprint
from limbeck.runtime.kept import Kept, place
from limbeck.runtime.progress import Progress
from limbeck.runtime.random import generator
from limbeck.training.gradient import Loss
from limbeck.training.images import Images
from limbeck.training.optimisers import Sgd
from limbeck.training.targets import Hard, Labels, Targets
from limbeck.training.train import AfterEpoch, Pool, Training, train

Measure = Literal["grand_last", "grand", "el2n"]

NETWORKS, EPOCHS = 3, 5  # that the scores are a mean over, and after which they are taken
WINDOWS = 2  # raised when epochs come to take other images
GROWTH, LAST_WHOLE, LAST_OF_FIRST_REMOVAL = 20, 40, 60  # epochs
FIRST_SHARE, REMOVED = 0.75, 0.1
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
EXTREMES = 10  # easiest and hardest images that are named
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Curriculum:
    """Which images an epoch takes.

    Args:
        scores: difficulty of every image, with shape (N,).
        labels: its class, int64 with shape (N,).
    """

    scores: np.ndarray
    labels: np.ndarray

    def positions(self, epoch: int) -> Tensor:
        """The positions of the images of `epoch` (from 0), ascending, int64; at least one image of every class that has any."""
        low, high = window(epoch)
        chosen = [order[_cut(low, len(order)) : max(_cut(high, len(order)), _cut(low, len(order)) + 1)] for order in self._orders]
        return torch.from_numpy(np.sort(np.concatenate(chosen)))

    def statistics(self, class_names: Sequence[str], measure: Measure) -> Difficulty:
        """What is to be said of the scores in short."""
        rows, order = [], np.argsort(self.scores, kind="stable")
        for positions in self._orders:
            k, scores = int(self.labels[positions[0]]), self.scores[positions]
            quantiles = tuple(np.quantile(scores, QUANTILES).tolist())
            rows.append(ClassScores(k, class_names[k], len(positions), float(scores.mean()), quantiles))
        return Difficulty(
            measure=measure,
            networks=NETWORKS,
            epochs=EPOCHS,
            fingerprint=array_fingerprint(self.scores),
            images=len(order),
            classes=tuple(rows),
            easiest=tuple(order[:EXTREMES].tolist()),
            hardest=tuple(order[::-1][:EXTREMES].tolist()),
        )

    @cached_property
    def _orders(self) -> list[np.ndarray]:
        """The positions of every class, the easiest first; of equally difficult ones the first comes first."""
        rows = [np.flatnonzero(self.labels == k) for k in np.unique(self.labels)]
        return [row[np.argsort(self.scores[row], kind="stable")] for row in rows]


def window(epoch: int) -> tuple[float, float]:
    """The shares of a class, from the easiest on, where the images of `epoch` (from 0) begin and end."""
    if epoch < GROWTH:
        return 0.0, FIRST_SHARE + (1 - FIRST_SHARE) * epoch / GROWTH
    if epoch <= LAST_WHOLE:
        return 0.0, 1.0
    return (REMOVED if epoch <= LAST_OF_FIRST_REMOVAL else 2 * REMOVED), 1.0


def difficulty(
    network: FlatNetwork,
    thetas: Sequence[Tensor],
    images: Images,
    labels: Tensor | Targets,
    loss: Loss,
    measure: Measure,
    batch_size: int = 64,
) -> np.ndarray:
    """The mean over the networks θ with shape (P,) of every image's difficulty, float64 with shape (N,).

    Args:
        network: f, taken in training mode, so that with batch norm `el2n` scores an image among those of its batch; GraNd takes
            one image at a time.
        thetas: after a few epochs of training.
        images: N images, not augmented.
        labels: probabilities with shape (N, K), or what gives them by the batch.
        loss: ℓ(logits, labels), a mean over the batch; GraNd takes it of one image.
        measure: `grand_last`, by the parameters of the last module that has any, `grand`, by all, or `el2n`.
        batch_size: images at a time.
    """
    total = torch.zeros(len(images), dtype=torch.float64)
    targets = Labels(labels) if isinstance(labels, Tensor) else labels
    for index in torch.arange(len(images)).split(batch_size):
        x = images.fetch(index)
        y = targets.of(index, x, lambda y: y)
        for theta in thetas:
            total[index] += _scores(network, theta, x, y, loss, measure).double().cpu() / len(thetas)
    return total.numpy()


def el2n(logits: Tensor, labels: Tensor) -> Tensor:
    """‖softmax(f) − y‖₂ with shape (N,), of logits (N, K) and labels: classes, int64 with shape (N,), or probabilities (N, K).

    Example:
        >>> el2n(torch.zeros(2, 2), torch.tensor([0, 1])), el2n(torch.zeros(2, 2), torch.eye(2))
        (tensor([0.7071, 0.7071]), tensor([0.7071, 0.7071]))
    """
    errors = logits.softmax(1)
    if labels.ndim == 1:
        errors[torch.arange(len(labels), device=logits.device), labels] -= 1
    else:
        errors = errors - labels
    lengths: Tensor = errors.norm(dim=1)
    return lengths


@torch.no_grad()
def _scores(network: FlatNetwork, theta: Tensor, x: Tensor, y: Tensor, loss: Loss, measure: Measure) -> Tensor:
    if measure == "el2n":
        return el2n(network(theta, x), y)

    first = layers_of(network.slices)[-1].start if measure == "grand_last" else 0

    def of_one(end: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return loss(network(torch.cat([theta[:first], end]), x[None]), y[None])

    gradients: Tensor = vmap(grad(of_one), in_dims=(None, 0, 0))(theta[first:], x, y)
    lengths: Tensor = gradients.norm(dim=1)
    return lengths


def _cut(share: float, count: int) -> int:
    # A millionth, because 0.1 · 30 is a little more than 3.
    return math.floor(share * count + 1e-6)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What determines the difficulties: those after a few epochs of a few networks of plain SGD.

    Args:
        network: that the scores are taken with.
        images: the training images.
        labels: of those.
        measure: `grand_last`, `grand` or `el2n`.
        lr, batch_size, augment: of that SGD.
        identity: what the images are, such as their fingerprint.
        seed: of the draws.
    """

    network: FlatNetwork
    images: Images
    labels: Hard
    measure: Measure
    lr: float
    batch_size: int
    augment: Augmentation
    identity: Mapping[str, str]
    seed: int

    @property
    def kept(self) -> Kept[dict[str, Tensor]]:
        """Where the scores are kept: whoever agrees in all that they are made with finds the same."""
        made_with = {
            "format": FORMAT,
            "lr": self.lr,
            "batch_size": self.batch_size,
            "augment": self.augment.identity(),
            "networks": NETWORKS,
            "epochs": EPOCHS,
            "network": self.network.name,
            "num_parameters": self.network.num_parameters,
            "measure": self.measure,
            "images": self.identity,
            "seed": self.seed,
        }
        if self.network.structure is not None:  # the network is no one of ours, which its name tells from others
            made_with["structure"] = self.network.structure
        return Kept.tensors(place("difficulty", made_with), self._is_sound, made_with)

    @property
    def how(self) -> Training:
        """How the networks are trained."""
        return Training(optimiser=Sgd(self.lr), loss=cross_entropy, epochs=EPOCHS, batch_size=self.batch_size, augment=self.augment)

    def held(self) -> bool:
        """Whether the scores are in the cache."""
        return self.kept.path.exists()

    def curriculum(self, progress: Progress) -> Curriculum:
        """PAD's curriculum, found or computed.

        Args:
            progress: where to report.

        Raises:
            Failure: when these networks diverge.
        """
        scores = self.kept.get(lambda: {"scores": self._compute(progress)})["scores"]
        return Curriculum(scores.numpy(), self.labels.classes.cpu().numpy())

    def _compute(self, progress: Progress) -> Tensor:
        thetas = []
        with one_thread(), progress.stage("difficulty of images", NETWORKS * EPOCHS + NETWORKS) as stage:
            for number in range(NETWORKS):
                thetas.append(self.train(number, self.how, lambda *_: stage.advance()))
            scores = torch.from_numpy(difficulty(self.network, thetas, self.images, self.labels, cross_entropy, self.measure))
            stage.advance(NETWORKS)
        if not bool(scores.isfinite().all()):
            raise Failure(f"a network diverged while images were scored; experts.expert_lr ({self.lr}) is too large")
        return scores

    def _is_sound(self, held: dict[str, Tensor]) -> bool:
        return held["scores"].shape == (len(self.images),) and bool(held["scores"].isfinite().all())

    def train(self, number: int, how: Training, after_epoch: AfterEpoch, pool: Pool | None = None) -> Tensor:
        """The parameters of network `number`, trained as `how` says on the images of `pool` (all); see `train`."""
        key, labels = ("difficulty", number), self.labels
        start = self.network.initial(generator(self.seed, *key, "initial")).to(self.images.device)
        return train(self.network, start, self.images, labels, how, seed=self.seed, key=key, pool=pool, after_epoch=after_epoch)
