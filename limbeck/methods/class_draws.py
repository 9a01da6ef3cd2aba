"""Real and synthetic images of every class, side by side under one augmentation.

    A_k(R_k) beside A_k(X_k)      R_k: a batch of real images of class k      X_k: the synthetic ones

A_k is siamese: one set of parameters, shared by all images of both. Every class draws its own.

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation" (DSA), 2021, arXiv:2102.08259.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.augmentation import Applied, Augmentation
from limbeck.matching.spread import Spread
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator
from limbeck.training.images import Images


@dataclass(frozen=True, slots=True)
class ClassDraw:
    """What an iteration draws for a class.

    Args:
        class_id: k.
        synthetic: where X_k lies in X, int64, on the CPU.
        real: where R_k lies among the real images, int64, on the CPU.
        augmentation: A_k.
    """

    class_id: int
    synthetic: Tensor
    real: Tensor
    augmentation: Applied


class ClassDraws:
    """Draws for every class that has synthetic images.

    Args:
        images: real images.
        labels: of those, int64 with shape (number of real images,).
        classes: of the synthetic images, int64 with shape (N,), in any order.
        batch: real images per class and iteration; a class that has fewer gives them all.
        augmentation: gives A_k.
        seed: of the draws.
        spread: over which ranks the classes are shared; where X is sharded a rank has those whose images it holds.

    Raises:
        UsageError: for a class of synthetic images that has no real ones, or synthetic images that cannot be sharded by classes.
    """

    def __init__(
        self,
        images: Images,
        labels: Tensor,
        classes: Tensor,
        batch: int,
        augmentation: Augmentation,
        seed: int,
        spread: Spread = Spread(),
    ) -> None:
        if len(images) != len(labels):
            raise ValueError(f"{len(labels)} labels of {len(images)} real images")
        if len(classes) == 0:
            raise ValueError("no synthetic images")
        self.images, self.batch, self.augmentation, self.seed, self.spread = images, batch, augmentation, seed, spread
        labels, classes = labels.cpu(), classes.cpu()
        self.class_ids: list[int] = classes.unique().tolist()
        self.synthetic = [(classes == k).nonzero()[:, 0] for k in self.class_ids]
        self.pools = [(labels == k).nonzero()[:, 0] for k in self.class_ids]
        for k, pool in zip(self.class_ids, self.pools, strict=True):
            if len(pool) == 0:
                raise UsageError(f"data: class {k} has synthetic images and no training images to compare them with")
        if spread.sharded and not torch.equal(classes, classes.unique().repeat_interleave(spread.whole)):
            accepted = f"images class by class, {spread.whole} of each, where they are sharded; engine.shard=no holds them whole"
            raise UsageError(f"init: does not give {accepted}")

    def __len__(self) -> int:
        """The classes."""
        return len(self.class_ids)

    @property
    def ipc(self) -> int:
        """Synthetic images of the class that has most."""
        return max(len(own) for own in self.synthetic)

    def draws(self, iteration: int) -> list[ClassDraw]:
        """The draws of an iteration for the classes of this rank, one by one; `synthetic` counts the images that it holds."""
        part, before = self.spread.ranks.share(len(self)), self.spread.rows.start or 0
        return [
            ClassDraw(k, own - before, self._real(k, pool, iteration), self._augmentation(k, iteration))
            for k, own, pool in zip(self.class_ids[part], self.synthetic[part], self.pools[part], strict=True)
        ]

    def sum_(self, by_images: Sequence[Tensor], *others: Tensor) -> None:
        """Add up over ranks what each has found for its classes: gradients by X, which of a sharded one are whole, and the rest."""
        self.spread.ranks.sum_(*others, *(() if self.spread.sharded else by_images))

    def real(self, draw: ClassDraw, like: Tensor) -> Tensor:
        """A_k(R_k), on the device and in the precision of `like`."""
        return draw.augmentation(self.images.fetch(draw.real).to(like))

    def _real(self, k: int, pool: Tensor, iteration: int) -> Tensor:
        return pool[torch.randperm(len(pool), generator=generator(self.seed, "real images", iteration, k))[: self.batch]]

    def _augmentation(self, k: int, iteration: int) -> Applied:
        draws = generator(self.seed, "siamese augmentation", iteration, k)
        return self.augmentation.draw(draws, (1, *self.images.shape), siamese=True)
