"""What of a student step is whose: the images of a batch, spread over the ranks of a run.

    g = Σ_r (B_r / B) g_r      g_r the mean over the B_r images of rank r, B = Σ_r B_r

Where every rank holds all of X, rank r takes the r-th slice of a batch; where X is sharded, those images of the batch that it
holds, however many these are. What is drawn is drawn whole, as one process draws it, and applied to the part.

What looks at all images of a class at once is shared by classes; where X is sharded, each rank then holds those of whole classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.augmentation import Applied
from limbeck.matching.steps import StepDraw
from limbeck.runtime.ranks import Ranks
from limbeck.training.images import Images


@dataclass(frozen=True, slots=True)
class Part:
    """What a rank does of a step.

    Args:
        images: its rows of the X that it holds, int64, on the CPU.
        labels: its rows of the Y that it holds.
        augmentation: leads from those of X to what the network is given for those of Y.
        share: B_r / B, in [0, 1].
    """

    images: Tensor
    labels: Tensor
    augmentation: Applied
    share: float


@dataclass(frozen=True, slots=True)
class Spread:
    """How batches, and X with its labels, lie on the ranks.

    Args:
        ranks: of the run.
        total: N, where X is sharded: rank r holds its share of the images with all that goes with them; None where all hold all.
        whole: how many images, those of a class, stay on one rank where X is sharded.

    Example:
        >>> import torch
        >>> from limbeck.augmentation import Dsa
        >>> from limbeck.matching.steps import draw_steps
        >>> draws = draw_steps((7, 3, 8, 8), batch_syn=5, steps=2, augmentation=Dsa(), seed=0, iteration=0)
        >>> [[Spread(Ranks(number, 2)).part(draw).share for number in range(2)] for draw in draws]
        [[0.6, 0.4], [0.5, 0.5]]
        >>> Spread(Ranks(1, 2), total=7).rows
        slice(4, 7, None)
    """

    ranks: Ranks = Ranks()
    total: int | None = None
    whole: int = 1

    @property
    def sharded(self) -> bool:
        """Whether a rank holds but a part of X."""
        return self.total is not None

    @property
    def rows(self) -> slice:
        """The images, of all of them, that this rank holds."""
        return slice(None) if self.total is None else self.ranks.share(self.total, self.whole)

    def count(self, images: Tensor) -> int:
        """N, where this rank holds those."""
        return len(images) if self.total is None else self.total

    def part(self, draw: StepDraw) -> Part:
        """What of that step is this rank's."""
        index, change = draw.index, draw.augmentation
        if self.ranks.alone:
            return Part(index, index, change, 1.0)
        own = torch.arange(len(index))[self.ranks.share(len(index))]
        shift = 0
        if self.sharded:
            own, shift = ((index >= self.rows.start) & (index < self.rows.stop)).nonzero()[:, 0], self.rows.start
        share = len(own) / len(index)
        if hasattr(change, "part"):
            return Part(index[own] - shift, index[own] - shift, change.part(own), share)
        assert not self.sharded, "an augmentation that is not known image by image needs the whole batch"
        return Part(index, index[own], lambda x: change(x)[own.to(x.device)], share)

    def parts(self, draws: Sequence[StepDraw]) -> list[Part]:
        """The same of several steps."""
        return [self.part(draw) for draw in draws]

    def sum_(self, images: Tensor, labels: Tensor, syn_lr: Tensor) -> None:
        """Add up over ranks what each has found of a gradient by X, Y and η; where X is sharded, its own part is whole already."""
        self.ranks.sum_(*((images, labels) if not self.sharded else ()), syn_lr)


class SpreadImages(Images):
    """X on ranks of which each may hold but a part: all fetch the same images at the same time, and all get them.

    A batch is the sum of what the ranks have of it, zeros elsewhere, and so what one process would have fetched, to the bit.

    Args:
        spread: how X lies on the ranks.
        images: those that this rank holds.
    """

    def __init__(self, spread: Spread, images: Tensor) -> None:
        self.spread, self.images, self.device = spread, images, images.device
        self.shape = (images.shape[1], images.shape[2], images.shape[3])

    def __len__(self) -> int:
        return self.spread.count(self.images)

    def fetch(self, index: Tensor) -> Tensor:
        if not self.spread.sharded:
            return self.images[index.to(self.device)]
        rows = self.spread.rows
        own = ((index >= rows.start) & (index < rows.stop)).nonzero()[:, 0]
        found = self.images.new_zeros(len(index), *self.shape)
        found[own.to(self.device)] = self.images[(index[own] - rows.start).to(self.device)]
        self.spread.ranks.sum_(found)
        return found
