"""The start of the synthetic set: images X, label logits Y (PAPER § 2).

    correct   real images that the first expert's last epoch classifies correctly (the next expert only where a class is
              exhausted); Y_i the mean logits of the experts that classify image i correctly
    real      random real images; Y_i the logits of one expert
    noise     x ~ N(0, 1) where the network sees it; Y_i the mean logits of the class's real images of `correct`

Hard labels are the classes, one-hot; then only `correct` reads experts.

Guo et al., "Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching" (DATM), 2024, arXiv:2310.05773.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck.data.imageset import ImageSet, Split
from limbeck.data.preprocessing import Preprocessing
from limbeck.experts.store import TrajectoryStore
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.errors import Failure, require
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.random import generator
from limbeck.training.images import prepare_split, sample
from limbeck.training.train import logits_of


@dataclass(frozen=True, slots=True)
class InitialSet:
    """X with shape (N, C, H, W), Y with shape (N, K), and the class of each image, int64 with shape (N,), class by class."""

    images: Tensor
    labels: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Initial:
    """Makes the start.

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

    def make(self, kind: Literal["correct", "real", "noise"], soft: bool = True, progress: Progress | None = None) -> InitialSet:
        """X, Y (logits, or where not `soft` one-hot) and the classes, of the `kind` above.

        Raises:
            UsageError: when a class has fewer than `ipc` training images.
        """
        check_ipc(self.data, self.ipc)
        classes = torch.arange(self.data.num_classes).repeat_interleave(self.ipc)
        labels = one_hot(classes, self.data.num_classes).float()
        if kind == "correct" or (kind == "noise" and soft):
            chosen, found = self._correct(self._logits(self.label_experts), progress or NoProgress())
        else:
            chosen = real_subset(self.data.train, self.data.num_classes, self.ipc, self.seed, "initial")
            found = self._logits(1)[0, chosen] if soft else labels
        labels = found if soft else labels
        images = self.preprocessing.prepare(self.data.train.images(chosen.numpy())).to(self.device)
        if kind == "noise":
            images = torch.randn(images.shape, generator=generator(self.seed, "initial noise")).to(self.device)
        if kind == "noise" and soft:
            labels = labels.view(self.data.num_classes, self.ipc, -1).mean(1, keepdim=True).expand(-1, self.ipc, -1).flatten(0, 1)
        return InitialSet(images, labels.clone().to(self.device), classes)

    def _logits(self, experts: int) -> Tensor:
        """The logits of the first `experts` experts' last epoch for the training images, with shape (S, N, K)."""
        images = prepare_split(self.data.train, self.preprocessing, self.device)
        rows = []
        for expert in range(experts):
            theta = self.store().read(expert, self.last_epoch, self.device)
            rows.append(logits_of(self.network.with_parameters(theta, lambda: sample(images)), images).cpu())
            if not bool(rows[-1].isfinite().all()):
                cause = f"experts.expert_lr or experts.weight_decay is too large, or a file in {str(self.store().path)!r} is broken"
                raise Failure(f"expert {expert} gives logits that are not finite; {cause}")
        return torch.stack(rows)

    def _correct(self, logits: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
        labels = torch.from_numpy(self.data.train.labels)
        correct = logits.argmax(2) == labels
        chosen = []
        for k, order in enumerate(class_orders(self.data.train, self.data.num_classes, self.seed, "initial")):
            right = correct[:, order]
            # The first expert that is right about an image ranks it; images that none is right about come last.
            rank = torch.where(right.any(0), right.int().argmax(0), len(right))
            picked = order[rank.sort(stable=True).indices[: self.ipc]]
            wrong, name = int((~correct[:, picked].any(0)).sum()), self.data.class_names[k]
            if wrong:
                progress.say(f"warning: no expert classifies {wrong} of the {self.ipc} initial images of class {name!r} correctly")
            chosen.append(picked)
        index = torch.cat(chosen)
        votes = correct[:, index]
        votes = torch.where(votes.any(0), votes, torch.ones_like(votes)).unsqueeze(2)  # no vote at all would be 0/0: NaN
        return index, (logits[:, index] * votes).sum(0) / votes.sum(0)


def check_ipc(data: ImageSet, ipc: int) -> None:
    """Raise `UsageError` when a class has fewer than `ipc` training images."""
    for k, name in enumerate(data.class_names):
        count = len(data.train.of_class(k))
        require(ipc <= count, "ipc", ipc, f"at most the {count} training images of class {name!r} (validation images kept apart)")


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
